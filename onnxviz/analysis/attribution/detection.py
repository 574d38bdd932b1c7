"""Boxes of a detector as targets: the score of the anchor behind a box, before any box was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.heads import Head, Suppression
from onnxviz.analysis.attribution.regions import Corners, overlap

__all__ = ["Box", "Layout", "background_of", "box_layout", "likelihoods", "ranked_boxes"]

Array = npt.NDArray[Any]
_MOST = 1000  # anchors that are compared
_MOST_SHARE = 0.5  # of anchors that are of one class, from which it is the background
_SURE = 0.8


@dataclass(frozen=True)
class Layout:
    """What the four numbers of a box are.

    Attributes:
        centred: Whether centre and size, rather than two corners.
        across_first: Whether x stands before y.
        scale: ``(2,)``: pixels that 1 stands for, across and down.
    """

    centred: bool
    across_first: bool
    scale: tuple[float, float]

    def corners(self, boxes: Array) -> npt.NDArray[np.float64]:
        """Return ``(K, 4)`` boxes as left, top, right and bottom in pixels.

        >>> Layout(True, True, (10.0, 10.0)).corners(np.array([[0.5, 0.5, 0.2, 0.4]])).round(3).tolist()
        [[4.0, 3.0, 6.0, 7.0]]
        """
        one, two = np.asarray(boxes[:, :2], np.float64), np.asarray(boxes[:, 2:4], np.float64)
        if self.centred:
            one, two = one - two / 2, one + two / 2
        if not self.across_first:
            one, two = one[:, ::-1], two[:, ::-1]
        low, high = np.minimum(one, two), np.maximum(one, two)
        return np.asarray(np.concatenate([low, high], axis=1) * np.array([*self.scale, *self.scale]))


@dataclass(frozen=True)
class Box:
    """A box that is left when those that overlap a better one of its class are dropped.

    Attributes:
        head: Which head its anchor is of.
        anchor: Which anchor.
        label: The class.
        probability: Of it.
        corners: Where it lies; None where that is not known.
        cell: Whether that is the cell of its anchor, as the model tells offsets from anchors alone.
    """

    head: int
    anchor: int
    label: int
    probability: float
    corners: Corners | None
    cell: bool = False


def box_layout(boxes: Array, size: tuple[int, int] | None, centred: bool | None) -> Layout | None:
    """Return how boxes are to be read; None where they are offsets from anchors that the model does not tell.

    Anchors go row by row, so that of two neighbouring ones x differs more than y.

    Args:
        boxes: ``(A, 4)``.
        size: Rows and columns of the picture.
        centred: Whether they are known to be centre and size.
    """
    known = np.asarray(boxes, np.float64)
    if not np.isfinite(known).all() or not len(known) or size is None:
        return None
    sides = known[:, 2:4] - known[:, :2]
    corners = bool(np.mean((sides >= 0).all(axis=1)) > 0.99) and centred is not True
    if not corners and (not np.mean((known[:, 2:4] >= 0).all(axis=1)) > 0.99 or centred is False):
        return None
    middles = (known[:, :2] + known[:, 2:4]) / 2 if corners else known[:, :2]
    steps = np.abs(np.diff(middles, axis=0)).mean(axis=0) if len(known) > 1 else np.array([1.0, 0.0])
    unit = float(np.quantile(np.abs(middles), 0.99)) <= 1.5
    scale = (float(size[1]), float(size[0])) if unit else (1.0, 1.0)
    ends = np.array([1.0, 1.0]) if unit else np.array([size[1], size[0]], np.float64)
    across = bool(steps[0] >= steps[1])
    ends = ends if across else ends[::-1]
    inside = np.mean(((middles > -0.25 * ends) & (middles < 1.25 * ends)).all(axis=1))
    spread = np.quantile(middles, 0.98, axis=0) - np.quantile(middles, 0.02, axis=0)
    # Offsets gather around 0; boxes of anchors lie all over the picture.
    whole = inside > 0.9 and bool((spread > 0.5 * ends).all()) and bool((np.median(middles, axis=0) > 0.2 * ends).all())
    return Layout(not corners, across, scale) if whole else None


def likelihoods(head: Head) -> tuple[npt.NDArray[np.float64], int | None]:
    """Return the probabilities of the classes of a head, ``(N, A, C)``, and which of them is the background.

    Scores that are none yet become so by a softmax where most anchors are sure of one class at an end, the background;
    else by a sigmoid each.
    """
    values = np.asarray(head.values, np.float64)
    if values.min(initial=0) < 0 or values.max(initial=0) > 1:
        shifted = np.exp(values - values.max(axis=2, keepdims=True))
        soft = shifted / shifted.sum(axis=2, keepdims=True)
        background = background_of(soft)
        return (1 / (1 + np.exp(-np.clip(values, -60, 60))) if background is None else soft), background
    exclusive = values.shape[2] > 1 and bool(np.abs(values.sum(axis=2) - 1).max() < 1e-2)
    if head.objectness is not None:
        values = values * np.asarray(head.objectness, np.float64)[:, :, None]
    return values, background_of(values) if exclusive else None


def background_of(probabilities: npt.NDArray[np.float64]) -> int | None:
    """Return the class that means that there is nothing: that of most anchors, the first or the last; None without.

    >>> background_of(np.array([[[0.9, 0.1], [0.95, 0.05], [0.2, 0.8]]]))
    0
    """
    count = probabilities.shape[2]
    if count < 2:
        return None
    sure = probabilities > _SURE
    shares = sure.mean(axis=(0, 1))
    best = int(shares.argmax())
    return best if best in (0, count - 1) and shares[best] > _MOST_SHARE else None


def ranked_boxes(
    heads: Sequence[Head], sample: int, size: tuple[int, int] | None, way: Suppression, only: int | None = None
) -> list[Box]:
    """Return the boxes of a sample that are left, the most probable first.

    Args:
        heads: Of the detector.
        sample: Which sample.
        size: Rows and columns of the picture.
        way: How overlapping ones are dropped.
        only: The class; None takes that of the highest probability of each anchor.
    """
    found: list[Box] = []
    for place, head in enumerate(heads):
        chances, background = likelihoods(head)
        own = chances[sample].copy()
        if background is not None and own.shape[1] > 1:
            own[:, background] = -1.0
        labels = own.argmax(axis=1) if only is None else np.full(len(own), only)
        best = own[np.arange(len(own)), labels]
        order = np.argsort(-best, kind="stable")[:_MOST]
        corners, cell = _corners(head, sample, size)
        for anchor in order.tolist():
            at: Any = None if corners is None else tuple(corners[anchor].tolist())
            found.append(Box(place, anchor, int(labels[anchor]), float(best[anchor]), at, cell))
    found.sort(key=lambda box: -box.probability)
    return _kept(found[:_MOST], way.overlap)


def _corners(head: Head, sample: int, size: tuple[int, int] | None) -> tuple[npt.NDArray[np.float64] | None, bool]:
    """Return where the boxes of a head lie, ``(A, 4)``, and whether those are the cells of its anchors."""
    layout = None if head.boxes is None else box_layout(head.boxes[sample], size, head.centred)
    if layout is not None and head.boxes is not None:
        return layout.corners(head.boxes[sample]), False
    if head.cells is None or size is None:
        return None, False
    return head.cells * np.array([size[1], size[0], size[1], size[0]], np.float64), True


def _kept(boxes: Sequence[Box], most: float) -> list[Box]:
    """Return boxes without those that overlap a better one of their class too much."""
    if any(box.corners is None for box in boxes):
        return list(boxes)
    corners = np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
    labels = np.array([box.label for box in boxes])
    alive = np.ones(len(boxes), bool)
    kept = []
    for place, box in enumerate(boxes):
        if alive[place]:
            kept.append(box)
            alive &= (overlap(corners[place], corners) <= most) | (labels != box.label)
    return kept
