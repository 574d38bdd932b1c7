"""One ONNX file that gives the outputs of a model and a map of what they came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.api.attribution import case_of
from onnxviz.api.common import check_outputs
from onnxviz.graph.io import save_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.analysis.attribution.case import Case
    from onnxviz.analysis.attribution.result import Attribution
    from onnxviz.analysis.attribution.targets import TargetSpec
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["attribution_model", "export_attribution"]


def attribution_model(
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    method: str = "grad-cam",
    target: TargetSpec = None,
    export_target: str | None = None,
    layer: str | None = None,
    scores: str | None = None,
    labels: Sequence[str] | Path_ | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
    parameters: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> ir.Model:
    """Return one model that gives the outputs of a model and a map of what they came from, for any runtime.

    Its output ``attribution`` is what :func:`attribute` returns, ``heatmap`` the same at every position of the input
    (``_2`` … is added to names that are taken). The metadata tell the method, the target and the layer.

    Args:
        model: A path or an opened model.
        inputs: A sample, by which the layer is chosen; None feeds seeded random numbers.
        output: ``.onnx``: where it is written.
        method: One of the Grad-CAM family, saliency, input-x-gradient, guided-backprop and its like.
        target: What is explained, as for :func:`attribute`.
        export_target: ``"argmax"`` explains the highest class of each sample, ``"input"`` a class that is fed, ``(N,)``
            int64; ``"fixed"`` always ``target``. By default fixed where a target is given, else argmax.
        layer: Of the CAM methods, the layer; of others the input.
        scores: The output that holds the scores of classes.
        labels: Names of the classes, or a file.
        allow_cut, straight_through: As for :func:`attribute`.
        parameters: Of the method.
        tell: Called with a line for each thing that a reader should know.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        InputError: One graph cannot hold the method; the text names those that can be.
        SelectionError, GradientError: As :func:`attribute`.

    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {2, 0, 0, -3}> {y = MatMul(x, w)}''')
    >>> made = attribution_model(model, method="input-x-gradient", export_target="input", providers="cpu")
    >>> [v.name for v in made.graph.inputs], [v.name for v in made.graph.outputs]
    (['x', 'class'], ['y', 'attribution'])
    """
    from onnxviz.analysis.attribution.deploy import check_deployable
    from onnxviz.analysis.attribution.methods import attribution, find_method

    check_outputs((output, (".onnx",)))
    row = find_method(method)
    check_deployable(row.name)
    how = {"allow_cut": allow_cut, "straight_through": straight_through}
    case = case_of(model, inputs, target, None if "layer" in row.needs else layer, scores, labels, how, options)
    given = dict(parameters or {})
    one = attribution(case, row.name, layer=layer, **given)
    return export_attribution(case, one, given, target, export_target, output, tell)


def export_attribution(
    case: Case, one: Attribution, parameters: Mapping[str, Any], target: TargetSpec, kind: str | None,
    path: Path_ | None, tell: Callable[[str], None] | None,
) -> ir.Model:  # fmt: skip
    """Return the model that makes an attribution, and write it where there is a path.

    Args:
        case: What is explained.
        one: The attribution.
        parameters: What the method was given.
        target: As it was asked for.
        kind: Whose map: ``"argmax"``, ``"input"``, ``"fixed"``; None takes the one that the target suggests.
        path: ``.onnx``.
        tell: Called with a line for each thing that a reader should know.
    """
    from onnxviz.analysis.attribution.deploy import deployable

    plain = target is None or str(target).strip() in ("", "argmax")
    kind = kind or ("argmax" if plain and case.target.classes is not None else "fixed")
    made = deployable(case, one, target=kind, parameters=parameters)
    if tell is not None:
        fed = f", of the class that is fed as {made.class_input}" if made.class_input is not None else ""
        tell(f"exported: {made.attribution}{f' and {made.heatmap}' if made.heatmap else ''}{fed}")
        for line in (*(f"cut: {cut}" for cut in made.cuts), *made.notes):
            tell(line)
    if path is not None:
        save_model(made.model, path)
    return made.model
