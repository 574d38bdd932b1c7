"""Detectors that return maps of scores and boxes, as raw SSD, RetinaNet and MTCNN do: read as lists of anchors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.heads import looks_like_boxes, looks_like_scores
from onnxviz.analysis.attribution.target import Forward
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.model import copy_model
from onnxviz.graph.select import FLOAT_TYPES
from onnxviz.graph.shapes import infer_shapes, shape_list
from onnxviz.graph.tidy import free_name

__all__ = ["with_lists"]

Maps = Mapping[str, npt.NDArray[Any]]  # (N, h, w, K)


def with_lists(model: ir.Model, forward: Forward) -> ir.Model | None:
    """Return a copy with two more outputs, ``(N, anchors, C)`` scores and ``(N, anchors, 4)`` boxes; None where no maps
    belong together.

    A map of ``A·C`` channels beside one of ``4·A`` of the same size has A anchors a cell; the numbers of an anchor lie
    side by side. Maps of several sizes follow one another.

    Args:
        model: The model, functions inlined, shapes inferred; it is not changed.
        forward: Runs a model.
    """
    names = [str(v.name) for v in model.graph.outputs if v.dtype in FLOAT_TYPES and len(shape_list(v) or ()) == 4]
    layouts = tensor_layouts(model)
    last = {name for name in names if layouts.get(name) == "NHWC"}
    found = forward(model, names, {}) if len(names) > 1 else {}
    maps = {n: a if n in last else np.moveaxis(a, 1, -1) for n, a in found.items() if a.ndim == 4}
    levels = [
        pair for size in dict.fromkeys(a.shape[1:3] for a in maps.values())
        if (pair := _pair({n: a for n, a in maps.items() if a.shape[1:3] == size})) is not None
    ]  # fmt: skip
    classes = {maps[scores].shape[3] * 4 // maps[boxes].shape[3] for scores, boxes in levels}
    if len(classes) != 1:
        return None
    copy = copy_model(model)
    scores, boxes = zip(*levels, strict=True)
    _append_list(copy, scores, classes.pop(), last, "scores")
    _append_list(copy, boxes, 4, last, "boxes")
    return infer_shapes(copy)


def _pair(maps: Maps) -> tuple[str, str] | None:
    """Return which of some maps of one size holds scores and which boxes."""
    widths = {name: array.shape[3] for name, array in maps.items()}
    ways = [
        (scores, boxes) for boxes in maps for scores in maps
        if scores != boxes and widths[boxes] % 4 == 0 and widths[scores] % (widths[boxes] // 4) == 0
    ]  # fmt: skip

    def rank(way: tuple[str, str]) -> tuple[bool, bool, bool, int]:
        scores, boxes = way
        probable = maps[scores].min() >= 0 and maps[scores].max() <= 1
        return not looks_like_boxes(boxes), not probable, not looks_like_scores(scores), -widths[boxes]

    return min(ways, key=rank, default=None)


def _append_list(model: ir.Model, names: tuple[str, ...], width: int, last: set[str], what: str) -> None:
    """Add an output with the cells of maps one after the other, ``(N, anchors, width)``."""
    outputs = {str(value.name): value for value in model.graph.outputs}
    parts = []
    for name in names:
        value = outputs[name]
        if name not in last:
            value = _added(model, "Transpose", [value], {"perm": [0, 2, 3, 1]}, f"{name}.last")
        shape = ir.Value(name=free_name(model.graph, f"{name}.shape"), const_value=ir.tensor([0, -1, width]))
        model.graph.register_initializer(shape)
        parts.append(_added(model, "Reshape", [value, shape], {}, f"{name}.list"))
    dtype = outputs[names[0]].dtype
    joined = _added(model, "Concat", parts, {"axis": 1}, what)
    joined.type = None if dtype is None else ir.TensorType(dtype)
    model.graph.outputs.append(joined)


def _added(model: ir.Model, op_type: str, inputs: list[ir.Value], attributes: dict[str, Any], name: str) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, name=free_name(model.graph, name))
    node.outputs[0].name = node.name
    model.graph.append(node)
    return node.outputs[0]
