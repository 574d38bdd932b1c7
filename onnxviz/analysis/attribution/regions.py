"""Where on a picture a target lies: the box of a detector, the pixels of a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Corners", "Region", "overlap"]

#: Left, top, right and bottom in pixels of the picture as the model sees it.
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a picture.

    Attributes:
        box: Its corners; None where it is no rectangle.
        mask: ``(h, w)`` bool over the whole picture, at whatever resolution; None where it is a rectangle.
    """

    box: Corners | None = None
    mask: npt.NDArray[np.bool_] | None = None


def overlap(box: npt.ArrayLike, boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the intersection over union of a box and others, ``(K,)``.

    Args:
        box: ``(4,)`` left, top, right, bottom.
        boxes: ``(K, 4)``.

    >>> overlap([0, 0, 2, 2], [[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]]).round(3).tolist()
    [1.0, 0.333, 0.0]
    """
    one, many = np.asarray(box, np.float64), np.asarray(boxes, np.float64).reshape(-1, 4)
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    whole = np.prod(np.maximum(one[2:] - one[:2], 0)) + np.prod(np.maximum(many[:, 2:] - many[:, :2], 0), axis=1)
    union = whole - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))
