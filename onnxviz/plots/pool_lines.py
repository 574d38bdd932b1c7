"""Pooled signals as lines, and what global pooling leaves as bars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.pooling import PoolView
from onnxviz.plots.pairs import draw_lines, side_text
from onnxviz.plots.pool_part import TILE, pool_part
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, inch_axes
from onnxviz.plots.tiles import GAP, LABEL, draw_tiles, envelope, short_number, stairs, tile_shape

__all__ = ["BARS", "LINE", "bar_tile", "draw_bars", "draw_signals", "signal_count"]

LINE = 0.62  # inches of a signal's axes
BARS = 1.0  # inches of the bars
_MOST_SIGNALS = 24
_LINES = 200  # values from which bars would be too narrow to be seen apart


def bar_tile(view: PoolView) -> float:
    """Return the inches across of a map that is drawn above bars."""
    return 0.95 if view.windows is None else TILE


def signal_count(view: PoolView) -> int:
    """Return how many channels of a signal are drawn."""
    return min(len(view.signals), _MOST_SIGNALS)


def draw_signals(figure: Figure, view: PoolView, top: float, left: float, band: float) -> None:
    """Draw the chosen channels of a signal: a line before, dots that survive, steps after."""
    assert view.windows is not None
    part = pool_part(view)
    (start, end), (first, last) = part.area[0], part.out[0]
    stride, pad = view.windows.strides[0], view.windows.pads[0]
    before, after = view.before.maps[0], view.after.maps[0]
    length = before.shape[1]
    strongest = list(view.signals[: signal_count(view)])
    both = np.concatenate([before[strongest].reshape(-1), after[strongest].reshape(-1)]).astype(np.float64)
    both = both[np.isfinite(both)]
    low, high = float(both.min(initial=0.0)), float(both.max(initial=0.0))
    room = 0.12 * (high - low) or 1.0
    for place, channel in enumerate(strongest):
        axes = inch_axes(figure, left + 0.35, top + 0.12 + place * (LINE + 0.14), band - 0.35, LINE)
        inside = np.arange(max(start, 0), min(end, length))
        axes.plot(inside, before[channel, inside], color=ACCENT, linewidth=0.9, label="before")
        edges = np.arange(first, last + 1) * stride - pad - 0.5
        axes.stairs(after[channel, first:last], edges, baseline=None, color=ZERO, linewidth=1.0, label="after")
        if view.survivors is not None:
            for tied, fill in ((False, INK), (True, "white")):
                among = view.survivors.tied[channel, first:last] == tied
                at = view.survivors.positions[channel, first:last, 0][among]
                at = at[at >= 0]
                axes.plot(
                    at, before[channel, at], linestyle="none", marker="o", markersize=2.6, markerfacecolor=fill,
                    markeredgecolor=INK, markeredgewidth=0.5,
                )  # fmt: skip
        axes.set_xlim(start - 0.5, end - 0.5)
        axes.set_ylim(low - room, high + room)
        draw_lines(axes)
        axes.locator_params(axis="y", nbins=3)
        axes.set_ylabel(str(channel), fontsize=7, rotation=0, ha="right", va="center", fontfamily=FONT)
        if place + 1 < len(strongest):
            axes.set_xticklabels([])
        if place == 0:
            axes.legend(
                frameon=False, loc="lower right", ncols=2, bbox_to_anchor=(1.0, 0.92),
                prop={"family": FONT, "size": 6.5},
            )  # fmt: skip


def draw_bars(figure: Figure, view: PoolView, top: float, left: float, band: float) -> None:
    """Draw some maps before, and below them what is left of every channel as bars over the range that it had."""
    tile = bar_tile(view)
    columns = int(band / (tile * (1 + GAP)))
    which = range(min(columns, len(view.before.maps)))
    tall = tile * tile_shape(view.before.maps) + LABEL
    axes = inch_axes(figure, left, top, columns * tile * (1 + GAP), tall)
    draw_tiles(axes, view.before, which, columns, tile)
    side_text(figure, left - 0.12, top + LABEL, tall - LABEL, "before")
    bars = inch_axes(figure, left + 0.3, top + tall + 0.1, band - 0.3, BARS)
    _survivor_dots(axes, view, columns, tile)
    values = np.nan_to_num(view.after.maps.reshape(-1).astype(np.float64))
    if view.spans is not None:
        low, high, each = envelope(view.spans[:, 0], view.spans[:, 1])
        stairs(bars, low, high, each, color="#c9d3de", zorder=1)
    _values(bars, values)
    bars.axhline(0, color=INK, linewidth=0.5)
    bars.set_xlim(-0.8, values.size - 0.2)
    bottom, top_ = bars.get_ylim()
    bars.set_ylim(bottom - 0.06 * (top_ - bottom), top_ + 0.06 * (top_ - bottom))
    draw_lines(bars)
    bars.locator_params(axis="y", nbins=4)
    bars.yaxis.set_major_formatter(lambda value, position: short_number(value))
    bars.set_xlabel(
        "channel" + (" · blue: what leaves · grey: smallest to largest before" if view.spans is not None else ""),
        fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1,
    )  # fmt: skip
    side_text(figure, left - 0.12, top + tall + 0.1, BARS, "after")


def _values(bars: Axes, values: npt.NDArray[np.float64]) -> None:
    """Draw what leaves: a mark a channel, a line where they are many, and of very many the range of each column."""
    low, high, each = envelope(values, values)
    if each > 1:
        stairs(bars, low, high, each, color=ACCENT, zorder=2)
    elif values.size > _LINES:
        bars.stairs(values, np.arange(values.size + 1) - 0.5, baseline=None, color=ACCENT, linewidth=0.8, zorder=2)
    else:
        at = np.arange(values.size)
        bars.hlines(values, at - 0.4, at + 0.4, color=ACCENT, linewidth=1.6, zorder=2)


def _survivor_dots(axes: Axes, view: PoolView, columns: int, tile: float) -> None:
    """Mark where the largest value of each channel lies; hollow where it is not alone."""
    if view.survivors is None or view.before.maps.ndim != 3:
        return
    rows, width = view.before.maps.shape[-2:]
    tall = tile * tile_shape(view.before.maps)
    for place in range(min(columns, len(view.before.maps))):
        row, column = view.survivors.positions[place].reshape(-1)[-2:]
        if row >= 0:
            axes.plot(
                place * tile * (1 + GAP) + tile * (column + 0.5) / width, LABEL + tall * (row + 0.5) / rows,
                linestyle="none", marker="o", markersize=4, markeredgecolor="white", markeredgewidth=0.6,
                markerfacecolor="none" if view.survivors.tied[place].any() else "black",
            )  # fmt: skip
