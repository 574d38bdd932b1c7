"""Which output holds the scores of classes, what they were before a softmax, and what the classes are called."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.raw_scores import UNDONE, ancestors
from onnxviz.errors import InputError, SelectionError, listed, printable
from onnxviz.graph.select import FLOAT_TYPES, node_tensors
from onnxviz.graph.shapes import shape_list

__all__ = ["Scored", "before_probabilities", "class_index", "class_names", "score_output"]

_PASSED = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout"}
_NAMES = ("names", "classes", "labels", "class_names", "id2label", "classnames")


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of classes.

    Attributes:
        output: The output that holds them, or what is made of them.
        tensor: The tensor with the scores.
        values: ``(N, …)``, of as many entries a sample as there are classes.
        labels: Names of the classes; None where nothing tells.
        notes: What was undone, or could not be.
    """

    output: str
    tensor: str
    values: npt.NDArray[Any]
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]


def score_output(
    model: ir.Model, run: Callable[[Sequence[str]], dict[str, npt.NDArray[Any]]],
    labels: Sequence[str] | None = None, output: str | None = None,
) -> Scored:  # fmt: skip
    """Return the scores of classes for all samples.

    Args:
        model: The model, functions inlined.
        run: Gives tensors, ``(N, …)`` each.
        labels: Names of the classes.
        output: Which output, or tensor inside the model; by default the first output with a number a class for each
            sample.

    Raises:
        SelectionError: There is no such output, or none is of shape (N, classes).
        InputError: There are more or fewer labels than classes.
    """
    outputs = {str(v.name): v for v in model.graph.outputs if v.name and _is_real(v)}
    if output is not None and output not in outputs:
        inner = {str(v.name): v for v in node_tensors(model) if _is_real(v)}
        if output not in inner:
            hint = f"its outputs are {listed([printable(n, 60) for n in outputs or inner])}"
            raise SelectionError(f"the model has no tensor {printable(output, 60)!r} of real numbers", hint=hint)
        outputs = {output: inner[output]}
    chosen: tuple[str, ...] = ()
    if not outputs and (outputs := _behind_labels(model)):
        chosen = (f"the model gives labels alone: its scores are {printable(next(iter(outputs)), 60)}",)
    candidates = [output] if output is not None else [n for n, v in outputs.items() if _maybe(v)]
    for name in candidates:
        source, what = before_probabilities(outputs[name])
        values = run([name, *([str(source.name)] if source is not None else [])])
        if values[name].ndim > 1 and sum(size > 1 for size in values[name].shape[1:]) <= 1:
            before = None if source is None else (str(source.name), values[str(source.name)], what)
            scored = _scored(name, values[name], before, labels if labels is not None else class_names(model))
            return replace(scored, notes=(*scored.notes, *chosen))
    if not outputs:
        raise SelectionError(
            "the model has no output of real numbers, so it is not known what to explain",
            hint="say with --of which tensor inside it holds the scores; `onnxviz inspect` lists them",
        )
    told = [f"{printable(name, 60)} {_shape(value)}" for name, value in outputs.items()]
    raise SelectionError(
        f"no output is of shape (N, classes), so it is not known what to explain: they are {listed(told) or 'none'}",
        hint=f"say it with --target: {', '.join(_ways(outputs))}",
    )


def _behind_labels(model: ir.Model) -> dict[str, ir.Value]:
    """Return the scores that labels are chosen from, as models of scikit-learn and of phones return these alone."""
    found = {}
    for output in model.graph.outputs:
        makers = (value.producer() for value in ancestors(output))
        node = next((node for node in makers if node is not None and node.op_type in ("ArgMax", "ZipMap")), None)
        if node is not None and (scores := node.inputs[0]) is not None and _is_real(scores):
            found[str(scores.name)] = scores
    return found


def _ways(outputs: Mapping[str, ir.Value]) -> list[str]:
    """Return how outputs of such shapes are pointed into."""
    shapes = [shape for value in outputs.values() if (shape := shape_list(value)) is not None]
    sequences = [shape for shape in shapes if len(shape) == 3]
    maps = [shape for shape in shapes if len(shape) == 4]
    ways = ["box:0 (the best box of a detector)"] if sequences or len(maps) > 1 else []
    ways += ["mask:CLASS (the pixels of a class)"] if maps else []
    ways += ["token:POSITION (its likeliest class)"] if len(sequences) == 1 else []
    name, value = next(iter(outputs.items()))
    shape, first = shape_list(value), printable(name, 60)
    at = ",".join("0" * (2 if shape is None else len(shape) - 1))
    neuron = f"'{first}:{at}' (the indices of one number) or " if at else ""
    return [*ways, f"{neuron}'sum(\"{first}\")'"]


def _is_real(value: ir.Value) -> bool:
    known = value.dtype in FLOAT_TYPES or value.dtype is None
    return known and "onnxviz.type" not in value.meta and not isinstance(value.type, ir.SequenceType)


def _maybe(value: ir.Value) -> bool:
    shape = shape_list(value)
    return shape is None or (len(shape) > 1 and all(size in (1, None) or isinstance(size, str) for size in shape[2:]))


def _shape(value: ir.Value) -> str:
    shape = shape_list(value)
    return "of unknown shape" if shape is None else f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _scored(
    name: str, value: npt.NDArray[Any], before: tuple[str, npt.NDArray[Any], str] | None, labels: Sequence[str] | None
) -> Scored:
    count = value[0].size
    if labels is not None and len(labels) != count:
        raise InputError(f"{len(labels)} labels were given for {count} classes", hint="give one label a class")
    named = None if labels is None else tuple(labels)
    if before is not None and len(before[1]) == len(value) and before[1][0].size == count:
        return Scored(name, before[0], before[1], named, (f"score before the {before[2]}",))
    notes: tuple[str, ...] = ()
    rows = np.float64(value.reshape(len(value), -1))
    if count > 1 and (rows >= 0).all() and np.abs(rows.sum(axis=1) - 1).max() < 1e-3:
        notes = (f"{printable(name, 60)} holds probabilities, and what makes them is no softmax that could be undone: "
                 "the gradients are those of the probabilities",)  # fmt: skip
    return Scored(name, name, value, named, notes)


def before_probabilities(output: ir.Value) -> tuple[ir.Value | None, str]:
    """Return what a softmax or sigmoid at the end of a model is made of, and its name; None where there is none.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 3] x) => (float[1, 3] p) {y = Neg(x) s = Softmax(y) p = Identity(s)}''')
    >>> value, what = before_probabilities(model.graph.outputs[0])
    >>> value.name, what
    ('y', 'softmax')
    """
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None and node.inputs:
        if node.op_type in UNDONE and node.domain in ("", "ai.onnx"):
            return node.inputs[0], UNDONE[node.op_type]
        if node.op_type not in _PASSED and not (node.op_type == "Cast" and value.dtype in FLOAT_TYPES):
            return None, ""
        value = node.inputs[0]
    return None, ""


def class_names(model: ir.Model) -> list[str] | None:
    """Return the names of classes that a model's metadata hold, a list or a mapping of indices; None without.

    >>> model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Neg(x)}')
    >>> model.metadata_props["names"] = "{0: 'cat', 1: 'dog'}"
    >>> class_names(model)
    ['cat', 'dog']
    """
    for key in _NAMES:
        text = model.metadata_props.get(key, "")
        if text and (found := _names_of(text)):
            return found
    return None


def _names_of(text: str) -> list[str]:
    data: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            data = read(text)
            break
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    if isinstance(data, dict) and all(re.fullmatch(r"\d+", str(key)) for key in data):
        data = [data[key] for key in sorted(data, key=int)]
    if data is None and "," in text + "\n":
        data = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    return [str(name) for name in data] if isinstance(data, (list, tuple)) and len(data) > 1 else []


def class_index(text: str, count: int, labels: Sequence[str] | None, where: str) -> int:
    """Return a class by its index or name.

    Args:
        text: The index; the name, or a part of it that only one name has.
        count: How many classes there are.
        labels: Their names.
        where: The tensor with their scores.

    Raises:
        SelectionError: There is none, or there are several.

    >>> class_index("cat", 2, ["dog", "tiger cat"], "y")
    1
    """
    if re.fullmatch(r"-?\d{1,9}", text):
        if not 0 <= int(text) < count:
            raise SelectionError(f"there is no class {text}", hint=f"{where} has {count}, counted from 0")
        return int(text)
    if labels is None:
        raise SelectionError(
            f"no class is named {printable(text, 60)!r}: the names of the classes are not known",
            hint=f"give --labels FILE, an index below {count}, TENSOR:CHANNEL, or an expression",
        )
    names = [name.casefold() for name in labels]
    wanted = text.casefold()
    ways: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: wanted in [part.strip() for part in name.split(",")],
        lambda name: wanted in name,
    )
    for way in ways:
        fitting = [i for i, name in enumerate(names) if way(name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            told = listed([f"{labels[i]} ({i})" for i in fitting], 6)
            raise SelectionError(f"{printable(text, 60)!r} names several classes: {told}", hint="give the index")
    near = difflib.get_close_matches(wanted, names, 4, 0.5)
    hint = f"the nearest names are {', '.join(labels[names.index(n)] for n in near)}" if near else "see --labels"
    raise SelectionError(f"no class is named {printable(text, 60)!r}", hint=hint)
