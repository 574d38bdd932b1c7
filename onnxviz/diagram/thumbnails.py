"""Small pictures of what tensors held, drawn on the blocks that made them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.diagram.palette import MUTED
from onnxviz.diagram.scene import Image, Item, Text
from onnxviz.diagram.text import fit_text, text_width
from onnxviz.errors import InputError

__all__ = ["Strip", "Thumbnail", "make_strip"]

CAPTION = 8.0  # font size, px
_HIGHEST, _WIDEST = 96.0, 214.0  # px
_ABOVE, _BELOW = 3.0, 6.0
_CAPTION_HEIGHT = 11.0
_GAP = 3.0
_MOST_PIXELS = 1024  # a side


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """Small pictures of a tensor, coloured already.

    Attributes:
        tiles: Pictures of one height, side by side: ``(h, w, 3)`` uint8, RGB; drawn at a pixel a px, smaller where
            they would pass 214 × 96 px together.
        caption: What they show and on what scale, on one line; empty for none.
        description: The same at length, for the tooltip.
    """

    tiles: tuple[npt.NDArray[np.uint8], ...]
    caption: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """A thumbnail that has been measured: ``height`` is the room it takes below a block's lines, margins included."""

    images: tuple[Image, ...]
    caption: str
    width: float
    height: float

    def items(self, middle: float, top: float) -> tuple[Item, ...]:
        """Return the pictures and their caption, centred at ``middle``, below ``top``."""
        last = self.images[-1]
        left = middle - (last.x + last.width) / 2
        pictures = tuple(replace(image, x=image.x + left, y=top + _ABOVE) for image in self.images)
        if not self.caption:
            return pictures
        baseline = top + _ABOVE + last.height + _CAPTION_HEIGHT - 2.0
        return (*pictures, Text(middle, baseline, self.caption, CAPTION, MUTED, anchor="middle"))


def make_strip(name: str, shown: Thumbnail | npt.NDArray[Any]) -> Strip:
    """Measure the thumbnail of a tensor.

    Raises:
        InputError: Its tiles are no ``(h, w, 3)`` uint8 arrays of one height, of at most 1,024 pixels a side.
    """
    thumbnail = shown if isinstance(shown, Thumbnail) else Thumbnail((np.asarray(shown),))
    tiles = thumbnail.tiles
    for tile in tiles:
        if tile.dtype != np.uint8 or tile.ndim != 3 or tile.shape[2] != 3 or not tile.size:
            raise InputError(
                f"the thumbnail of {name!r} is {tile.dtype} of shape {tile.shape}", hint="give (h, w, 3) uint8, RGB"
            )
    columns, heights = sum(tile.shape[1] for tile in tiles), {tile.shape[0] for tile in tiles}
    if len(heights) != 1 or max(*heights, columns) > _MOST_PIXELS:
        raise InputError(
            f"the thumbnail of {name!r} has {len(tiles)} tiles of {columns} pixels across, {sorted(heights)} down",
            hint=f"give one tile or more of the same height, at most {_MOST_PIXELS} pixels a side",
        )
    (rows,), gaps = heights, _GAP * (len(tiles) - 1)
    scale = min(1.0, _HIGHEST / rows, (_WIDEST - gaps) / columns)
    images, left = [], 0.0
    for tile in tiles:
        wide = tile.shape[1] * scale
        images.append(Image(left, 0.0, wide, rows * scale, tile.shape[1], rows, np.ascontiguousarray(tile).tobytes()))
        left += wide + _GAP
    caption = fit_text(thumbnail.caption, CAPTION, _WIDEST) if thumbnail.caption else ""
    room = rows * scale + _ABOVE + (_CAPTION_HEIGHT if caption else 0.0) + _BELOW
    return Strip(tuple(images), caption, max(left - _GAP, text_width(caption, CAPTION)), room)
