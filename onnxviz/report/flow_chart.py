"""The flow through the depth as SVG: ribbons a series, RMS, and lanes of marked stretches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from onnxviz.analysis.flow import Flow, Series
from onnxviz.analysis.flow_marks import KINDS_OF_MARKS
from onnxviz.plots.flow_axes import envelope, linear_middle
from onnxviz.report.formats import number, short

__all__ = ["flow_svg", "places_of"]

_LEFT, _RIGHT, _WIDE, _EACH = 92, 12, 1060, 44  # px
_RIBBON, _RMS, _LANE, _GAP = 170, 90, 17, 22
_PLACES, _NAMES = 400, 60  # most places across, and most names below them
_DECADES = 12  # of magnitudes, at most
_LINEAR = 0.6  # decades that the linear middle takes on either side
_LETTER = 5.8  # px of a name

Doubles = npt.NDArray[np.floating[Any]]


def places_of(count: int) -> int:
    """Return how many places the layers take: one each, up to 400.

    >>> places_of(10), places_of(1000)
    (10, 334)
    """
    return -(-count // _step(count))


def _step(count: int) -> int:
    return max(1, -(-count // _PLACES))


def flow_svg(flow: Flow) -> Markup:
    """Draw a flow; colours are classes of the page's style.

    Args:
        flow: Series of as many layers each.
    """
    count = len(flow.stages)
    wide = min(_WIDE, max(320, _EACH * count))
    step = _step(count)
    parts: list[str] = []
    top = 12
    for series in flow.series:
        parts += [f'<g class="{series.name}" transform="translate(0 {top})">', *_ribbons(series, wide, step), "</g>"]
        top += _RIBBON + _GAP
    parts += [f'<g transform="translate(0 {top})">', *_rms(flow, wide, step), "</g>"]
    top += _RMS + 12
    lanes = _lanes(flow, wide, top)
    top += _LANE * max(len({(s.name, m.kind) for s in flow.series for m in s.marks}), 1) + 4
    parts += [*lanes, *_names(flow, wide, top), *_readings(flow, wide, top, step)]
    height = top + 16 + round(_LETTER * max(len(short(stage.layer, 22)) for stage in flow.stages))
    said = f"Quantiles of {' and '.join(series.name for series in flow.series)} over {count:,} layers"
    return Markup(
        f'<div class="strip" tabindex="0" role="region" aria-label="{escape(said)}">'
        f'<svg class="chart flow" viewBox="{-_LEFT} 0 {_LEFT + wide + _RIGHT} {height}" '
        f'width="{_LEFT + wide + _RIGHT}" height="{height}" role="img"><title>{escape(said)}</title>'
        f"{''.join(parts)}</svg></div>"
    )


def _table(series: Series) -> Doubles:
    rows = [row.quantiles if row is not None and row.quantiles else None for row in series.layers]
    return np.array([row if row is not None else [np.nan] * 7 for row in rows], np.float64).reshape(-1, 7)


def _ribbons(series: Series, wide: float, step: int) -> list[str]:
    single = _table(series)
    known = single[~np.isnan(single[:, 0])]
    at, ticks = _magnitudes(known) if _is_magnitude(series) else _both_signs(series, known)
    table = envelope(np.asarray(single, np.float64), step)
    per = wide / len(series.layers)
    x = (np.arange(0, len(single), step) + step / 2) * per
    title = f"|{series.name}|" if _is_magnitude(series) else series.name
    parts = [f'<text x="{-_LEFT + 2}" y="-3" class="name">{escape(title)}</text>']
    for value in ticks:
        y = at(value)
        parts.append(f'<path class="{"axis" if not value else "grid"}" d="M0 {y:.1f}H{wide:.0f}"/>')
        parts.append(f'<text x="-5" y="{y + 3:.1f}" text-anchor="end">{number(value)}</text>')
    whole = np.count_nonzero(~np.isnan(table[:, 0])) > 0.8 * len(table)
    draw = _areas if whole else _bars
    for ring, columns in enumerate(((0, 6), (1, 5), (2, 4))):
        parts.append(f'<path class="ring{ring}" d="{draw(x, table[:, columns], at, per * step * _share(ring))}"/>')
    parts.append(f'<path class="median" d="{_line(x, table[:, 3], at, None if whole else 0.8 * per * step)}"/>')
    if not len(known):
        parts.append(
            f'<text x="{wide / 2:.0f}" y="{_RIBBON / 2}" text-anchor="middle">no layer has {escape(series.name)}</text>'
        )
    return parts


def _share(ring: int) -> float:
    """Return which part of its place a bar takes: the outer ones are thin."""
    return (0.25, 0.5, 0.8)[ring]


def _bent(value: float, middle: float) -> float:
    """Return a value on an axis that is linear up to ``middle`` and logarithmic beyond, in decades."""
    size = abs(value) / middle
    return math.copysign(_LINEAR * size if size <= 1 else _LINEAR + math.log10(size), value)


def _is_magnitude(series: Series) -> bool:
    """Whether a series is of magnitudes that are not 0, which have a logarithmic axis."""
    known = [row.quantiles[0] for row in series.layers if row is not None and row.quantiles]
    return series.name == "gradients" and min(known, default=1.0) > 0


def _both_signs(series: Series, known: Doubles) -> tuple[Callable[[float], float], list[float]]:
    """Return where a value lies, in px, on an axis linear about 0 and logarithmic beyond; and its ticks."""
    middle = linear_middle(
        np.asarray(known, np.float64), [row.rms for row in series.layers if row is not None and row.rms]
    )
    ends = (float(known.min(initial=0.0)), float(known.max(initial=0.0)))
    low, high = _bent(ends[0], middle) - 0.15, _bent(ends[1], middle) + 0.15
    first = round(math.log10(middle))
    reach = [(sign, math.floor(math.log10(end))) for sign, end in ((-1, -ends[0]), (1, ends[1])) if end >= middle]
    step = max(1, -(-sum(last - first + 1 for _, last in reach) // 7))
    powers = [sign * 10.0**p for sign, last in reach for p in range(first, last + 1) if (p - first) % step == 0]
    return lambda value: _RIBBON * (1 - (_bent(value, middle) - low) / (high - low)), [0.0, *powers]


def _magnitudes(known: Doubles) -> tuple[Callable[[float], float], list[float]]:
    """Return where a magnitude lies on a logarithmic axis, from the smallest 1 % quantile on; and its ticks."""
    top = float(known[:, -1].max(initial=1e-300)) if len(known) else 1.0
    bottom = max(float(known[:, 1].min()) if len(known) else 0.1, top * 10.0**-_DECADES)
    low, high = math.log10(bottom) - 0.15, math.log10(top) + 0.15
    powers = range(math.ceil(low), math.floor(high) + 1)
    ticks = [10.0**p for p in powers if p % max(1, -(-len(powers) // 7)) == 0]

    def at(value: float) -> float:
        return _RIBBON * min(1.0, 1 - (math.log10(max(value, 1e-300)) - low) / (high - low))

    return at, ticks


def _areas(x: Doubles, ends: Doubles, at: Callable[[float], float], wide: float) -> str:
    """Return the area between two quantiles, broken where a layer has none."""
    path = []
    for run in _runs(ends[:, 0]):
        if len(run) == 1:
            path.append(_bars(x[run], ends[run], at, wide))
            continue
        up = [f"{x[i]:.1f} {at(float(ends[i, 0])):.1f}" for i in run]
        down = [f"{x[i]:.1f} {at(float(ends[i, 1])):.1f}" for i in reversed(run)]
        path.append("M" + "L".join(up + down) + "z")
    return "".join(path)


def _bars(x: Doubles, ends: Doubles, at: Callable[[float], float], wide: float) -> str:
    return "".join(
        f"M{left - wide / 2:.1f} {at(float(low)):.1f}h{wide:.1f}V{at(float(high)):.1f}h{-wide:.1f}z"
        for left, (low, high) in zip(x, ends, strict=True)
        if not math.isnan(low)
    )


def _line(x: Doubles, y: Doubles, at: Callable[[float], float], wide: float | None) -> str:
    """Return a line through points, or, where ``wide`` is given, a dash at each."""
    if wide is not None:
        return "".join(
            f"M{left - wide / 2:.1f} {at(float(v)):.1f}h{wide:.1f}"
            for left, v in zip(x, y, strict=True)
            if not math.isnan(v)
        )
    return "".join("M" + "L".join(f"{x[i]:.1f} {at(float(y[i])):.1f}" for i in run) for run in _runs(y))


def _runs(values: Doubles) -> list[list[int]]:
    runs: list[list[int]] = [[]]
    for place, value in enumerate(values):
        if math.isnan(value):
            runs.append([])
        else:
            runs[-1].append(place)
    return [run for run in runs if run]


def _rms(flow: Flow, wide: float, step: int) -> list[str]:
    count = len(flow.stages)
    lines: dict[tuple[str, str], Doubles] = {}
    for series in flow.series:
        for what in ("rms", "std") if series.name != "gradients" else ("rms",):
            values = np.array([(getattr(row, what) if row is not None else None) or np.nan for row in series.layers])
            if np.isfinite(values).any():
                lines[series.name, what] = values.astype(np.float64)
    parts = [f'<text x="{-_LEFT + 2}" y="-3" class="name">RMS, std</text>']
    every = np.concatenate([values[np.isfinite(values)] for values in lines.values()]) if lines else np.ones(1)
    low, high = math.log10(float(every.min())) - 0.15, math.log10(float(every.max())) + 0.15
    if high - low < 1:
        low, high = (low + high) / 2 - 0.5, (low + high) / 2 + 0.5

    def at(value: float) -> float:
        return _RMS * (1 - (math.log10(value) - low) / (high - low))

    powers = range(math.ceil(low), math.floor(high) + 1)
    for power in [p for p in powers if p % max(1, -(-len(powers) // 5)) == 0]:
        y = at(10.0**power)
        parts.append(f'<path class="grid" d="M0 {y:.1f}H{wide:.0f}"/>')
        parts.append(f'<text x="-5" y="{y + 3:.1f}" text-anchor="end">{number(10.0**power)}</text>')
    for (name, what), values in lines.items():
        known = np.flatnonzero(np.isfinite(values))
        bins = [known[known // step == b] for b in np.unique(known // step)]
        middles = np.array([float(np.median(values[part])) for part in bins])
        x = (np.array([part[0] // step * step for part in bins]) + step / 2) * wide / count
        parts.append(f'<path class="line {name} {what}" d="{_line(x, middles, at, None)}"/>')
        if len(bins) <= 90 and what == "rms":
            dots = "".join(f"M{a:.1f} {at(float(b)):.1f}h0" for a, b in zip(x, middles, strict=True))
            parts.append(f'<path class="dots {name}" d="{dots}"/>')
    return parts


def _lanes(flow: Flow, wide: float, top: float) -> list[str]:
    per = wide / len(flow.stages)
    lanes = [(s, kind) for s in flow.series for kind in KINDS_OF_MARKS if any(m.kind == kind for m in s.marks)]
    if not lanes:
        return [f'<text x="0" y="{top + 11}">no stretch passes a threshold</text>']
    parts = []
    for row, (series, kind) in enumerate(lanes):
        y = top + row * _LANE
        whose = {"activations": "", "gradients": " grad."}.get(series.name, f" {series.name}")
        parts.append(f'<text x="-5" y="{y + 10}" text-anchor="end">{escape(short(kind + whose, 18))}</text>')
        for mark in (m for m in series.marks if m.kind == kind):
            left, right = mark.first * per, (mark.last + 1) * per
            parts.append(
                f'<rect class="mark" x="{left:.1f}" y="{y}" width="{max(right - left, 2):.1f}" height="{_LANE - 5}">'
                f"<title>{escape(mark.text)}</title></rect>"
            )
    return parts


def _names(flow: Flow, wide: float, top: float) -> list[str]:
    count = len(flow.stages)
    step, per = max(1, -(-count // _NAMES)), wide / count
    parts = []
    for place in range(0, count, step):
        x = (place + 0.5) * per
        parts.append(
            f'<text transform="translate({x + 3:.1f} {top + 8})rotate(-90)" text-anchor="end">'
            f"{escape(short(flow.stages[place].layer, 22))}</text>"
        )
    return parts


def _readings(flow: Flow, wide: float, top: float, step: int) -> list[str]:
    """Return a column over each place that tells its layer's numbers to who points at it."""
    per = wide / len(flow.stages)
    parts = []
    for first in range(0, len(flow.stages), step):
        stage = flow.stages[first]
        lines = [f"{short(stage.layer, 80)} ({short(stage.op_type, 40)}), depth {stage.depth}"]
        if step > 1:
            last = min(first + step, len(flow.stages)) - 1
            lines[0] += f", the first of {last - first + 1} here"
        lines += [f"{series.name}: {_told(series, first)}" for series in flow.series if series.layers[first]]
        title = escape("\n".join(lines))
        parts.append(
            f'<rect class="hit" x="{first * per:.1f}" y="0" width="{per * step:.1f}" height="{top:.0f}">'
            f"<title>{title}</title></rect>"
        )
    return parts


def _told(series: Series, place: int) -> str:
    row = series.layers[place]
    magnitude = _is_magnitude(series)
    if row is None or not row.quantiles:
        return "all 0" if magnitude and row is not None and row.zero == 1 else "no finite values"
    found = [f"{number(row.quantiles[0])} … {number(row.quantiles[-1])}", f"median {number(row.quantiles[3])}"]
    found += [f"RMS {number(row.rms)}", f"{100 * row.zero:.3g} % are 0" if magnitude else f"std {number(row.std)}"]
    found += [f"{100 * row.flat:.3g} % enter where {short(row.function, 30)} is flat"] if row.flat is not None else []
    return ", ".join(found)
