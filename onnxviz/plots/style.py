"""What all figures share: colour maps, norms, hatching, text that is safe to draw, and layout in inches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import font_manager, patches
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator

from onnxviz.analysis.scale import ColorScale, number
from onnxviz.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = [
    "ACCENT",
    "DIVERGING",
    "FONT",
    "INK",
    "MUTED",
    "SEQUENTIAL",
    "ZERO",
    "colorbar",
    "colormap",
    "draw_map",
    "figure_text",
    "inch_axes",
    "name_lines",
    "new_figure",
    "norm",
    "plain",
    "safe",
    "wrap_caption",
]

#: Colour map of non-negative tensors: perceptually uniform, dark is 0.
SEQUENTIAL = "viridis"
#: Colour map of signed tensors: blue below, white at 0, red above.
DIVERGING = "RdBu_r"
FONT = "DejaVu Sans"
INK, MUTED, ACCENT, ZERO = "#1f2328", "#656d76", "#3b6ea8", "#d9822b"

_HATCH_CELLS = 128  # a NaN mask is hatched at no finer a resolution than this


@lru_cache(maxsize=4096)
def safe(text: str, limit: int = 60) -> str:
    r"""Return a name of the model fit to be drawn: one line, only glyphs the font has, the middle cut beyond ``limit``.

    More of the end is kept than of the beginning: that is where the names of layers differ.

    >>> safe("conv\n1"), safe("卷积1"), safe("encoder.layers.0.mlp.fc1", 14)
    ('conv\\n1', '\\u5377\\u79ef1', 'enco…0.mlp.fc1')
    """
    font = font_manager.get_font(font_manager.findfont(FONT))
    line = printable(text, 2000)
    drawn = "".join(c if font.get_char_index(ord(c)) else c.encode("unicode_escape").decode() for c in line)
    if len(drawn) <= limit:
        return drawn
    head = max((limit - 1) // 3, 0)
    return f"{drawn[:head]}…{drawn[head + 1 - limit :]}"


def name_lines(text: str, width: int) -> str:
    """Return a name in one or two lines of at most ``width`` characters, the middle cut where that is not enough.

    >>> name_lines("/layer1/layer1.0/conv1/Conv_quant", 20)
    '/layer1/layer1.0/\\nconv1/Conv_quant'
    """
    line = safe(text, 2 * width)
    if len(line) <= width:
        return line
    parts = [i + 1 for i in range(len(line) - width - 1, width) if line[i] in "/._:"]
    at = parts[-1] if parts else width
    return f"{line[:at]}\n{line[at:]}"


def plain(axes: Axes) -> Axes:
    """Remove ticks and frame, keeping what is drawn."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure, in inches, that no pyplot state knows."""
    return Figure(figsize=(width, height), facecolor="white", layout=None)


def wrap_caption(parts: Sequence[str], room: float) -> str:
    """Join the parts of a caption with dots, in lines of at most ``room`` inches of 8-point text.

    A part that is longer than a line is broken where it has dots itself, else between words, further lines indented.

    >>> wrap_caption(["40 of 512 channels", "by energy", "nothing clipped"], 2.2)
    '40 of 512 channels · by energy\\nnothing clipped'
    """
    limit, lines = max(int(room * 14.5), 30), [""]
    for part in (piece for whole in parts for piece in whole.split(" · ")):
        first, *rest = textwrap.wrap(part, limit, subsequent_indent="   ") or [part]
        if lines[-1] and len(lines[-1]) + len(first) + 3 > limit:
            lines.append(first)
        else:
            lines[-1] += (" · " if lines[-1] else "") + first
        lines += rest
    return "\n".join(lines)


def inch_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes whose place is given in inches from the figure's top left corner."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - top - height
    return figure.add_axes(
        (left / total_width, bottom / total_height, width / total_width, height / total_height), facecolor="white"
    )


def figure_text(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write text whose top left corner is given in inches from the figure's top left corner; no mathtext."""
    width, height = figure.get_size_inches()
    settings: dict[str, Any] = {"fontsize": 9.0, "color": INK, "va": "top", "ha": "left", "fontfamily": FONT} | style
    figure.text(left / width, 1 - top / height, text, parse_math=False, **settings)


def colormap(scale: ColorScale) -> Colormap:
    """Return the colour map of a scale; NaN, Inf and gaps are left blank (the former are hatched)."""
    name = SEQUENTIAL if scale.kind == "sequential" else DIVERGING
    return matplotlib.colormaps[name].with_extremes(bad=(1.0, 1.0, 1.0, 0.0))


def norm(scale: ColorScale) -> Normalize:
    """Return the norm of a scale."""
    return Normalize(scale.vmin, scale.vmax)


def draw_map(
    axes: Axes, values: npt.NDArray[Any], scale: ColorScale, extent: tuple[float, float, float, float] | None = None
) -> AxesImage:
    """Draw a two-dimensional map on a scale, its NaN and Inf hatched.

    Args:
        axes: Where to draw; its limits and aspect are left alone where ``extent`` is given.
        values: ``(H, W)``; what a masked array masks is left blank.
        scale: The colours.
        extent: ``(left, right, bottom, top)`` in data coordinates; the map's first row is at ``top``.
    """
    height, width = values.shape
    bad = ~np.isfinite(np.ma.getdata(values)) & ~np.ma.getmaskarray(values)
    data = np.where(bad, 0, np.ma.getdata(values))
    if data.size and np.abs(data).max() > 1e30 * min(scale.vmax, 1.0):  # float32 would overflow inside the norm
        data = data.astype(np.float64)
    where = extent or (-0.5, width - 0.5, height - 0.5, -0.5)
    image = axes.imshow(
        np.ma.MaskedArray(data, bad | np.ma.getmaskarray(values)),
        cmap=colormap(scale),
        norm=norm(scale),
        extent=where,
        aspect="auto",
        interpolation="nearest" if max(height, width) <= 64 else "antialiased",
        interpolation_stage="data",
    )
    if bad.any():
        axes.add_patch(_hatching(bad, where))
    return image


def _hatching(bad: npt.NDArray[np.bool_], extent: tuple[float, float, float, float]) -> patches.PathPatch:
    """Return one hatched patch over the marked cells, runs of a row joined; fine masks are coarsened to blocks."""
    rows, columns = (min(size, _HATCH_CELLS) for size in bad.shape)
    row_edges = np.arange(rows) * bad.shape[0] // rows
    column_edges = np.arange(columns) * bad.shape[1] // columns
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(bad, row_edges, axis=0), column_edges, axis=1)
    left, right, bottom, top = extent
    step_x, step_y = (right - left) / columns, (bottom - top) / rows
    vertices, codes = [], []
    for row, line in enumerate(coarse):
        changes = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        for start, stop in changes.reshape(-1, 2):
            x0, x1 = left + start * step_x, left + stop * step_x
            y0, y1 = top + row * step_y, top + (row + 1) * step_y
            vertices += [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
            codes += [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    return patches.PathPatch(Outline(vertices, codes), facecolor="none", edgecolor="black", hatch="////", linewidth=0)


def colorbar(figure: Figure, axes: Axes, scale: ColorScale, *, label: str = "", size: float = 8) -> None:
    """Fill ``axes`` with the colour bar of a scale; pointed ends say that values beyond them exist."""
    extend = "neither"
    if scale.clipped:
        extend = "both" if scale.kind == "diverging" else "max"
    mappable = ScalarMappable(norm(scale), colormap(scale))
    bar = figure.colorbar(mappable, cax=axes, extend=extend, extendfrac=0.04)
    bar.outline.set_linewidth(0.5)
    height = axes.get_position().height * figure.get_size_inches()[1]
    bar.set_ticks(MaxNLocator(min(max(int(height / 0.25), 2), 5), min_n_ticks=2))
    bar.ax.tick_params(labelsize=size, width=0.5, length=2.5, labelcolor=INK, labelfontfamily=FONT)
    bar.ax.yaxis.set_major_formatter(_format_tick)
    if label:
        bar.set_label(label, fontsize=size, color=MUTED, fontfamily=FONT)


def _format_tick(value: float, position: float) -> str:
    return number(value)
