"""How ready a model is for float16 or int8, as a figure: each layer through the depth, and more and more of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from onnxviz.analysis.readiness import LayerEffect, Precision, Readiness, counted
from onnxviz.errors import InputError
from onnxviz.plots.style import INK, MUTED, figure_text, inch_axes, new_figure, safe, wrap_caption

__all__ = ["plot_readiness"]

_BAR, _BAD, _OVER, _UNDER, _GRID = "#0072B2", "#b3261e", "#b3261e", "#8a5a00", "#e4e7ea"
_TOP = 3.0
_CEILING = 1.8 * _TOP
_DEEP, _LETTER = 2.6, 0.11  # inches: of the bars' axes, and of a line of small text
_NAMED = 60
_NUMBERED = 8
_LISTED = 11
_ROW = 0.2
_MARKS = {"fp16": (("overflow", "^", _OVER), ("underflow", "v", _UNDER)), "int8": (("underflow", "v", _UNDER),)}
_TITLES = {"fp16": "Ready for float16?", "int8": "Ready for int8?"}


def plot_readiness(readiness: Readiness) -> Figure:
    """Draw what converting each layer alone does, below it which overflow, and what converting more and more does.

    Bars are the relative error of the tensor that suffers most, ``‖converted - float‖₂ / ‖float‖₂``, on a logarithmic
    scale; red ones change the answer by themselves, hatched ones end in NaN or Inf. The dashed line is the tolerance.

    Raises:
        InputError: No layer was converted.
    """
    layers = readiness.layers
    if not layers:
        raise InputError("no layer was converted, so there is nothing to draw", hint="ask for the .json instead")
    named = len(layers) <= _NAMED
    width = min(max(9.0, 2.2 + 0.19 * len(layers)), 14.0)
    longest = max(len(_label(one)) for one in layers) if named else 0
    below = 0.3 + 0.058 * longest if named else 0.45
    caption = wrap_caption(_facts(readiness), width - 0.8)
    top = 1.0 + 0.14 * len(caption.splitlines())
    second = top + 2.6 + 0.5 + below + 0.55
    figure = new_figure(width, second + 2.3 + 0.6)
    figure_text(figure, 0.35, 0.18, _TITLES[readiness.to], fontsize=14, fontweight="bold")
    figure_text(figure, 0.35, 0.5, caption, fontsize=8, color=MUTED)
    floor = _floor(readiness)
    bars = inch_axes(figure, 0.95, top, width - 1.6, _DEEP)
    _draw_bars(bars, readiness, floor, width - 1.6)
    _decibels(bars, floor)
    _draw_marks(inch_axes(figure, 0.95, top + 2.62, width - 1.6, 0.4), layers, readiness.to, named=named)
    half = (width - 1.3) * 0.42
    figure_text(figure, 0.35, second - 0.36, "Converted together, the least sensitive first", fontweight="bold")
    _draw_curve(inch_axes(figure, 0.95, second, half, 2.3), readiness, floor)
    left = 0.95 + half + 0.45
    figure_text(figure, left, second - 0.36, "Most sensitive, each converted alone", fontweight="bold")
    _write_ranking(figure, readiness, left, second, width - left - 0.3)
    return figure


def _facts(readiness: Readiness) -> list[str]:
    verdict = "the answer stays" if readiness.ready else "the answer changes"
    facts = [
        f"{safe(readiness.model, 60)}: {verdict} with all {counted(len(readiness.layers), readiness.by)} converted",
        f"compared at {safe(', '.join(readiness.compared), 70)}",
        f"ranges of {counted(readiness.samples[0], 'batch').replace('batchs', 'batches')}",
    ]
    if readiness.to == "fp16":
        over = readiness.overflows
        facts.append(f"{len(over)} of {len(readiness.tensors)} tensors overflow" if over else "nothing overflows")
    if readiness.left_out:
        facts.append(f"{counted(len(readiness.left_out), 'node')} that compute stay in float32")
    return [*facts, *(safe(note, 110) for note in readiness.notes)]


def _floor(readiness: Readiness) -> float:
    """Return where the logarithmic scale begins: a decade below the smallest error, at most six decades."""
    errors = [one.relative for one in readiness.layers] + [one.relative for one in readiness.curve]
    smallest = min((e for e in errors if math.isfinite(e) and e > 0), default=1e-3)
    return float(10.0 ** max(math.floor(math.log10(smallest)) - 0.3, -7))


def _height(error: float, floor: float) -> float:
    if math.isnan(error):
        return floor
    return min(max(error, floor), _TOP)


def _draw_bars(axes: Axes, readiness: Readiness, floor: float, inches: float) -> None:
    layers = readiness.layers
    tried = [(i, one) for i, one in enumerate(layers) if one.effects]
    drawn = axes.bar(
        [i for i, _ in tried], [_height(one.relative, floor) - floor for _, one in tried], bottom=floor,
        width=0.8 if len(layers) <= 2 * _NAMED else 1.0,
        color=[_BAD if one.changes else _BAR for _, one in tried], linewidth=0,
    )  # fmt: skip
    for bar, (_, one) in zip(drawn, tried, strict=True):
        if not math.isfinite(one.relative):
            bar.set_hatch("////")
            bar.set_edgecolor("white")
    untried = [i for i, one in enumerate(layers) if not one.effects]
    axes.scatter(untried, [floor * 1.15] * len(untried), s=4, color="#c3c8ce", zorder=2)
    axes.axhline(readiness.tolerance, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    _scale(axes, floor)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.xaxis.set_major_locator(NullLocator())
    axes.set_ylabel("relative error", fontsize=8, color=INK)
    _number(axes, readiness, floor, inches)
    axes.legend(
        handles=_legend(readiness, bool(untried)), loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, frameon=False,
        fontsize=8, borderaxespad=0.2,
    )  # fmt: skip


def _number(axes: Axes, readiness: Readiness, floor: float, inches: float) -> None:
    """Number the most sensitive bars as the ranking does; a number that would lie on another stands above it."""
    taken: list[tuple[float, float]] = []
    room = 0.1 * len(readiness.layers) / inches
    ranked = [one for one in readiness.ranking if one.effects][:_NUMBERED]
    for number, one in enumerate(ranked, 1):
        top = _DEEP * math.log(_height(one.relative, floor) / floor) / math.log(_CEILING / floor)
        height = top
        while any(abs(one.place - x) < room and abs(height - other) < _LETTER for x, other in taken):
            height += _LETTER / 4
        taken.append((one.place, height))
        axes.annotate(
            str(number), (one.place, _height(one.relative, floor)), xytext=(0, 1.5 + 72 * (height - top)), ha="center",
            textcoords="offset points", fontsize=7, color=_BAD if one.changes else INK, fontweight="bold",
        )  # fmt: skip


def _legend(readiness: Readiness, untried: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [Patch(color=_BAR, label="converted alone")]
    if any(one.changes for one in readiness.layers):
        handles.append(Patch(color=_BAD, label="changes the answer"))
    if any(not math.isfinite(one.relative) for one in readiness.layers if one.effects):
        handles.append(Patch(facecolor=_BAD, edgecolor="white", hatch="////", label="NaN, Inf or another shape"))
    if untried:
        handles.append(Line2D([], [], marker="o", color="#c3c8ce", linestyle="none", markersize=3, label="not tried"))
    handles.append(Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="tolerance"))
    return handles


def _scale(axes: Axes, floor: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(floor, _CEILING)
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=2, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _decibels(axes: Axes, floor: float) -> None:
    """Write the same scale as signal-to-noise ratios on the right."""
    right = axes.twinx()
    right.set_yscale("log")
    right.set_ylim(floor, _CEILING)
    ticks = [10.0 ** (-db / 20) for db in range(0, 141, 20) if 10.0 ** (-db / 20) >= floor]
    right.yaxis.set_major_locator(FixedLocator(ticks))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(20 * math.log10(value)):.0f}"))
    right.set_ylabel("SQNR in dB", fontsize=8, color=MUTED)
    right.tick_params(labelsize=7, length=2, colors=MUTED)
    right.spines[["top", "left", "right"]].set_visible(False)


def _draw_marks(axes: Axes, layers: Sequence[LayerEffect], to: Precision, *, named: bool) -> None:
    """Mark the layers whose tensors or weights overflow or underflow, and name the layers."""
    for row, (mark, marker, color) in enumerate(_MARKS[to]):
        places = [i for i, one in enumerate(layers) if mark in one.marks]
        axes.scatter(places, [-row] * len(places), s=22, marker=marker, color=color, linewidth=0, clip_on=False)
        if not places:
            style: dict[str, Any] = {"fontsize": 7, "color": MUTED, "va": "center", "backgroundcolor": "white"}
            axes.text(len(layers) / 2 - 0.5, -row, "none", ha="center", **style)
    axes.set_ylim(0.4 - len(_MARKS[to]), 0.6)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    rows = [mark for mark, _, _ in _MARKS[to]]
    axes.yaxis.set_major_locator(FixedLocator([-row for row in range(len(rows))]))
    axes.set_yticklabels(rows, fontsize=7)
    axes.tick_params(length=0, colors=INK, labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c3c8ce")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if named:
        labels = [_label(one) for one in layers]
        axes.set_xticks(range(len(layers)), labels, rotation=90, fontsize=6.5, parse_math=False)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("layer, in order of execution", fontsize=8, color=INK)


def _draw_curve(axes: Axes, readiness: Readiness, floor: float) -> None:
    points = readiness.curve[1:]
    x = [point.layers for point in points]
    y = [_height(point.relative, floor) for point in points]
    axes.plot(x, y, color=_BAR, linewidth=1, alpha=0.5, zorder=2)
    axes.scatter(x, y, s=14, color=[_BAD if point.problem else _BAR for point in points], zorder=3, clip_on=False)
    axes.axhline(readiness.tolerance, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    if not readiness.ready:
        axes.axvline(readiness.safe + 0.5, color=_BAD, linewidth=0.9, zorder=1)
        late = readiness.safe > 0.5 * len(readiness.layers)
        axes.annotate(  # where no point is: errors are small before the line and large behind it
            f"up to {readiness.safe} the answer stays", (readiness.safe + 0.5, 1 if late else 0),
            xycoords=("data", "axes fraction"), xytext=(-4, -2) if late else (4, 3), textcoords="offset points",
            ha="right" if late else "left", va="top" if late else "bottom", fontsize=7.5, color=_BAD,
        )  # fmt: skip
    _scale(axes, floor)
    axes.set_xlim(0, len(readiness.layers) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("layers converted", fontsize=8, color=INK)
    axes.set_ylabel("relative error", fontsize=8, color=INK)


def _write_ranking(figure: Figure, readiness: Readiness, left: float, top: float, room: float) -> None:
    """Write the most sensitive layers, an error and what comes of the best class."""
    columns = (left + 0.26, left + room - 1.75, left + room - 1.1, left + room - 0.55)
    letters = max(int((room - 2.1) / 0.064), 12)
    classes = any(one.top1 is not None for one in readiness.layers)
    for text, at in zip(("layer", "error", "SQNR", "top-1" if classes else ""), columns, strict=True):
        figure_text(figure, at, top - 0.02, text, fontsize=7.5, color=MUTED)
    for number, one in enumerate(readiness.ranking[:_LISTED]):
        line = top + _ROW * (number + 1)
        worst = one.worst
        color = _BAD if one.changes else INK
        cells = ("not tried", "", "") if worst is None else (_error(worst.relative), _db(worst.sqnr), _share(one.top1))
        figure_text(figure, left, line, str(number + 1), fontsize=8, color=color, fontweight="bold")
        figure_text(figure, columns[0], line, _label(one, letters), fontsize=8, color=color)
        for text, at in zip(cells, columns[1:], strict=True):
            figure_text(figure, at, line, text, fontsize=8, color=color)


def _label(one: LayerEffect, letters: int = 36) -> str:
    if one.name.startswith(f"{one.op_type} of ") or one.name.rpartition("/")[2].startswith(one.op_type):
        return safe(one.name, letters)
    return f"{safe(one.name, max(letters - len(one.op_type) - 3, 8))} ({safe(one.op_type, 20)})"


def _error(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "NaN/Inf"


def _db(value: float) -> str:
    return f"{value:.0f} dB" if math.isfinite(value) else "–" if value < 0 else "exact"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
