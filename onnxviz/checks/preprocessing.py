"""Checks of how a picture was made a tensor: C04."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.classification import top_classes
from onnxviz.checks.finding import InapplicableError, Problem, place_of, tensor_place
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.running import flat, new_session
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.layouts import input_layout

Array = npt.NDArray[Any]
_UNSURE, _SURE = 0.6, 0.9
_WITHIN = (0.2, 5.0)  # spread of what a normalisation reads, over the spread that it was trained on
_FAR = 10.0


@check(
    "C04",
    "warning",
    "preprocessing mismatch",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="For a picture: compares how it was laid out with what the graph and the metadata say; compares what the "
    "first BatchNormalization reads with the mean and variance that it was trained on, as the picture was scaled and "
    "scaled otherwise (by 255, by 1/255, to -1 … 1, by ImageNet's mean and deviation); and tells whether a classifier "
    "is sure of the answer only with red and blue exchanged.",
    why="A wrong scale or channel order raises no error: the answers are just worse.",
    remedy="Preprocess as in training: `--preset`, `--scale`, `--mean`, `--std`, `--color`, `--layout`; better, put it "
    "into the model.",
    false_positives="Only one picture is looked at, and an unusual one may fit another scale better. A model whose "
    "BatchNormalizations were folded away tells nothing about the scale.",
)
def preprocessing_mismatch(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield what speaks for another preprocessing."""
    record = next((r for r in subject.inputs.records if r.picture is not None), None)
    if record is None:
        raise InapplicableError("no picture was given with --input")
    name = record.name
    value = next(v for v in subject.model.graph.inputs if v.name == name)
    array = np.asarray(subject.inputs.feeds[name])
    if array.dtype.kind != "f" or array.ndim not in (3, 4):
        raise InapplicableError(f"input {name!r} takes no floating-point picture")
    used = "NCHW" if any("NCHW" in s or "as CHW" in s for s in record.steps) else "NHWC"
    yield from _stated(subject, value, used)
    scale: dict[str, Any] = {}
    for found in _scale(subject, name, array, used):
        if isinstance(found, Problem):
            yield found
        else:
            scale = dict(found)
    sure = _sureness(subject, name, array, used)
    yield from _colour(name, sure)
    yield {"layout": used, "scale": scale or "not judged: no BatchNormalization reads it", "confidence": sure}


def _stated(subject: Subject, value: ir.Value, used: str) -> Iterator[Problem]:
    """Yield what the graph and the metadata contradict."""
    told = input_layout(subject.inferred, value)
    if told is not None and told.endswith("CHW") != (used == "NCHW"):
        evidence = {"used": used, "graph": told}
        yield Problem(
            f"the picture was laid out as {used}, and the graph takes {told}",
            [tensor_place(value.name)],
            evidence,
            key="layout",
        )
    asked = subject.options.preprocessing
    stated = {"Bgr8": "bgr", "Rgb8": "rgb"}.get(subject.model.metadata_props.get("Image.BitmapPixelFormat", ""))
    if asked is not None and asked.color in ("rgb", "bgr") and stated not in (None, asked.color):
        evidence = {"used": asked.color, "metadata": str(stated)}
        yield Problem(
            f"--color is {asked.color}, and the metadata of the model say {stated}",
            [tensor_place(value.name)],
            evidence,
            key="color",
        )


def _scale(subject: Subject, name: str, array: Array, layout: str) -> Iterator[Problem | Mapping[str, Any]]:
    """Yield the spread at the first normalisation, and a problem where another scale fits far better."""
    norm = _first_norm(subject.inferred, name)
    if norm is None:
        return
    node, variance = norm
    tensor = str(node.inputs[0].name) if node.inputs[0] is not None else ""
    spreads = {}
    for how, changed in {"as given": array, **_alternatives(array, layout)}.items():
        seen = _read_by(subject, tensor, {**subject.inputs.feeds, name: changed})
        axes = tuple(i for i in range(seen.ndim) if i != 1)
        with np.errstate(all="ignore"):
            ratio = seen.astype(np.float64).std(axis=axes) / np.sqrt(variance)
        spreads[how] = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else float("nan")
    own = spreads.pop("as given")
    yield {"spread": own, **spreads}
    fitting = {how: s for how, s in spreads.items() if _WITHIN[0] <= s <= _WITHIN[1]}
    if fitting and (own > _FAR or own < 1 / _FAR):
        best = min(fitting, key=lambda how: abs(np.log(fitting[how])))
        message = (
            f"what {node.name or node.op_type!r} reads is spread {own:.3g} times as wide as in training; "
            f"{best}, it would be {fitting[best]:.2g} times"
        )
        yield Problem(
            message, [tensor_place(name), place_of(node)], {"spread": own, **spreads, "best": best}, key="scale"
        )


def _first_norm(model: ir.Model, name: str) -> tuple[ir.Node, Array] | None:
    """Return the first BatchNormalization that the input reaches through convolutions alone, and its variance."""
    value = next(v for v in model.graph.inputs if v.name == name)
    for _ in range(8):
        readers = [node for node in value.consumers() if node.op_type not in ("Shape", "Size")]
        if len(readers) != 1:
            return None
        node = readers[0]
        if node.op_type == "BatchNormalization" and len(node.inputs) > 4:
            tensor = constant_tensor(node.inputs[4])
            return None if tensor is None else (node, np.asarray(read_array(tensor), np.float64))
        if node.op_type not in ("Conv", "Identity", "Cast", "Pad", "Transpose", "Sub", "Mul", "Div", "Add"):
            return None
        value = node.outputs[0]
    return None


def _alternatives(array: Array, layout: str) -> dict[str, Array]:
    """Return the picture scaled as other pipelines do, judged from its range."""
    unit = array / 255 if array.max(initial=0) > 16 else array
    if unit.min(initial=0) < 0:  # something was subtracted: the other scales are not known from here
        return {"times 255": array * 255, "divided by 255": array / 255}
    channels = 1 if layout == "NCHW" else -1
    shape = [1] * array.ndim
    shape[channels - 0 if array.ndim == 4 or channels < 0 else 0] = 3
    changed = {"scaled to 0 … 255": unit * 255, "scaled to 0 … 1": unit, "scaled to -1 … 1": unit * 2 - 1}
    if array.shape[channels if array.ndim == 4 or channels < 0 else 0] == 3:
        mean, deviation = (np.reshape(n, shape) for n in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        changed["by ImageNet's mean and deviation"] = (unit - mean) / deviation
    return {how: np.asarray(a, array.dtype) for how, a in changed.items() if not np.allclose(a, array)}


def _read_by(subject: Subject, tensor: str, feeds: Mapping[str, Any]) -> Array:
    from onnxviz.runtime.capture import capture

    captured = capture(
        subject.model, dict(feeds), tensors=tensor, bodies=False, providers="cpu", op_library=subject.options.op_library
    )
    if tensor not in captured:
        raise CheckError(f"tensor {tensor!r} could not be read: {captured.not_captured.get(tensor, 'it is not there')}")
    return captured[tensor].array


def _sureness(subject: Subject, name: str, array: Array, layout: str) -> dict[str, float]:
    """Return the probability of the best class as the picture is, and with red and blue exchanged."""
    axis = -1 if layout == "NHWC" else array.ndim - 3
    if array.shape[axis] != 3:
        return {}
    session = new_session(subject)
    found = {}
    for how, changed in (("as given", array), ("red and blue exchanged", np.ascontiguousarray(np.flip(array, axis)))):
        results = flat(session.run({**subject.inputs.feeds, name: changed}))
        answer = top_classes(next(iter(results.values())), k=1) if len(results) == 1 else None
        if answer is not None:
            found[how] = answer.best.probability
    return found if len(found) == 2 else {}


def _colour(name: str, sure: Mapping[str, float]) -> Iterator[Problem]:
    if sure and sure["as given"] < _UNSURE and sure["red and blue exchanged"] > _SURE:
        own, other = sure.values()
        message = f"the best class has {own:.0%}, and {other:.0%} with red and blue exchanged"
        yield Problem(message, [tensor_place(name)], dict(sure), key="order")
