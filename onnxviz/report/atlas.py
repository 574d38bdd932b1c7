"""Maps as data: every tile of a picture quantised to 8 bits in one greyscale PNG, coloured by the page.

Shipping values instead of colours keeps the page small and lets its reader change the scale offline. A pixel of 0
stands for a value that is not finite; ``v = lowest + (pixel - 1) / 254 · (highest - lowest)`` gives back the others,
with the lowest and highest value of its tile.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxviz.analysis.scale import ColorScale
from onnxviz.plots.weights import pool_matrix

__all__ = ["atlas", "pooling_note"]

Maps = npt.NDArray[np.floating[Any]]


def atlas(
    maps: Maps,
    labels: Sequence[str],
    scale: ColorScale,
    *,
    side: int = 64,
    columns: int | None = None,
    keep_aspect: bool = False,
) -> dict[str, Any]:
    """Pack maps into one picture.

    Args:
        maps: ``(K, H, W)`` values.
        labels: One a map, such as the channel's index.
        scale: The colour scale that all maps share.
        side: Longest side of a tile in pixels; larger maps are averaged over blocks.
        columns: Tiles a row; by default a little wider than high.
        keep_aspect: Shrink both axes alike, for maps whose axes are space; otherwise each axis by itself.

    Returns:
        JSON data: ``png`` (base64), ``tile`` and ``of`` (width, height shipped and original), ``columns``, ``labels``,
        ``ranges`` (lowest, highest a tile), ``scale`` (``[vmin, vmax]``) and ``signed``.

    >>> from onnxviz.analysis.scale import color_scale
    >>> data = np.arange(8.0).reshape(2, 2, 2)
    >>> atlas(data, ["0", "1"], color_scale(data))["ranges"]
    [[0.0, 3.0], [4.0, 7.0]]
    """
    count, height, width = maps.shape
    limit = (side, side)
    if keep_aspect:
        shrink = side / max(height, width)
        limit = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    with np.errstate(invalid="ignore"):  # the mean of a block with NaN or both infinities is NaN, and marked
        small = [pool_matrix(np.asarray(tile, np.float64), limit)[0] for tile in maps]
    tile_height, tile_width = small[0].shape
    columns = columns or min(count, max(1, math.ceil(math.sqrt(count * 2 * tile_height / tile_width))))
    sheet = np.zeros((math.ceil(count / columns) * tile_height, columns * tile_width), np.uint8)
    ranges = []
    for position, tile in enumerate(small):
        levels, lowest, highest = _quantised(tile)
        row, column = divmod(position, columns)
        sheet[row * tile_height :, column * tile_width :][:tile_height, :tile_width] = levels
        ranges.append([lowest, highest])
    return {
        "png": _png(sheet),
        "tile": [tile_width, tile_height],
        "of": [width, height],
        "columns": columns,
        "labels": list(labels),
        "ranges": ranges,
        "scale": [_short(scale.vmin), _short(scale.vmax)],
        "signed": scale.kind == "diverging",
    }


def pooling_note(picture: dict[str, Any]) -> str:
    """Say how many values a pixel of an atlas stands for; empty where it is one.

    >>> pooling_note({"tile": [64, 48], "of": [320, 240]}), pooling_note({"tile": [8, 8], "of": [8, 8]})
    ('each pixel is the mean of 5 × 5 values', '')
    """
    across, down = (whole / part for whole, part in zip(picture["of"], picture["tile"], strict=True))
    return f"each pixel is the mean of {down:.3g} × {across:.3g} values" if max(across, down) > 1 else ""


def _quantised(tile: Maps) -> tuple[npt.NDArray[np.uint8], float | None, float | None]:
    finite = np.isfinite(tile)
    if not finite.any():
        return np.zeros(tile.shape, np.uint8), None, None
    lowest, highest = float(tile[finite].min()), float(tile[finite].max())
    span = highest - lowest
    levels = np.ones(tile.shape, np.float64)
    if span > 0:
        levels += np.divide(tile - lowest, span, where=finite, out=np.zeros_like(tile)) * 254
    return np.where(finite, np.rint(levels), 0).astype(np.uint8), _short(lowest), _short(highest)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _png(sheet: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
