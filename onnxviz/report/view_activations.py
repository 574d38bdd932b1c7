"""The section on activation functions: the curve over what enters it, maps before and after."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
from markupsafe import Markup, escape

from onnxviz.analysis.activations import ActivationView, activation_views, plan_activations
from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.scale import number
from onnxviz.errors import SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.report.atlas import atlas, pooling_note
from onnxviz.report.budget import Picture
from onnxviz.report.formats import shape, short
from onnxviz.report.views import Card, Section, Seen, limited, panel, refusals

__all__ = ["activation_section", "curve_svg", "draw_maps"]

_MOST = 80  # functions
_CHANNELS = 8
_MAP, _SIGNAL = 48, 256  # longest side of a tile, px
_WIDTH, _HEIGHT, _LEFT, _AXIS = 200, 110, 52, 16
_CURVES, _POINTS = 16, 140
_LEAD = (
    "The curve is drawn by the model's own nodes; behind it, not to scale, the histogram of what enters. "
    "Shaded: saturated, |slope| below 1 % of the largest. Zeroed: output exactly 0. Dead: a channel never above 0 "
    "after a rectifier. Maps before and after are of the same channels on one scale."
)


def activation_section(seen: Seen) -> Section | None:
    """Return the activation functions of a run; None where the model has none."""
    try:
        plan = plan_activations(seen.prepared.model)
    except SelectionError:
        return None
    count = len(plan.sites)
    plan = replace(plan, sites=tuple(plan.sites[i] for i in spread(count, _MOST)))
    found = activation_views(plan, seen.captured, top=_CHANNELS)
    notes = limited(count, _MOST, "activation functions") + refusals(found.not_drawn)
    return Section(_LEAD, [_card(view) for view in found.views], notes)


def _card(view: ActivationView) -> Card:
    captions = [*view.captions(), *view.before.captions()]
    if view.dead:
        more = ", …" if len(view.dead) > 12 else ""
        captions.insert(len(view.captions()), f"dead: {', '.join(map(str, view.dead[:12]))}{more}")
    if outside := view.entering.below + view.entering.above:
        captions.append(f"{100 * outside / view.entering.total:.2g} % outside of the histogram")
    panels = [
        (label, panel(fm.kind, f"{label} {view.name}", partial(draw_maps, fm)))
        for label, fm in (("before", view.before), ("after", view.after))
    ]
    return Card(
        view.name, view.function, shape(view.shape), (view.name,), captions, curve_svg(view), panels, view.note
    )  # fmt: skip


def draw_maps(fm: FeatureMaps, level: int) -> Picture:
    """Draw maps for the page; each level has about half as many bytes."""
    if fm.kind != "grid":
        picture = atlas(fm.maps, [""], fm.scale, side=_SIGNAL >> level)
        return picture, pooling_note(picture)
    keep = max(2, _CHANNELS >> level)
    side = _MAP if level < 3 else _MAP // 2
    picture = atlas(fm.maps[:keep], [str(c) for c in fm.channels[:keep]], fm.scale, side=side, keep_aspect=True)
    left = f"{keep} of {len(fm.channels)} maps, to keep the page small" if keep < len(fm.channels) else ""
    return picture, " · ".join(part for part in (left, pooling_note(picture)) if part)


def curve_svg(view: ActivationView) -> Markup:
    """Draw a function over the histogram of what enters it, with its axes through 0, as SVG without inline styles."""
    edges, counts = view.entering.edges, view.entering.counts
    reach = 0.2 * max(abs(float(edges[0])), abs(float(edges[-1])), 1e-30)
    low, high = min(float(edges[0]), -reach), max(float(edges[-1]), reach)
    heights = counts / max(float(counts.max(initial=0)), 1.0) * (_HEIGHT - 6)
    at = (np.asarray(edges) - low) / (high - low) * _WIDTH
    bars = "".join(
        f"M{at[i]:.1f} {_HEIGHT}V{_HEIGHT - h:.1f}H{at[i + 1]:.1f}V{_HEIGHT}z" for i, h in enumerate(heights) if h > 0
    )
    parts = [f'<path class="bars" d="{bars}"/>']
    bottom = top = 0.0
    if view.curve is not None:
        lines, (bottom, top) = _lines(view, low, high)
        parts += _flat(view, low, high)
        zero = _HEIGHT * (1 - (0 - bottom) / (top - bottom)) if bottom <= 0 <= top else None
        parts += [f'<path class="axis" d="M0 {zero:.1f}H{_WIDTH}"/>'] if zero is not None else []
        parts += [f'<path class="curve{" many" if len(lines) > 1 else ""}" d="{line}"/>' for line in lines]
        parts.append(
            f'<text x="-4" y="9" text-anchor="end">{number(top)}</text>'
            f'<text x="-4" y="{_HEIGHT}" text-anchor="end">{number(bottom)}</text>'
        )
    parts.append(f'<path class="axis" d="M{-low / (high - low) * _WIDTH:.1f} 0V{_HEIGHT}"/>')
    under = _HEIGHT + 11
    parts.append(f'<text x="0" y="{under}">{number(low)}</text>')
    parts.append(f'<text x="{_WIDTH}" y="{under}" text-anchor="end">{number(high)}</text>')
    said = f"{short(view.function)} over the histogram of the {view.entering.total:,} values that enter it"
    return Markup(
        f'<svg class="chart" viewBox="{-_LEFT} 0 {_LEFT + _WIDTH} {_HEIGHT + _AXIS}" '
        f'width="{_LEFT + _WIDTH}" height="{_HEIGHT + _AXIS}" '
        f'role="img"><title>{escape(said)}</title>{"".join(parts)}</svg>'
    )


def _lines(view: ActivationView, low: float, high: float) -> tuple[list[str], tuple[float, float]]:
    """Return the curves as SVG paths, and the range of y that they are drawn in."""
    assert view.curve is not None
    x = np.linspace(low, high, _POINTS)
    shown = [np.interp(x, view.curve.x, view.curve.y[i]) for i in spread(len(view.curve.y), _CURVES)]
    finite = np.concatenate(shown)
    finite = finite[np.isfinite(finite)]
    bottom, top = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    room = 0.06 * (top - bottom) or 0.5
    bottom, top = bottom - room, top + room
    left = (x - low) / (high - low) * _WIDTH
    paths = []
    for y in shown:
        up = _HEIGHT * (1 - (y - bottom) / (top - bottom))
        paths.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(left, up, strict=True) if math.isfinite(b)))
    return paths, (bottom, top)


def _flat(view: ActivationView, low: float, high: float) -> list[str]:
    assert view.curve is not None
    if len(view.curve.y) > 1:
        return []
    found = []
    for start, end in view.curve.flat[0]:
        if math.isnan(start) or end <= low or start >= high or end - start <= 0.01 * (high - low):
            continue
        left, right = ((max(min(v, high), low) - low) / (high - low) * _WIDTH for v in (start, end))
        found.append(f'<rect class="flat" x="{left:.1f}" y="0" width="{right - left:.1f}" height="{_HEIGHT}"/>')
    return found
