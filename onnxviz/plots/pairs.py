"""What sheets of before and after share: their heads, the text beside a row, and what is said below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.paired import NotDrawn
from onnxviz.plots.style import (
    FONT,
    INK,
    MUTED,
    draw_map,
    figure_text,
    inch_axes,
    name_lines,
    plain,
    safe,
)
from onnxviz.plots.tiles import draw_vector

__all__ = ["LABEL_WIDTH", "MARGIN", "draw_lines", "footer_lines", "head", "image_or_bars", "row_text", "side_text"]

MARGIN = 0.35
#: Inches left of a row, for its text.
LABEL_WIDTH = 2.75
_MOST_LINES = 8


def head(figure: Figure, title: str, lines: Sequence[str]) -> None:
    """Write the title and what is true of the whole sheet; a title that is too wide is made smaller, then cut."""
    text, size = _fitted(title, figure.get_size_inches()[0] - 2 * MARGIN)
    figure_text(figure, MARGIN, 0.2, text, fontsize=size, fontweight="bold")
    for place, line in enumerate(lines):
        figure_text(figure, MARGIN, 0.5 + 0.18 * place, line, fontsize=8.5, color=MUTED)


def _fitted(title: str, room: float) -> tuple[str, float]:
    """Return a title and the size of its letters, so that it takes no more than ``room`` inches.

    >>> _fitted("Pooling of lenet5", 9.0)
    ('Pooling of lenet5', 14)
    >>> text, size = _fitted("W" * 90, 5.0)
    >>> len(text), size
    (31, 10)
    """
    text = safe(title, 90)
    size = next((size for size in (14, 13, 12, 11) if _wide(text) * size <= room), 10)
    while _wide(text) * size > room and len(text) > 10:
        text = safe(title, len(text) - 1)
    return text, size


def _wide(text: str) -> float:
    """Return the inches that bold text takes, a point large, and a little more: hinted letters are wider."""
    font = get_font(findfont(FontProperties(family=FONT, weight="bold")))
    font.set_size(100, 72)
    font.set_text(text, 0)
    return float(font.get_width_height()[0]) / 64 / 100 / 72 * 1.03


def footer_lines(not_drawn: Sequence[NotDrawn]) -> list[str]:
    """Return a line for each tensor that is not shown, the last one counting the rest."""
    lines = [f"not drawn: {safe(one.name, 40)}: {safe(one.reason, 110)}" for one in not_drawn[:_MOST_LINES]]
    if len(not_drawn) > _MOST_LINES:
        lines.append(f"not drawn: {len(not_drawn) - _MOST_LINES} more")
    return lines


def row_text(figure: Figure, top: float, name: str, parts: Sequence[str]) -> None:
    """Write the name of a row and what there is to say of it."""
    lines = name_lines(name, 27)
    figure_text(figure, MARGIN, top, lines, fontsize=8.5, fontweight="bold")
    text = "\n".join(_wrapped(part, 40) for part in parts)
    figure_text(figure, MARGIN, top + 0.17 + 0.14 * lines.count("\n"), text, fontsize=7, color=MUTED, linespacing=1.4)


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines at its spaces.

    >>> _wrapped("one two three", 8)
    'one two\\nthree'
    """
    return "\n".join(textwrap.wrap(text, width, break_long_words=True)) or text


def side_text(figure: Figure, left: float, top: float, height: float, text: str) -> None:
    """Write a word that stands upright beside a band of tiles."""
    figure_text(
        figure, left, top + height / 2, text, fontsize=7.5, color=INK, rotation=90, va="center", ha="center"
    )  # fmt: skip


def image_or_bars(
    figure: Figure, pair: tuple[FeatureMaps, FeatureMaps], box: tuple[float, float, float, float], gap: float
) -> list[Axes]:
    """Draw two images of channels × position, or two vectors as bars on one axis range, one above the other.

    Args:
        figure: Where to draw.
        pair: What enters and what leaves; grids are none of these.
        box: Left, top, width and height of both, in inches.
        gap: Inches between them.
    """
    left, top, width, height = box
    each = (height - gap) / 2
    drawn = []
    for place, fm in enumerate(pair):
        axes = inch_axes(figure, left, top + place * (each + gap), width, each)
        if fm.kind == "image":
            draw_map(plain(axes), fm.maps[0], fm.scale)
        else:
            draw_vector(axes, fm.maps[0, 0], labels=False)
            low, high = _range(pair)
            axes.set_ylim(low, high)
            axes.tick_params(labelsize=6)
            if place == 0:
                axes.set_xticklabels([])
        drawn.append(axes)
    return drawn


def _range(pair: tuple[FeatureMaps, FeatureMaps]) -> tuple[float, float]:
    values = np.concatenate([fm.maps.reshape(-1) for fm in pair]).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    pad = 0.08 * (high - low) or 1.0
    return low - pad * (low < 0), high + pad * (high > 0 or low == 0)


def draw_lines(axes: Axes) -> None:
    """Give small axes the look of the sheet: thin ticks, no frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=6.5, width=0.5, length=2.5, labelfontfamily=FONT)
