"""Where a detector has the scores and boxes of its anchors, before any of them is dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.raw_scores import ancestors
from onnxviz.graph.select import FLOAT_TYPES
from onnxviz.graph.shapes import shape_list

__all__ = ["Head", "Suppression", "find_heads", "looks_like_boxes", "looks_like_scores", "suppression"]

Array = npt.NDArray[Any]
Run = Callable[[Sequence[str]], Mapping[str, Array]]
_SELECTS = frozenset({"TopK", "NonZero", "Compress", "GatherND", "GatherElements", "NonMaxSuppression", "Loop", "If"})
_MAKES = frozenset({"Softmax", "Sigmoid"})
_SCORES = re.compile(r"score|conf|cls|class|logit|prob|softmax|sigmoid", re.IGNORECASE)
_BOXES = re.compile(r"box|loc|reg|coord|delta", re.IGNORECASE)
_LOOKED_AT = 160  # tensors before the suppression whose values are read to find the boxes


@dataclass(frozen=True, eq=False)
class Head:
    """Scores of anchors, and their boxes.

    Attributes:
        scores: The tensor with the scores as the model shows them: probabilities, or logits where nothing makes them.
        values: ``(N, A, C)``: of it, the columns of classes alone.
        boxes: ``(N, A, 4)``, in whatever form they are; None without.
        last: Whether anchors are the last axis of the tensor.
        first: The column of the first class.
        objectness: The column of the probability that an anchor holds anything; None without.
        centred: Whether boxes are centre and size; None where only the numbers tell.
        cells: ``(A, 4)``: the cell of the map that the score of each anchor is from, left, top, right and bottom as
            shares of the picture's sides; None where that is not known, or boxes tell more.
    """

    scores: str
    values: Array
    boxes: Array | None
    last: bool = False
    first: int = 0
    objectness: Array | None = None
    centred: bool | None = None
    cells: npt.NDArray[np.float64] | None = None

    @property
    def anchors(self) -> int:
        """Number of anchors."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Suppression:
    """How overlapping boxes are dropped.

    Attributes:
        overlap: Intersection over union from which the weaker of two boxes of a class is dropped.
        said: Where that is from.
    """

    overlap: float = 0.5
    said: str = "by overlap of 0.5, as the model leaves that to others"


def suppression(model: ir.Model) -> Suppression:
    """Return how a model drops boxes itself; an overlap of 0.5 where it does not.

    >>> suppression(ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1] x) => (float[1] y) {y = Neg(x)}''')).overlap
    0.5
    """
    node = _suppressing(model)
    if node is None:
        return Suppression()
    value = node.inputs[3] if len(node.inputs) > 3 else None
    known = None if value is None else _constant(value)
    return Suppression(0.0 if value is None else 0.5, "") if known is None else Suppression(float(known.flat[0]), "")


def _constant(value: ir.Value) -> Array | None:
    held = ir.convenience.get_const_tensor(value)
    return None if held is None or not held.size else held.numpy()


def find_heads(model: ir.Model, run: Run, picture: bool) -> list[Head]:
    """Return the heads of a detector, whole: in front of NonMaxSuppression, or as outputs that belong together.

    Args:
        model: The model, functions inlined, shapes inferred.
        run: Gives tensors, ``(N, …)`` each.
        picture: Whether the model is fed a picture: scores and boxes in one tensor look like those of tokens.
    """
    node = _suppressing(model)
    if node is not None:
        return _before(node, run)
    outputs = [v for v in model.graph.outputs if v.dtype in FLOAT_TYPES and len(shape_list(v) or ()) == 3]
    values = run([str(v.name) for v in outputs]) if outputs else {}
    blocks = {name: array for name, array in values.items() if array.ndim == 3 and array.size}
    heads = []
    for anchors in dict.fromkeys(max(array.shape[1:]) for array in blocks.values()):
        group = {n: a for n, a in blocks.items() if max(a.shape[1:]) == anchors and min(a.shape[1:]) < anchors}
        made = _paired(group, anchors) if len(group) > 1 else _combined(group, anchors) if picture else None
        heads += [made] if made is not None else []
    return heads


def looks_like_boxes(name: str) -> bool:
    """Whether the name of a tensor says that it holds boxes.

    >>> looks_like_boxes("bbox_regression"), looks_like_boxes("scores")
    (True, False)
    """
    return _BOXES.search(name) is not None


def looks_like_scores(name: str) -> bool:
    """Whether the name of a tensor says that it holds scores.

    >>> looks_like_scores("cls_logits"), looks_like_scores("boxes")
    (True, False)
    """
    return _SCORES.search(name) is not None


def _suppressing(model: ir.Model) -> ir.Node | None:
    return next((node for node in model.graph if node.op_type == "NonMaxSuppression"), None)


def _before(node: ir.Node, run: Run) -> list[Head]:
    """Return what goes into a suppression, from before anything was dropped."""
    boxes, scores = node.inputs[0], node.inputs[1]
    if boxes is None or scores is None:
        return []
    attribute = node.attributes.get("center_point_box")
    centred = bool(attribute.as_int()) if attribute is not None else False
    made = list(ancestors(scores, _MAKES | {"Shape"}))
    dropping = any(v.producer() is not None and v.producer().op_type in _SELECTS for v in made)  # type: ignore[union-attr]
    if not dropping:
        values = run([str(scores.name), str(boxes.name)])
        shown, known = values[str(scores.name)], values[str(boxes.name)]
        if shown.ndim == 3 and known.ndim == 3:
            return [Head(str(scores.name), shown.transpose(0, 2, 1), known, True, centred=centred)]
        return []
    heads = []
    for value in made:
        maker = value.producer()
        if maker is not None and maker.op_type in _MAKES:
            shown = run([str(value.name)])[str(value.name)]
            head = _block(str(value.name), shown, maker)
            heads += [head] if head is not None else []
    wanted = {head.anchors for head in heads}
    known_boxes = _boxes_of(boxes, wanted, run)
    whole = [head for head in heads if head.anchors in known_boxes] or heads
    return [replace(head, boxes=known_boxes.get(head.anchors), centred=centred) for head in whole]


def _block(name: str, shown: Array, maker: ir.Node) -> Head | None:
    """Return what a softmax or sigmoid makes as scores of anchors; None where it is none."""
    block = shown if shown.ndim == 3 else shown[None] if shown.ndim == 2 else None
    if block is None or min(block.shape) < 1:
        return None
    axis = maker.attributes.get("axis")
    along = axis.as_int() if axis is not None else -1
    last = maker.op_type == "Softmax" and along % shown.ndim != shown.ndim - 1
    return Head(name, block.transpose(0, 2, 1) if last else block, None, last)


def _boxes_of(boxes: ir.Value, wanted: set[int], run: Run) -> dict[int, Array]:
    """Return the last boxes of all anchors before some are dropped, by the number of anchors."""
    tried = []
    for value in ancestors(boxes):
        shape = shape_list(value)
        known = shape is not None and len(shape) in (2, 3) and shape[-1] == 4 and value.dtype in FLOAT_TYPES
        if known and value.producer() is not None:
            tried.append(str(value.name))
    tried = [name for name in tried if name][:_LOOKED_AT]
    values = run(tried) if tried and wanted else {}
    found: dict[int, Array] = {}
    for name in tried:
        array = values[name]
        block = array if array.ndim == 3 else array[None]
        if block.ndim == 3 and block.shape[1] in wanted:
            found.setdefault(block.shape[1], block)
    return found


def _paired(group: Mapping[str, Array], anchors: int) -> Head | None:
    """Return one output as scores and another as boxes."""
    across = {name: min(array.shape[1:]) for name, array in group.items()}
    of_boxes = [n for n in group if across[n] >= 4]
    of_boxes.sort(key=lambda n: (across[n] != 4, not looks_like_boxes(n), looks_like_scores(n), across[n]))
    box = of_boxes[0] if of_boxes else None
    rest = [name for name in group if name != box]
    if not rest or box is None:
        return None
    rest.sort(key=lambda n: (not _is_probability(group[n]), not looks_like_scores(n), across[n]))
    name = rest[0]
    last = group[name].shape[2] == anchors
    scores = group[name].transpose(0, 2, 1) if last else group[name]
    known = group[box].transpose(0, 2, 1) if group[box].shape[2] == anchors else group[box]
    return Head(name, scores, known[:, :, :4], last)


def _combined(group: Mapping[str, Array], anchors: int) -> Head | None:
    """Return one output with boxes in its first columns and probabilities behind them, as YOLO has it."""
    for name, array in group.items():
        last = array.shape[2] == anchors
        block = array.transpose(0, 2, 1) if last else array
        if block.shape[2] < 5 or not _is_probability(block[:, :, 4:]):
            continue
        own = not last and block.shape[2] > 5  # a column of objectness: with anchors first, as up to YOLOv7
        first = 5 if own else 4
        return Head(name, block[:, :, first:], block[:, :, :4], last, first, block[:, :, 4] if own else None, True)
    return None


def _is_probability(array: Array) -> bool:
    return bool(array.size and array.min() >= 0 and array.max() <= 1)
