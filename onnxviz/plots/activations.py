"""Activation functions as a figure: the function over what enters it, and the maps before and after."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.activations import Activations, ActivationView, drawn_range
from onnxviz.analysis.scale import number
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pairs import LABEL_WIDTH, MARGIN, draw_lines, footer_lines, head, image_or_bars, row_text, side_text
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, colorbar, figure_text, inch_axes, new_figure
from onnxviz.plots.tiles import GAP, LABEL, draw_tiles, tile_shape

__all__ = ["plot_activations"]

_TILE = 0.78
_CURVE = 2.2  # inches of the curve's axes
_PER_LINE = 8
_MOST_CURVES = 64
_HIST = "#a9bfd6"


def plot_activations(found: Activations, *, rows: int = 24) -> Figure:
    """Draw activation functions, a row each: the curve, behind it the histogram of what enters, maps before and after.

    The curve's axes shade where the function is flat. Maps before and after are of the same channels on one scale.

    Args:
        found: What :func:`onnxviz.analysis.activations.activation_views` returned.
        rows: Most functions to draw; beyond, an even spread is drawn and said so.

    Returns:
        The figure; :func:`onnxviz.plots.save.save_figure` writes it.
    """
    views = [found.views[i] for i in spread(len(found.views), rows)]
    band = _PER_LINE * _TILE * (1 + GAP)
    left = MARGIN + LABEL_WIDTH + _CURVE + 0.65
    heights = [_height(view) for view in views]
    notes = footer_lines(found.not_drawn)
    top = 1.05
    width = left + band + 0.95
    figure = new_figure(width, top + sum(heights) + 0.2 + 0.17 * len(notes))
    count = f"{len(views)} of {len(found.views)}" if len(views) < len(found.views) else str(len(views))
    lines = [
        f"{count} activation function{'s' if count != '1' else ''} · counted over {found.samples} "
        f"sample{'s' if found.samples != 1 else ''} · curve: the model's own nodes run over a grid, behind it the "
        "histogram of what enters (not to scale)",
        "zeroed: output exactly 0 · saturated (shaded): |slope| below 1 % of the largest · dead: a channel never above "
        "0 after a rectifier · maps: the same channels before and after on one scale",
    ]
    head(figure, f"Activations of {found.model_name}", lines)
    for view, height in zip(views, heights, strict=True):
        _row(figure, view, top, height - 0.3, left, band)
        top += height
    for line in notes:
        figure_text(figure, MARGIN, top, line, fontsize=7.5, color=MUTED)
        top += 0.17
    return figure


def _lines(view: ActivationView) -> int:
    return max(1, math.ceil(len(view.before.maps) / _PER_LINE))


def _height(view: ActivationView) -> float:
    """Return the inches of a row, the gap below it included."""
    if view.before.kind != "grid":
        return 2.2
    one = _TILE * tile_shape(view.before.maps) + LABEL
    return max(1.9, 2 * _lines(view) * one + 0.08) + 0.3


def _row(figure: Figure, view: ActivationView, top: float, height: float, left: float, band: float) -> None:
    size = "×".join(map(str, view.shape))
    shown = view.before.shown + (" down, position across" if view.before.kind == "image" else "")
    parts = [view.function, f"{size} · {shown}", *view.captions(), *_notes(view)]
    row_text(figure, top + 0.1, view.name, parts)
    _curve(inch_axes(figure, MARGIN + LABEL_WIDTH + 0.1, top + 0.12, _CURVE, min(height - 0.3, 1.5)), view)
    if view.before.kind != "grid" or view.after.kind != "grid":
        gap = 0.12
        image_or_bars(figure, (view.before, view.after), (left + 0.1, top + 0.12, band - 0.1, height - 0.25), gap)
        middle = (height - 0.25 - gap) / 2
        side_text(figure, left - 0.22, top + 0.12, middle, "before")
        side_text(figure, left - 0.22, top + 0.12 + middle + gap, middle, "after")
        if view.before.kind == "vector":
            return
    else:
        lines = _lines(view)
        one = lines * (_TILE * tile_shape(view.before.maps) + LABEL)
        for place, fm in enumerate((view.before, view.after)):
            axes = inch_axes(figure, left, top + place * (one + 0.08), band, one)
            draw_tiles(axes, fm, range(len(fm.maps)), _PER_LINE, _TILE)
            side_text(figure, left - 0.12, top + place * (one + 0.08) + LABEL, one - LABEL, ("before", "after")[place])
    bar = inch_axes(figure, left + band + 0.1, top + LABEL, 0.1, min(height - LABEL - 0.1, 2.0))
    colorbar(figure, bar, view.before.scale, size=6.5)


def _notes(view: ActivationView) -> list[str]:
    notes = []
    if view.dead:
        shown = ", ".join(map(str, view.dead[:10]))
        notes.append(f"dead: {shown}{', …' if len(view.dead) > 10 else ''}")
    outside = view.entering.below + view.entering.above
    if outside:
        notes.append(f"{100 * outside / view.entering.total:.2g} % outside of the histogram")
    if view.before.batch > 1:
        notes.append(f"maps: sample {view.before.sample} of {view.before.batch}")
    return [*notes, view.note] if view.note else notes


def _curve(axes: Axes, view: ActivationView) -> None:
    edges, counts = view.entering.edges, view.entering.counts
    low, high = drawn_range(edges)
    behind = axes.twinx()
    behind.stairs(counts, edges, fill=True, color=_HIST, linewidth=0)
    behind.set_ylim(0, max(float(counts.max(initial=0)) * 1.08, 1.0))
    behind.set_yticks([])
    behind.spines[:].set_visible(False)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.set_xlim(low, high)
    axes.axhline(0, color=MUTED, linewidth=0.4)
    axes.axvline(0, color=MUTED, linewidth=0.4)
    axes.locator_params(axis="both", nbins=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, position: number(value))
    draw_lines(axes)
    axes.set_xlabel("enters", fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1)
    axes.set_ylabel("leaves", fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1)
    if view.curve is None:
        axes.set_yticks([])
        axes.text(
            0.5, 0.9, "no curve", transform=axes.transAxes, ha="center", fontsize=7.5, color=INK, fontfamily=FONT
        )  # fmt: skip
        return
    curve = view.curve
    inside = np.flatnonzero((curve.x >= low) & (curve.x <= high))
    within = slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2) if inside.size else slice(None)
    shown = curve.y[spread(len(curve.y), _MOST_CURVES)]
    for line in shown:
        axes.plot(
            curve.x[within], line[within], color=INK if len(shown) == 1 else ACCENT,
            linewidth=1.4 if len(shown) == 1 else 0.6, solid_joinstyle="round",
        )  # fmt: skip
    if len(curve.y) > 1:
        axes.set_title(f"{len(curve.y)} curves, by parameter", fontsize=6.5, color=MUTED, fontfamily=FONT, pad=2)
    else:
        for start, end in curve.flat[0]:
            if not math.isnan(start) and end > low and start < high and end - start > 0.01 * (high - low):
                axes.axvspan(max(start, low), min(end, high), color=ZERO, alpha=0.16, linewidth=0)
    drawn = shown[:, within]
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size:
        span = float(np.ptp(drawn)) or 1.0
        axes.set_ylim(float(drawn.min()) - 0.08 * span, float(drawn.max()) + 0.08 * span)
