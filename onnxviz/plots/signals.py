"""Channels over time or position as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, inch_axes

__all__ = ["draw_channel_lines", "draw_line", "lines_height", "mark_rows"]

_EACH, _BELOW = 0.42, 0.18  # height of a line, and what is left free below the last, in inches
_MOST_POINTS = 4000  # of a line; of more, neighbours are drawn from their smallest to their largest value


def lines_height(count: int) -> float:
    """Return the inches that ``count`` lines take."""
    return count * _EACH + _BELOW


def mark_rows(axes: Axes, rows: Sequence[int]) -> None:
    """Mark rows of an image at its right edge: those that are drawn as lines."""
    for row in rows:
        axes.annotate(
            "", (1.0, row), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.6, "mutation_scale": 6, "shrinkA": 0,
                        "shrinkB": 0},
        )  # fmt: skip


def draw_channel_lines(
    figure: Figure, fm: FeatureMaps, rows: Sequence[int], box: tuple[float, float, float]
) -> list[Axes]:
    """Draw rows of an image as lines, one below the other on one range of values.

    Args:
        figure: Where to draw.
        fm: An image.
        rows: Rows of ``fm.maps[0]``.
        box: Left, top and width in inches; the height is :func:`lines_height`.

    Returns:
        The axes, one a line.
    """
    left, top, width = box
    values = fm.maps[0][list(rows)]
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.08 * (high - low) or 1.0
    drawn = []
    for place, row in enumerate(rows):
        axes = inch_axes(figure, left, top + place * _EACH, width, _EACH * 0.86)
        draw_line(axes, values[place])
        axes.set_ylim(low - pad, high + pad)
        axes.set_xlim(-0.5, values.shape[1] - 0.5)
        axes.set_xticks([])
        axes.set_yticks([low, high] if place == 0 and high > low else [])
        axes.yaxis.set_major_formatter(lambda at, _: f"{at:.3g}".replace("-", "−"))
        axes.tick_params(labelsize=6, width=0.4, length=2, labelfontfamily=FONT)
        axes.text(
            1.008, 0.5, f"channel {fm.channels[row]}", transform=axes.transAxes, fontsize=7, color=INK, va="center",
            parse_math=False, fontfamily=FONT,
        )  # fmt: skip
        drawn.append(axes)
    return drawn


def draw_line(axes: Axes, values: npt.NDArray[np.float32]) -> None:
    """Draw a signal over its steps, its zero line behind it; NaN and Inf are gaps with a hatched ground."""
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    for start, stop in _runs(bad)[:100]:
        axes.axvspan(start - 0.5, stop - 0.5, facecolor="none", edgecolor="black", hatch="////", linewidth=0)
    axes.axhline(0, color=MUTED, linewidth=0.4)
    at: npt.NDArray[np.float64] = np.arange(values.size, dtype=np.float64)
    shown = np.where(bad, np.nan, values)
    if values.size > _MOST_POINTS:
        at, shown = _envelope(shown)
    axes.plot(at, shown, color=ACCENT, linewidth=0.9, marker="o" if values.size == 1 else None, markersize=2)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_linewidth(0.4)


def _envelope(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the smallest and the largest of neighbours in turn, so that no peak is lost; NaN where all are NaN."""
    each = -(-values.size // (_MOST_POINTS // 2))
    starts = np.arange(0, values.size, each)
    at = np.repeat(starts + (each - 1) / 2, 2)
    both = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    return at, both.reshape(-1)


def _runs(marked: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in changes.reshape(-1, 2)]
