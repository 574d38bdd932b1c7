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
        shared: Whether all tiles are on the shared scale; slices of one channel always are on one.
    """
    plain(axes)
    shape = tile_shape(fm.maps)
    rows = math.ceil(len(which) / columns)
    step_x, step_y = tile * (1 + GAP), tile * shape + LABEL
    for place, index in enumerate(which):
        left, top = (place % columns) * step_x, (place // columns) * step_y + LABEL
        extent = (left, left + tile, top + tile * shape, top)
        scale = fm.scale if shared else _own_scale(fm, index)
        draw_map(axes, fm.maps[index], scale, extent)
        frame = Rectangle(
            (left, top), tile, tile * shape, fill=False, linewidth=0.4, edgecolor="#9aa0a6", clip_on=False
        )
        if fm.constant[index]:
            frame.set(linestyle=(0, (4, 2)), linewidth=0.9, edgecolor=INK)
        axes.add_patch(frame)
        label = str(fm.channels[index])
        if fm.strip > 1:
            label += f" · {fm.cut} {fm.slices[index]}" if tile >= 0.75 else f" · {fm.slices[index]}"
        _text(axes, (left, top - 0.03), label, fontsize=7)
        note = tile_note(fm, index) or ("" if shared else f"{number(scale.vmin)} … {number(scale.vmax)}")
        note = note if index % fm.strip == 0 or not shared else ""
        if note and (fm.strip == 1 or index % fm.strip == fm.strip - 1 or shared):
            _text(axes, (left + tile, top - 0.03), note, fontsize=5.5, color=MUTED, ha="right")
        elif fm.aside and tile >= 0.6:
            _draw_aside(axes, fm, index, scale, (left + tile, top - 0.035))
    axes.set_xlim(0, columns * step_x)
    axes.set_ylim(rows * step_y, 0)


def _text(axes: Axes, where: tuple[float, float], text: str, **style: Any) -> None:
    settings: dict[str, Any] = {"color": INK, "va": "bottom", "fontfamily": FONT} | style
    axes.text(*where, text, parse_math=False, **settings)


def _own_scale(fm: FeatureMaps, index: int) -> ColorScale:
    """Return the scale of one channel, all its slices that are shown together."""
    start = index - index % fm.strip
    return color_scale(fm.maps[start : start + fm.strip], signed=fm.scale.kind == "diverging")


def _draw_aside(axes: Axes, fm: FeatureMaps, index: int, scale: ColorScale, corner: tuple[float, float]) -> None:
    """Draw the tokens beside the patches as small squares above a tile, on its scale; a single one has its name."""
    side = 0.1
    right, bottom = corner
    for place, (_, values) in enumerate(reversed(fm.aside)):
        left = right - (place + 1) * side - 0.015 * place
        draw_map(axes, values[index : index + 1, None], scale, (left, left + side, bottom, bottom - side))
        axes.add_patch(Rectangle((left, bottom - side), side, side, fill=False, linewidth=0.4, edgecolor="#9aa0a6"))
    if len(fm.aside) == 1:
        _text(axes, (right - side - 0.03, bottom + 0.005), fm.aside[0][0], fontsize=5.5, color=MUTED, ha="right")


def tile_note(fm: FeatureMaps, index: int) -> str:
    """Return what a tile says that its colours do not: that it is constant, or holds no finite value."""
    low = float(fm.ranges[index][0])
    if math.isnan(low):
        return "no finite value"
    return f"const {number(low)}" if fm.constant[index] else ""


def draw_vector(axes: Axes, vector: npt.NDArray[Any], *, labels: bool, channels: Sequence[int] | None = None) -> None:
    """Draw a vector as bars over its index; NaN and Inf are hatched columns, the largest value is named.

    Of more than 5,000 values neighbours are drawn together as one bar, from the smallest to the largest of them.

    Args:
        axes: Where to draw.
        vector: ``(K,)``.
        labels: Print every value of a short vector, and the largest one of a long vector.
        channels: The index of each value, where they are not counted from 0.
    """
    values = vector.astype(np.float64)
    finite = np.isfinite(values)
    count = values.size
    named = [int(i) for i in (channels if channels is not None else range(count))]
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
    if named != list(range(count)):
        axes.xaxis.set_major_formatter(
            lambda at, _: str(named[round(at)]) if 0 <= at < count and at == round(at) else ""
        )
    if labels and finite.any():
        _label_bars(axes, values, finite, named)


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


def _label_bars(
    axes: Axes, values: npt.NDArray[np.float64], finite: npt.NDArray[np.bool_], channels: Sequence[int]
) -> None:
    """Print every value of a short vector, and the largest one of a long vector."""
    count = values.size
    named = count <= _NAMED_BARS
    largest = int(np.argmax(np.where(finite, values, -np.inf)))
    if not named:
        axes.plot([largest], [values[largest]], marker="o", markersize=2.5, color=INK)
    for index in np.flatnonzero(finite).tolist() if named else [largest]:
        above = values[index] >= 0
        text = number(values[index]) if named else f"largest: {number(values[index])} at {channels[index]}"
        side = "center" if named else "left" if index < count / 2 else "right"
        axes.annotate(
            text, (index, values[index]), (0, 3 if above else -3), textcoords="offset points", ha=side,
            va="bottom" if above else "top", fontsize=7, color=INK, parse_math=False, fontfamily=FONT,
        )  # fmt: skip
