"""What is explained: a class, a neuron, a token, or an expression, resolved once for each sample."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.attribution.expressions import expression_target
from onnxviz.analysis.attribution.scores import Scored, class_index, score_output
from onnxviz.analysis.attribution.special_targets import special_target
from onnxviz.analysis.attribution.target import Forward, Index, Target, made_target
from onnxviz.errors import GradientError, SelectionError, printable
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.select import FLOAT_TYPES, all_tensors

__all__ = ["Forward", "Target", "TargetSpec", "resolve_target"]

#: A class's index or name, ``"argmax"``, ``"TENSOR:3,5"``, an expression; None for the highest class.
TargetSpec = int | str | None
_NEURON = re.compile(r"(?P<tensor>.+):(?P<at>\d{1,9}(?:,\d{1,9})*)$", re.DOTALL)
_MOST_SPATIAL = 3


def resolve_target(
    model: ir.Model, wanted: TargetSpec, forward: Forward, *, labels: Sequence[str] | None = None,
    output: str | None = None, picture: tuple[int, int] | None = None, words: Mapping[int, str] | None = None,
) -> Target:  # fmt: skip
    """Return what is explained, for each sample.

    - None or ``"argmax"``: the class with the highest score;
    - ``3`` or ``"3"``: a class; ``"tiger cat"``: a class by its name, or by a part that only one name has;
    - ``"TENSOR:CHANNEL"``, ``"TENSOR:CHANNEL,ROW,COLUMN"``: a neuron of a map, channels first whatever the layout; of
      other tensors the indices along its axes after the samples', such as ``"tokens:4,17"`` for unit 17 of token 4.
      The mean, where fewer indices are given than it has axes;
    - ``"box:0"``, ``"box:class=dog"``, ``"box:10,20,90,80"``: the box of a detector;
    - ``"mask:dog"``: the pixels of a class;
    - ``"token:4"``, ``"token:-1,dog"``: the likeliest or a class of a token, see
      :func:`onnxviz.analysis.attribution.special_targets.special_target`;
    - an expression in names of tensors, as :func:`onnxviz.gradient.targets.target_value` takes it.

    Classes are those of the first output of shape (N, classes), taken before a softmax or sigmoid at its end.

    Args:
        model: The model, functions inlined.
        wanted: The target.
        forward: Runs a model.
        labels: Names of the classes; by default those that the model's metadata hold.
        output: The output with the scores of classes, where it is not the first.
        picture: Rows and columns of the picture that the model is fed.
        words: Token id -> word, for classes that are words.

    Raises:
        SelectionError: The target does not exist, or nothing tells which output holds classes.
        GradientError: An expression is none.
    """
    text = "" if wanted is None else str(wanted).strip()
    if (special := special_target(model, text, forward, labels, output, picture, words)) is not None:
        return special
    tensors = {str(value.name): value for value in all_tensors(model)} | {str(v.name): v for v in model.graph.inputs}
    found = _NEURON.match(text)
    if found is not None and found["tensor"] in tensors:
        return _neuron(model, tensors[found["tensor"]], tuple(map(int, found["at"].split(","))), forward)
    plain = text in ("", "argmax") or re.fullmatch(r"\d{1,9}", text) is not None
    if plain or not _is_expression(text, tensors):
        _check_whole(model, output)
        scored = score_output(model, lambda names: forward(model, names, {}), labels, output)
        return _class(model, text, scored)
    resolved = expression_target(model, text, forward)
    count = len(resolved.values)
    if resolved.values.size != count:
        raise GradientError(
            f"{printable(text, 80)!r} gives a tensor of shape {resolved.values.shape}, not a number for each sample",
            hint="take one entry, or sum(…), mean(…), max(…), norm(…) of it",
        )
    return made_target(
        resolved.model, resolved.tensor, resolved.values, ((...,),) * count, (text,) * count, notes=resolved.notes,
        frozen=resolved.frozen,
    )  # fmt: skip


def _check_whole(model: ir.Model, output: str | None) -> None:
    """Refuse to take what is left of boxes, in whatever number and order, for classes."""
    if output is None and any(node.op_type == "NonMaxSuppression" for node in model.graph):
        raise SelectionError(
            "the model is a detector: it gives boxes, not a score a class",
            hint="say which: --target box:0 (the best), box:class=NAME, box:X0,Y0,X1,Y1, or a neuron TENSOR:INDEX",
        )


def _is_expression(text: str, tensors: Mapping[str, ir.Value]) -> bool:
    """Whether a text is an expression rather than the name of a class, which may hold brackets as well."""
    if text in tensors:
        return True
    if "[" not in text and not any(name in text for name in tensors):
        return False
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return not isinstance(tree, (ast.Name, ast.Constant))


def _class(model: ir.Model, text: str, scored: Scored) -> Target:
    values = scored.values
    flat = np.asarray(values.reshape(len(values), -1), np.float64)
    if text in ("", "argmax"):
        if np.isnan(flat).any():
            raise SelectionError("the scores hold NaN, so no class is the highest", hint="name one with --target")
        classes = tuple(int(i) for i in flat.argmax(axis=1))
    else:
        classes = (class_index(text, flat.shape[1], scored.labels, scored.output),) * len(flat)
    names = [f"class {i}" if scored.labels is None else f"{scored.labels[i]} (class {i})" for i in classes]
    if flat.shape[1] == 1:
        names = ["the only score"] * len(flat)
    at = tuple(np.unravel_index(i, values.shape[1:]) for i in classes)
    return made_target(model, scored.tensor, values, at, names, classes=classes, notes=scored.notes)


def _neuron(model: ir.Model, value: ir.Value, at: tuple[int, ...], forward: Forward) -> Target:
    name = str(value.name)
    if value.dtype is not None and value.dtype not in FLOAT_TYPES:
        raise SelectionError(f"{name} holds {value.dtype.name.lower()}, not scores", hint="choose a float tensor")
    values = forward(model, [name], {})[name]
    shape = values.shape[1:]
    last = tensor_layouts(model).get(name) == "NHWC" and len(shape) > 1
    sizes = (shape[-1], *shape[:-1]) if last else shape
    if len(at) > len(sizes) or any(i >= size for i, size in zip(at, sizes, strict=False)):
        what = "channels first" if last or len(shape) > 1 else "its units"
        raise SelectionError(
            f"{printable(name, 80)} has no neuron {','.join(map(str, at))}",
            hint=f"a sample of it is {' × '.join(map(str, sizes))} ({what}), counted from 0",
        )
    index: Index = (*at[1:], *(slice(None),) * (len(shape) - len(at)), at[0]) if last else at
    whole = len(at) == len(shape)
    text = f"neuron {','.join(map(str, at))} of {name}" if whole else f"mean of {','.join(map(str, at))} of {name}"
    count = len(values)
    return made_target(model, name, values, (index,) * count, (text,) * count)
