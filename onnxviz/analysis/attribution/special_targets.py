"""Targets that a place names: the box of a detector, the pixels of a class, a token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.box_targets import box_target
from onnxviz.analysis.attribution.raw_scores import raw_scores
from onnxviz.analysis.attribution.regions import Region
from onnxviz.analysis.attribution.scores import class_index, class_names
from onnxviz.analysis.attribution.target import Forward, Target, made_target
from onnxviz.analysis.scale import number
from onnxviz.errors import InputError, SelectionError, listed, printable
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.select import FLOAT_TYPES, all_tensors
from onnxviz.graph.shapes import shape_list

__all__ = ["special_target"]

Array = npt.NDArray[Any]
_NUMBER = r"-?\d+(?:\.\d+)?"
_WITHIN = re.compile(rf"(?P<name>.*)@(?P<box>{_NUMBER}(?:,{_NUMBER}){{3}})$", re.DOTALL)
_TOKEN = re.compile(r"(?P<at>-?\d{1,9})(?:,(?P<name>.+))?$", re.DOTALL)
_PASSED = ("Identity", "Cast", "Squeeze", "Unsqueeze")


def special_target(
    model: ir.Model, text: str, forward: Forward, labels: Sequence[str] | None, output: str | None,
    picture: tuple[int, int] | None, words: Mapping[int, str] | None,
) -> Target | None:  # fmt: skip
    """Return the target that a text with a prefix names; None where it has none.

    - ``box``, ``box:0``, ``box:2``: the best box of a detector, the third best; ``box:class=dog``: the best of a class;
      ``box:10,20,90,80``: that which overlaps most with left, top, right, bottom, in pixels of what the model is fed or
      as fractions of its sides.
    - ``mask``, ``mask:dog``: the sum of the scores of a class over the pixels that are of it; ``mask:dog@10,20,90,80``
      over the pixels within a rectangle.
    - ``token:4``: the highest score at position 4, from the end where it is negative; ``token:4,dog`` that of a class.

    Args:
        model: The model, functions inlined, shapes inferred.
        text: The target.
        forward: Runs a model.
        labels: Names of the classes; by default those that the model's metadata hold.
        output: The tensor with the scores, where it is not the first of the kind; for masks and tokens.
        picture: Rows and columns of the picture that the model is fed.
        words: Token id -> word, for classes that are words.

    Raises:
        SelectionError: There is no such box, class or token, or the model is none that has any.
        InputError: There are more or fewer labels than classes.
    """
    kind, _, rest = text.partition(":")
    if kind == "box":
        return box_target(model, rest.strip(), forward, labels, picture)
    if kind == "mask":
        return _mask(model, rest.strip(), forward, labels, output, picture)
    if kind == "token":
        return _token(model, rest.strip(), forward, labels, output, words)
    return None


def _mask(
    model: ir.Model, text: str, forward: Forward, labels: Sequence[str] | None, output: str | None,
    picture: tuple[int, int] | None,
) -> Target:  # fmt: skip
    name = _chosen(model, output, (4,), "scores of classes at pixels") if output is not None else _pixel_scores(model)
    changed, tensor, undone = raw_scores(model, name)
    values = forward(changed, [tensor], {})[tensor]
    last = tensor_layouts(model).get(name) == "NHWC"
    scores = np.moveaxis(values, -1, 1) if last else values
    if scores.ndim != 4:
        raise SelectionError(f"{printable(name, 80)} has no rows and columns", hint="say with --of which tensor has")
    names = _names(labels, model, scores.shape[1])
    within = _WITHIN.match(text)
    wanted = within["name"].strip() if within is not None else text
    owner = scores.argmax(axis=1) if scores.shape[1] > 1 else np.where(scores[:, 0] > _middle(scores, undone), 0, -1)
    at, texts, regions = [], [], []
    for own in owner:
        index = _class_of(wanted, own, scores.shape[1], names, name)
        where = own == index if within is None else _rectangle(within["box"], own.shape, picture)
        if not where.any():
            raise _absent(_named(names, index), own, names)
        rows, columns = np.nonzero(where)
        at.append((rows, columns, index) if last else (index, rows, columns))
        said = "its pixels" if within is None else f"the pixels within {within['box']}"
        texts.append(f"{_named(names, index)}: sum over {said}, {_percent(where.mean())} of all")
        regions.append(Region(mask=where))
    notes = (f"score before the {undone}",) if undone else ()
    return made_target(changed, tensor, values, at, texts, notes=notes, summed=True, regions=tuple(regions))


def _pixel_scores(model: ir.Model) -> str:
    """Return the output with a score a class and pixel, or what the argmax of an output is taken of."""
    for value in model.graph.outputs:
        shape = shape_list(value)
        if value.dtype in FLOAT_TYPES and shape is not None and len(shape) == 4 and shape[2] != 1 and shape[3] != 1:
            return str(value.name)
        inner: ir.Value | None = value
        while inner is not None and (node := inner.producer()) is not None and node.op_type in _PASSED:
            inner = node.inputs[0]
        maker = None if inner is None else inner.producer()
        if maker is not None and maker.op_type == "ArgMax" and maker.inputs[0] is not None:
            return str(maker.inputs[0].name)
    return _chosen(model, None, (4,), "scores of classes at pixels")


def _chosen(model: ir.Model, output: str | None, ranks: tuple[int, ...], what: str) -> str:
    """Return the tensor that is asked for, or the first output of some rank."""
    outputs = {str(v.name): v for v in model.graph.outputs if v.dtype in FLOAT_TYPES}
    if output is not None:
        if output not in {str(value.name) for value in all_tensors(model)}:
            raise SelectionError(f"the model has no tensor {printable(output, 60)!r}", hint=f"see {listed([*outputs])}")
        return output
    found = [name for name, value in outputs.items() if len(shape_list(value) or ()) in ranks]
    if not found:
        told = listed([f"{printable(n, 60)} {tuple(shape_list(v) or ())}" for n, v in outputs.items()])
        raise SelectionError(
            f"no output holds {what}: they are {told or 'none'}", hint="--of TENSOR names one that does"
        )
    return found[0]


def _middle(scores: Array, undone: str) -> float:
    return 0.5 if not undone and scores.min() >= 0 and scores.max() <= 1 else 0.0


def _class_of(wanted: str, own: Array, count: int, names: tuple[str, ...] | None, where: str) -> int:
    if wanted in ("", "argmax"):
        present = own[own >= 0]
        return int(np.bincount(present.reshape(-1)).argmax()) if present.size else 0
    return class_index(wanted, count, names, where)


def _rectangle(text: str, shape: tuple[int, ...], picture: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
    """Return which cells of a map have their middle within a rectangle of the picture."""
    left, top, right, bottom = (float(part) for part in text.split(","))
    sizes = picture if picture is not None and max(left, top, right, bottom) > 1 else (1, 1)
    rows, columns = ((np.arange(n) + 0.5) / n * size for n, size in zip(shape, sizes, strict=True))
    return np.asarray(((rows >= top) & (rows <= bottom))[:, None] & (columns >= left) & (columns <= right))


def _absent(wanted: str, own: Array, names: tuple[str, ...] | None) -> SelectionError:
    counts = np.bincount(own[own >= 0].reshape(-1)) if (own >= 0).any() else np.zeros(0, int)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    told = listed([f"{_named(names, i)} ({_percent(counts[i] / own.size)})" for i in order], 6)
    return SelectionError(f"no pixel is of {wanted}", hint=f"the classes in the picture are {told or 'none'}")


def _percent(share: float) -> str:
    return f"{number(float(f'{100 * share:.2g}'))} %"


def _token(
    model: ir.Model, text: str, forward: Forward, labels: Sequence[str] | None, output: str | None,
    words: Mapping[int, str] | None,
) -> Target:  # fmt: skip
    found = _TOKEN.match(text)
    if found is None:
        raise SelectionError(f"{printable(text, 60)!r} names no token", hint="write token:4, token:-1 or token:4,CLASS")
    name = _chosen(model, output, (3,), "scores of tokens, (N, tokens, classes)")
    changed, tensor, undone = raw_scores(model, name)
    values = forward(changed, [tensor], {})[tensor]
    if values.ndim != 3:
        raise SelectionError(f"{printable(name, 80)} is not of shape (N, tokens, classes)", hint="name one with --of")
    steps, count = values.shape[1:]
    place = int(found["at"])
    if not -steps <= place < steps:
        raise SelectionError(f"there is no token {place}", hint=f"{printable(name, 60)} has {steps}, counted from 0")
    place %= steps
    names = _names(labels, model, count)
    if names is None and words is not None and max(words, default=0) < count:
        names = tuple(words.get(i, str(i)) for i in range(count))
    wanted = (found["name"] or "").strip()
    fixed = None if wanted in ("", "argmax") else class_index(wanted, count, names, name)
    classes = [int(row[place].argmax()) if fixed is None else fixed for row in values]
    texts = [f"token {place}: {_named(names, i)}" for i in classes]
    notes = (f"score before the {undone}",) if undone else ()
    return made_target(changed, tensor, values, [(place, i) for i in classes], texts, notes=notes)


def _names(labels: Sequence[str] | None, model: ir.Model, count: int) -> tuple[str, ...] | None:
    """Return the names of classes; those of the metadata only where they are as many."""
    if labels is not None:
        if len(labels) != count:
            raise InputError(f"{len(labels)} labels were given for {count} classes", hint="give one label a class")
        return tuple(labels)
    own = class_names(model)
    return tuple(own) if own is not None and len(own) == count else None


def _named(names: tuple[str, ...] | None, index: int) -> str:
    return f"class {index}" if names is None else f"{names[index]} (class {index})"
