"""What figures of attention share: headers, names of layers, labels of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.analysis.attention import AttentionMaps, LayerAttention
from onnxviz.analysis.tokens import Tokens
from onnxviz.plots.style import FONT, INK, MUTED, figure_text, name_lines, safe, wrap_caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GAP", "HEAD", "MARGIN", "MOST_ROWS", "NAMES", "capped", "header", "header_height", "label_axis", "layer_name",
    "layer_notes", "short_labels", "small_text", "thin_frame",
]  # fmt: skip

MARGIN = 0.35  # of the sheet, in inches
NAMES = 1.75  # room for the name of a layer
GAP = 0.1
HEAD = 0.2  # line above a tile
MOST_COLUMNS, MOST_ROWS = 16, 24


def header(figure: Figure, title: str, parts: Sequence[str]) -> None:
    """Write a title, and the parts of a caption below it, at the top of a sheet."""
    width = figure.get_size_inches()[0]
    figure_text(figure, MARGIN, 0.22, safe(title, int(width * 10)), fontsize=12, fontweight="bold")
    caption = wrap_caption([p for p in parts if p], width - 2 * MARGIN)
    figure_text(figure, MARGIN, 0.52, caption, fontsize=8, color=MUTED, linespacing=1.4)


def header_height(parts: Sequence[str], width: float) -> float:
    """Return the inches that :func:`header` takes."""
    lines = wrap_caption([p for p in parts if p], width - 2 * MARGIN).count("\n") + 1
    return 0.62 + 0.16 * lines


def small_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Write small text that may stand outside of its axes; no mathtext."""
    settings: dict[str, Any] = {"fontsize": 7, "color": INK, "fontfamily": FONT, "clip_on": False} | style
    axes.text(x, y, text, parse_math=False, **settings)


def capped(maps: AttentionMaps) -> tuple[list[LayerAttention], int, list[str]]:
    """Return the layers and the number of heads that a sheet shows, and what it leaves out."""
    layers, most = list(maps.layers), max(len(layer.heads) for layer in maps.layers)
    said = []
    if len(layers) > MOST_ROWS:
        said.append(f"{MOST_ROWS} of {len(layers)} layers")
    if most > MOST_COLUMNS:
        said.append(f"{MOST_COLUMNS} of {most} heads")
    return layers[:MOST_ROWS], min(most, MOST_COLUMNS), said


def layer_notes(layers: Sequence[LayerAttention]) -> list[str]:
    """Return the first notes of layers, each once."""
    return list(dict.fromkeys(layer.note for layer in layers if layer.note))[:3]


def layer_name(figure: Figure, layer: LayerAttention, top: float, extra: Sequence[str] = ()) -> None:
    """Write what a row is, left of it: its number, its name, and further lines."""
    figure_text(figure, MARGIN, top, layer.title, fontsize=9, fontweight="bold")
    lines = [name_lines(layer.name, 27), *extra]
    figure_text(figure, MARGIN, top + 0.17, "\n".join(lines), fontsize=6.5, color=MUTED, linespacing=1.4)


def short_labels(tokens: Tokens) -> list[str]:
    """Return labels of tokens fit to be drawn at an axis; blanks are quoted."""
    return [safe(label.strip() or repr(label), 14) for label in tokens.labels]


def thin_frame(axes: Axes) -> None:
    """Make frame and ticks of a matrix thin."""
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("#9aa0a6")
    axes.tick_params(labelsize=6.5, width=0.4, length=1.5, pad=1.5, labelfontfamily=FONT)


def label_axis(axes: Axes, tokens: Tokens, count: int, inches: float, *, across: bool) -> None:
    """Label every token where labels are legible, else the first and the last index."""
    axis = axes.xaxis if across else axes.yaxis
    if inches / count > 0.1:
        axis.set_ticks(range(count))
        axis.set_ticklabels(short_labels(tokens), rotation=90 if across else 0, parse_math=False, fontfamily=FONT)
    else:
        axis.set_ticks(sorted({0, count - 1}))
        labels = list(axis.get_ticklabels())  # they stand inwards: matrices are side by side
        if across:
            labels[0].set_horizontalalignment("left")
            labels[-1].set_horizontalalignment("right" if count > 1 else "left")
        else:
            labels[0].set_verticalalignment("top")
            labels[-1].set_verticalalignment("bottom" if count > 1 else "top")
