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
from onnxviz.analysis.scale import color_scale, number
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, draw_map, plain

__all__ = ["GAP", "LABEL", "draw_tiles", "draw_vector", "envelope", "short_number", "stairs", "tile_note", "tile_shape"]

#: Gap between tiles, in tile widths.
GAP = 0.06
#: Height of the line above each tile, in inches.
LABEL = 0.2

_NAMED_BARS = 20  # vectors up to this length have every value printed
_FEW_BARS = 64  # and up to this length a gap between their bars
_MOST_BARS, _COLUMNS = 5000, 2000
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
        note = tile_note(fm, index) or ("" if shared else f"{number(scale.vmin)} … {number(scale.vmax)}")
        if note:
            axes.text(
                left + tile, top - 0.03, note, fontsize=5.5, color=MUTED, va="bottom", ha="right", parse_math=False,
                fontfamily=FONT,
            )  # fmt: skip
    axes.set_xlim(0, columns * step_x)
    axes.set_ylim(rows * step_y, 0)


def tile_note(fm: FeatureMaps, index: int) -> str:
    """Return what a tile says that its colours do not: that it is constant, or holds no finite value."""
    low = float(fm.ranges[index][0])
    if math.isnan(low):
        return "no finite value"
    if fm.constant[index]:
        return f"const {number(low)}"
    return ""


def draw_vector(axes: Axes, vector: npt.NDArray[Any], *, labels: bool) -> None:
    """Draw a vector as bars over its index; NaN and Inf are hatched columns, the largest value is named."""
    values = vector.astype(np.float64)
    finite = np.isfinite(values)
    count = values.size
    heights: npt.NDArray[Any] = np.where(finite, values, 0.0)
    if count <= _MOST_BARS:
        stairs(axes, np.zeros(count), heights, 1, color=ACCENT)
    else:
        low, high, each = envelope(np.minimum(heights, 0), np.maximum(heights, 0))
        stairs(axes, low, high, each, color=ACCENT)
        axes.text(
            1, 1.01, f"least and most of every {each} values", transform=axes.transAxes, ha="right", va="bottom",
            fontsize=6, color=MUTED, fontfamily=FONT,
        )  # fmt: skip
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
    axes.yaxis.set_major_formatter(lambda value, position: short_number(value))
    if count <= _NAMED_BARS:
        axes.set_xticks(range(count))
    if labels and finite.any():
        _label_bars(axes, values, finite)


def envelope(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Return the least and most of every so many values, where there are more than a figure has columns for.

    >>> low, high, each = envelope(np.zeros(10000), np.arange(10000.0))
    >>> each, len(high), high[:2].tolist()
    (5, 2000, [4.0, 9.0])
    """
    count = low.size
    each = 1 if count <= _MOST_BARS else math.ceil(count / _COLUMNS)
    starts = np.arange(0, count, each)
    return np.fmin.reduceat(low, starts), np.fmax.reduceat(high, starts), each


def stairs(axes: Axes, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], each: int, **style: Any) -> None:
    """Fill bars from ``low`` to ``high`` as one artist; a few have gaps between them, which are bars of no height."""
    count = low.size
    if count > _FEW_BARS:
        axes.stairs(high, np.arange(count + 1) * each - 0.5, baseline=low, fill=True, linewidth=0, **style)
        return
    edges = (np.arange(count)[:, None] + [-0.4, 0.4]).reshape(-1)
    ends = [np.stack([side, low], axis=1).reshape(-1)[:-1] for side in (high, low)]
    axes.stairs(ends[0], edges, baseline=ends[1], fill=True, linewidth=0, **style)


def short_number(value: float) -> str:
    """Return a number in few characters, for the ticks of small axes.

    >>> short_number(-25000.0), short_number(0.5), short_number(1e10)
    ('−2.5e4', '0.5', '1e10')
    """
    text = f"{value + 0.0:.4g}" if abs(value) < 10_000 else f"{value:.3e}"
    head, e, power = text.partition("e")
    if e:
        head = head.rstrip("0").rstrip(".") if "." in head else head
        text = f"{head}e{int(power)}"
    return text.replace("-", "−")


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
