"""The weights of all layers on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from matplotlib.figure import Figure

from onnxviz.analysis.scale import ColorScale, color_scale, number
from onnxviz.analysis.weight_forms import has_kernels, matrix_of
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import ModelError, SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.histogram import draw_histogram
from onnxviz.plots.style import MUTED, colorbar, figure_text, inch_axes, name_lines, new_figure, plain, safe
from onnxviz.plots.weights import (
    dequantised,
    draw_matrix,
    draw_mosaic,
    grid_columns,
    kernel_stack,
    mosaic_size,
    pool_matrix,
)

__all__ = ["plot_weight_sheet"]

_MARGIN, _LABEL, _PICTURE, _HISTOGRAM = 0.35, 2.9, 6.4, 2.3
_ROW, _PICTURE_HEIGHT = 1.75, 1.35
_CELL, _READABLE = 0.025, 0.045  # inches an element of a kernel: at least, and where not all fit
_SHEET_PIXELS = (200, 640)  # rows and columns of a matrix beyond which it is averaged


def plot_weight_sheet(layers: Sequence[LayerWeights], *, rows: int = 24, title: str = "Weights") -> Figure:
    """Draw the weights of a model, a row a tensor: kernels or matrix, histogram, numbers.

    Of many kernels as many as fit are drawn, the first ones, and how many is said. Biases and the like are drawn as
    bars; :func:`onnxviz.analysis.layers.select_weights` leaves them out beforehand.

    Args:
        layers: Weights from :func:`onnxviz.analysis.weights.layer_weights`; beyond ``rows`` of them an even spread is
            drawn and said so.
        rows: Most rows to draw.
        title: The sheet's title.

    Raises:
        SelectionError: There is no weight.
    """
    if not layers:
        raise SelectionError("there are no weights to draw", hint="choose a model with constant weights")
    chosen = [layers[i] for i in spread(len(layers), rows)]
    figure = new_figure(_MARGIN + _LABEL + _PICTURE + 1.1 + _HISTOGRAM + 0.3, 0.9 + _ROW * len(chosen) + 0.1)
    figure_text(figure, _MARGIN, 0.2, safe(title, 90), fontsize=14, fontweight="bold")
    count = f"{len(chosen)} of {len(layers)} weights" if len(chosen) < len(layers) else f"{len(layers)} weights"
    figure_text(
        figure, _MARGIN, 0.5, f"{count} · each on its own scale, symmetric about 0: blue below, red above", color=MUTED
    )
    for place, lw in enumerate(chosen):
        _draw_row(figure, lw, 0.9 + place * _ROW)
    return figure


def _draw_row(figure: Figure, lw: LayerWeights, top: float) -> None:
    name = name_lines(lw.layer, 34)
    figure_text(figure, _MARGIN, top + 0.02, name, fontsize=8.5, fontweight="bold")
    try:
        shown = _draw_weight(figure, lw, top)
        axes = inch_axes(figure, _MARGIN + _LABEL + _PICTURE + 1.1, top, _HISTOGRAM, _PICTURE_HEIGHT - 0.15)
        draw_histogram(axes, lw)
        notes = [*_notes(lw), shown]
    except (ModelError, SelectionError) as error:  # the rest of the sheet is still drawn
        notes = [_about(lw), safe(error.message, 120)]
    figure_text(
        figure,
        _MARGIN,
        top + 0.2 + 0.14 * name.count("\n"),
        "\n".join(note for note in notes if note),
        fontsize=7,
        color=MUTED,
        linespacing=1.45,
    )


def _draw_weight(figure: Figure, lw: LayerWeights, top: float) -> str:
    """Draw kernels or a matrix, with the colour bar; return what is shown of what."""
    if has_kernels(lw) and 4 <= len(lw.shape) <= 5:
        return _draw_kernels(figure, lw, top)
    matrix, down, across = matrix_of(lw)
    if not matrix.size:
        raise SelectionError(f"{lw.tensor} is empty")
    rows, columns = matrix.shape
    if rows == 1:
        axes = inch_axes(figure, _MARGIN + _LABEL, top, _PICTURE, _PICTURE_HEIGHT - 0.2)
        draw_matrix(axes, matrix)
        return ""
    cell = min(_PICTURE / columns, _PICTURE_HEIGHT / rows, 0.16)
    width, height = max(columns * cell, 1.0), max(rows * cell, 0.5)
    axes = inch_axes(figure, _MARGIN + _LABEL, top, width, height)
    scale = draw_matrix(axes, matrix, _SHEET_PIXELS, signed=lw.signed)
    plain(axes)
    _draw_bar(figure, scale, top, width, height)
    note = pool_matrix(matrix, _SHEET_PIXELS)[1]
    return f"{down}s down, {across}s across" + (f"\n{note}" if note else "")


def _draw_kernels(figure: Figure, lw: LayerWeights, top: float) -> str:
    kernels, note = kernel_stack(lw)
    scale = color_scale(kernels, signed=lw.signed)
    flat = kernels.reshape(-1, *kernels.shape[2:])
    fit = _fit(flat, _CELL)
    part = flat[: fit if fit >= len(flat) else _fit(flat, _READABLE)]
    columns = _fitting_columns(len(part), flat.shape[2], flat.shape[1])
    width, height = mosaic_size(part, columns, _PICTURE, _PICTURE_HEIGHT)
    draw_mosaic(inch_axes(figure, _MARGIN + _LABEL, top, width, height), part, columns, scale)
    _draw_bar(figure, scale, top, width, height)
    if len(part) < len(flat):
        shown = f"the first {len(part)} of {len(flat)} kernels, filter by filter"
    else:
        shown = f"all {len(flat)} kernels"
    return f"{shown} · {note}" if note else shown


def _fit(kernels: npt.NDArray[Any], cell: float) -> int:
    """Return how many kernels of cells that large the picture's box holds."""
    across, down = _PICTURE / (cell * kernels.shape[2]), _PICTURE_HEIGHT / (cell * kernels.shape[1])
    return max(int(across), 1) * max(int(down), 1)


def _draw_bar(figure: Figure, scale: ColorScale, top: float, width: float, height: float) -> None:
    left = _MARGIN + _LABEL + width + 0.1
    colorbar(figure, inch_axes(figure, left, top, 0.1, max(min(height, 1.35), 0.5)), scale, size=6.5)


def _fitting_columns(count: int, width: int, height: int) -> int:
    """Return the columns that make a grid of tiles as large as the picture's box allows."""
    best = grid_columns(count, width / height)
    candidates = range(best, max(count, best) + 1)

    def cell(columns: int) -> float:
        return min(_PICTURE / (columns * width), _PICTURE_HEIGHT / (-(-count // columns) * height))

    return max(candidates, key=lambda columns: (cell(columns), -columns))


def _about(lw: LayerWeights) -> str:
    size = " × ".join(str(n) for n in lw.shape) or "scalar"
    return f"{safe(lw.op_type, 24)} {lw.role} · {size} · {lw.dtype}"


def _notes(lw: LayerWeights) -> list[str]:
    s, h = lw.statistics, lw.histogram
    notes = [_about(lw), safe(lw.tensor, 44), f"{lw.parameters:,} parameters"]
    if s.min is not None and s.max is not None and s.mean is not None:
        notes.append(f"{number(s.min)} … {number(s.max)}, mean {number(s.mean)}, std {number(s.std or 0.0)}")
    zeros = f"{100 * h.zero / h.total:.2g} % zeros" if h.total else ""
    bad = [f"{n} {what}" for n, what in ((h.nan, "NaN"), (h.inf, "Inf")) if n]
    notes.append(" · ".join([zeros, *bad]))
    return [*notes, *(safe(line, 60) for line in dequantised(lw))]
