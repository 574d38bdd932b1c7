"""How much each part of an input counts for a score: as arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import batches_for, split_options
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.analysis.attribution.case import Case
    from onnxviz.analysis.attribution.result import Attribution
    from onnxviz.analysis.attribution.targets import TargetSpec
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]
    Progress = Callable[[str, int, int], None]

__all__ = ["answer_maps", "attribute", "attribution_methods", "case_of"]


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
    fallback: bool = False,
    progress: Progress | None = None,
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
        target: A class by index or name, ``"box:0"`` of a detector, ``"mask:dog"`` of a segmentation, ``"token:4"``, a
            neuron ``"TENSOR:CHANNEL,ROW,COLUMN"``, or an expression: see
            :func:`onnxviz.analysis.attribution.targets.resolve_target`. By default each sample's highest class.
        layer: Of the CAM methods, the layer; of others, the input or inner tensor that is attributed.
        output: The output or inner tensor with the scores of classes, where that is not the first output of shape
            (N, classes).
        labels: Names of the classes, or a file with one a line.
        tokens: A vocabulary (:func:`onnxviz.runtime.words.read_vocabulary`), to show texts as words.
        batch: Rows of a run, where the model leaves that open.
        max_memory: Bytes that the tensors of a run may take, or ``"2GB"``; 1 GB by default.
        allow_cut: Go on without the paths through operators that have no gradient.
        straight_through: Pass gradients through quantisation as if it did not round.
        fallback: Where no gradient leads to the input, take a method that needs none instead; a note says so.
        progress: Called with what is counted, how many of it are done, and of how many.
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
        GradientError: No gradient leads there; the text names methods that need none.

    >>> import numpy as np, onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {2, 0, 0, -3}> {y = MatMul(x, w)}''')
    >>> found = attribute(model, {"x": np.float32([[1, 4]])}, method="input-x-gradient", target=1, providers="cpu")
    >>> found.values.tolist(), found.score.tolist(), found.target
    ([[0.0, -12.0]], [-12.0], ('class 1',))
    """
    from onnxviz.analysis.attribution.certificate import certified, examination_of
    from onnxviz.analysis.attribution.methods import attribution, find_method

    row = find_method(method)
    case = case_of(
        model, inputs, target, None if "layer" in row.needs else layer, output, labels,
        {"batch": batch, "max_memory": max_memory, "allow_cut": allow_cut, "straight_through": straight_through,
        "tokens": tokens, "progress": progress},
        {"providers": providers, "preprocessing": preprocessing, "dims": dims, "seed": input_seed,
         "op_library": op_library},
    )  # fmt: skip
    found = attribution(case, method, layer=layer, fallback=fallback, **parameters)
    how = examination_of(certify if isinstance(certify, Mapping) else {}) if certify is not False else None
    return certified(case, found, parameters, how, progress)


def attribution_methods() -> dict[str, str]:
    """Return the methods that :func:`attribute` takes, and what each shows.

    >>> attribution_methods()["saliency"]
    'how strongly the score answers to a small change: |gradient|'
    """
    from onnxviz.analysis.attribution.methods import known_methods

    return {name: row.about for name, row in known_methods().items()}


def answer_maps(
    model: ir.Model, batches: Batches, labels: Sequence[str] | None, run: Mapping[str, Any]
) -> list[Attribution]:
    """Return a CAM and input × gradient of the answer: the highest class, the best box, or the largest segment.

    Grad-CAM; of a box LayerCAM, which keeps to its place.

    Args:
        model: An opened model.
        batches: What it is fed.
        labels: Names of the classes.
        run: ``providers`` and ``op_library``.

    Raises:
        SelectionError: It has no answer of these kinds.
        GradientError: No gradient leads to it.
    """
    from onnxviz.analysis.attribution.case import open_case
    from onnxviz.analysis.attribution.methods import attribution
    from onnxviz.analysis.attribution.run import How
    from onnxviz.errors import SelectionError

    how = How(run.get("providers", "auto"), run.get("op_library"))
    refused: SelectionError | None = None
    for target in (None, "box:0", "mask"):
        try:
            case = open_case(model, batches, target=target, labels=labels, how=how)
        except SelectionError as error:
            refused = refused or error
            continue
        found = []
        for method in ("layer-cam" if target == "box:0" else "grad-cam", "input-x-gradient"):
            try:
                found.append(attribution(case, method))
            except SelectionError:  # no layer with positions
                continue
        return found
    raise refused or SelectionError("there is no answer to explain")


def case_of(
    model: Model, inputs: Feed, target: TargetSpec, wrt: str | None, output: str | None,
    labels: Sequence[str] | Path_ | None, how: Mapping[str, Any], options: Mapping[str, Any],
) -> Case:  # fmt: skip
    """Return what is explained, for the verbs.

    Args:
        model, inputs, target, output, labels: As for :func:`attribute`.
        wrt: What is attributed; None for what the model is fed.
        how: ``batch``, ``max_memory``, ``allow_cut``, ``straight_through``, ``tokens``, ``progress``, where given.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.analysis.attribution.case import open_case
    from onnxviz.analysis.attribution.run import How
    from onnxviz.analysis.classification import load_labels
    from onnxviz.runtime.inputs import load_inputs
    from onnxviz.runtime.plan import parse_bytes
    from onnxviz.runtime.words import read_vocabulary

    opened = as_model(model)
    given = {key: value for key, value in options.items() if value is not None}
    batches, run = batches_for(opened, inputs, how.get("batch"), given)
    reading, _ = split_options(given)
    memory, progress = how.get("max_memory"), how.get("progress")
    setting = How(
        run.get("providers", "auto"), run.get("op_library"), how.get("batch"),
        None if memory is None else parse_bytes(memory), allow_cut=how.get("allow_cut", False),
        straight_through=how.get("straight_through", False),
        progress=None if progress is None else partial(progress, "copies of samples"),
    )  # fmt: skip

    def read(source: str) -> Mapping[str, Any]:
        return load_inputs(opened, [source], **reading).feeds

    names = load_labels(labels) if isinstance(labels, (str, os.PathLike)) else labels
    words = None if how.get("tokens") is None else read_vocabulary(how["tokens"])
    return open_case(
        opened, batches, target=target, wrt=wrt, output=output, labels=names, how=setting, words=words, read=read
    )  # fmt: skip
