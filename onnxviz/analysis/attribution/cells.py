"""Where the anchors of a detector stand that tells only offsets from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.heads import Head
from onnxviz.analysis.attribution.raw_scores import MOVES, raw_scores
from onnxviz.analysis.attribution.sources import cut_at
from onnxviz.analysis.attribution.target import Forward
from onnxviz.gradient.names import named_tensors
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.model import copy_model

__all__ = ["with_cells"]


def with_cells(model: ir.Model, head: Head, forward: Forward) -> Head:
    """Return a head with the cell of each anchor: that of the map which its score is read from.

    What moves scores from maps to the list of anchors is run on the coordinates of the cells, so that whatever order
    anchors have, each gets its own.

    Args:
        model: The model, functions inlined.
        head: The head.
        forward: Runs a model.
    """
    changed, tensor, _ = raw_scores(model, head.scores)
    maps = _maps(named_tensors(changed)[tensor])
    if not maps:
        return head
    names = sorted(str(value.name) for value in maps)
    values = forward(changed, names, {})
    if any(values[name].ndim != 4 for name in names):
        return head
    layouts = tensor_layouts(changed)
    cut = cut_at(_returning(changed, tensor), names)
    ends = []
    for axis, side in ((1, 0), (0, 0), (1, 1), (0, 1)):  # left, top, right, bottom
        fed = {name: _ends(values[name], layouts.get(name) == "NHWC", axis, side) for name in names}
        found = forward(cut, [tensor], fed)[tensor]
        if found.ndim != 3:
            return head
        ends.append((found[0].T if head.last else found[0])[:, 0])
    cells = np.asarray(np.stack(ends, axis=1), np.float64)
    return replace(head, cells=cells) if len(cells) == head.anchors else head


def _returning(model: ir.Model, tensor: str) -> ir.Model:
    """Return a copy that gives a tensor as well, so that a cut does not take for unused what makes it."""
    copy = copy_model(model)
    value = named_tensors(copy)[tensor]
    copy.graph.outputs[:] = dict.fromkeys([*copy.graph.outputs, value])
    return copy


def _maps(value: ir.Value) -> list[ir.Value]:
    """Return what scores are before they are only moved."""
    seen, waiting, found = set(), [value], []
    while waiting:
        one = waiting.pop()
        node = one.producer()
        if one in seen or node is None:
            continue
        seen.add(one)
        if node.op_type in MOVES and node.domain in ("", "ai.onnx"):
            waiting += [v for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1]) if v is not None]
        else:
            found.append(one)
    return found


def _ends(values: npt.NDArray[Any], last: bool, axis: int, side: int) -> npt.NDArray[Any]:
    """Return maps of some shape whose cells hold where they begin or end, as a share of the picture's side."""
    spatial = (1, 2) if last else (2, 3)
    count = values.shape[spatial[axis]]
    shape = [1] * 4
    shape[spatial[axis]] = count
    line = ((np.arange(count) + side) / count).reshape(shape)
    return np.asarray(np.broadcast_to(line, values.shape), values.dtype)
