"""How the units of a layer are distributed: mean activation, how often they are on, and how selective they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.histogram import histogram
from onnxviz.analysis.neurons import NeuronLayer
from onnxviz.analysis.scale import number
from onnxviz.plots.pairs import draw_lines
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, inch_axes

__all__ = ["PANEL_HEIGHT", "draw_panels"]

#: Inches of the panels, without the text above and below.
PANEL_HEIGHT = 1.35
_GAP = 0.55
_BINS = 30


def draw_panels(figure: Figure, layer: NeuronLayer, left: float, top: float, room: float) -> None:
    """Draw the histograms side by side, over all units of the layer.

    Args:
        figure: Where.
        layer: A layer with several samples.
        left, top: The corner, in inches.
        room: Width in inches.
    """
    wide = (room - 4 * _GAP) / 4
    places = [left + _GAP + i * (wide + _GAP) for i in range(4)]
    found = layer.selectivity
    scores = [] if found is None else [
        (found.index, "class selectivity index"), (found.auc, "ROC-AUC for the preferred class")
    ]  # fmt: skip
    scores = [(numbers, label) for numbers, label in scores if np.isfinite(numbers).any()]
    axes = [inch_axes(figure, at, top + 0.25, wide, PANEL_HEIGHT) for at in places[: 2 + len(scores)]]
    _means(axes[0], layer)
    _shares(axes[1], layer)
    for place, (numbers, label) in zip(axes[2:], scores, strict=True):
        _unit_range(place, numbers, label)


def _means(axes: Axes, layer: NeuronLayer) -> None:
    finite = layer.mean[np.isfinite(layer.mean)]
    dead, n = layer.dead & np.isfinite(layer.mean), len(layer.values)
    h = histogram(finite, bins=_BINS, scale="linear")
    axes.stairs(h.counts, h.edges, fill=True, color=ACCENT, linewidth=0)
    if dead.any():
        counts, _ = np.histogram(layer.mean[dead], bins=h.edges)
        axes.stairs(counts, h.edges, fill=True, color=ZERO, linewidth=0)
    word = "never above 0" if layer.signed else "dead (never above 0)"
    said = f"{int(dead.sum())} {word}, {int(layer.always_on.sum())} always on, over {n} samples"
    outside = h.below + h.above
    label = "mean activation" + (f" ({outside} units outside)" if outside else "")
    _finish(axes, label, said, len(finite))


def _shares(axes: Axes, layer: NeuronLayer) -> None:
    finite = layer.share_on[np.isfinite(layer.share_on)]
    _bars(axes, finite)
    rare = int(np.count_nonzero(finite < 0.01))
    _finish(axes, "share of samples above 0", f"{rare} above 0 in less than 1 % of the samples", len(finite))


def _unit_range(axes: Axes, numbers: npt.NDArray[np.float64], label: str) -> None:
    finite = numbers[np.isfinite(numbers)]
    _bars(axes, finite)
    middle = float(np.median(finite))
    said = f"median {number(middle)}"
    if finite.size < numbers.size:
        said += f", not defined for {numbers.size - finite.size}"
    axes.axvline(middle, color=INK, linewidth=0.7, linestyle=(0, (3, 2)))
    _finish(axes, label, said, finite.size)


def _bars(axes: Axes, numbers: npt.NDArray[np.float64]) -> None:
    counts, edges = np.histogram(numbers, bins=_BINS, range=(0, 1))
    axes.stairs(counts, edges, fill=True, color=ACCENT, linewidth=0)
    axes.set_xlim(0, 1)


def _finish(axes: Axes, label: str, said: str, units: int) -> None:
    draw_lines(axes)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.set_xlabel(label, fontsize=7.5, color=INK, fontfamily=FONT, labelpad=2)
    axes.set_ylabel(f"of {units} units", fontsize=7, color=MUTED, fontfamily=FONT, labelpad=2)
    axes.set_title(said, fontsize=7, color=MUTED, fontfamily=FONT, pad=4, loc="left")
