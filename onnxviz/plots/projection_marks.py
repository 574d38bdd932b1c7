"""How points of a projection are marked: colours and shapes of groups, and small pictures that hide nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetBox, OffsetImage, TextArea
from matplotlib.patheffects import withStroke

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.neuron_samples import Look, SampleView
from onnxviz.analysis.projection import Projection
from onnxviz.analysis.scale import ColorScale
from onnxviz.plots.style import FONT, INK, MUTED, colormap, norm, safe
from onnxviz.plots.thumbnails import picture_thumbnail

__all__ = [
    "Group",
    "channel_pictures",
    "draw_pictures",
    "draw_points",
    "groups",
    "placed",
    "reach",
    "sample_marks",
    "signal_picture",
]

Pixels = npt.NDArray[np.uint8]
#: A picture, or words.
Mark = Pixels | str

#: Ten colours that colour-blind readers tell apart (M. Petroff 2021, arXiv 2107.02270), the greys last.
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#4a8a5b", "#a96b59", "#e76300", "#92dadd", "#b9ac70", "#717581",
)  # fmt: skip
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_OTHERS = "#c9ced4"
_MOST = 20  # groups that are told apart
_EDGE = 44  # pixels of a small picture
_LETTERS = 24  # of the words of a text
_LETTER, _LINE = 0.053, 0.15  # inches of a letter of words, and of their frame's height


@dataclass(frozen=True, eq=False)
class Group:
    """Points that are marked alike.

    Attributes:
        name: What they are called; empty where there are no groups.
        rows: Which points.
        color: Of the mark.
        shape: Of the mark, as matplotlib names it.
    """

    name: str
    rows: npt.NDArray[np.intp]
    color: str
    shape: str


def groups(found: Projection, by: str) -> list[Group]:
    """Return the groups that points are coloured by.

    Args:
        found: The projection.
        by: ``"labels"``, ``"clusters"`` or ``"none"``.
    """
    count = len(found.numbers)
    if by == "labels" and found.classes is not None:
        names = [name for name, _ in found.classes.classes]
        if len(names) > _MOST:
            largest = sorted(found.classes.classes, key=lambda item: -item[1])[: _MOST - 1]
            names = [name for name in names if name in {key for key, _ in largest}]
        given = np.array([names.index(x) if x in names else -1 for x in found.classes.labels], np.intp)
        none = np.array([x is None for x in found.classes.labels])
        made = [_group(name, np.flatnonzero(given == i), i) for i, name in enumerate(names)]
        others, unnamed = np.flatnonzero((given < 0) & ~none), np.flatnonzero(none)
        kinds = len(found.classes.classes) - len(names)
        made += [Group(f"{kinds} other classes", others, _OTHERS, "o")] if others.size else []
        return made + ([Group("no class", unnamed, _OTHERS, "x")] if unnamed.size else [])
    if by == "clusters" and found.clusters is not None:
        labels = found.clusters.labels
        shown = min(found.clusters.count, _MOST)
        made = [_group(f"cluster {i}", np.flatnonzero(labels == i), i) for i in range(shown)]
        rest, noise = np.flatnonzero(labels >= shown), np.flatnonzero(labels < 0)
        made += [Group(f"{found.clusters.count - shown} other clusters", rest, _OTHERS, "o")] if rest.size else []
        return made + ([Group("in no cluster", noise, _OTHERS, "x")] if noise.size else [])
    return [Group("", np.arange(count), COLORS[0], "o")]


def _group(name: str, rows: npt.NDArray[np.intp], place: int) -> Group:
    shape = _SHAPES[(place + place // len(COLORS) * 3) % len(_SHAPES)]
    return Group(name, rows, COLORS[place % len(COLORS)], shape)


def draw_points(axes: Axes, points: npt.NDArray[np.float64], marks: list[Group], *, named: bool) -> None:
    """Draw each point with the mark of its group, in an order that lets no group hide another as a whole.

    Args:
        axes: Where to draw.
        points: ``(n, 2)``.
        marks: As :func:`groups` returns them.
        named: Whether each group's name stands at its middle.
    """
    size = float(np.clip(5200 / len(points), 7, 34))
    for mark in sorted(marks, key=lambda mark: (mark.color != _OTHERS, -len(mark.rows))):
        edge: dict[str, Any] = {} if mark.shape == "x" else {"edgecolors": "white"}
        axes.scatter(
            points[mark.rows, 0],
            points[mark.rows, 1], s=size, c=mark.color, marker=mark.shape, linewidths=0.3 if edge else 0.8, alpha=0.9,
            label=mark.name, **edge,
        )  # fmt: skip
    for mark in marks if named else ():
        if mark.color != _OTHERS and mark.rows.size:
            axes.annotate(
                safe(mark.name.removeprefix("cluster "), 16), _above(points[mark.rows]), (0, 5),
                textcoords="offset points", fontsize=8, fontweight="bold", color=INK, ha="center", va="bottom",
                fontfamily=FONT, parse_math=False, path_effects=[withStroke(linewidth=2.2, foreground="white")],
                annotation_clip=False,
            )  # fmt: skip


def _above(points: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return where the name of a group stands: above the points about its middle, stragglers aside."""
    middle = np.median(points, axis=0)
    away = np.abs(points - middle).max(axis=1)
    core = points[away <= 2 * np.median(away)]
    return float(middle[0]), float(core[:, 1].max())


def placed(
    points: npt.NDArray[np.float64], width: float, height: float, first: npt.NDArray[np.intp] | None = None
) -> npt.NDArray[np.intp]:
    """Return which points can be shown as boxes that do not overlap, far ones first.

    The first is the point farthest from the mean; each next one is the farthest from all that were taken (Gonzalez
    1985), as long as its box touches none of theirs.

    Args:
        points: ``(n, 2)``, in the units of the box.
        width: Of a box.
        height: Of a box.
        first: Points that are taken before all others.

    >>> placed(np.array([[0.0, 0.0], [0.4, 0.0], [3.0, 0.0]]), 1.0, 1.0).tolist()
    [2, 0]
    """
    scaled = points / np.array([width, height])
    away = np.abs(scaled - scaled.mean(axis=0)).max(axis=1)
    waiting = [] if first is None else [int(i) for i in first]
    chosen: list[int] = []
    nearest = np.full(len(points), np.inf)
    while True:
        following = waiting.pop(0) if waiting else int(np.argmax(away if not chosen else nearest))
        if nearest[following] >= 1.0:
            chosen.append(following)
            nearest = np.minimum(nearest, np.abs(scaled - scaled[following]).max(axis=1))
        elif not waiting:
            return np.array(chosen, np.intp)


def draw_pictures(
    axes: Axes, points: npt.NDArray[np.float64], marks: list[Group], pictures: Mapping[int, Mark],
    odd: npt.NDArray[np.intp],
) -> int:  # fmt: skip
    """Draw the pictures of points at their places, framed in the colour of their group; the other points are dots.

    Args:
        axes: Where to draw; its limits are set already.
        points: ``(n, 2)``.
        marks: As :func:`groups` returns them.
        pictures: Row -> ``(h, w, 3)`` uint8, or words.
        odd: Rows that are drawn before others, in a black frame.

    Returns:
        How many are shown.
    """
    rows = np.array(sorted(pictures), np.intp)
    color = {int(row): mark.color for mark in marks for row in mark.rows}
    axes.scatter(points[:, 0], points[:, 1], s=5, c=[color[i] for i in range(len(points))], linewidths=0)
    if not rows.size:
        return 0
    inches = axes.transData.transform(points[rows]) / axes.figure.dpi
    unit, wide, tall = _room(list(pictures.values()), len(points))
    shown = rows[placed(inches, wide + 0.06, tall + 0.06, np.flatnonzero(np.isin(rows, odd)))]
    for row in shown:
        image = _mark(pictures[int(row)], unit)
        words = isinstance(pictures[int(row)], str)
        frame = {
            "edgecolor": INK if row in odd else color[int(row)], "linewidth": 0.9 if words else 1.8,
            "boxstyle": f"square,pad={0.2 if words else 0}",
        }  # fmt: skip
        axes.add_artist(AnnotationBbox(image, points[row], pad=0.0, bboxprops=frame))
    return len(shown)


def reach(pictures: Mapping[int, Mark]) -> float:
    """Return the inches that a picture, or words, may reach beyond its point."""
    longest = max((len(mark) for mark in pictures.values() if isinstance(mark, str)), default=0)
    return max(0.3, _LETTER * longest / 2 + 0.1)


def _room(marks: Sequence[Mark], points: int) -> tuple[float, float, float]:
    """Return the inches of a pixel, and the width and height that no mark exceeds."""
    texts = [mark for mark in marks if isinstance(mark, str)]
    shapes = [mark.shape for mark in marks if not isinstance(mark, str)]
    if not shapes:
        return 0.0, _LETTER * max(map(len, texts)), _LINE
    tall, wide = (max(shape[i] for shape in shapes) for i in (0, 1))
    least = 0.32 if points <= 64 else 0.22  # inches: few points have room
    unit = float(np.clip(max(tall, wide) / 130, least, 0.45)) / max(tall, wide)
    return unit, wide * unit, tall * unit


def _mark(mark: Mark, unit: float) -> OffsetBox:
    if isinstance(mark, str):
        style = {"fontsize": 6, "color": INK, "fontfamily": FONT, "parse_math": False}
        return TextArea(mark, textprops=style)
    return OffsetImage(mark, zoom=72 * unit, interpolation="nearest", resample=True)


def channel_pictures(maps: FeatureMaps, scale: ColorScale | None = None) -> list[Pixels]:
    """Return each map as a small picture in the colours of its scale; channels × position as a strip a channel.

    >>> from onnxviz.analysis.feature_maps import feature_maps
    >>> channel_pictures(feature_maps(np.ones((1, 3, 6, 6)), top=None, by="index"))[0].shape
    (6, 6, 3)
    """
    scale = scale or maps.scale
    block = maps.maps if maps.kind == "grid" else maps.maps[0][:, None, :]
    return [_colored(one, scale) for one in block]


def _colored(values: npt.NDArray[np.float32], scale: ColorScale) -> Pixels:
    rows, columns = values.shape
    step = max(math.ceil(max(rows, columns) / _EDGE), 1)
    small = values[::step, ::step]
    if rows == 1:
        small = np.repeat(small, max(small.shape[1] // 3, 1), axis=0)
    finite = np.isfinite(small)
    pixels = np.rint(255 * np.asarray(colormap(scale)(norm(scale)(np.where(finite, small, 0))))[..., :3])
    pixels[~finite] = 255
    return np.asarray(pixels, np.uint8)


def sample_marks(views: Mapping[int, SampleView], look: Look) -> dict[int, Mark]:
    """Return the small picture of each sample, or its words, where it has what the others are told apart by."""
    if look == "words":
        return {i: safe(view.text, _LETTERS) for i, view in views.items() if view.text}
    if look == "pictures":
        shown = {i: view.picture for i, view in views.items() if view.picture is not None}
        return {i: picture_thumbnail(picture).tiles[0] for i, picture in shown.items()}
    signals = {i: view.signal for i, view in views.items() if view.signal is not None}
    return {i: signal_picture(signal[0].astype(np.float64)) for i, signal in signals.items()}


def signal_picture(signal: npt.NDArray[np.float64]) -> Pixels:
    """Return a signal as a small line drawing: the range within each column, from its lowest to its highest value.

    >>> signal_picture(np.sin(np.arange(100.0))).shape
    (30, 60, 3)
    """
    height, width = 30, 60
    values = np.where(np.isfinite(signal), signal, 0.0)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    edges = np.linspace(0, len(values), width + 1).astype(int)
    pixels = np.full((height, width, 3), 255, np.uint8)
    for column in range(width):
        part = scaled[edges[column] : max(edges[column + 1] + 1, edges[column] + 1)]
        top, bottom = ((1 - np.array([part.max(), part.min()])) * (height - 1)).round().astype(int)
        pixels[top : bottom + 1, column] = [int(MUTED[i : i + 2], 16) for i in (1, 3, 5)]
    return pixels
