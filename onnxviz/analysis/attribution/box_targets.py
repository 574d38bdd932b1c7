"""The box of a detector as a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.cells import with_cells
from onnxviz.analysis.attribution.detection import Box, box_layout, likelihoods, ranked_boxes
from onnxviz.analysis.attribution.heads import Head, find_heads, suppression
from onnxviz.analysis.attribution.maps_of_boxes import with_lists
from onnxviz.analysis.attribution.raw_scores import raw_scores
from onnxviz.analysis.attribution.regions import Region, overlap
from onnxviz.analysis.attribution.scores import class_index, class_names
from onnxviz.analysis.attribution.target import Forward, Index, Target, made_target
from onnxviz.analysis.scale import number
from onnxviz.errors import InputError, SelectionError, listed, printable
from onnxviz.gradient.names import named_tensors
from onnxviz.graph.model import copy_model
from onnxviz.graph.shapes import infer_shapes, shape_list

__all__ = ["box_target"]

_NUMBER = r"-?\d+(?:\.\d+)?"
_CORNERS = re.compile(rf"{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}$")
_LOW, _WEAK = 0.3, 0.1  # a probability that is told, and a share of the best below which a box is passed over
_JOINED = "scores of anchors"
Names = tuple[str, ...] | None


def box_target(
    model: ir.Model, wanted: str, forward: Forward, labels: Sequence[str] | None, picture: tuple[int, int] | None
) -> Target:
    """Return the score of the anchor behind a box, as it is before boxes are dropped.

    Args:
        model: The model, functions inlined, shapes inferred.
        wanted: A number from the best box on, ``class=NAME``, or four corners.
        forward: Runs a model.
        labels: Names of the classes, the background's left out or not.
        picture: Rows and columns of the picture that the model is fed.

    Raises:
        SelectionError: The model is no detector whose boxes are found, or it has no such box.
        InputError: There are more or fewer labels than classes.
    """
    heads = find_heads(model, lambda names: forward(model, names, {}), picture is not None)
    if not heads and (listed_ := with_lists(model, forward)) is not None:
        model = listed_
        heads = find_heads(model, lambda names: forward(listed_, names, {}), picture is not None)
    if not heads:
        told = listed([f"{printable(str(v.name), 60)} {tuple(shape_list(v) or ())}" for v in model.graph.outputs])
        raise SelectionError(
            f"no scores and boxes of anchors were found, in front of a NonMaxSuppression or as outputs: {told}",
            hint="name the score as a neuron, TENSOR:INDICES, or as an expression",
        )
    if any(head.boxes is None or box_layout(head.boxes[0], picture, head.centred) is None for head in heads):
        heads = [with_cells(model, head, forward) for head in heads]
    count = heads[0].values.shape[2]
    names = _names(labels, model, count, likelihoods(heads[0])[1])
    chosen = [_choose(model, heads, sample, wanted, names, picture) for sample in range(len(heads[0].values))]
    boxes = [box for _, box in chosen]
    changed, tensor, starts, undone = _scored(model, heads, sorted({box.head for box in boxes}))
    values = forward(changed, [tensor], {})[tensor]
    at = [_at(heads[box.head], box, starts.get(box.head)) for box in boxes]
    texts = [_text(rank, box, names) for rank, box in chosen]
    regions = tuple(None if box.corners is None else Region(box=box.corners) for box in boxes)
    return made_target(
        changed, tensor, values, at, texts, notes=_notes(model, heads, boxes, undone), summed=True, regions=regions
    )  # fmt: skip


def _choose(
    model: ir.Model, heads: Sequence[Head], sample: int, wanted: str, names: Names, picture: tuple[int, int] | None
) -> tuple[int, Box]:
    """Return a box of a sample and its rank among those that are left."""
    only, text = None, wanted
    count = heads[0].values.shape[2]
    if wanted.startswith("class="):
        name, comma, rank = wanted[6:].rpartition(",")
        ranked = bool(comma) and rank.strip().isdigit()
        only = class_index((name if ranked else wanted[6:]).strip(), count, names, heads[0].scores)
        text = rank if ranked else ""
    left = ranked_boxes(heads, sample, picture, suppression(model), only)
    if _CORNERS.match(text):
        return _overlapping(left, text, picture, names)
    if not re.fullmatch(r"\d{0,6}", text.strip()):
        raise SelectionError(
            f"{printable(text, 60)!r} names no box", hint="write box:0, box:class=NAME or box:X0,Y0,X1,Y1"
        )
    place = int(text.strip() or 0)
    if place >= len(left):
        raise SelectionError(f"there is no box {place}", hint=f"{len(left)} are left, counted from 0")
    return place, left[place]


def _overlapping(
    left: Sequence[Box], text: str, picture: tuple[int, int] | None, names: Names
) -> tuple[int, Box]:  # fmt: skip
    """Return the box that overlaps most, of those that are not far less probable than the best."""
    corners = np.array([float(part) for part in text.split(",")])
    if picture is not None and corners.max() <= 1:
        corners = corners * np.array([picture[1], picture[0]] * 2)
    if any(box.corners is None for box in left):
        raise SelectionError(
            "the model tells offsets from its anchors, so it is not known where boxes lie", hint="write box:0"
        )
    strong = [(i, box) for i, box in enumerate(left) if box.probability >= _WEAK * left[0].probability]
    where = np.array([box.corners for _, box in strong])
    shares = overlap(corners, where)
    if strong and strong[0][1].cell:  # of cells, the most probable with its middle inside
        middles = (where[:, :2] + where[:, 2:]) / 2
        shares = ((middles >= corners[:2]) & (middles <= corners[2:])).all(axis=1).astype(np.float64)
    if not shares.size or shares.max() <= 0:
        raise SelectionError(
            f"no box overlaps {printable(text, 60)}", hint=f"box 0 is {_text(0, left[0], names)}" if left else None
        )
    return strong[int(shares.argmax())]


def _scored(
    model: ir.Model, heads: Sequence[Head], used: Sequence[int]
) -> tuple[ir.Model, str, dict[int, int], str]:  # fmt: skip
    """Return a model with the scores of some heads in one tensor, where each begins, and what was undone."""
    changed, undone, tensors = model, "", {}
    for place in used:
        changed, tensors[place], undone = raw_scores(changed, heads[place].scores)
    if len(used) == 1:
        return changed, tensors[used[0]], {}, undone
    copy = copy_model(changed)
    named = named_tensors(copy)
    flat = []
    for place in used:
        node = ir.node("Flatten", [named[tensors[place]]], {"axis": 1}, name=f"{_JOINED}.{place}")
        node.outputs[0].name = f"{_JOINED}.{place}"
        copy.graph.append(node)
        flat.append(node.outputs[0])
    joined = ir.node("Concat", flat, {"axis": 1}, name=_JOINED)
    joined.outputs[0].name = _JOINED
    copy.graph.append(joined)
    sizes = [heads[place].anchors * _columns(heads[place]) for place in used]
    starts = dict(zip(used, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    return infer_shapes(copy), _JOINED, starts, undone


def _columns(head: Head) -> int:
    return head.first + int(head.values.shape[2])


def _at(head: Head, box: Box, start: int | None) -> Index:
    """Return the entries of the score of a box: that of the class, and with one that of objectness."""
    columns: Any = np.array([head.first + box.label] + ([4] if head.objectness is not None else []))
    if start is not None:
        step, stride = (1, head.anchors) if head.last else (_columns(head), 1)
        return (start + box.anchor * step + columns * stride,)
    anchors: npt.NDArray[np.intp] = np.full(len(columns), box.anchor, np.intp)
    return (columns, anchors) if head.last else (anchors, columns)


def _text(rank: int, box: Box, names: Names) -> str:
    name = f"class {box.label}" if names is None else names[box.label]
    ends = [] if box.corners is None else [f"{c:.0f}".replace("-", "−") for c in box.corners]
    where = f", {'cell ' * box.cell}{', '.join(ends[:2])} to {', '.join(ends[2:])}" if ends else ""
    return f"box {rank}: {name}, probability {number(box.probability)}{where}"


def _notes(model: ir.Model, heads: Sequence[Head], boxes: Sequence[Box], undone: str) -> tuple[str, ...]:
    notes = [f"score before the {undone}"] if undone else []
    if any(heads[box.head].objectness is not None for box in boxes):
        notes.append("the score is that of the class and that of any object, added up")
    if any(box.corners is None for box in boxes):
        notes.append("the model tells offsets from its anchors: where the box lies is not known, none are dropped")
    elif any(box.cell for box in boxes):
        notes.append("the model tells offsets from its anchors: the cell of the anchor is drawn, not the box")
    else:
        said = suppression(model).said
        notes += [f"boxes are dropped {said}"] if said else []
    least = min(box.probability for box in boxes)
    return (*notes, f"a box of a probability of only {number(least)}") if least < _LOW else tuple(notes)


def _names(labels: Sequence[str] | None, model: ir.Model, count: int, background: int | None) -> Names:
    """Return the names of classes; one is added for the background where only that lacks."""
    own = labels if labels is not None else class_names(model)
    if own is None or len(own) == count:
        return None if own is None else tuple(own)
    if background is not None and len(own) == count - 1:
        return (*own[:background], "background", *own[background:])
    if labels is None:
        return None
    raise InputError(f"{len(own)} labels were given for {count} classes", hint="give one label a class")
