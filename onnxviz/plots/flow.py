"""A model through its depth, as a figure: ribbons of quantiles, RMS, and the stretches that a reader should look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.flow import QUANTILE_ERROR, Flow, Series
from onnxviz.analysis.flow_marks import KINDS_OF_MARKS, meaning
from onnxviz.plots.flow_axes import (
    bands,
    depth_axis,
    envelope,
    free_axes,
    kind_legend,
    log_axis,
    ribbon_axis,
    runs_of_groups,
    shade,
    spread,
    strip,
)
from onnxviz.plots.flow_gradients import GRADIENTS, RATIOS, ZEROS, magnitude_axis, weight_ratios, zero_shares
from onnxviz.plots.pairs import MARGIN, footer_lines, head
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, figure_text, inch_axes, new_figure, safe, wrap_caption

__all__ = ["plot_flow"]

_COLORS = {"activations": ACCENT, "weights": "#8a5a9e", "gradients": GRADIENTS}
_OTHER = "#8c6d31"
_MARKED = {
    "not finite": "#7b2cbf", "exploding": "#c92a2a", "vanishing": "#1864ab", "saturated": "#d9822b",
    "silent": "#9a6700", "dead": "#495057", "constant": "#0b7285", "low rank": "#2b8a3e", "same tokens": "#5c940d",
    "zero": "#868e96",
}  # fmt: skip
_LEFT, _RIGHT = 1.05, 0.35
_RIBBON, _RMS, _LANE, _GAP, _STRIP, _BAND, _LEGEND = 2.5, 1.45, 0.19, 0.16, 0.11, 0.2, 0.16
_MOST_TEXTS = 12
_MOST_PLACES = 600


def plot_flow(flow: Flow) -> Figure:
    """Draw the series of a flow over the layers.

    A panel a series: nested ribbons from the smallest to the largest value, 1 to 99 % and 25 to 75 %, the median as a
    line, on an axis that is logarithmic on both sides of a linear middle; a series that many layers have no part in is
    drawn as bars. Below them RMS and standard deviation on a logarithmic axis, and a lane for each kind of stretch that
    was marked. Gradients have a logarithmic axis, for the magnitudes that are not 0; the share that is exactly 0 stands
    below it as bars, and the norm of each weight's gradient by that of the weight, with its deviation between batches.

    Args:
        flow: What to draw; any number of series.
    """
    count = len(flow.stages)
    lanes = [(series, kind) for series in flow.series for kind in _kinds(series)]
    texts = _texts(flow)
    groups = runs_of_groups(flow.stages)
    labels = [safe(stage.layer, 26) for stage in flow.stages]
    width = min(max(2.6 + 0.17 * count, 8.6), 14.5)
    lines = _lines(flow, width)
    top = 0.58 + 0.18 * len(lines) + (_BAND + 0.05 if groups else 0.0)
    under = 0.1 + 0.062 * max(map(len, labels), default=0)
    below = under + 0.2 + 0.17 * len(texts) + 0.25
    more = ZEROS + RATIOS + 2 * _GAP if flow.gradients is not None else 0.0
    body = (
        len(flow.series) * (_RIBBON + _GAP) + more + _LEGEND + _RMS + _GAP + _LANE * max(len(lanes), 1) + 0.1 + _STRIP
    )
    figure = new_figure(width, top + body + below)
    head(figure, f"Flow through the depth of {flow.model_name}", lines)
    across = width - _LEFT - _RIGHT
    if groups:
        bands(inch_axes(figure, _LEFT, top - _BAND - 0.03, across, _BAND), groups, count, across)
    at = top
    for series in flow.series:
        axes = inch_axes(figure, _LEFT, at, across, _RIBBON)
        _ribbons(axes, series)
        _finish(axes, flow, groups)
        at += _RIBBON + _GAP
        if series.name == "gradients" and flow.gradients is not None:
            for draw, high in ((zero_shares, ZEROS), (weight_ratios, RATIOS)):
                axes = inch_axes(figure, _LEFT, at, across, high)
                draw(axes, flow, _step(count))
                _finish(axes, flow, groups)
                at += high + _GAP
    at += _LEGEND
    axes = inch_axes(figure, _LEFT, at, across, _RMS)
    _rms(axes, flow)
    _finish(axes, flow, groups)
    at += _RMS + _GAP
    at += _lanes(figure, flow, lanes, (at, across), groups)
    foot = depth_axis(inch_axes(figure, _LEFT, at + 0.1, across, _STRIP), labels)
    if _step(count) == 1:  # in deeper models colours would say only which layers a pixel happens to meet
        strip(foot, [stage.kind for stage in flow.stages])
    if _step(count) == 1:
        kind_legend(figure, [stage.kind for stage in flow.stages], _LEFT, top + body + under)
    for place, text in enumerate(texts):
        figure_text(
            figure, MARGIN, top + body + below - 0.2 - 0.17 * (len(texts) - place), text, fontsize=7.5, color=INK
        )
    return figure


def _lines(flow: Flow, width: float) -> list[str]:
    samples = next((series.samples for series in flow.series if series.samples is not None), None)
    parts = [f"{len(flow.stages):,} layers by depth"]
    parts += [f"{samples:,} sample{'s' if samples != 1 else ''}"] if samples is not None else []
    parts.append("ribbons: smallest to largest value, 1 to 99 %, 25 to 75 %; line: median")
    parts.append(f"quantiles between are off by at most {QUANTILE_ERROR:.0%} of their magnitude")
    step = _step(len(flow.stages))
    parts += [f"a place stands for {step} layers: outermost ribbons, median of the lines"] if step > 1 else []
    return wrap_caption([*parts, *(safe(note, 200) for note in flow.notes)], width - 0.8).split("\n")


def _kinds(series: Series) -> list[str]:
    found = {mark.kind for mark in series.marks}
    return [kind for kind in KINDS_OF_MARKS if kind in found]


def _color(series: Series) -> str:
    return _COLORS.get(series.name, _OTHER)


def _step(count: int) -> int:
    """Return how many layers one place of the picture stands for."""
    return max(1, -(-count // _MOST_PLACES))


def _ribbons(axes: Axes, series: Series) -> None:
    """Draw the quantiles of a series, as ribbons or, where layers are left out, as bars."""
    color, step = _color(series), _step(len(series.layers))
    rows = [row.quantiles if row is not None and row.quantiles else None for row in series.layers]
    single = np.array([row if row is not None else [np.nan] * 7 for row in rows], np.float64).reshape(-1, 7)
    some = single[~np.isnan(single[:, 0])]
    if series.name == "gradients" and (not len(some) or some.min() > 0):
        magnitude_axis(axes, some)
    else:
        ribbon_axis(axes, some, [r.rms for r in series.layers if r is not None and r.rms])
    table, places = envelope(single, step), (np.arange(0, len(single), step) + (step - 1) / 2)
    known = ~np.isnan(table[:, 0])
    whole = known.sum() > 0.8 * len(known)
    for (low, high), alpha, wide in (((0, 6), 0.16, 0.16), ((1, 5), 0.3, 0.4), ((2, 4), 0.55, 0.75)):
        if whole:
            axes.fill_between(places, table[:, low], table[:, high], color=color, alpha=alpha, linewidth=0)
        else:
            bottom, top = table[known, low], table[known, high]
            axes.bar(places[known], top - bottom, wide * step, bottom, color=color, alpha=alpha, linewidth=0)
    if whole:
        dots = 2.0 if len(known) < 90 else 0
        axes.plot(places, table[:, 3], color=INK, linewidth=0.8, marker="o", markersize=dots)
    else:
        axes.hlines(table[known, 3], places[known] - 0.4 * step, places[known] + 0.4 * step, color=INK, linewidth=0.8)
    if not known.any():
        axes.text(
            0.5, 0.5, f"no layer has {series.name}", transform=axes.transAxes, ha="center", color=MUTED, fontsize=9
        )
    name = "|gradients|, not 0" if series.name == "gradients" and len(some) and some.min() > 0 else series.name
    axes.set_ylabel(name, fontsize=9, color=INK, fontfamily=FONT)


def _rms(axes: Axes, flow: Flow) -> None:
    """Draw RMS as a solid and standard deviation as a dotted line."""
    every: list[float] = []
    step = _step(len(flow.stages))
    for series in flow.series:
        for name, style, wide in (("rms", "-", 1.3), ("std", ":", 1.0)):
            if name == "std" and series.name == "gradients":
                continue  # their mean is next to 0, so it would lie on the RMS
            points = [(i, value) for i, row in enumerate(series.layers) if row and (value := getattr(row, name))]
            if not points:
                continue
            x, y = np.array(points).T
            every += y.tolist()
            if step > 1:
                if name == "rms":
                    x, low, y, high = spread(x, y, step)
                    axes.fill_between(x, low, high, color=_color(series), alpha=0.25, linewidth=0)
                else:
                    continue
            label = f"{'RMS' if name == 'rms' else name} of {series.name}"
            dots = 2.0 if len(flow.stages) < 90 and name == "rms" else 0
            axes.plot(x, y, style, color=_color(series), linewidth=wide, label=label, marker="o", markersize=dots)
    log_axis(axes, every)
    axes.set_ylabel("RMS, std", fontsize=9, color=INK, fontfamily=FONT)
    if every:
        axes.legend(
            loc="upper right", bbox_to_anchor=(1.0, 1.2), ncols=5, fontsize=6.5, frameon=False, borderpad=0.1,
            handlelength=1.8, columnspacing=1.2,
        )  # fmt: skip


def _finish(axes: Axes, flow: Flow, groups: Sequence[tuple[str, int, int]]) -> None:
    free_axes(axes, len(flow.stages))
    shade(axes, groups)
    for series in flow.series:
        for mark in series.marks:
            axes.axvspan(mark.first - 0.5, mark.last + 0.5, color=_MARKED[mark.kind], alpha=0.05, linewidth=0, zorder=0)


def _lanes(
    figure: Figure, flow: Flow, lanes: Sequence[tuple[Series, str]], place: tuple[float, float],
    groups: Sequence[tuple[str, int, int]],
) -> float:  # fmt: skip
    """Draw a lane for each kind of stretch, and return their height in inches."""
    at, across = place
    height = _LANE * max(len(lanes), 1)
    axes = inch_axes(figure, _LEFT, at, across, height)
    free_axes(axes, len(flow.stages))
    shade(axes, groups)
    axes.set_ylim(max(len(lanes), 1) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    per = across / max(len(flow.stages), 1)
    for row, (series, kind) in enumerate(lanes):
        color = _MARKED[kind]
        short = {"activations": "", "gradients": " grad."}.get(series.name, f" {series.name}")  # as wide as the margin
        figure_text(
            figure,
            _LEFT - 0.08,
            at + (row + 0.5) * _LANE,
            kind + short,
            fontsize=7,
            color=color,
            ha="right",
            va="center",
        )
        ends = [mark.first for mark in series.marks if mark.kind == kind] + [len(flow.stages)]
        for number, mark in enumerate(m for m in series.marks if m.kind == kind):
            axes.barh(row, mark.last - mark.first + 1, 0.62, mark.first - 0.5, color=color, alpha=0.85, linewidth=0)
            inside, room = (mark.last - mark.first + 1) * per, (ends[number + 1] - mark.last - 1) * per
            wide = 0.056 * len(mark.text) + 0.1
            style: dict[str, Any] = {"fontsize": 6.5, "va": "center", "fontfamily": FONT, "parse_math": False}
            if inside > wide:
                axes.text((mark.first + mark.last) / 2, row + 0.03, mark.text, color="white", ha="center", **style)
            elif room > wide:
                axes.text(mark.last + 0.5, row + 0.03, f" {mark.text}", color=color, ha="left", **style)
            elif number == 0 and (mark.first) * per > wide:
                axes.text(mark.first - 0.5, row + 0.03, f"{mark.text} ", color=color, ha="right", **style)
    if not lanes:
        axes.text(0, 0, "no stretch passes a threshold", color=MUTED, fontsize=7.5, va="center", fontfamily=FONT)
    return height


def _texts(flow: Flow) -> list[str]:
    """Return what stands below the picture: colours of kinds, each stretch in words, and what is not drawn."""
    names = [safe(stage.layer, 34) for stage in flow.stages]
    found = []
    for series in flow.series:
        for mark in series.marks:
            where = names[mark.first] if mark.first == mark.last else f"{names[mark.first]} to {names[mark.last]}"
            what = meaning(mark.kind, series.name)
            limit = f", threshold {mark.threshold:.3g}" if mark.kind not in ("not finite", "zero") else ""
            found.append(f"{mark.kind} {series.name} ({what}): {where}: {mark.text}{limit}")
    more = len(found) - _MOST_TEXTS
    found = found[:_MOST_TEXTS] + ([f"{more} more stretches: see --data"] if more > 0 else [])
    return [*found, *footer_lines(flow.not_drawn)]
