"""What sheets of studies of weights share: the head, a row a weight, and what could not be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.weight_forms import WeightName, WeightStudy
from onnxviz.plots.pairs import MARGIN, draw_lines, footer_lines, head
from onnxviz.plots.style import FONT, MUTED, figure_text, new_figure, safe, wrap_caption

__all__ = ["about", "draw_study", "fine_axes"]

T = TypeVar("T")
_TOP, _GAP = 0.85, 0.42


def draw_study(
    study: WeightStudy[T],
    title: str,
    parts: Sequence[str],
    width: float,
    height: Callable[[T], float],
    draw: Callable[[Figure, T, float], None],
) -> Figure:
    """Return a sheet with a row a weight.

    Args:
        study: The results.
        title: The sheet's title.
        parts: What is true of the whole sheet, below the title; how many weights are drawn is put before.
        width: Inches.
        height: Inches of a row, without the gap below it.
        draw: Draws one row at a place from the top, in inches.
    """
    heights = [height(view) + _GAP for view in study.views]
    notes = footer_lines(study.not_drawn)
    tried = len(study.views) + len(study.not_drawn)
    count = f"{tried} of {study.chosen} weights, an even spread"
    if tried == study.chosen:
        count = f"{tried} weight{'s' if tried != 1 else ''}"
    lines = wrap_caption([count, *parts], (width - 2 * MARGIN) * 0.93).split("\n")
    top = _TOP + 0.18 * (len(lines) - 1)
    figure = new_figure(width, top + sum(heights) + 0.15 + 0.17 * len(notes))
    head(figure, title, lines)
    for view, high in zip(study.views, heights, strict=True):
        draw(figure, view, top)
        top += high
    for line in notes:
        figure_text(figure, MARGIN, top, line, fontsize=7.5, color=MUTED)
        top += 0.17
    return figure


def about(name: WeightName) -> list[str]:
    """Return the lines that say which weight a row is about, below its layer's name."""
    size = " × ".join(map(str, name.shape)) or "scalar"
    lines = [f"{safe(name.op_type, 24)} {name.role} · {size} · {name.dtype}", safe(name.tensor, 40)]
    if name.quantization:
        lines.append(f"{'stored codes of' if name.as_codes else 'dequantised from'} {safe(name.quantization, 60)}")
    return lines


def fine_axes(axes: Axes, across: str, down: str) -> None:
    """Give the small axes of a row thin ticks and their labels."""
    draw_lines(axes)
    axes.set_xlabel(across, fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1.5)
    axes.set_ylabel(down, fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1.5)
