"""The samples that units answer most and least, small: pictures, signals, words or names."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.neuron_samples import SampleView, look_of
from onnxviz.analysis.neurons import Extreme, NeuronLayer, Neurons, UnitExtremes
from onnxviz.analysis.scale import number
from onnxviz.plots.pairs import MARGIN
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, figure_text, inch_axes, plain, safe

__all__ = ["draw_samples", "samples_height"]

_COLUMN = 6.35  # inches of one unit and its samples
_TEXT = 0.88  # inches left of the tiles
_TILE, _WIDE = 0.58, 0.92  # inches of a tile, and of one that shows a signal
_BETWEEN, _APART = 0.045, 0.2
_FEWER = (3, 2)  # wide tiles, highest and lowest
_VALUE = 0.15  # inches above a tile, for the value; as much again for a class that has no room beside it
_SHORT = 2  # characters of a class that have
_LINE = 0.15  # inches of a line of words
_HEAD = 0.62  # inches of the two lines above all


@dataclass(frozen=True)
class _Look:
    """How the samples of a layer are laid out.

    Attributes:
        kind: ``"tiles"``, wide ``"signals"``, or written ``"lines"``.
        tile: Width of a tile in inches.
        height: Its height.
        above: Inches above a tile, for the value and the class.
        words: Whether words stand below the tiles.
        most, least: How many samples of a unit are shown.
    """

    kind: str
    tile: float
    height: float
    above: float
    words: bool
    most: int
    least: int

    @property
    def block(self) -> float:
        """Inches that a unit takes."""
        if self.kind == "lines":
            return _LINE * (self.most + self.least + 1)
        return self.above + self.height + (0.24 if self.words else 0)

    def left(self, place: int, *, lowest: bool = False) -> float:
        """Inches from the first tile of a unit to another."""
        return (self.tile + _BETWEEN) * (place + self.most * lowest) + _APART * lowest


def _look(found: Neurons, layer: NeuronLayer) -> _Look:
    views = [_view(found, one) for e in layer.extremes for one in (*e.top, *e.bottom)]
    shapes = [v.picture.shape[0] / v.picture.shape[1] for v in views if v.picture is not None]
    most, least = max(len(e.top) for e in layer.extremes), max(len(e.bottom) for e in layer.extremes)
    classes = [layer.classes[label] for label in set(layer.labels[layer.labels >= 0].tolist())]
    above = _VALUE * (2 if any(len(name) > _SHORT for name in classes) else 1)
    words = any(view.words for view in views)
    kind = look_of(views)
    if kind == "pictures":
        shape = min(max(float(np.median(shapes)), 0.4), 1.6)
        if words:  # they need the room
            return _Look("tiles", _WIDE, _WIDE * shape, above, words, min(most, _FEWER[0]), min(least, _FEWER[1]))
        return _Look("tiles", _TILE, _TILE * shape, above, words, most, least)
    if kind == "signals":
        return _Look("signals", _WIDE, 0.45, above, words, min(most, _FEWER[0]), min(least, _FEWER[1]))
    return _Look("lines", _TILE, 0, 0, words, most, least)


def samples_height(found: Neurons, layer: NeuronLayer) -> float:
    """Return the inches that the samples of a layer take."""
    if not layer.extremes:
        return 0.0
    return _HEAD + math.ceil(len(layer.extremes) / 2) * (_look(found, layer).block + 0.16) + 0.15


def draw_samples(figure: Figure, found: Neurons, layer: NeuronLayer, top: float) -> None:
    """Draw the samples that each unit answers most and least, two units side by side.

    Args:
        figure: Where.
        found: Holds what the samples look like.
        layer: Holds which samples they are.
        top: Inches from the figure's top.
    """
    if not layer.extremes:
        return
    look = _look(found, layer)
    which = f"{len(layer.extremes)} of {len(layer.mean)} units, by score"
    told = " and its class" if len(layer.labels) else ""
    said = f"Samples answered most and least · {which} · with the unit's answer{told}{_framed(found, layer)}"
    figure_text(figure, MARGIN, top, said, fontsize=8, color=MUTED)
    for column in range(min(2, len(layer.extremes))):
        left = MARGIN + column * _COLUMN + _TEXT
        figure_text(figure, left, top + 0.24, f"highest {look.most}", fontsize=7.5, fontweight="bold")
        if look.least and look.kind != "lines":
            at = left + look.left(0, lowest=True)
            figure_text(figure, at, top + 0.24, f"lowest {look.least}", fontsize=7.5, fontweight="bold")
    for place, extremes in enumerate(layer.extremes):
        corner = (MARGIN + (place % 2) * _COLUMN, top + 0.42 + (place // 2) * (look.block + 0.16))
        _unit(figure, found, layer, extremes, look, corner)


def _framed(found: Neurons, layer: NeuronLayer) -> str:
    marks = [one for e in layer.extremes for one in e.top]
    if any(one.box is not None for one in marks):
        return " · orange: what its most active position sees"
    if any(one.peak is not None and found.views[one.sample].words for one in marks if one.sample in found.views):
        return " · ‹ ›: its most active token"
    return ""


def _view(found: Neurons, one: Extreme) -> SampleView:
    return found.views.get(one.sample) or SampleView(found.names[one.sample])


def _unit(
    figure: Figure, found: Neurons, layer: NeuronLayer, extremes: UnitExtremes, look: _Look, corner: tuple[float, float]
) -> None:
    left, top = corner
    figure_text(figure, left, top + 0.02, f"unit {extremes.unit}", fontsize=8, fontweight="bold")
    said = _said(layer, extremes)
    figure_text(figure, left, top + 0.18, "\n".join(said), fontsize=6.5, color=MUTED, linespacing=1.35)
    left += _TEXT
    if look.kind == "lines":
        _written(figure, found, layer, extremes, left, top)
        return
    for lowest, side in ((False, extremes.top[: look.most]), (True, extremes.bottom[: look.least])):
        for place, one in enumerate(side):
            at = left + look.left(place, lowest=lowest)
            _tile(figure, _view(found, one), one, _label(layer, one), look, (at, top))


def _said(layer: NeuronLayer, extremes: UnitExtremes) -> list[str]:
    lines = []
    found = layer.selectivity
    if found is not None and found.best[extremes.unit] >= 0:
        lines.append(f"class {safe(found.classes[int(found.best[extremes.unit])], 9)}")
        if np.isfinite(found.auc[extremes.unit]):
            lines.append(f"AUC {number(float(found.auc[extremes.unit]))}")
    if extremes.tied > max(len(extremes.bottom), 1):
        lines.append(f"{extremes.tied} tie lowest")
    return lines


def _label(layer: NeuronLayer, one: Extreme) -> str:
    if not len(layer.labels):
        return ""
    label = int(layer.labels[int(np.searchsorted(layer.samples, one.sample))])
    return safe(layer.classes[label], 11) if label >= 0 else "?"


def _tile(figure: Figure, view: SampleView, one: Extreme, label: str, look: _Look, corner: tuple[float, float]) -> None:
    left, top = corner
    figure_text(figure, left, top + 0.01, number(one.value), fontsize=6.5, color=INK)
    if label and look.above > _VALUE:
        figure_text(figure, left, top + 0.13, label, fontsize=6.5, color=MUTED)
    elif label:
        figure_text(figure, left + look.tile, top + 0.01, label, fontsize=6.5, color=MUTED, ha="right")
    axes = plain(inch_axes(figure, left, top + look.above, look.tile, look.height))
    _draw_view(axes, view, one)
    if view.words and look.words:
        lines = textwrap.wrap(safe(view.text, 44), 24)[:2]
        below = top + look.above + look.height + 0.02
        figure_text(figure, left, below, "\n".join(lines), fontsize=5.5, color=MUTED, linespacing=1.15)


def _draw_view(axes: Axes, view: SampleView, one: Extreme) -> None:
    if view.picture is not None:
        rows, columns = view.picture.shape[:2]
        axes.imshow(view.picture, interpolation="nearest" if max(rows, columns) <= 64 else "antialiased")
        if one.box is not None and len(one.box) == 2:
            (y0, y1), (x0, x1) = one.box
            axes.add_patch(
                Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, edgecolor=ZERO, linewidth=1.1)
            )
    elif view.signal is not None:
        across = np.linspace(0, max(view.length - 1, 1), view.signal.shape[1])
        for line in view.signal:
            axes.plot(across, np.where(np.isfinite(line), line, np.nan), color=INK, linewidth=0.6)
        axes.set_xlim(0, max(view.length - 1, 1))
        if one.box is not None and len(one.box) == 1:
            axes.axvspan(*one.box[0], color=ZERO, alpha=0.3, linewidth=0)
        for spine in axes.spines.values():
            spine.set(visible=True, linewidth=0.3, edgecolor="#9aa0a6")
    else:
        axes.text(0.5, 0.5, safe(view.name, 12), transform=axes.transAxes, ha="center", va="center", fontsize=5.5,
                  color=ACCENT, fontfamily=FONT, parse_math=False)  # fmt: skip


def _written(
    figure: Figure, found: Neurons, layer: NeuronLayer, extremes: UnitExtremes, left: float, top: float
) -> None:
    """Write the samples a line each, the highest first, then after a gap the lowest."""
    for group, side in enumerate((extremes.top, extremes.bottom)):
        if group and side:
            figure_text(figure, left, top, "lowest", fontsize=7, fontweight="bold")
            top += _LINE
        for one in side:
            view = _view(found, one)
            text = _sentence(view, one) if view.words else safe(view.name, 60)
            label = _label(layer, one)
            figure_text(figure, left, top, number(one.value), fontsize=7, color=INK)
            figure_text(
                figure, left + 0.62, top, safe(text, 62) + (f"  ({label})" if label else ""), fontsize=7, color=MUTED
            )
            top += _LINE


def _sentence(view: SampleView, one: Extreme) -> str:
    """Return a text in a line, the most active token in angle quotes where the layer has a position a token."""
    words = list(view.words)
    if one.peak is not None and len(one.peak) == 1 and one.peak[0] < len(words):
        at = one.peak[0]
        words[at] = f"‹{words[at]}›"
        if at > 6:
            words = ["…", *words[at - 5 :]]
    return " ".join(words)
