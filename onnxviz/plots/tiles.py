"""What feature maps are drawn with: tiles on a scale, and vectors as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.scale import ColorScale, color_scale, number
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, draw_map, plain

__all__ = ["GAP", "LABEL", "draw_tiles", "draw_vector", "tile_shape"]

#: Gap between tiles, in tile widths.
GAP = 0.06
#: Height of the line above each tile, in inches.
LABEL = 0.2

_NAMED_BARS = 20  # vectors up to this length have every value printed
_FEW_BARS = 64  # and up to this length a gap between their bars
_SHAPES = (0.25, 4.0)  # a tile's height over its width is held between these


def tile_shape(maps: npt.NDArray[Any]) -> float:
    """Return the height of a tile over its width: the maps' own, within bounds that keep a grid readable."""
    height, width = maps.shape[-2:]
    return float(min(max(height / width, _SHAPES[0]), _SHAPES[1]))


def draw_tiles(
    axes: Axes, fm: FeatureMaps, which: Sequence[int], columns: int, tile: float, *, shared: bool = True
) -> None:
    """Draw some of the maps as a grid into axes that measure ``columns * tile * 1.06`` inches across.

    Args:
        axes: Where to draw; its coordinates become inches.
        fm: A grid.
        which: Indices into ``fm.maps``.
        columns: Tiles a row.
        tile: Width of a tile in inches.
        shared: Whether all tiles are on the shared scale.
    """
    plain(axes)
    shape = tile_shape(fm.maps)
    rows = math.ceil(len(which) / columns)
    step_x, step_y = tile * (1 + GAP), tile * shape + LABEL
    for place, index in enumerate(which):
        left, top = (place % columns) * step_x, (place // columns) * step_y + LABEL
        extent = (left, left + tile, top + tile * shape, top)
        scale = fm.scale if shared else color_scale(fm.maps[index], signed=fm.scale.kind == "diverging")
        draw_map(axes, fm.maps[index], scale, extent)
        constant = fm.constant[index]
        frame = Rectangle(
            (left, top), tile, tile * shape, fill=False, linewidth=0.4, edgecolor="#9aa0a6", clip_on=False
        )
        if constant:
            frame.set(linestyle=(0, (4, 2)), linewidth=0.9, edgecolor=INK)
        axes.add_patch(frame)
        axes.text(
            left, top - 0.03, str(fm.channels[index]), fontsize=7, color=INK, va="bottom", parse_math=False,
            fontfamily=FONT,
        )  # fmt: skip
        note = _tile_note(fm, index, scale, shared=shared)
        if note:
            axes.text(
                left + tile, top - 0.03, note, fontsize=5.5, color=MUTED, va="bottom", ha="right", parse_math=False,
                fontfamily=FONT,
            )  # fmt: skip
    axes.set_xlim(0, columns * step_x)
    axes.set_ylim(rows * step_y, 0)


def _tile_note(fm: FeatureMaps, index: int, scale: ColorScale, *, shared: bool) -> str:
    low = float(fm.ranges[index][0])
    if math.isnan(low):
        return "no finite value"
    if fm.constant[index]:
        return f"const {number(low)}"
    return "" if shared else f"{number(scale.vmin)} … {number(scale.vmax)}"


def draw_vector(axes: Axes, vector: npt.NDArray[Any], *, labels: bool) -> None:
    """Draw a vector as bars over its index; NaN and Inf are hatched columns, the largest value is named."""
    values = vector.astype(np.float64)
    finite = np.isfinite(values)
    count = values.size
    width = 0.8 if count <= _FEW_BARS else 1.0
    edges: npt.NDArray[Any] = (np.arange(count)[:, None] + [-width / 2, width / 2]).reshape(-1)
    heights: npt.NDArray[Any] = np.where(finite, values, 0.0)
    if width < 1:  # one artist for all bars; the gaps between them are bars of height 0
        heights = np.stack([heights, np.zeros(count)], axis=1).reshape(-1)[:-1]
    else:
        edges = np.arange(count + 1) - 0.5
    axes.stairs(heights, edges, fill=True, color=ACCENT, linewidth=0)
    for index in np.flatnonzero(~finite)[:200]:
        axes.axvspan(index - 0.5, index + 0.5, facecolor="none", edgecolor="black", hatch="////", linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.5)
    axes.set_xlim(-0.5 - 0.01 * count, count - 0.5 + 0.01 * count)
    axes.margins(y=0.35 if labels and count <= _NAMED_BARS else 0.2)
    axes.autoscale_view(scalex=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, width=0.5, length=2.5, labelfontfamily=FONT)
    axes.locator_params(axis="x", integer=True, nbins=10)
    axes.locator_params(axis="y", nbins=4)
    if count <= _NAMED_BARS:
        axes.set_xticks(range(count))
    if labels and finite.any():
        _label_bars(axes, values, finite)


def _label_bars(axes: Axes, values: npt.NDArray[np.float64], finite: npt.NDArray[np.bool_]) -> None:
    """Print every value of a short vector, and the largest one of a long vector."""
    count = values.size
    named = count <= _NAMED_BARS
    largest = int(np.argmax(np.where(finite, values, -np.inf)))
    if not named:
        axes.plot([largest], [values[largest]], marker="o", markersize=2.5, color=INK)
    for index in np.flatnonzero(finite) if named else [largest]:
        above = values[index] >= 0
        text = number(values[index]) if named else f"largest: {number(values[index])} at {index}"
        side = "center" if named else "left" if index < count / 2 else "right"
        axes.annotate(
            text, (index, values[index]), (0, 3 if above else -3), textcoords="offset points", ha=side,
            va="bottom" if above else "top", fontsize=7, color=INK, parse_math=False, fontfamily=FONT,
        )  # fmt: skip
