"""How far a model is from its reference through its depth, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from onnxviz.analysis.model_comparison import ComparedTensor, ModelComparison
from onnxviz.errors import InputError, counted
from onnxviz.plots.style import INK, MUTED, figure_text, inch_axes, new_figure, safe, wrap_caption

__all__ = ["plot_comparison"]

_TOTAL, _OWN, _BAD = "#0072B2", "#E69F00", "#b3261e"
_LEAST, _TOP = 1e-9, 1e1
_NAMED = 60


def plot_comparison(comparison: ModelComparison) -> Figure:
    """Draw the relative error of every tensor that was compared, in order of execution, on a logarithmic scale.

    The line is the error that a tensor has, ``‖own - reference‖₂ / ‖reference‖₂``; the diamonds are the error that its
    nodes make themselves, on what the reference holds before them. Above the grey line of the tolerance is red. Tensors
    that must be equal to the bit and are, such as sizes and indices, are left out, and counted in the caption.

    Raises:
        InputError: No tensor was compared.
    """
    if not comparison.tensors:
        raise InputError("no tensor was compared, so there is no error to draw", hint="ask for the .json instead")
    tensors = _drawn(comparison)
    width = min(max(7.0, 2.2 + 0.19 * len(tensors)), 16.0)
    named = len(tensors) <= _NAMED
    longest = max(len(_label(one)) for one in tensors) if named else 0
    below = 0.35 + 0.06 * longest if named else 0.6
    floor = _floor(tensors)
    caption = wrap_caption(_facts(comparison, len(tensors), floor), width - 0.8)
    top = 1.0 + 0.14 * len(caption.splitlines())
    figure = new_figure(width, top + 3.4 + below)
    figure_text(figure, 0.35, 0.18, "Difference through the depth", fontsize=14, fontweight="bold")
    figure_text(figure, 0.35, 0.5, caption, fontsize=8, color=MUTED)
    axes = inch_axes(figure, 0.95, top, width - 1.3, 3.4)
    _draw(axes, tensors, floor)
    _furnish(axes, tensors, floor, named=named)
    _name(axes, tensors, comparison.first, floor)
    axes.legend(
        handles=_legend(),
        loc="lower right",
        bbox_to_anchor=(1, 1.0),
        ncols=4,
        frameon=False,
        fontsize=8,
        borderaxespad=0.2,
    )
    return figure


def _drawn(comparison: ModelComparison) -> list[ComparedTensor]:
    """Return the tensors without those that must be equal to the bit and are; all, if nothing else is there."""
    every = comparison.tensors
    return [one for one in every if one.problem or one.relative_l2 or one.tolerance > 0] or list(every)


def _floor(tensors: Sequence[ComparedTensor]) -> float:
    """Return where the scale begins: a decade below the smallest error or tolerance."""
    heights = [value for one in tensors for value in (one.relative_l2, one.local, one.tolerance)]
    smallest = min((value for value in heights if value and math.isfinite(value)), default=_LEAST)
    return float(max(10.0 ** (math.floor(math.log10(smallest)) - 1), _LEAST))


def _draw(axes: Axes, tensors: Sequence[ComparedTensor], floor: float) -> None:
    x = list(range(len(tensors)))
    limits = [_height(one.tolerance, floor) for one in tensors]
    axes.plot(x, limits, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.plot(x, [_height(one.relative_l2, floor) for one in tensors], color=_TOTAL, linewidth=1, alpha=0.45, zorder=2)
    axes.scatter(
        x, [_height(one.relative_l2, floor) for one in tensors], s=16, zorder=4,
        color=[_BAD if one.problem else _TOTAL for one in tensors],
    )  # fmt: skip
    own = [(i, one) for i, one in enumerate(tensors) if one.local is not None]
    axes.scatter(
        [i for i, _ in own], [_height(one.local, floor) for _, one in own], s=18, marker="D", zorder=3,
        facecolor="none", edgecolor=[_BAD if one.made_here else _OWN for _, one in own], linewidth=0.9,
    )  # fmt: skip


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="tolerance"),
        Line2D([], [], marker="o", color=_TOTAL, label="error of the tensor", linestyle="none", markersize=4.5),
        Line2D(
            [],
            [],
            marker="D",
            markerfacecolor="none",
            color=_OWN,
            label="made by its own nodes",
            linestyle="none",
            markersize=4.5,
        ),
        Line2D([], [], marker="o", color=_BAD, label="beyond the tolerance", linestyle="none", markersize=4.5),
    ]


def _name(axes: Axes, tensors: Sequence[ComparedTensor], first: ComparedTensor | None, floor: float) -> None:
    """Name the first tensor that differs."""
    if first is None:
        return
    place = tensors.index(first)
    left = place > 0.6 * len(tensors)
    axes.annotate(
        f"first: {_first(first)}", (place, _height(first.relative_l2, floor)), xytext=(-6 if left else 6, 6),
        textcoords="offset points", ha="right" if left else "left", fontsize=8, color=_BAD, fontweight="bold",
        parse_math=False,
    )  # fmt: skip


def _first(one: ComparedTensor) -> str:
    """Return what to call the first tensor that differs: by the reference's name as well, if that is another."""
    twin = "" if one.reference == one.tensor else f", {safe(one.reference, 40)} of the reference"
    return f"{safe(one.label, 44)}{twin}"


def _height(error: float | None, floor: float) -> float:
    if error is None or not math.isfinite(error):
        return _TOP
    return min(max(error, floor), _TOP)


def _furnish(axes: Axes, tensors: Sequence[ComparedTensor], floor: float, *, named: bool) -> None:
    axes.set_yscale("log")
    axes.set_ylim(floor / 1.6, _TOP * 1.6)
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.7, len(tensors) - 0.3)
    axes.grid(axis="y", color="#e4e7ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylabel("relative error", fontsize=8, color=INK)
    axes.tick_params(labelsize=7, length=2, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if named:
        axes.set_xticks(
            range(len(tensors)), [_label(one) for one in tensors], rotation=90, fontsize=6.5, parse_math=False
        )
    else:
        axes.set_xlabel("tensor, in order of execution", fontsize=8, color=INK)


def _label(one: ComparedTensor) -> str:
    return safe(one.node if one.node != one.op_type else f"{one.op_type}: {one.tensor}", 36)


def _facts(comparison: ModelComparison, drawn: int, floor: float) -> list[str]:
    ways = ", ".join(f"{count} by {way}" for way, count in comparison.counts().items() if count)
    facts = [
        f"{safe(comparison.model, 50)} beside {safe(comparison.reference, 50)}",
        f"{counted(len(comparison.tensors), 'tensor')}, paired {ways}; {len(comparison.unmatched)} without a twin",
        f"the worst of {counted(comparison.samples, 'batch')}",
        f"errors below {floor:.0e} stand on the lowest line",
    ]
    left_out = len(comparison.tensors) - drawn
    facts += [f"{left_out} of whole numbers, all equal, not drawn"] if left_out else []
    return [*facts, *(safe(note, 90) for note in comparison.notes)]
