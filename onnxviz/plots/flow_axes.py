"""The axes that the panels of a flow share: layers across, signed-logarithmic values up, groups as bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.flow_plan import Stage
from onnxviz.diagram.palette import KIND_TITLES, kind_style
from onnxviz.plots.style import FONT, INK, MUTED, figure_text, inch_axes, plain, safe

__all__ = [
    "bands", "depth_axis", "envelope", "free_axes", "kind_legend", "linear_middle", "log_axis", "ribbon_axis",
    "runs_of_groups", "shade", "spread", "strip",
]  # fmt: skip

_MOST_LABELS = 60
_MOST_GROUPS = 28
_DECADES = 7  # that the axis shows on one side, at most
_TICKS = 9

Groups = Sequence[tuple[str, int, int]]


def runs_of_groups(stages: Sequence[Stage]) -> list[tuple[str, int, int]]:
    """Return neighbouring layers of one group: its name, first and last; empty where the model has no groups.

    Taken is the deepest level of the hierarchy that gives at most 28 runs, of three layers on average or more.
    """
    best: list[tuple[str, int, int]] = []
    for level in range(1, 1 + max((len(stage.scope) for stage in stages), default=0)):
        runs: list[tuple[tuple[str, ...], int, int]] = []
        for place, stage in enumerate(stages):
            path = stage.scope[:level]
            if runs and runs[-1][0] == path:
                runs[-1] = (path, runs[-1][1], place)
            else:
                runs.append((path, place, place))
        named = [run for run in runs if run[0]]
        if len(named) > min(_MOST_GROUPS, len(stages) // 3):
            break
        if len(named) > 1:
            best = [("/".join(path), first, last) for path, first, last in named]
    return best


def bands(axes: Axes, groups: Groups, count: int, inches: float) -> None:
    """Draw the groups as a row of boxes, named where the name fits."""
    plain(free_axes(axes, count)).set_ylim(0, 1)
    for place, (name, first, last) in enumerate(groups):
        axes.axvspan(first - 0.5, last + 0.5, color="#dfe5ec" if place % 2 else "#eef1f5", linewidth=0)
        room = int((last - first + 1) * inches / count / 0.068)
        parts = name.split("/")  # as many of the last ones as there is room for
        short = next((t for i in range(len(parts)) if len(t := "/".join(parts[i:])) <= room), parts[-1])
        if len(short) <= room or room >= 8:
            style: dict[str, Any] = {"fontsize": 6.5, "color": INK, "fontfamily": FONT, "parse_math": False}
            axes.text((first + last) / 2, 0.46, safe(short, room), ha="center", va="center", **style)


def shade(axes: Axes, groups: Groups) -> None:
    """Shade every second group."""
    for _, first, last in groups[1::2]:
        axes.axvspan(first - 0.5, last + 0.5, color="#f3f5f8", linewidth=0, zorder=-2)


def free_axes(axes: Axes, count: int) -> Axes:
    """Give axes the layers as x axis, without labels."""
    axes.set_xlim(-0.6, count - 0.4)
    axes.set_xticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, width=0.5, length=2.5, labelfontfamily=FONT)
    return axes


def depth_axis(axes: Axes, labels: Sequence[str]) -> Axes:
    """Write the names of layers, at most 60, evenly thinned."""
    free_axes(axes, len(labels))
    step = max(1, -(-len(labels) // _MOST_LABELS))
    places = range(0, len(labels), step)
    axes.set_xticks(places, [labels[i] for i in places], rotation=90, fontsize=6.5, parse_math=False, fontfamily=FONT)
    axes.tick_params(axis="x", length=2, pad=1.5)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    return axes


def strip(axes: Axes, kinds: Sequence[str]) -> None:
    """Colour the layers by their kind, as in diagrams."""
    axes.set_ylim(0, 1)
    for place, kind in enumerate(kinds):
        style = kind_style(kind)
        edge = style.stroke if len(kinds) <= 120 else "none"
        axes.bar(place, 1, 0.86, color=style.fill, edgecolor=edge, linewidth=0.4)


def kind_legend(figure: Figure, kinds: Sequence[str], left: float, top: float) -> None:
    """Write what the colours of the strip stand for, in one line from (left, top), in inches."""
    occurring = set(kinds)
    for kind, title in KIND_TITLES.items():
        if kind in occurring:
            style = kind_style(kind)
            box = plain(inch_axes(figure, left, top + 0.01, 0.13, 0.1))
            box.set_facecolor(style.fill)
            box.spines[:].set(visible=True, color=style.stroke, linewidth=0.5)
            figure_text(figure, left + 0.18, top - 0.015, title, fontsize=7, color=MUTED)
            left += 0.36 + 0.055 * len(title)


def linear_middle(table: npt.NDArray[np.float64], rms: Sequence[float]) -> float:
    """Return up to which magnitude an axis is linear: the decade of the smaller RMS values, or 7 below the largest.

    >>> linear_middle(np.array([[-10.0, 10.0]]), [0.3, 2.0])
    0.1
    """
    finite = np.abs(table[np.isfinite(table)])
    largest = float(finite.max(initial=0.0))
    if not largest:
        return 1.0
    low = float(np.percentile(rms, 10, method="lower")) if len(rms) else largest / 1e3
    exponent = max(math.floor(math.log10(max(low, 1e-300)) + 0.05), math.ceil(math.log10(largest)) - _DECADES)
    return float(10.0 ** min(exponent, math.floor(math.log10(largest))))


def envelope(table: npt.NDArray[np.float64], step: int) -> npt.NDArray[np.float64]:
    """Return quantiles of every ``step`` layers as one: the lowest low ones, the median median, the highest high ones.

    Args:
        table: ``(layers, 7)``, with NaN where a layer has none.
        step: Layers a row of the result.

    >>> envelope(np.array([[0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 9.0]]), 2).tolist()
    [[0.0, 1.0, 1.0, 2.0, 4.0, 5.0, 9.0]]
    """
    if step == 1:
        return table
    rows = []
    for start in range(0, len(table), step):
        part = table[start : start + step]
        part = part[~np.isnan(part[:, 0])]
        ends = (part[:, :3].min(axis=0), np.median(part[:, 3:4], axis=0), part[:, 4:].max(axis=0)) if len(part) else ()
        rows.append(np.concatenate(ends) if len(part) else np.full(7, np.nan))
    return np.array(rows)


def spread(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], step: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Return place, smallest, median and largest of the values of every ``step`` layers."""
    bins = (x // step).astype(np.int64)
    found = [(bin_ * step + (step - 1) / 2, y[bins == bin_]) for bin_ in np.unique(bins)]
    return tuple(np.array([(at, part.min(), np.median(part), part.max()) for at, part in found]).T)


def ribbon_axis(axes: Axes, table: npt.NDArray[np.float64], rms: Sequence[float]) -> None:
    """Give axes a scale that is linear around zero and logarithmic beyond, with ticks at decades."""
    middle = linear_middle(table, rms)
    finite = table[np.isfinite(table)]
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    axes.set_yscale("symlog", linthresh=middle, linscale=0.6)
    axes.set_ylim(low * 1.6 if low < 0 else -0.15 * middle, high * 1.6 if high > 0 else 0.15 * middle)
    first = round(math.log10(middle))
    ends = [(sign, math.floor(math.log10(end))) for sign, end in ((-1, -low), (1, high)) if end >= middle]
    step = max(1, -(-sum(last - first + 1 for _, last in ends) // _TICKS))
    powers = [(sign, p) for sign, last in ends for p in range(first, last + 1) if (p - first) % step == 0]
    axes.set_yticks([0.0, *(sign * 10.0**p for sign, p in powers)], ["0", *(_power(s, p) for s, p in powers)])
    axes.minorticks_off()
    axes.axhline(0, color=MUTED, linewidth=0.5, zorder=1)


def _power(sign: int, power: int) -> str:
    text = f"{10.0**power:g}" if -4 < power < 5 else f"1e{power}"
    return f"−{text}" if sign < 0 else text


def log_axis(axes: Axes, values: Sequence[float], most: int = 6) -> None:
    """Give axes a logarithmic scale with ticks at decades, at least one decade high and with ``most`` ticks at most.

    Where only one decade falls inside, there are ticks at 2 and 5 as well: one number is no scale.
    """
    axes.set_yscale("log")
    low, high = (min(values), max(values)) if values else (0.1, 1.0)
    middle = math.sqrt(low) * math.sqrt(high)
    axes.set_ylim(min(low / 1.5, middle / 4), max(high * 1.5, middle * 4))
    bottom, top = (math.log10(end) for end in axes.get_ylim())
    powers = range(math.ceil(bottom), math.floor(top) + 1)
    step = max(1, -(-len(powers) // most))
    shown = [p for p in powers if p % step == 0] or list(powers)
    ticks = [(10.0**p, _power(1, p)) for p in shown]
    if len(ticks) < 2:
        between = [(digit, p) for p in range(math.floor(bottom), math.floor(top) + 1) for digit in (1, 2, 5)]
        ticks = [(digit * 10.0**p, f"{digit * 10.0**p:g}") for digit, p in between]
        ticks = [(at, text) for at, text in ticks if axes.get_ylim()[0] <= at <= axes.get_ylim()[1]]
    axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    axes.minorticks_off()
