"""Which part of the maps of a pooling layer is drawn, and as what."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.pooling import PoolView

__all__ = ["PER_LINE", "TILE", "PoolPart", "bands", "is_grid", "is_signal", "pool_part", "tile_height"]

TILE = 1.45  # inches
PER_LINE = 6
_ZOOM = 28  # input pixels across from which only a part is shown pixel by pixel
_LENGTH = 160  # positions of a signal shown one by one


@dataclass(frozen=True)
class PoolPart:
    """The part of the maps that is drawn: output positions, and the input positions under them, an axis each.

    Attributes:
        out: First and last + 1 output position.
        area: Where they lie in input positions; may reach into the padding.
        whole: Whether that is all of the map.
    """

    out: tuple[tuple[int, int], ...]
    area: tuple[tuple[int, int], ...]
    whole: bool


def is_grid(view: PoolView) -> bool:
    """Whether maps are drawn pixel by pixel, before and after."""
    return view.windows is not None and view.before.kind == view.after.kind == "grid"


def is_signal(view: PoolView) -> bool:
    """Whether channels are drawn as lines."""
    return view.windows is not None and len(view.windows.kernel) == 1 and view.before.kind == "image"


def bands(view: PoolView) -> int:
    """Return how many lines of tiles the channels take."""
    return math.ceil(len(view.before.maps) / PER_LINE)


def tile_height(view: PoolView, part: PoolPart) -> float:
    """Return the inches of a tile, whose width is given."""
    (y0, y1), (x0, x1) = part.area
    return TILE * min(max((y1 - y0) / (x1 - x0), 0.25), 2.5)


def pool_part(view: PoolView) -> PoolPart:
    """Choose what is drawn: all of a small map, else the part around the largest value after."""
    assert view.windows is not None
    signal = is_signal(view)
    before, after = view.before.maps, view.after.maps
    shape_in = before.shape[2:] if signal else before.shape[1:]
    shape_out = after.shape[2:] if signal else after.shape[1:]
    strides, pads = view.windows.strides[-len(shape_in) :], view.windows.pads[-len(shape_in) :]
    centre = _largest(np.nan_to_num(np.abs(after.astype(np.float64)), posinf=0.0).sum(axis=0), signal)
    out, area, whole = [], [], True
    for size, length, s, p, at in zip(shape_in, shape_out, strides, pads, centre, strict=True):
        limit = max(2, (_LENGTH if signal else _ZOOM) // s)
        if size <= (_LENGTH if signal else _ZOOM) * 1.5 or length <= limit:
            out.append((0, length))
            area.append((min(0, -p), max(size, length * s - p)))
            continue
        whole = False
        first = min(max(at - limit // 2, 0), length - limit)
        out.append((first, first + limit))
        area.append((first * s - p, (first + limit) * s - p))
    return PoolPart(tuple(out), tuple(area), whole)


def _largest(values: npt.NDArray[np.float64], signal: bool) -> tuple[int, ...]:
    if signal:
        values = values.max(axis=0)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(values)), values.shape))
