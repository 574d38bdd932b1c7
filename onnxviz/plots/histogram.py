"""Histograms of weights as figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.scale import number
from onnxviz.analysis.weights import LayerWeights
from onnxviz.plots.style import ACCENT, FONT, ZERO, inch_axes
from onnxviz.plots.weights import MARGIN, TOP, dequantised, label_axes, weight_figure

__all__ = ["draw_histogram", "histogram_notes", "plot_histogram"]

Array = npt.NDArray[Any]

_SPIKE = 0.05  # share of zeros from which they have a colour of their own


def plot_histogram(lw: LayerWeights, *, ax: Axes | None = None) -> Figure:
    """Draw the histogram of a weight's values; zeros are a colour of their own, what no bin holds is counted beside.

    Args:
        lw: Any weight.
        ax: Axes to draw into, without heading and caption; None makes a figure.

    Raises:
        ModelError: The weight cannot be read.
    """
    if ax is not None:
        draw_histogram(ax, lw)
        return ax.figure  # type: ignore[return-value]
    figure = weight_figure(lw, 5.6, 3.0, [*histogram_notes(lw), *dequantised(lw)])
    axes = inch_axes(figure, MARGIN + 0.5, TOP, 5.1, 2.6)
    draw_histogram(axes, lw)
    label_axes(axes, "value", "count")
    return figure


def histogram_notes(lw: LayerWeights) -> list[str]:
    """Return what the bars of a histogram do not say: zeros, values outside of the bins, NaN and Inf."""
    h = lw.histogram
    notes = [f"{h.total} values in {len(h.counts)} {h.scale} bins"]
    if h.zero:
        notes.append(f"{100 * h.zero / h.total:.3g} % zero" + (" (orange)" if h.zero >= _SPIKE * h.total else ""))
    counts = ((h.below, "below the first bin"), (h.above, "above the last bin"), (h.nan, "NaN"), (h.inf, "Inf"))
    return notes + [f"{count} {what}" for count, what in counts if count]


def draw_histogram(axes: Axes, lw: LayerWeights) -> None:
    """Draw a histogram into axes; the count axis leaves room for the bars that are not zeros, taller ones are cut."""
    h = lw.histogram
    other = h.counts.copy()
    zero_bin = h.zero_bin
    if zero_bin is not None:
        other[zero_bin] -= h.zero
    spike = h.zero >= _SPIKE * h.total
    axes.stairs(other if spike else h.counts, h.edges, fill=True, color=ACCENT, linewidth=0)
    if zero_bin is not None and h.zero and spike:
        bars = slice(zero_bin, zero_bin + 1)
        axes.stairs(
            h.counts[bars], h.edges[zero_bin : zero_bin + 2], baseline=other[bars],
            fill=True, color=ZERO, linewidth=0,
        )  # fmt: skip
    tallest = int((other if spike else h.counts).max(initial=0))
    top = max(tallest * 1.4 if tallest else int(h.counts.max(initial=0)) * 1.1, 1.0)
    axes.set_ylim(0, top)
    if h.counts.max(initial=0) > top and zero_bin is not None and spike:
        axes.annotate(
            f"{number(float(h.zero))} zeros ↑", (float(h.edges[zero_bin + 1]), top), (2, -2),
            textcoords="offset points", fontsize=6.5, color=ZERO, va="top", fontfamily=FONT, parse_math=False,
        )  # fmt: skip
    if h.scale == "symlog":
        _symlog_axis(axes, h.edges[1:][np.flatnonzero(h.counts)], h.edges)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, width=0.5, length=2.5, labelfontfamily=FONT)
    if h.scale == "linear":
        axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=4, integer=True)
    axes.yaxis.set_major_formatter(_count)


def _count(value: float, position: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def _symlog_axis(axes: Axes, used: Array, edges: Array) -> None:
    positive = edges[edges > 0]
    axes.set_xscale("symlog", linthresh=float(positive[0]), linscale=0.5)
    if used.size:
        low, high = float(used.min()), float(used.max())
        axes.set_xlim(low * 10 if low < 0 else -float(positive[0]), high * 10 if high > 0 else float(positive[0]))
    _decade_ticks(axes, float(positive[0]))


def _decade_ticks(axes: Axes, least: float) -> None:
    """Mark zero and some of the decades that lie beyond the linear part; those within it would be on top of zero."""
    left, right = axes.get_xlim()
    first = math.ceil(math.log10(least))
    sides = [(sign, math.floor(math.log10(end))) for sign, end in ((-1, -left), (1, right)) if end > least]
    step = max(1, -(-sum(last - first + 1 for _, last in sides) // 8))
    decades = [(sign, power) for sign, last in sides for power in range(first + 1, last + 1) if power % step == 0]
    axes.set_xticks([0.0, *(sign * 10.0**power for sign, power in decades)])
    axes.minorticks_off()
