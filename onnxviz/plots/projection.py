"""Projections as figures: PCA with its scree, t-SNE and UMAP beside it, with what each map keeps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.clusters import STRUCTURE
from onnxviz.analysis.projection import Map, Projection
from onnxviz.errors import SelectionError
from onnxviz.plots.pairs import MARGIN, draw_lines, footer_lines, head
from onnxviz.plots.projection_marks import Group, Mark, draw_pictures, draw_points, groups, reach
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, figure_text, inch_axes, safe, wrap_caption

__all__ = ["plot_projection"]

_PANEL, _LARGE, _SIDE = 3.5, 5.0, 3.5  # inches
_GAP, _ABOVE, _BELOW = 0.45, 0.34, 0.62
_BARS = 20
_ADVICE = {
    "t-SNE": "t-SNE: read who is near whom; distances between groups, their sizes and densities mean nothing",
    "UMAP": "UMAP: read who is near whom; distances between groups and their densities mean little",
}


def plot_projection(
    found: Projection,
    *,
    pictures: Mapping[int, Mark] | None = None,
    showing: str = "pictures",
    color: Literal["auto", "labels", "clusters", "none"] = "auto",
) -> Figure:
    """Draw a projection.

    PCA stands first, with the share of the variance along each component; beside it the key and the numbers. Other
    maps follow below. Points that are ringed have no neighbour of their class.

    Args:
        found: As :func:`onnxviz.analysis.projection.project_points` returns it.
        pictures: Row -> picture of ``(h, w, 3)`` uint8, to be drawn in place of marks where they do not overlap.
        showing: What the pictures are, in words.
        color: What colours stand for; ``"auto"`` takes classes where there are some, else clusters.

    Raises:
        SelectionError: Colours are asked of classes or clusters that are not there.
    """
    by = _colored_by(found, color)
    marks = groups(found, by)
    panel = _LARGE if pictures else _PANEL
    width = _places(panel, len(found.maps), 0.0).width
    lines, footer = _lines(found, width), _footer(found, width)
    place = _places(panel, len(found.maps), 0.69 + 0.18 * len(lines))
    height = place.below + 0.15 * (len(footer) + bool(pictures)) + 0.3
    figure = Figure(figsize=(place.width, height), facecolor="white")
    head(figure, _title(found), lines)
    shown = [
        _panel(figure, found, one, marks, pictures, (left, top, panel))
        for one, (left, top) in zip(found.maps, place.maps, strict=True)
    ]
    _scree(figure, *place.scree, found)
    _key(figure, found, marks, by, "framed in black" if pictures else "ringed", *place.key)
    if pictures:
        told = ", ".join(f"{count}" for count in shown)
        footer.insert(0, f"{showing}, where they do not overlap: {told} of {len(found.numbers)}; the others are dots")
    figure_text(figure, MARGIN, place.below, "\n".join(footer), fontsize=7.5, color=MUTED, linespacing=1.4)
    return figure


@dataclass(frozen=True)
class _Places:
    """Where the parts of a sheet stand, in inches from its top left corner."""

    maps: list[tuple[float, float]]
    scree: tuple[float, float]
    key: tuple[float, float]
    width: float
    below: float


def _places(panel: float, maps: int, start: float) -> _Places:
    """Return where things stand: PCA, scree and key above, three maps a row below; of two maps, those above."""
    across, step = panel + _GAP, panel + _ABOVE + _BELOW
    if maps == 2:
        row = start + step
        tops = [(MARGIN, start), (MARGIN + across, start)]
        return _Places(tops, (MARGIN, row), (MARGIN + across, row), 2 * MARGIN + 2 * panel + _GAP, row + _SIDE)
    top = (MARGIN + across, start)
    key = (top[0] + _SIDE + _GAP, start)
    rows = -(-(maps - 1) // 3)
    below = [(MARGIN + (i % 3) * across, start + step * (1 + i // 3)) for i in range(maps - 1)]
    width = max(key[0] + _SIDE, *(left + panel for left, _ in below), 0.0) + MARGIN
    return _Places([(MARGIN, start), *below], top, key, width, start + step * (1 + rows))


def _colored_by(found: Projection, color: str) -> str:
    there = {"labels": found.classes is not None, "clusters": found.clusters is not None, "none": True}
    if color == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if color not in there:
        raise SelectionError(f"points cannot be coloured by {color!r}", hint="choose auto, labels, clusters or none")
    if not there[color]:
        raise SelectionError(f"there are no {color} to colour by", hint=f"give --{color}")
    return color


def _title(found: Projection) -> str:
    methods = " and ".join(dict.fromkeys(one.method for one in found.maps))
    return f"{methods} of {len(found.numbers):,} {found.of} of {found.layer}"


def _lines(found: Projection, width: float) -> list[str]:
    kind = f" ({found.op_type})" if found.op_type else ""
    n, of = len(found.numbers), f" of {found.total:,}" if found.total != len(found.numbers) else ""
    parts = [
        f"each point is {found.what}", safe(f"{found.layer}{kind} of {found.model_name}", 70),
        f"n = {n:,}{of} {found.of}", f"{found.columns:,} numbers each", f"seed {found.seed}",
    ]  # fmt: skip
    if len(found.maps) > 1:
        dims = found.pca.scores.shape[1]
        kept = float(found.pca.ratio[:dims].sum())
        parts.append(
            f"{found.maps[1].method} on the first {dims} principal components ({100 * kept:.3g} % of variance)"
        )
    return wrap_caption(parts, (width - 2 * MARGIN) * 0.95).split("\n")


def _footer(found: Projection, width: float) -> list[str]:
    parts = [_ADVICE[m] for m in dict.fromkeys(one.method for one in found.maps) if m in _ADVICE]
    if found.neighbors:
        parts += [
            f"trustworthiness and kept neighbours: k = {found.neighbors}, against all {found.columns:,} columns",
        ]
    parts += [safe(note, 400) for note in found.notes]
    lines = wrap_caption(parts, width - 2 * MARGIN).split("\n") if parts else []
    most = int((width - 2 * MARGIN) * 15.5)
    return [short for line in lines for short in textwrap.wrap(line, most, subsequent_indent="  ")] + footer_lines(
        found.not_drawn
    )


def _panel(
    figure: Figure, found: Projection, one: Map, marks: list[Group], pictures: Mapping[int, Mark] | None,
    place: tuple[float, float, float],
) -> int:  # fmt: skip
    """Draw one map with its title above and what it keeps below; return how many pictures are shown."""
    left, top, size = place
    title = f"{one.method} of {found.of}" + (f", {one.settings}" if one.settings else "")
    figure_text(figure, left, top + 0.08, title, fontsize=9.5, fontweight="bold")
    axes = inch_axes(figure, left, top + _ABOVE, size, size)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color="#c9ced4", linewidth=0.6)
    _frame(axes, one.points, reach(pictures) / size if pictures else 0.08)
    odd = found.classes.outliers if found.classes is not None else np.zeros(0, np.intp)
    shown = 0
    if pictures:
        shown = draw_pictures(axes, one.points, marks, pictures, odd)
    else:
        by_cluster = marks[0].name.startswith("cluster ")
        draw_points(axes, one.points, marks, named=bool(marks[0].name) and (found.of == "samples" or by_cluster))
    if odd.size and not pictures:
        axes.scatter(
            one.points[odd, 0], one.points[odd, 1], s=70, facecolors="none", edgecolors=INK, linewidths=0.8, zorder=5
        )
    text = _kept(found, one)
    if one.method == "PCA":
        ratio = 100 * np.pad(found.pca.ratio, (0, 1))
        text = f"PC1 across, {ratio[0]:.3g} % · PC2 up, {ratio[1]:.3g} % of the variance\n{text}"
    figure_text(figure, left, top + _ABOVE + size + 0.06, text, fontsize=7.5, color=MUTED, linespacing=1.4)
    return shown


def _frame(axes: Axes, points: npt.NDArray[np.float64], pad: float) -> None:
    """Set limits of the same length on both axes, so that distances are true in all directions."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, reach = (low + high) / 2, float((high - low).max()) / 2 or 1.0
    reach *= 1 + 2 * pad
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)


def _kept(found: Projection, one: Map) -> str:
    if one.trustworthiness is None or one.preserved is None:
        return "too few points to say what the map keeps"
    text = f"trustworthiness {one.trustworthiness:.3f} · {100 * one.preserved:.3g} % of {found.neighbors}-NN kept"
    first = found.maps[0]
    if one is first or first.trustworthiness is None or first.preserved is None:
        return text
    return f"{text}\nPCA: {first.trustworthiness:.3f} · {100 * first.preserved:.3g} %"


def _scree(figure: Figure, left: float, top: float, found: Projection) -> None:
    """Draw the share of the variance along each component as bars, and their sum as a line."""
    ratio = 100 * found.pca.ratio
    of = f", first {_BARS} of {len(ratio)}" if len(ratio) > _BARS else ""
    figure_text(figure, left, top + 0.08, f"Explained variance{of}", fontsize=9.5, fontweight="bold")
    axes = inch_axes(figure, left + 0.3, top + _ABOVE, _SIDE - 0.3, 2.6)
    shown = min(len(ratio), _BARS)
    place = np.arange(1, shown + 1)
    sums = np.cumsum(ratio)
    axes.bar(place, ratio[:shown], color=[ACCENT if i < 2 else "#b9c7d8" for i in range(shown)], width=0.8)
    axes.plot(place, sums[:shown], color=ZERO, linewidth=1.2, marker="o", markersize=2.5)
    highest = float(sums[shown - 1])
    axes.set_ylim(0, 104 if highest > 50 else 1.35 * highest)
    axes.set_xlim(0.3, shown + 0.7)
    axes.locator_params(axis="x", integer=True, nbins=8)
    draw_lines(axes)
    axes.set_xlabel("principal component", fontsize=7.5, color=MUTED, fontfamily=FONT)
    axes.set_ylabel("% of the total variance", fontsize=7.5, color=MUTED, fontfamily=FONT, labelpad=1)
    needed = found.pca.needed(0.9)
    text = f"first two: {sums[min(1, len(sums) - 1)]:.3g} % · 90 % takes {needed}"
    low = sums[shown // 2] > 55
    axes.text(
        0.97 if low else 0.04, 0.3 if low else 0.97, f"{text}\norange: their sum", transform=axes.transAxes,
        ha="right" if low else "left", va="bottom" if low else "top", fontsize=7.5, color=INK, fontfamily=FONT,
    )  # fmt: skip


def _key(figure: Figure, found: Projection, marks: list[Group], by: str, ringed: str, left: float, top: float) -> None:
    """Write what the colours stand for, and the numbers of clusters and classes."""
    classes = found.classes
    what = {"labels": f"Colour: {classes.source}" if classes else "", "clusters": "Colour: clusters"}.get(by, "")
    if what:
        figure_text(
            figure, left, top + 0.08, safe(what, 46), fontsize=9.5 if len(what) < 30 else 8.5, fontweight="bold"
        )
    at = top + _ABOVE + 0.02
    if marks[0].name:
        columns = 2 if len(marks) > 6 else 1
        rows = -(-len(marks) // columns)
        axes = inch_axes(figure, left, at, 3.4, 0.17 * rows)
        axes.set_axis_off()
        axes.set_xlim(0, 3.4)
        axes.set_ylim(rows, 0)
        for i, mark in enumerate(marks):
            x, y = 1.7 * (i // rows) + 0.08, i % rows + 0.5
            axes.scatter([x], [y], s=22, c=mark.color, marker=mark.shape, linewidths=0.8 if mark.shape == "x" else 0)
            text = f"{safe(mark.name, 22 if columns == 1 else 15)}  {len(mark.rows)}"
            axes.text(x + 0.15, y, text, fontsize=8, va="center", color=INK, fontfamily=FONT, parse_math=False)
        at += 0.17 * rows + 0.15
    lines = "\n".join("\n".join(textwrap.wrap(line, 54, subsequent_indent="  ")) for line in _numbers(found, ringed))
    figure_text(figure, left, at, lines, fontsize=8, color=INK, linespacing=1.5)


def _numbers(found: Projection, ringed: str) -> list[str]:
    lines = []
    clusters, classes = found.clusters, found.classes
    if clusters is not None:
        apart = "" if clusters.silhouette is None else f" · silhouette {clusters.silhouette:.2f}"
        if apart and not clusters.clear:
            apart += f", below {STRUCTURE:g}: no clear structure"
        many = (
            "no cluster" if not clusters.count else "1 cluster" if clusters.count == 1 else f"{clusters.count} clusters"
        )
        lines.append(f"{clusters.method}: {many}{apart} ({clusters.settings})")
        lines += [f"{clusters.noise} points in no cluster"] if clusters.noise else []
    if classes is not None:
        if classes.rand is not None:
            lines.append(f"agreement of clusters and classes: adjusted Rand {classes.rand:.2f}")
        if classes.silhouette is not None:
            lines.append(f"silhouette of the classes {classes.silhouette:.2f}")
        if classes.same_class is not None:
            lines.append(f"{100 * classes.same_class:.3g} % of the {found.neighbors} nearest are of the same class")
        if classes.outliers.size:
            names = [found.names[i] for i in classes.outliers[:3]]
            more = f" and {classes.outliers.size - 3} more" if classes.outliers.size > 3 else ""
            told = ", ".join(safe(name, 24) for name in names)
            lines.append(f"{ringed}: {classes.outliers.size} with no neighbour of their class: {told}{more}")
    return lines
