"""One map of an attribution as a tile: over a picture, under a signal, behind words, or as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.attribution.views import AttributionView, Kind
from onnxviz.analysis.scale import number
from onnxviz.plots.attribution_marks import draw_contours, draw_region
from onnxviz.plots.attribution_words import LINE, draw_words, word_lines
from onnxviz.plots.overlays import draw_over, small_bar
from onnxviz.plots.signals import draw_line
from onnxviz.plots.style import (
    ACCENT,
    FONT,
    INK,
    MUTED,
    colormap,
    draw_map,
    figure_text,
    inch_axes,
    norm,
    plain,
    safe,
)

__all__ = ["HALF", "Tile", "draw_input", "draw_tile", "name_tile", "tile_of"]

#: Where contours are drawn by default.
HALF = (0.5,)
_COLUMNS = 6
_SIGNALS = 3  # channels of a signal that are drawn
_FEATURES = 20  # bars of a table
_NAMES, _WIDE, _BAR = 1.85, 6.4, 1.75  # inches of a line: the map's name, the map, its colour bar
_RISE = 0.6  # of the opacity of pixels over their magnitude: below 1, so that small ones are seen


@dataclass(frozen=True)
class Tile:
    """How large tiles are, in inches.

    Attributes:
        kind: What they show.
        width, height: Of a map.
        lead: Left of all maps of a row: the input with the gap behind it, or the names of maps that take a line each.
        above, below: Left free around a map, for its name and its colour bar.
        first: Above the first map of a row, for an input that stands above them.
        wide: Whether a map takes a line of its own, its name on its left and its colour bar on its right.
    """

    kind: Kind
    width: float
    height: float
    lead: float
    above: float = 0.42
    below: float = 0.36
    first: float = 0.0
    wide: bool = False

    @property
    def line(self) -> float:
        """What a map takes from top to bottom."""
        return self.above + self.height + self.below

    def columns(self, count: int) -> int:
        """Return how many maps stand side by side."""
        return 1 if self.wide else min(count, _COLUMNS)

    def across(self, count: int, gap: float) -> float:
        """Return what a row of maps takes from left to right, a gap between two."""
        return self.lead + self.columns(count) * (self.width + gap) - gap


def tile_of(views: Sequence[AttributionView]) -> Tile:
    """Return the size that tiles of some maps of one kind have."""
    first = views[0]
    if first.kind == "picture":
        canvas = next(view.canvas for view in views if view.canvas is not None)
        aspect = float(min(max(canvas.size[0] / canvas.size[1], 0.4), 2.5))
        return Tile("picture", 2.1, 2.1 * aspect, 2.1 + 0.24)
    if first.kind == "signal" and first.canvas is not None and first.canvas.signal is not None:
        lines = min(len(first.canvas.signal), _SIGNALS)
        return Tile("signal", _WIDE + _BAR, 0.3, _NAMES, 0.08, 0.08, 0.5 * lines + 0.06, True)
    if first.kind == "tokens":
        lines = max(len(word_lines(view, _WIDE)) for view in views)
        return Tile("tokens", _WIDE + _BAR, max(LINE * lines, 0.34), _NAMES, 0.08, 0.1, 0.0, True)
    if first.kind == "table":
        return Tile("table", 3.4, 0.15 * min(max(view.heat.size for view in views), _FEATURES) + 0.1, 0.0)
    aspect = float(min(max(first.heat.shape[0] / first.heat.shape[1], 0.25), 2.5))
    return Tile(first.kind, 2.1, 2.1 * aspect, 2.1 + 0.24 if any(view.below is not None for view in views) else 0.0)


def name_tile(figure: Figure, tile: Tile, name: str, about: str, corner: tuple[float, float]) -> None:
    """Write the name of a map above it, or on its left where it takes a line of its own.

    Args:
        figure: Where.
        tile: The sizes.
        name: The method.
        about: What is attributed.
        corner: Left and top of the map in inches.
    """
    left, top = corner
    if tile.wide:
        figure_text(figure, left - tile.lead, top, safe(name, 22), fontsize=8, fontweight="bold")
        figure_text(figure, left - tile.lead, top + 0.16, safe(about, 30), fontsize=6.5, color=MUTED)
        return
    figure_text(figure, left, top - 0.18, safe(name, int(tile.width * 13)), fontsize=8, fontweight="bold", va="bottom")
    figure_text(figure, left, top - 0.05, safe(about, int(tile.width * 20)), fontsize=6.5, color=MUTED, va="bottom")


def draw_input(figure: Figure, tile: Tile, views: Sequence[AttributionView], corner: tuple[float, float]) -> None:
    """Draw what was fed: at the left of a row, or above its strips; nothing where the maps show it themselves.

    Args:
        figure: Where.
        tile: The sizes.
        views: The maps of the sample.
        corner: Left and top of the row in inches.
    """
    left, top = corner
    view = next((view for view in views if view.canvas is not None or view.below is not None), views[0])
    canvas = view.canvas
    if tile.kind == "signal":
        _draw_signal(figure, view, (left, top, left + tile.lead))
        return
    if canvas is not None and canvas.picture is not None and tile.lead:
        shown, said, name = canvas.picture, f"{canvas.size[1]} × {canvas.size[0]} pixels", canvas.name
    elif view.below is not None and tile.lead:
        ends = f"from {number(float(view.below.min()))} to {number(float(view.below.max()))}"
        shown, said, name = np.asarray(view.below), f"{view.how}, {ends}", view.tensor
    else:
        return
    axes = plain(inch_axes(figure, left, top + tile.above, tile.width, tile.height))
    fine = "nearest" if max(shown.shape) <= 64 else "antialiased"
    axes.imshow(shown, cmap="gray", aspect="auto", interpolation=fine)
    if canvas is not None and canvas.picture is not None:
        for one in list(dict.fromkeys(one.region for one in views)):
            draw_region(axes, one, canvas.size)
    name_tile(figure, tile, "input", f"{safe(name, 18)} · {said}", (left, top + tile.above))


def draw_tile(
    figure: Figure, tile: Tile, view: AttributionView, corner: tuple[float, float], unit: str,
    contours: Sequence[float] = HALF,
) -> None:  # fmt: skip
    """Draw one map and its colour bar.

    Args:
        figure: Where.
        tile: The sizes.
        view: The map.
        corner: Left and top of the map in inches.
        unit: What its numbers are measured in.
        contours: Where lines are drawn over the map of a layer, as shares of its largest magnitude.
    """
    left, top = corner
    bar = (left, top + tile.height + 0.05, tile.width)
    if tile.wide:
        bar = (left + _WIDE + 0.15, top + 0.02, _BAR - 0.15)
    if view.kind == "table":
        _draw_table(inch_axes(figure, left + 0.95, top, tile.width - 1.5, tile.height), view)
        figure_text(figure, left + 0.95, top + tile.height + 0.17, unit, fontsize=6, color=MUTED)
        return
    if view.kind == "signal":
        _draw_strip(figure, view, (left, top))
    elif view.kind == "tokens":
        draw_words(figure, view, (left, top, _WIDE))
    else:
        axes = plain(inch_axes(figure, left, top, tile.width, tile.height))
        if view.kind != "picture" or view.spatial is None or view.canvas is None:
            draw_map(axes, view.heat, view.scale)
            _frame(axes)
        elif view.fine:
            _draw_fine(axes, view)
        else:
            draw_over(axes, view.canvas, view.spatial)
            draw_contours(axes, view, contours)
        if view.canvas is not None and view.region is not None and view.region.box is not None:
            draw_region(axes, view.region, view.canvas.size)  # the outline of a mask would hide the map
    if view.scale.count:
        parts = [unit, view.how, "constant" if view.scale.constant else "", _clipped(view)]
        small_bar(figure, view.scale, bar, " · ".join(part for part in parts if part))


def _draw_fine(axes: Axes, view: AttributionView) -> None:
    """Draw a map of pixels over the picture, dark where 0 is dark and pale where it is white."""
    assert view.canvas is not None
    assert view.canvas.picture is not None
    luma = view.canvas.picture[..., :3] @ np.array([0.299, 0.587, 0.114])
    low, high = (190, 255) if view.scale.kind == "diverging" else (0, 85)
    fine = "nearest" if max(view.canvas.size) <= 64 else "antialiased"
    height, width = view.heat.shape
    where = (-0.5, width - 0.5, height - 0.5, -0.5)
    ground = low + luma * (high - low) / 255
    axes.imshow(ground, cmap="gray", vmin=0, vmax=255, extent=where, aspect="auto", interpolation=fine)
    finite = np.isfinite(view.heat)
    known = np.where(finite, view.heat, 0.0).astype(np.float64)
    rgba = np.asarray(colormap(view.scale)(norm(view.scale)(known)), np.float64)
    rgba[..., 3] = np.clip(np.abs(known) / view.scale.vmax, 0, 1) ** _RISE
    axes.imshow(rgba, extent=where, aspect="auto", interpolation="nearest")
    if not finite.all():
        draw_map(axes, np.ma.masked_array(view.heat, finite), view.scale, where)
    _frame(axes)


def _clipped(view: AttributionView) -> str:
    share = 100 * view.scale.clipped
    return f"{share:.1g} % clipped" if share else ""


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, edgecolor="#9aa0a6")


def _draw_signal(figure: Figure, view: AttributionView, box: tuple[float, float, float]) -> None:
    """Draw the signal in lines above the strips, and its name at their left."""
    assert view.canvas is not None
    assert view.canvas.signal is not None
    name, top, left = box
    signal = view.canvas.signal
    figure_text(figure, name, top, "input", fontsize=8, fontweight="bold")
    said = f"{safe(view.canvas.name, 16)} · {' × '.join(map(str, signal.shape))}"
    figure_text(figure, name, top + 0.16, said, fontsize=6.5, color=MUTED)
    for values in signal[:_SIGNALS]:
        axes = inch_axes(figure, left, top, _WIDE, 0.44)
        draw_line(axes, values)
        axes.set_xticks([])
        axes.set_xlim(-0.5, view.canvas.size[0] - 0.5)
        axes.tick_params(labelsize=6, width=0.4, length=2, labelfontfamily=FONT)
        axes.locator_params(axis="y", nbins=3)
        top += 0.5


def _draw_strip(figure: Figure, view: AttributionView, corner: tuple[float, float]) -> None:
    """Draw the map of a signal, aligned with its steps."""
    assert view.canvas is not None
    assert view.spatial is not None
    strip = plain(inch_axes(figure, *corner, _WIDE, 0.3))
    first, last = view.spatial.placement.axes[0].ends
    draw_map(strip, view.heat, view.scale, (first, last, 0.5, -0.5))
    strip.set_xlim(-0.5, view.canvas.size[0] - 0.5)
    _frame(strip)


def _draw_table(axes: Axes, view: AttributionView) -> None:
    """Draw a bar a feature, those of the largest magnitude, and what was fed to each."""
    values = view.heat[0].astype(np.float64)
    order = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:_FEATURES]
    shown = np.nan_to_num(values[order])
    colours = (
        np.where(shown < 0, "#3b6ea8", "#b2423a") if view.scale.kind == "diverging" else np.full(len(shown), ACCENT)
    )
    axes.barh(np.arange(len(order)), shown, color=list(colours), height=0.75)
    axes.axvline(0, color=INK, linewidth=0.5)
    axes.set_ylim(len(order) - 0.4, -0.6)
    fed = [""] * len(order) if view.below is None else [f" = {number(float(view.below[0, i]))}" for i in order]
    axes.set_yticks(np.arange(len(order)), [f"[{i}]{text}" for i, text in zip(order, fed, strict=True)])
    axes.tick_params(labelsize=6, width=0.4, length=2, labelfontfamily=FONT)
    axes.xaxis.set_major_formatter(lambda at, _: number(at))
    axes.locator_params(axis="x", nbins=4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if len(order) < values.size:
        axes.text(1.0, 0.02, f"{len(order)} of {values.size}", transform=axes.transAxes, ha="right", va="bottom",
                  fontsize=6, color=MUTED, fontfamily=FONT)  # fmt: skip
