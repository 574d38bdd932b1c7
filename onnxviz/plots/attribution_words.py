"""Words of a text, each on the colour of its number."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.attribution.views import AttributionView
from onnxviz.plots.style import FONT, INK, colormap, inch_axes, norm, plain, safe

__all__ = ["LINE", "draw_words", "word_lines"]

#: Inches of a line of words.
LINE = 0.24
_LETTERS = 15  # characters to the inch of a word


def word_lines(view: AttributionView, width: float) -> list[list[tuple[str, int]]]:
    """Return the words of a text in lines of some inches, each word with its position."""
    words = view.words or tuple(str(i) for i in range(view.heat.shape[1]))
    lines: list[list[tuple[str, int]]] = [[]]
    room = width
    for place, word in enumerate(words):
        shown = safe(word, 24) or " "
        need = _word_width(shown)
        if need > room and lines[-1]:
            lines.append([])
            room = width
        lines[-1].append((shown, place))
        room -= need
    return lines


def _word_width(word: str) -> float:
    return len(word) / _LETTERS + 0.13


def draw_words(figure: Figure, view: AttributionView, box: tuple[float, float, float]) -> None:
    """Draw words, each on the colour of its number.

    Args:
        figure: Where.
        view: A map along tokens.
        box: Left, top and width in inches.
    """
    left, top, width = box
    lines = word_lines(view, width)
    axes = plain(inch_axes(figure, left, top, width, LINE * len(lines)))
    axes.set_xlim(0, width)
    axes.set_ylim(LINE * len(lines), 0)
    colours = colormap(view.scale)(norm(view.scale)(np.nan_to_num(view.heat[0]).astype(np.float64)))
    for row, line in enumerate(lines):
        at = 0.0
        for word, place in line:
            room = _word_width(word)
            box_ = Rectangle((at, row * LINE + 0.02), room - 0.03, LINE - 0.04, facecolor=colours[place], linewidth=0)
            axes.add_patch(box_)
            light = float(colours[place][:3] @ np.array([0.299, 0.587, 0.114])) > 0.5
            axes.text(
                at + (room - 0.03) / 2, (row + 0.5) * LINE, word, ha="center", va="center", fontsize=7,
                color=INK if light else "white", fontfamily=FONT, parse_math=False,
            )  # fmt: skip
            at += room
