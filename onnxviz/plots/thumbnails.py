"""Small pictures of a capture's tensors, to be drawn on the blocks of the architecture that made them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.layers import layer_feature_maps
from onnxviz.analysis.scale import ColorScale, number
from onnxviz.diagram.thumbnails import Thumbnail
from onnxviz.plots.style import ACCENT, INK, colormap, norm
from onnxviz.runtime.record import Capture

__all__ = ["map_thumbnail", "picture_thumbnail", "thumbnails"]

_TILES = 4  # channels of a tensor
_TILE, _ALONE = 44, 72  # longest side of a tile, and of one that stands alone, px
_ACROSS, _DOWN = 185, 56  # largest picture of channels over time, px
_BARS = 36  # height of a vector's bars, px
_FRAME = (154, 160, 166)  # the frame that plots.tiles draws
_BLACK = (0, 0, 0)

Pixels = npt.NDArray[np.uint8]


def thumbnails(model: ir.Model, captured: Capture, *, every: bool = False) -> dict[str, Thumbnail]:
    """Return a small picture of each layer's output, by tensor, and of the model's inputs that are pictures.

    Feature maps show the channels of highest energy on one scale, in the colours of :mod:`onnxviz.plots.style`;
    sequences show channels down and positions across; vectors are bars from their smallest to their largest value
    within each pixel. The same capture gives the same pictures.

    Args:
        model: The model that was captured.
        captured: Its tensors, with their arrays.
        every: All tensors that can be drawn; by default those of layers and the outputs, as
            :func:`onnxviz.analysis.layers.layer_feature_maps` chooses.

    Returns:
        Tensor name -> picture, for the ``thumbnails`` of :func:`onnxviz.diagram.architecture.architecture`.

    Raises:
        SelectionError: No tensor can be drawn, or only statistics were captured.
    """
    inputs = {record.name: record.picture for record in captured.inputs if record.picture is not None}
    pictures = {name: picture_thumbnail(picture) for name, picture in inputs.items()}
    maps = layer_feature_maps(model, captured, every=every, top=_TILES)
    return pictures | {fm.name: map_thumbnail(fm) for fm in maps}


def picture_thumbnail(picture: Pixels) -> Thumbnail:
    """Return a picture of ``(H, W, 3)`` uint8 as the model sees it, made small."""
    height, width = _fit(picture.shape[0], picture.shape[1], 92, _ACROSS)
    small = np.stack([_resampled(picture[..., i].astype(np.float64), height, width) for i in range(3)], axis=-1)
    return Thumbnail((np.rint(small).astype(np.uint8),), "", f"the picture fed, {picture.shape[1]}×{picture.shape[0]}")


def map_thumbnail(fm: FeatureMaps) -> Thumbnail:
    """Return feature maps as a small picture: a row of channels, channels over positions, or bars.

    >>> from onnxviz.analysis.feature_maps import feature_maps
    >>> map_thumbnail(feature_maps(np.ones((1, 2, 6, 6)))).tiles[0].shape
    (42, 42, 3)
    """
    if fm.kind == "vector":
        tiles = [_bars(fm.maps[0, 0].astype(np.float64))]
        finite = fm.maps[np.isfinite(fm.maps)]
        spread = f"{number(float(finite.min()))} … {number(float(finite.max()))}" if finite.size else "no finite values"
        says = f"{fm.total} value{'s' if fm.total != 1 else ''} · {spread}"
    elif fm.kind == "image":
        size = _fit(fm.maps.shape[1], fm.maps.shape[2], _DOWN, _ACROSS, enlarge=True)
        tiles = [_tile(fm.maps[0], fm.scale, *size, constant=False)]
        says = f"{fm.maps.shape[1]} channels × {fm.maps.shape[2]} · {_range(fm.scale)}"
    else:
        shown = fm.maps[:_TILES]
        longest = _ALONE if len(shown) == 1 else _TILE
        size = _fit(shown.shape[1], shown.shape[2], longest, longest, enlarge=True)
        tiles = [
            _tile(one, fm.scale, *size, constant=constant) for one, constant in zip(shown, fm.constant, strict=False)
        ]
        says = f"{len(tiles)} of {fm.total} · {_range(fm.scale)}" if len(tiles) < fm.total else _range(fm.scale)
    return Thumbnail(tuple(tiles), says, " · ".join([fm.name, *fm.captions()]))


def _range(scale: ColorScale) -> str:
    return f"{number(scale.vmin)} … {number(scale.vmax)}" if scale.count else "no finite values"


def _fit(height: int, width: int, down: int, across: int, *, enlarge: bool = False) -> tuple[int, int]:
    """Return rows and columns within bounds; enlarged by a whole factor, so that all cells are of one size."""
    scale = min(down / height, across / width)
    if scale >= 1:
        scale = float(int(scale)) if enlarge else 1.0
    return max(round(height * scale), 6), max(round(width * scale), 6)


def _edges(count: int, cells: int) -> npt.NDArray[np.intp]:
    return np.arange(cells) * count // cells


def _resampled(values: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Return the mean of the values under each pixel; where there are fewer values than pixels, the nearest one."""
    for axis, size in ((0, rows), (1, columns)):
        count = values.shape[axis]
        starts = _edges(count, size)
        if count <= size:
            values = values.take(starts, axis=axis)
            continue
        counts = np.diff(np.append(starts, count))
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / (counts[:, None] if axis == 0 else counts)
    return values


def _tile(values: npt.NDArray[np.float32], scale: ColorScale, rows: int, columns: int, *, constant: bool) -> Pixels:
    """Colour a map, its NaN and Inf hatched, in a frame; a constant map has its diagonal drawn."""
    finite = np.isfinite(values)
    small = _resampled(np.where(finite, values, 0.0).astype(np.float64), rows, columns)
    bad = _resampled((~finite).astype(np.float64), rows, columns) > 0
    colours = np.asarray(colormap(scale)(norm(scale)(small)))
    pixels: Pixels = np.rint(255.0 * colours[..., :3]).astype(np.uint8)
    down, right = np.indices((rows, columns))
    pixels[bad] = 255
    pixels[bad & ((down + right) % 4 == 0)] = _BLACK
    if constant:
        pixels[np.arange(rows), np.arange(rows) * columns // rows] = _FRAME
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        pixels[edge] = _FRAME
    return pixels


def _bars(vector: npt.NDArray[np.float64]) -> Pixels:
    """Draw a vector as bars about its zero line: of many values a pixel the smallest and the largest."""
    count = vector.size
    columns = count * max(_ACROSS // count, 1) if count <= _ACROSS else _ACROSS
    finite = np.isfinite(vector)
    values = np.where(finite, vector, 0.0)
    starts = _edges(count, columns)
    high, low, bad = values[starts], values[starts], ~finite[starts]
    if count > columns:
        high, low = np.maximum.reduceat(values, starts), np.minimum.reduceat(values, starts)
        bad = np.logical_or.reduceat(~finite, starts)
    top, bottom = max(float(high.max()), 0.0), min(float(low.min()), 0.0)
    step = (top - bottom) / (_BARS - 1) or 1.0
    zero = round(top / step)
    rows = np.arange(_BARS)[:, None]
    pixels = np.full((_BARS, columns, 3), 255, np.uint8)
    above, below = np.rint((top - np.maximum(high, 0)) / step), np.rint((top - np.minimum(low, 0)) / step)
    pixels[(rows >= above) & (rows <= below)] = _rgb(ACCENT)
    pixels[zero] = _rgb(INK)
    if columns // count >= 3:  # a gap between bars that have room for one
        pixels[np.arange(_BARS) != zero, columns // count - 1 :: columns // count] = 255
    pixels[np.broadcast_to(bad, (_BARS, columns)) & ((rows + np.arange(columns)) % 4 == 0)] = _BLACK
    return pixels


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
