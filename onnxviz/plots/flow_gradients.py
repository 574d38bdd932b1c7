"""What the picture of a flow shows of gradients alone: their axis, the share that is 0, and weights' gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from onnxviz.analysis.flow import Flow
from onnxviz.analysis.gradient_statistics import WeightGradient
from onnxviz.plots.flow_axes import log_axis
from onnxviz.plots.style import FONT, INK, MUTED

__all__ = ["GRADIENTS", "RATIOS", "ZEROS", "magnitude_axis", "weight_ratios", "zero_shares"]

#: Colour of gradients.
GRADIENTS = "#1b7f5c"
#: Heights of the panels, in inches.
ZEROS, RATIOS = 0.42, 0.95
_DECADES = 12  # that the axis of magnitudes shows below the largest
_LENGTHS = "|∇W| / |W|"


def magnitude_axis(axes: Axes, table: npt.NDArray[np.float64]) -> None:
    """Give axes a logarithmic scale for magnitudes, the 1 % quantiles at its lower end, at most 12 decades.

    Args:
        axes: The axes.
        table: ``(layers, 7)`` quantiles of the magnitudes that are not 0.
    """
    high = float(table[:, -1].max()) if len(table) else 1.0
    low = max(float(table[:, 1].min()) if len(table) else 0.1, high * 10.0**-_DECADES)
    log_axis(axes, [low, high], 9)


def zero_shares(axes: Axes, flow: Flow, step: int) -> None:
    """Draw the share of each layer's gradients that is exactly 0 as bars; of several layers a place, the largest."""
    series = next(one for one in flow.series if one.name == "gradients")
    shares = np.array([np.nan if row is None else row.zero for row in series.layers])
    places = np.arange(0, len(shares), step)
    tops = [part[~np.isnan(part)].max(initial=0.0) for part in np.split(shares, places[1:])]
    axes.bar(places + (step - 1) / 2, tops, 0.8 * step, color=GRADIENTS, alpha=0.55, linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], ["0", "100 %"])
    axes.set_ylabel("= 0", fontsize=9, color=INK, fontfamily=FONT)


def weight_ratios(axes: Axes, flow: Flow, step: int) -> None:
    """Draw, at each layer with weights, the L2 norm of their gradient by theirs, and its deviation between batches."""
    assert flow.gradients is not None
    by_layer: dict[str, WeightGradient] = {}
    for one in flow.gradients.weights:
        if one.role in ("weight", "embedding") and one.ratio and one.leaving not in by_layer:
            by_layer[one.leaving] = one
    stages = [(place, by_layer.get(stage.name)) for place, stage in enumerate(flow.stages)]
    points = [(place, one.ratio, one.deviation, one.weight_norm) for place, one in stages if one and one.ratio]
    if not points:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no weight has a gradient", transform=axes.transAxes, ha="center", color=MUTED, fontsize=8)
        return
    x = np.array([place for place, *_ in points])
    y = np.array([ratio for _, ratio, *_ in points])
    spread = np.array([(deviation or 0.0) / norm for *_, deviation, norm in points])
    log_axis(axes, [y.min() / 1.6, (y + spread).max() * 1.2], 4)
    if spread.any():
        axes.vlines(x, y, y + spread, color=GRADIENTS, alpha=0.45, linewidth=max(0.6, 2.2 / step))
    axes.plot(x, y, "o", color=GRADIENTS, markersize=3.2 if len(x) < 90 else 1.6)
    axes.set_ylabel(_LENGTHS, fontsize=9, color=INK, fontfamily=FONT)
    if spread.any():
        said = "L2 norms; dot: the mean gradient by the weight; line: + standard deviation between batches"
        axes.set_title(said, fontsize=6.5, color=MUTED, loc="right", pad=1.5, fontfamily=FONT)
