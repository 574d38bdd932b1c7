"""The verb ``explain``: which parts of an input an answer came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import DATA, PICTURES, batches_for, check_outputs, save_view, split_options, write_numbers
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.attribution.case import Case
    from onnxviz.analysis.attribution.result import Attribution
    from onnxviz.analysis.attribution.targets import TargetSpec
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["attribute", "attribution_methods", "attribution_model", "explain"]


def attribute(
    model: Model,
    inputs: Feed = None,
    *,
    method: str = "grad-cam",
    target: TargetSpec = None,
    layer: str | None = None,
    output: str | None = None,
    labels: Sequence[str] | Path_ | None = None,
    tokens: Path_ | None = None,
    batch: int | None = None,
    max_memory: str | int | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
    providers: str | Sequence[str] = "auto",
    preprocessing: Any = None,
    dims: Mapping[str, int] | None = None,
    input_seed: int = 0,
    op_library: Path_ | None = None,
    certify: bool | Mapping[str, Any] = False,
    **parameters: Any,
) -> Attribution:
    """Return how much each part of an input counts for a score of a model.

    Args:
        model: A path or an opened model.
        inputs: What to feed it: ``(N, …)`` arrays by name, files, folders; None feeds seeded random numbers.
        method: See :func:`attribution_methods`.
        target: A class by index or name, a neuron ``"TENSOR:CHANNEL,ROW,COLUMN"``, or an expression: see
            :func:`onnxviz.analysis.attribution.targets.resolve_target`. By default each sample's highest class.
        layer: Of the CAM methods, the layer; of others, the input or inner tensor that is attributed.
        output: The output that holds the scores of classes, where that is not the first of shape (N, classes).
        labels: Names of the classes, or a file with one a line.
        tokens: A vocabulary (:func:`onnxviz.runtime.words.read_vocabulary`), to show texts as words.
        batch: Rows of a run, where the model leaves that open.
        max_memory: Bytes that the tensors of a run may take, or ``"2GB"``; 1 GB by default.
        allow_cut: Go on without the paths through operators that have no gradient.
        straight_through: Pass gradients through quantisation as if it did not round.
        providers, preprocessing, dims, op_library: As for every verb that runs a model.
        input_seed: For inputs that nobody gave.
        certify: Examine the map: deletion and insertion beside controls, random weights, noise; a mapping has settings
            of :class:`onnxviz.analysis.attribution.certificate.Examination`. Without, the certificate holds what costs
            nothing.
        parameters: Of the method, such as ``steps=100``.

    Returns:
        The map and all that is needed to read it; see :class:`onnxviz.analysis.attribution.result.Attribution`.

    Raises:
        SelectionError: The target or the layer does not exist.
        InputError: There is no such method or parameter, or an input does not fit.
        GradientError: No gradient leads there.

    >>> import numpy as np, onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {2, 0, 0, -3}> {y = MatMul(x, w)}''')
    >>> found = attribute(model, {"x": np.float32([[1, 4]])}, method="input-x-gradient", target=1, providers="cpu")
    >>> found.values.tolist(), found.score.tolist(), found.target
    ([[-0.0, -12.0]], [-12.0], ('class 1',))
    """
    from onnxviz.analysis.attribution.certificate import certified, examination_of
    from onnxviz.analysis.attribution.methods import attribution, find_method

    row = find_method(method)
    case = _case(
        model, inputs, target, None if "layer" in row.needs else layer, output, labels,
        {"batch": batch, "max_memory": max_memory, "allow_cut": allow_cut, "straight_through": straight_through,
        "tokens": tokens},
        {"providers": providers, "preprocessing": preprocessing, "dims": dims, "seed": input_seed,
         "op_library": op_library},
    )  # fmt: skip
    found = attribution(case, method, layer=layer, **parameters)
    how = examination_of(certify if isinstance(certify, Mapping) else {}) if certify is not False else None
    return certified(case, found, parameters, how)


def explain(
    model: Model,
    inputs: Feed = None,
    methods: str | Sequence[str] = "grad-cam",
    picture: Path_ | None = None,
    *,
    data: Path_ | None = None,
    target: TargetSpec = None,
    layer: str | None = None,
    output: str | None = None,
    labels: Sequence[str] | Path_ | None = None,
    tokens: Path_ | None = None,
    parameters: Mapping[str, Any] | None = None,
    batch: int | None = None,
    max_memory: str | int | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
    certify: bool | Mapping[str, Any] = False,
    certificate: Path_ | None = None,
    export: Path_ | None = None,
    export_target: str | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw attributions: the input beside a map a method, all of one target.

    Args:
        model, inputs, target, layer, output, labels, tokens, batch, max_memory, allow_cut, straight_through: As for
            :func:`attribute`.
        methods: One or several.
        picture: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture.
        parameters: Of the methods; each goes to those that have it.
        certify: Examine the maps, as for :func:`attribute`.
        certificate: ``.png``, ``.svg`` or ``.pdf``: the certificates as a figure, or ``.json``: as data; asks for an
            examination.
        tell: Called with a line for each thing that a reader should know, such as which layer was taken.
        export: ``.onnx``: one file that gives the model's outputs and the map, as :func:`attribution_model` returns it.
        export_target: ``"argmax"``, ``"input"`` or ``"fixed"``, see there.
        progress: Called while maps are examined: what is done, how much of it, and of how much.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        SelectionError, InputError, GradientError: As :func:`attribute`; a parameter is none of any method.
    """
    from onnxviz.analysis.attribution.certificate import certified, cost, examination_of
    from onnxviz.analysis.attribution.deploy import check_deployable
    from onnxviz.analysis.attribution.methods import attribution, find_method
    from onnxviz.analysis.attribution.result import attribution_data
    from onnxviz.errors import InputError
    from onnxviz.plots.attribution import plot_attributions

    check_outputs((picture, PICTURES), (data, DATA), (certificate, (*PICTURES, ".json")), (export, (".onnx",)))
    examined = certify is not False or certificate is not None
    examination = examination_of(certify if isinstance(certify, Mapping) else {}) if examined else None
    names = [methods] if isinstance(methods, str) else list(methods)
    rows = [find_method(name) for name in names]
    if export is not None and len(rows) > 1:
        raise InputError(f"one file holds one map, not {len(rows)}", hint="give one --method with --export")
    if export is not None:
        check_deployable(rows[0].name)
    given = dict(parameters or {})
    if lost := [key for key in given if not any(key in row.parameters for row in rows)]:
        has = {key: None for row in rows for key in row.parameters}
        raise InputError(f"no method here has a parameter {lost[0]!r}", hint=f"they have {', '.join(has) or 'none'}")
    inner = None if any("layer" in row.needs for row in rows) else layer
    how = {
        "batch": batch,
        "max_memory": max_memory,
        "allow_cut": allow_cut,
        "straight_through": straight_through,
        "tokens": tokens,
    }
    case = _case(model, inputs, target, inner, output, labels, how, options)
    found = []
    for row in rows:
        own = {k: v for k, v in given.items() if k in row.parameters}
        one = attribution(case, row.name, layer=layer, **own)
        if tell is not None and examination is not None:
            tell(cost(case, one, examination))
        if export is not None:
            _export(case, one, own, target, export_target, export, tell)
        found.append(certified(case, one, own, examination, progress))
    for line in dict.fromkeys(line for one in found for line in _told(one)) if tell is not None else ():
        tell(line)  # type: ignore[misc]
    if data is not None:
        write_numbers(data, *attribution_data(found))
    if certificate is not None:
        _write_certificates(found, certificate)
    figure = plot_attributions(found)
    save_view(figure, picture)
    return figure


def _write_certificates(found: Sequence[Attribution], path: Path_) -> None:
    import json

    from onnxviz.graph.files import atomic_write
    from onnxviz.plots.certificate import plot_certificates

    if os.fspath(path).lower().endswith(".json"):
        made = [one.certificate.to_dict() for one in found if one.certificate is not None]
        atomic_write(path, json.dumps(made, indent=1, allow_nan=False) + "\n")
    else:
        save_view(plot_certificates(found), path)


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
    how = {
        "batch": None,
        "max_memory": None,
        "allow_cut": allow_cut,
        "straight_through": straight_through,
        "tokens": None,
    }
    case = _case(model, inputs, target, None if "layer" in row.needs else layer, scores, labels, how, options)
    given = dict(parameters or {})
    one = attribution(case, row.name, layer=layer, **given)
    return _export(case, one, given, target, export_target, output, tell)


def _export(
    case: Case, one: Attribution, parameters: Mapping[str, Any], target: TargetSpec, kind: str | None,
    path: Path_ | None, tell: Callable[[str], None] | None,
) -> ir.Model:  # fmt: skip
    from onnxviz.analysis.attribution.deploy import deployable
    from onnxviz.graph.io import save_model

    plain = target is None or str(target).strip() in ("", "argmax")
    kind = kind or ("argmax" if plain and case.target.classes is not None else "fixed")
    made = deployable(case, one, target=kind, parameters=parameters)
    if tell is not None:
        fed = f", for the class in {made.class_input}" if made.class_input is not None else ""
        tell(f"exported: {made.attribution}{f' and {made.heatmap}' if made.heatmap else ''}{fed}")
        for line in (*(f"cut: {cut}" for cut in made.cuts), *made.notes):
            tell(line)
    if path is not None:
        save_model(made.model, path)
    return made.model


def attribution_methods() -> dict[str, str]:
    """Return the methods that :func:`attribute` takes, and what each shows.

    >>> attribution_methods()["saliency"]
    'how strongly the score answers to a small change: |gradient|'
    """
    from onnxviz.analysis.attribution.methods import known_methods

    return {name: row.about for name, row in known_methods().items()}


def _told(one: Attribution) -> list[str]:
    lines = [f"{one.method}: layer {one.layer}"] if one.layer is not None else []
    verdicts = one.certificate.lines() if one.certificate is not None else ()
    return [*lines, *(f"cut: {cut}" for cut in one.cuts), *one.notes, *(f"{one.method}: {line}" for line in verdicts)]


def _case(
    model: Model, inputs: Feed, target: TargetSpec, wrt: str | None, output: str | None,
    labels: Sequence[str] | Path_ | None, how: Mapping[str, Any], options: Mapping[str, Any],
) -> Case:  # fmt: skip
    from onnxviz.analysis.attribution.case import open_case
    from onnxviz.analysis.attribution.run import How
    from onnxviz.analysis.classification import load_labels
    from onnxviz.runtime.inputs import load_inputs
    from onnxviz.runtime.plan import parse_bytes
    from onnxviz.runtime.words import read_vocabulary

    opened = as_model(model)
    batches, run = batches_for(opened, inputs, how["batch"], {k: v for k, v in options.items() if v is not None})
    memory = how["max_memory"]
    setting = How(
        run.get("providers", "auto"), run.get("op_library"), how["batch"],
        None if memory is None else parse_bytes(memory), allow_cut=how["allow_cut"],
        straight_through=how["straight_through"],
    )  # fmt: skip
    reading, _ = split_options({k: v for k, v in options.items() if v is not None})

    def read(source: str) -> Mapping[str, Any]:
        return load_inputs(opened, [source], **reading).feeds

    names = load_labels(labels) if isinstance(labels, (str, os.PathLike)) else labels
    words = None if how["tokens"] is None else read_vocabulary(how["tokens"])
    return open_case(
        opened, batches, target=target, wrt=wrt, output=output, labels=names, how=setting, words=words, read=read
    )  # fmt: skip
