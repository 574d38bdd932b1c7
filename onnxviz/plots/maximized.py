"""Pictures of activation maximization as a sheet: what each is made for, its score, and samples beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.maximize import MadePicture, Maximized
from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.neuron_samples import SampleView
from onnxviz.analysis.neurons import UnitExtremes
from onnxviz.analysis.scale import number
from onnxviz.plots.pairs import MARGIN, draw_lines, footer_lines, head
from onnxviz.plots.style import (
    ACCENT,
    FONT,
    INK,
    MUTED,
    ZERO,
    figure_text,
    inch_axes,
    new_figure,
    plain,
    safe,
    wrap_caption,
)

__all__ = ["plot_maximized", "shown_picture"]

_WIDTH = 10.2
_GAP, _NARROW = 0.12, 0.07
_SMALL = 0.66  # inches of a tile with samples beside it
_AXIS = 0.3  # inches left of a tile with an axis
_TEXT = 0.34  # inches above a tile
_CURVES = 1.0
_LARGE = 3.6  # inches of the longer side of a dream
_SAMPLES = 5


def shown_picture(canvas: Canvas, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a picture as it is drawn, ``(H, W, 3)`` or ``(H, W)`` from 0 to 1; of other channels their mean.

    >>> canvas = Canvas("x", "picture", 3, (1, 1), "NCHW", "bgr", np.ones(3), np.zeros(3), None)
    >>> shown_picture(canvas, np.float32([[[1]], [[0]], [[0]]])).tolist()
    [[[0.0, 0.0, 1.0]]]
    """
    if canvas.color == "bgr":
        values = values[::-1]
    if canvas.kind == "picture" and len(values) in (3, 4):
        return np.ascontiguousarray(values[:3].transpose(1, 2, 0))
    return np.ascontiguousarray(values.mean(axis=0))


def plot_maximized(found: Maximized) -> Figure:
    """Draw pictures that maximize something.

    Pictures show the values that enter the model before its normalisation, 0 black and 1 white, neither stretched nor
    clipped; signals have one axis for all. Below, the score at each step, of the transformed pictures.

    Args:
        found: What :func:`onnxviz.api.maximize.maximized` returned.

    Returns:
        The figure; :func:`onnxviz.plots.save.save_figure` writes it.
    """
    caption = wrap_caption(_parts(found), _WIDTH - 2 * MARGIN)
    top = 0.62 + 0.16 * (caption.count("\n") + 1)
    footer = [*(safe(note, 150) for note in found.notes), *footer_lines(found.not_drawn)]
    layout = _layout(found)
    below = top + layout.height + 0.1
    curves = _CURVES + 0.55 if any(len(made.history) > 1 for made in found.pictures) else 0.0
    figure = new_figure(_WIDTH, below + curves + 0.17 * len(footer) + 0.15)
    what = f"{found.what[:1].upper()}{found.what[1:]}"
    head(figure, f"{what} of {safe(found.layer, 60)}, maximized", [])
    figure_text(figure, MARGIN, 0.5, caption, fontsize=8, color=MUTED, linespacing=1.4)
    layout.draw(figure, top)
    if curves:
        _curves(figure, found, below)
    for place, line in enumerate(footer):
        figure_text(figure, MARGIN, below + curves + 0.17 * place, line, fontsize=7.5, color=MUTED)
    return figure


def _parts(found: Maximized) -> list[str]:
    how, canvas = found.settings, found.canvas
    size = "×".join(map(str, found.pictures[0].values.shape[1:] if found.pictures else canvas.size))
    parts = [f"{safe(found.model_name, 40)}, input {safe(canvas.name, 30)}", f"{canvas.kind}s of {size}"]
    made = "spectrum over 1/f" if how.parameters == "fft" and canvas.kind != "vector" else "values"
    if how.parameters == "fft" and canvas.kind != "vector" and how.decay != 1:
        made = f"spectrum over 1/f^{how.decay:g}"
    if canvas.color in ("rgb", "bgr"):
        made += ", decorrelated colours"
    parts += [f"{how.steps} steps of Adam ({how.rate:g}) on the {made}"]
    if canvas.kind != "vector":
        parts.append(how.views.text(len(canvas.size)))
    if how.count > 1:
        parts.append(f"{how.count} each, likeness costs {how.diversity:g} of the score")
    parts += [found.rules] if found.rules != "rules: gradient" else []
    parts += [f"seed {how.seed}", *canvas.notes]
    parts.append("numbers: the score, and in brackets that of the start")
    if found.examples is not None:
        parts.append("beside each: the samples answered most")
    return parts


@dataclass
class _Grid:
    """Tiles in rows, several subjects side by side where each has one or a few."""

    found: Maximized
    groups: list[list[MadePicture]]
    extremes: dict[int, UnitExtremes]
    tile: float
    tall: float

    @property
    def gap(self) -> float:
        """Inches between tiles."""
        return _NARROW if self.extremes else _GAP + (_AXIS if len(self.found.canvas.size) == 1 else 0)

    @property
    def below(self) -> float:
        """Inches below a tile."""
        return 0.14 + (0.14 if len(self.found.canvas.size) == 1 else 0)

    @property
    def samples(self) -> int:
        """Samples beside each group."""
        return min(_SAMPLES, max((len(one.top) for one in self.extremes.values()), default=0))

    @property
    def block(self) -> float:
        """Inches of a group's width."""
        count = max((len(group) for group in self.groups), default=1) + self.samples
        axis = _AXIS if self.extremes and len(self.found.canvas.size) == 1 else 0
        return count * (self.tile + self.gap) + (0.15 if self.samples else 0) + (0.15 if count > 1 else 0) + axis

    @property
    def columns(self) -> int:
        """Groups in a row."""
        return max(1, min(len(self.groups), int((_WIDTH - 2 * MARGIN + _GAP + 0.15) / self.block)))

    @property
    def height(self) -> float:
        """Inches of all rows."""
        return math.ceil(len(self.groups) / self.columns) * (self.tall + _TEXT + self.below)

    def draw(self, figure: Figure, top: float) -> None:
        """Draw all tiles."""
        for place, group in enumerate(self.groups):
            left = MARGIN + (place % self.columns) * self.block
            down = top + (place // self.columns) * (self.tall + _TEXT + self.below)
            self._group(figure, group, left, down)

    def _group(self, figure: Figure, group: list[MadePicture], left: float, top: float) -> None:
        canvas, wide = self.found.canvas, self.tile + self.gap
        left += _AXIS if len(canvas.size) == 1 else 0
        room = int((len(group) * wide + self.samples * wide) / 0.068)
        figure_text(figure, left, top, safe(group[0].label, max(room, 8)), fontsize=7.5, fontweight="bold")
        for place, made in enumerate(group):
            said = f"{number(made.score)} ({number(made.start)})"
            at = left + place * wide
            figure_text(figure, at, top + 0.16, said, fontsize=6.5, color=MUTED)
            _tile(inch_axes(figure, at, top + _TEXT, self.tile, self.tall), canvas, made.values)
        extremes = self.extremes.get(-1 if group[0].unit is None else group[0].unit)
        if extremes is None or self.found.examples is None:
            return
        at = left + len(group) * wide + 0.15
        for place, one in enumerate(extremes.top[: self.samples]):
            view = self.found.examples.views.get(one.sample) or SampleView(self.found.examples.names[one.sample])
            figure_text(figure, at + place * wide, top + 0.16, number(one.value), fontsize=6.5, color=MUTED)
            axes = inch_axes(figure, at + place * wide, top + _TEXT, self.tile, self.tall)
            _sample(axes, view, one.box if one.value else None)


def _layout(found: Maximized) -> _Grid:
    groups: dict[str, list[MadePicture]] = {}
    for made in found.pictures:
        groups.setdefault(made.label, []).append(made)
    extremes = {}
    if found.examples is not None and found.examples.layers:
        extremes = {one.unit: one for one in found.examples.layers[0].extremes}
    size = found.canvas.size
    shape = size[0] / size[1] if len(size) == 2 else 0.55
    count = len(found.pictures)
    if found.source is not None:
        source = MadePicture(_called(found), None, 0, found.source, math.nan, math.nan, np.zeros(0, np.float32))
        tile = _LARGE if shape <= 1 else _LARGE / shape
        return _Pair(found, [[source, *group] for group in groups.values()], {}, tile, tile * shape)
    tile = (
        (_SMALL if max(size) <= 64 else 1.0)
        if extremes
        else 1.08
        if count > 12
        else 1.5
        if max(size) > 64 or count > 4
        else 1.9
    )
    if len(size) == 1:
        tile = 0.9 if extremes else 1.95
    return _Grid(found, list(groups.values()), extremes, tile, tile * min(max(shape, 0.4), 2.0))


def _called(found: Maximized) -> str:
    return f"{found.what} of"


class _Pair(_Grid):
    """The picture that was begun with, and what became of it."""

    def _group(self, figure: Figure, group: list[MadePicture], left: float, top: float) -> None:
        wide = self.tile + _GAP
        for place, made in enumerate(group):
            at = left + place * wide
            said = "the picture" if not place else f"{made.label}: {number(made.score)} ({number(made.start)})"
            figure_text(figure, at, top + 0.12, safe(said, 60), fontsize=8, color=INK)
            _tile(inch_axes(figure, at, top + _TEXT, self.tile, self.tall), self.found.canvas, made.values)


def _tile(axes: Axes, canvas: Canvas, values: npt.NDArray[np.float32]) -> None:
    if len(canvas.size) == 2:
        picture = shown_picture(canvas, values)
        smooth = "nearest" if max(picture.shape[:2]) <= 64 else "antialiased"
        plain(axes).imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation=smooth, aspect="auto")
        return
    low, high = canvas.shift, canvas.shift + canvas.scale
    level = values * canvas.scale[:, None] + canvas.shift[:, None]
    if canvas.kind == "vector":
        axes.bar(np.arange(level.shape[1]), level[0], width=0.8, color=ACCENT, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.4)
    else:
        for row in level[:4]:
            axes.plot(row, color=ACCENT, linewidth=0.7)
        axes.set_xlim(0, max(level.shape[1] - 1, 1))
    span = 0.04 * float(high.max() - low.min())
    axes.set_ylim(float(low.min()) - span, float(high.max()) + span)
    draw_lines(axes)
    axes.tick_params(labelsize=5.5)


def _sample(axes: Axes, view: SampleView, box: tuple[tuple[int, int], ...] | None) -> None:
    plain(axes)
    if view.picture is not None:
        rows, columns = view.picture.shape[:2]
        axes.imshow(view.picture, interpolation="nearest" if max(rows, columns) <= 64 else "antialiased", aspect="auto")
        if box is not None and len(box) == 2:
            (y0, y1), (x0, x1) = box
            axes.add_patch(
                Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, edgecolor=ZERO, linewidth=1.0)
            )
    elif view.signal is not None:
        for line in view.signal:
            axes.plot(np.linspace(0, max(view.length - 1, 1), len(line)), line, color=INK, linewidth=0.6)
    else:
        axes.text(0.5, 0.5, safe(view.name, 14), transform=axes.transAxes, ha="center", va="center", fontsize=6,
                  color=MUTED, fontfamily=FONT, parse_math=False)  # fmt: skip


def _curves(figure: Figure, found: Maximized, top: float) -> None:
    """Draw the score at each step: whether it has settled."""
    axes = inch_axes(figure, MARGIN + 0.45, top + 0.2, 4.6, _CURVES)
    many = len(found.pictures)
    for made in found.pictures:
        axes.plot(
            np.arange(1, len(made.history) + 1),
            made.history,
            color=ACCENT,
            linewidth=0.8,
            alpha=1 if many < 3 else 0.45,
        )
    axes.set_xlim(0, max(len(made.history) for made in found.pictures))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel("step", fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1)
    axes.set_title(
        "score at each step, of the transformed picture", fontsize=7.5, color=INK, fontfamily=FONT, loc="left", pad=3
    )
    draw_lines(axes)
