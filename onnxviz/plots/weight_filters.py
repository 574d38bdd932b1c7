"""Filters of layers as a figure: their principal components, clusters, near-duplicates and dead ones."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from onnxviz.analysis.clusters import STRUCTURE
from onnxviz.analysis.scale import number
from onnxviz.analysis.weight_filters import DEAD, SIMILAR, FilterStudy
from onnxviz.analysis.weight_forms import WeightStudy
from onnxviz.plots.pairs import LABEL_WIDTH, MARGIN, row_text
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, inch_axes
from onnxviz.plots.weight_study import about, draw_study, fine_axes

__all__ = ["plot_filters"]

_SIDE, _NARROW = 2.5, 1.7
_PAIRS_DRAWN, _PAIRS_LISTED = 300, 6
_LABELLED = 24  # points up to which they are named, where there is room
#: Okabe and Ito 2008, without yellow, which white swallows.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6b4c9a", "#7f7f7f")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


def plot_filters(study: WeightStudy[FilterStudy]) -> Figure:
    """Draw the filters of layers, a row a layer: a map by PCA, the variance that it explains, how well they cluster.

    Points are filters; clusters have a colour and a marker where the mean silhouette is at least 0.25. Near-duplicates
    are joined by a line, dead filters are crosses, silenced ones are ringed.

    Args:
        study: Of :func:`onnxviz.analysis.weight_filters.filter_study`.
    """
    lines = [
        "a point is a filter: the weights of one output, as they are (not scaled to one length)",
        "PCA, both axes on one scale",
        "clusters: k-means over the first 50 components",
        f"× dead: L2 norm at most {DEAD:g} of the largest",
        f"ring: silenced, |gamma| of the BatchNorm behind at most {DEAD:g} of its largest",
        f"line: near-duplicates, |cosine| ≥ {SIMILAR:g}",
        f"dashed: silhouette {STRUCTURE:g}, below which there are no clear clusters",
    ]
    width = MARGIN + LABEL_WIDTH + 0.45 + _SIDE + 2 * (0.75 + _NARROW) + 0.3
    return draw_study(study, f"Filters of {study.model_name}", lines, width, lambda view: _SIDE + 0.3, _draw)


def _draw(figure: Figure, view: FilterStudy, top: float) -> None:
    row_text(figure, top + 0.1, view.name.layer, [*about(view.name), *_notes(view)])
    left = MARGIN + LABEL_WIDTH + 0.45
    _map(inch_axes(figure, left, top + 0.1, _SIDE, _SIDE), view)
    left += _SIDE + 0.75
    _variance(inch_axes(figure, left, top + 0.1, _NARROW, 1.5), view)
    left += _NARROW + 0.75
    _silhouettes(inch_axes(figure, left, top + 0.1, _NARROW, 1.5), view)


def _notes(view: FilterStudy) -> list[str]:
    share = view.components.variance
    notes = [
        f"{view.count} filters of {view.size} weights",
        f"2 components explain {100 * float(share[:2].sum()):.3g} % of the variance",
    ]
    clusters = view.clusters
    if clusters is None:
        notes.append(view.not_clustered)
    else:
        sizes = ", ".join(map(str, np.bincount(clusters.labels)))
        verdict = f"{clusters.count} clusters ({sizes})" if clusters.clear else "no clear clusters"
        notes.append(f"{verdict}: best silhouette {number(clusters.silhouette or 0.0)} at k = {clusters.count}")
    notes.append(f"dead: {_listed(view.dead)}")
    if view.silenced is not None:
        notes.append(f"silenced by BatchNorm: {_listed(view.silenced)}")
    similar = view.similar
    if similar.refused:
        notes.append(f"near-duplicates: not looked for, {similar.refused}")
    elif similar.count:
        first = ", ".join(
            f"{a}–{b} ({number(c)})" for (a, b), c in zip(similar.pairs[:_PAIRS_LISTED], similar.cosines, strict=False)
        )
        more = ", …" if similar.count > _PAIRS_LISTED else ""
        notes.append(f"near-duplicates: {similar.count} pairs of {similar.members} filters: {first}{more}")
    else:
        notes.append("near-duplicates: none")
    return [*notes, *([view.note] if view.note else [])]


def _listed(indices: np.ndarray) -> str:
    if not len(indices):
        return "none"
    shown = ", ".join(map(str, indices[:6]))
    return f"{len(indices)} ({shown}{', …' if len(indices) > 6 else ''})"


def _map(axes: Axes, view: FilterStudy) -> None:
    points = view.components.coordinates[:, :2]
    place = np.full(view.count, -1)
    place[view.shown] = np.arange(len(view.shown))
    pairs = place[view.similar.pairs[:_PAIRS_DRAWN]]
    pairs = pairs[(pairs >= 0).all(axis=1)]
    if len(pairs):
        axes.add_collection(LineCollection(list(points[pairs]), colors=INK, linewidths=0.6, alpha=0.6, zorder=1))
    dead = np.isin(view.shown, view.dead)
    labels = (
        view.clusters.labels if view.clusters is not None and view.clusters.clear else np.zeros(len(points), np.int64)
    )
    size = float(np.clip(900 / len(points), 3, 26))
    for number_ in np.unique(labels):
        chosen = (labels == number_) & ~dead
        axes.scatter(
            points[chosen, 0], points[chosen, 1], s=size, c=_COLORS[number_ % 8], marker=_MARKERS[number_ % 8],
            alpha=0.85, linewidths=0, zorder=2,
        )  # fmt: skip
    axes.scatter(points[dead, 0], points[dead, 1], s=22, c=ZERO, marker="x", linewidths=1, zorder=3)
    if view.silenced is not None:
        ringed = np.isin(view.shown, view.silenced)
        x, y = points[ringed, :2].T
        axes.scatter(x, y, s=34, facecolors="none", edgecolors=ZERO, linewidths=0.9, zorder=3)
    if len(points) <= _LABELLED:
        for index, point in _apart(view.shown, points):
            axes.annotate(
                str(index), (point[0], point[1]), (3, 2), textcoords="offset points", fontsize=6, color=MUTED,
                fontfamily=FONT,
            )  # fmt: skip
    middle, reach = (points.max(axis=0) + points.min(axis=0)) / 2, 0.56 * float(np.ptp(points, axis=0).max()) or 1.0
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.locator_params(nbins=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, position: number(value))
    first, second = (f"PC{i + 1} ({100 * float(view.components.variance[i]):.3g} %)" for i in (0, 1))
    fine_axes(axes, first, second)


def _apart(indices: np.ndarray, points: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return the points whose names do not lie on one another's."""
    reach = 1.12 * float(np.ptp(points, axis=0).max()) or 1.0
    kept: list[tuple[int, np.ndarray]] = []
    for index, point in zip(indices, points, strict=True):
        off = [np.abs(point - other) / reach for _, other in kept]
        if all(step[0] > 0.07 or step[1] > 0.045 for step in off):
            kept.append((int(index), point))
    return kept


def _variance(axes: Axes, view: FilterStudy) -> None:
    share = 100 * view.components.variance[:20]
    axes.bar(np.arange(1, len(share) + 1), share, color=ACCENT, width=0.8)
    axes.plot(np.arange(1, len(share) + 1), np.cumsum(share), color=INK, linewidth=1, marker=".", markersize=3)
    axes.set_ylim(0, 105)
    axes.locator_params(axis="x", integer=True, nbins=5)
    fine_axes(axes, "principal component", "% of variance (line: sum)")


def _silhouettes(axes: Axes, view: FilterStudy) -> None:
    if view.clusters is None:
        axes.set_axis_off()
        return
    tried = view.clusters.tried
    axes.plot(list(tried), list(tried.values()), color=ACCENT, linewidth=1, marker="o", markersize=3)
    best = view.clusters.count
    axes.plot([best], [tried[best]], marker="o", markersize=7, markerfacecolor="none", color=INK)
    axes.axhline(STRUCTURE, color=MUTED, linewidth=0.6, linestyle=(0, (4, 3)))
    axes.set_ylim(min(0, *tried.values()) - 0.02, max(0.5, *tried.values()) * 1.08)
    axes.set_xticks(list(tried))
    fine_axes(axes, "clusters k", "mean silhouette")
