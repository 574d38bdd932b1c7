"""The units of layers over many samples as a figure: heat map, class means, selectivity, distributions, samples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.neurons import NeuronLayer, Neurons
from onnxviz.analysis.scale import ColorScale, color_scale
from onnxviz.plots.neuron_panels import PANEL_HEIGHT, draw_panels
from onnxviz.plots.neuron_samples import draw_samples, samples_height
from onnxviz.plots.pairs import MARGIN, draw_lines, footer_lines, head
from onnxviz.plots.style import (
    ACCENT,
    FONT,
    INK,
    MUTED,
    colorbar,
    draw_map,
    figure_text,
    inch_axes,
    new_figure,
    safe,
    wrap_caption,
)
from onnxviz.plots.tiles import draw_vector

__all__ = ["plot_neurons"]

_WIDTH = 13.4
_LABELS = 0.5  # inches for the numbers of units
_STRIP = 0.85
_ROW, _MOST = 0.115, 8.5  # inches of a row, and of all of them
_BARS = 1.7
_CLASSES = 0.34


def plot_neurons(found: Neurons) -> Figure:
    """Draw the units of layers over samples, a section a layer.

    A section is the heat map of units × samples, the class means on the same scale with the preferred class dotted, the
    class selectivity index and ROC-AUC of each row; the distributions over all units of the layer; and for the best
    units the samples answered most and least, with what the most active position sees in an orange frame. With a single
    sample it is a bar a unit.

    Args:
        found: What :func:`onnxviz.api.neuron_views` returned.

    Returns:
        The figure; :func:`onnxviz.plots.save.save_figure` writes it.
    """
    captions = [_caption(layer) for layer in found.layers]
    heights = [
        0.42 + 0.16 * (caption.count("\n") + 1) + _body(found, layer)
        for layer, caption in zip(found.layers, captions, strict=True)
    ]
    notes = [*(safe(note, 150) for note in found.notes), *footer_lines(found.not_drawn)]
    lines = _lead(found)
    top = 0.62 + 0.18 * len(lines)
    figure = new_figure(_WIDTH, top + sum(heights) + 0.15 + 0.17 * len(notes))
    head(figure, f"Neurons of {found.model_name}", lines)
    for layer, caption, height in zip(found.layers, captions, heights, strict=True):
        _section(figure, found, layer, caption, top)
        top += height
    for note in notes:
        figure_text(figure, MARGIN, top, note, fontsize=7.5, color=MUTED)
        top += 0.17
    return figure


def _lead(found: Neurons) -> list[str]:
    many = f"{len(found.names)} sample{'s' if len(found.names) != 1 else ''}"
    if found.labels is None:
        return [f"{many}, without classes"]
    where = "folders" if found.labels.source == "folders" else safe(found.labels.source, 60)
    return [f"{many} of {len(found.labels.classes)} classes ({where})"]


def _caption(layer: NeuronLayer) -> str:
    total = len(layer.mean)
    one = len(layer.values) == 1
    shown = f"all {total} units" if len(layer.units) == total else f"{len(layer.units)} of {total} units"
    by = {"auc": "ROC-AUC", "selectivity": "class selectivity index", "index": "index"}.get(layer.by, layer.by)
    order = {"class": "by preferred class, then score", "cluster": "in hierarchical clusters", "score": "by score",
             "index": "in index order"}  # fmt: skip
    positions = {"mean": "mean over positions", "max": "largest over positions", "energy": "mean of x² over positions"}
    parts = [layer.role] if layer.role else []
    parts += [f"{layer.op_type or 'input'} {'×'.join(map(str, layer.shape))}"]
    spatial = layer.spatial
    if spatial or layer.over == "energy":
        parts.append(positions.get(layer.over, layer.over) if spatial else "x²")
    if not one:
        chosen = f", chosen by {by}" if len(layer.units) < total else f", scored by {by}"
        parts += [shown + chosen, f"rows {order[layer.order]}"]
        parts.append(_scale(layer).caption() + (", z-scores of each unit" if layer.z_score else ""))
    return wrap_caption([*parts, *(safe(note, 160) for note in layer.notes)], _WIDTH - 2 * MARGIN)


def _scale(layer: NeuronLayer) -> ColorScale:
    return color_scale(layer.shown(), signed=True if layer.z_score else None)


def _map_height(layer: NeuronLayer) -> float:
    return min(max(_ROW * len(layer.units), 0.5), _MOST)


def _brackets_height(layer: NeuronLayer) -> float:
    return _CLASSES if len(layer.labels) else 0.1


def _class_names(layer: NeuronLayer) -> list[str]:
    return [] if layer.selectivity is None else [safe(name, 14) for name in layer.selectivity.classes]


def _turned(names: list[str]) -> bool:
    return max(map(len, names), default=0) > 3


def _below(layer: NeuronLayer) -> float:
    """Return inches below the heat map: names of classes that stand upright need more."""
    names = _class_names(layer)
    return max(0.45, 0.25 + 0.06 * max(map(len, names))) if _turned(names) else 0.45


def _body(found: Neurons, layer: NeuronLayer) -> float:
    if len(layer.values) == 1:
        return _BARS + 0.5
    return (
        _brackets_height(layer)
        + _map_height(layer)
        + _below(layer)
        + PANEL_HEIGHT
        + 0.75
        + samples_height(found, layer)
    )


def _section(figure: Figure, found: Neurons, layer: NeuronLayer, caption: str, top: float) -> None:
    figure_text(figure, MARGIN, top, safe(layer.name, 110), fontsize=10.5, fontweight="bold")
    figure_text(figure, MARGIN, top + 0.22, caption, fontsize=8, color=MUTED, linespacing=1.4)
    top += 0.42 + 0.16 * (caption.count("\n") + 1)
    if len(layer.values) == 1:
        axes = inch_axes(figure, MARGIN + _LABELS, top, _WIDTH - 2 * MARGIN - _LABELS, _BARS)
        draw_vector(axes, layer.values[0], labels=True)
        axes.set_xlabel("unit", fontsize=7.5, color=MUTED, fontfamily=FONT, labelpad=1)
        return
    _heat_map(figure, layer, top + _brackets_height(layer))
    top += _brackets_height(layer) + _map_height(layer) + _below(layer)
    draw_panels(figure, layer, MARGIN, top, _WIDTH - 2 * MARGIN)
    draw_samples(figure, found, layer, top + PANEL_HEIGHT + 0.75)


def _heat_map(figure: Figure, layer: NeuronLayer, top: float) -> None:
    scale, height, count = _scale(layer), _map_height(layer), len(layer.units)
    found = layer.selectivity
    classes = 0 if found is None else len(found.classes)
    means = min(max(0.24 * classes, 0.5), 2.6) if classes else 0.0
    right = 0.8 + (means + 0.15 + len(_strips(layer)) * (_STRIP + 0.15) if classes else 0.0)
    left = MARGIN + _LABELS
    width = _WIDTH - MARGIN - left - right
    axes = inch_axes(figure, left, top, width, height)
    shown = layer.shown()
    image = draw_map(axes, shown, scale, (0, shown.shape[1], count, 0))
    if shown.shape[1] <= 150 * width and count <= 150 * height:  # a cell is a pixel or more: no smoothing
        image.set_interpolation("nearest")
    _frame(axes, shown.shape[1], count)
    _unit_labels(axes, layer, height)
    axes.set_xticks([])
    _brackets(axes, layer, width, height)
    tail = ", grouped by class" if len(layer.labels) else ""
    axes.set_xlabel(
        f"{shown.shape[1]} samples{tail}", fontsize=7.5, color=MUTED, fontfamily=FONT, labelpad=4
    )  # fmt: skip
    at = left + width + 0.15
    if found is not None:
        _class_means(inch_axes(figure, at, top, means, height), layer, scale, (means, height))
        at += means + 0.15
        for name, numbers, base in _strips(layer):
            _strip(inch_axes(figure, at, top, _STRIP, height), numbers[list(layer.units)], base, name)
            at += _STRIP + 0.15
    colorbar(figure, inch_axes(figure, at, top, 0.11, min(height, 2.2)), scale, size=7)


def _strips(layer: NeuronLayer) -> list[tuple[str, np.ndarray, float]]:
    """Return name, numbers of all units and base line of each score that is defined for any unit shown."""
    found = layer.selectivity
    if found is None:
        return []
    scores = [("selectivity\nindex", found.index, 0.0), ("ROC-AUC", found.auc, 0.5)]
    return [score for score in scores if np.isfinite(score[1][list(layer.units)]).any()]


def _frame(axes: Axes, columns: int, rows: int) -> None:
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)


def _unit_labels(axes: Axes, layer: NeuronLayer, height: float) -> None:
    row = height / len(layer.units)
    step = 1 if row >= 0.09 else int(np.ceil(0.13 / row))
    places = range(0, len(layer.units), step)
    axes.set_yticks([i + 0.5 for i in places], [str(layer.units[i]) for i in places])
    axes.tick_params(axis="y", labelsize=min(7.5, max(row * step, 0.09) * 60), length=1.5, width=0.4, pad=1.5,
                     labelcolor=INK, labelfontfamily=FONT)  # fmt: skip
    axes.set_ylabel("unit", fontsize=7.5, color=MUTED, fontfamily=FONT, labelpad=2)


def _groups(layer: NeuronLayer) -> list[tuple[str, int, int]]:
    """Return name, first and last column of each class in the heat map."""
    if not len(layer.labels):
        return []
    ordered = layer.labels[layer.rows()]
    edges = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(ordered)]
    return [(layer.classes[ordered[a]] if ordered[a] >= 0 else "no label", a, b) for a, b in pairwise(edges)]


def _brackets(axes: Axes, layer: NeuronLayer, width: float, height: float) -> None:
    """Draw a bracket a class above the heat map, its name where there is room, and a thin line between classes."""
    groups, total = _groups(layer), len(layer.values)
    above = axes.get_xaxis_transform()
    inch = 1 / height  # an inch, in the height of the axes
    for name, first, stop in groups:
        gap = min(0.15 * (stop - first), 0.02 / width * total)
        y = 1 + 0.06 * inch
        axes.plot(
            [first + gap, first + gap, stop - gap, stop - gap], [y - 0.035 * inch, y, y, y - 0.035 * inch],
            transform=above, color=INK, linewidth=0.7, clip_on=False, solid_capstyle="butt",
        )  # fmt: skip
        room = width * (stop - first) / total
        letters = int(room / 0.062)
        if letters >= min(len(name), 5):  # else the class means below name it
            axes.text(
                (first + stop) / 2, y + 0.035 * inch, safe(name, letters), transform=above, ha="center", va="bottom",
                fontsize=7, color=INK, fontfamily=FONT, parse_math=False,
            )  # fmt: skip
        if stop < total:
            if room > 0.25:
                axes.axvline(stop, color="white", linewidth=1.2)
            axes.axvline(stop, color=INK if room > 0.25 else MUTED, linewidth=0.4)


def _class_means(axes: Axes, layer: NeuronLayer, scale: ColorScale, size: tuple[float, float]) -> None:
    means = layer.shown_means()
    found = layer.selectivity
    assert means is not None
    assert found is not None
    count = len(found.classes)
    draw_map(axes, means, scale, (0, count, len(means), 0))
    _frame(axes, count, len(means))
    axes.set_yticks([])
    best = found.best[list(layer.units)]
    rows = np.flatnonzero(best >= 0)
    dot = min(3.0, 72 * 0.7 * min(size[0] / count, size[1] / len(means)))  # points
    for part, color in ((1.0, "white"), (0.62, INK)):
        axes.scatter(best[rows] + 0.5, rows + 0.5, s=(part * dot) ** 2, color=color, linewidths=0, zorder=3)
    names = _class_names(layer)
    step = max(1, int(np.ceil(count * 0.13 / size[0])))
    axes.set_xticks([i + 0.5 for i in range(0, count, step)], names[::step], rotation=90 if _turned(names) else 0)
    axes.tick_params(axis="x", labelsize=6.5, length=1.5, width=0.4, pad=1.5, labelfontfamily=FONT, labelcolor=INK)
    _above(axes, "class means")


def _strip(axes: Axes, numbers: np.ndarray, base: float, name: str) -> None:
    """Draw a horizontal bar a row from ``base``; where a number is not defined there is none."""
    rows = np.flatnonzero(np.isfinite(numbers))
    axes.barh(rows + 0.5, numbers[rows] - base, left=base, height=0.7, color=ACCENT, linewidth=0)
    draw_lines(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(numbers), 0)
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.axvline(base, color=INK, linewidth=0.5)
    for x in (0.5, 1.0):
        axes.axvline(x, color=MUTED, linewidth=0.3, zorder=0)
    _above(axes, name)


def _above(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=7.5, color=INK, fontfamily=FONT, pad=3, linespacing=1.1)
