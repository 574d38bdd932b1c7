"""Weights as figures: the kernels of a convolution, the matrix of a linear layer, a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.scale import ColorScale, color_scale
from onnxviz.analysis.weight_forms import has_kernels, matrix_of
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import SelectionError
from onnxviz.plots.style import (
    FONT,
    MUTED,
    colorbar,
    draw_map,
    figure_text,
    inch_axes,
    new_figure,
    plain,
    safe,
    wrap_caption,
)
from onnxviz.plots.tiles import draw_vector

__all__ = [
    "dequantised",
    "draw_matrix",
    "draw_mosaic",
    "has_kernels",
    "kernel_stack",
    "label_axes",
    "matrix_of",
    "mosaic",
    "mosaic_size",
    "plot_kernels",
    "plot_matrix",
    "pool_matrix",
    "weight_figure",
]

Array = npt.NDArray[Any]

MARGIN = 0.4
_ALL_KERNELS = 1024  # beyond this many kernels their norms are drawn, and the first kernels
_FIRST = 16  # filters, and inputs, of those first kernels

#: Rows and columns of a matrix beyond which it is averaged in blocks.
MATRIX_LIMIT = (768, 768)
TOP = 0.85


def kernel_stack(lw: LayerWeights) -> tuple[Array, str]:
    """Return a convolution's weight as ``(out, in / groups, kH, kW)``, and what was done to get there.

    Raises:
        SelectionError: The weight has no kernels.
        ModelError: The weight cannot be read.
    """
    if not has_kernels(lw) or len(lw.shape) > 5:
        raise SelectionError(f"{lw.tensor} of {lw.layer} has no kernels to draw", hint="draw it as a matrix")
    kernel = lw.kernel
    if kernel.ndim == 3:
        return kernel[:, :, None, :], "1-D kernels"
    if kernel.ndim == 4:
        return kernel, ""
    if math.prod(kernel.shape[3:]) == 1:
        return kernel[..., 0].swapaxes(2, 3), "kernels along the first axis only"
    middle = kernel.shape[2] // 2
    note = f"3-D kernels, slice {middle} of {kernel.shape[2]}" if kernel.shape[2] > 1 else ""
    return kernel[:, :, middle], note


def mosaic(kernels: Array, columns: int) -> np.ma.MaskedArray[Any, Any]:
    """Return ``(K, kH, kW)`` kernels side by side in one picture, ``columns`` a row; the remainder is masked.

    >>> picture = mosaic(np.ones((3, 2, 2)), columns=2)
    >>> picture.shape, int(picture.count())
    ((4, 4), 12)
    """
    count, height, width = kernels.shape
    rows = math.ceil(count / columns)
    cells = _blank(rows * columns, height, width)
    cells[:count] = kernels
    picture: np.ma.MaskedArray[Any, Any] = cells.reshape(rows, columns, height, width).swapaxes(1, 2)
    return picture.reshape(rows * height, columns * width)


def _blank(*shape: int) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.MaskedArray(np.zeros(shape, np.float32), np.ones(shape, bool))


def mosaic_size(kernels: Array, columns: int, widest: float, highest: float) -> tuple[float, float]:
    """Return the width and height in inches of a mosaic with square cells that fits the limits."""
    count, height, width = kernels.shape
    across, down = columns * width, math.ceil(count / columns) * height
    cell = min(widest / across, highest / down, 0.2)
    return across * cell, down * cell


def draw_mosaic(axes: Axes, kernels: Array, columns: int, scale: ColorScale, *, block: int = 1) -> None:
    """Draw ``(K, kH, kW)`` kernels as a grid with lines between them, NaN and Inf hatched.

    Args:
        axes: Where to draw; its size should have the proportions of :func:`mosaic_size`.
        kernels: The kernels; masked ones leave their place blank.
        columns: Kernels a row.
        scale: The colours.
        block: A heavier line stands after this many rows.
    """
    count, height, width = kernels.shape
    rows = math.ceil(count / columns)
    draw_map(plain(axes), mosaic(kernels, columns), scale).set_interpolation("nearest")
    size = axes.get_window_extent().width / axes.figure.dpi * 72 / columns  # points a kernel
    line = float(np.clip(size * 0.04, 0.2, 1.2))
    style: dict[str, Any] = {"color": "#57606a", "linewidth": line}
    right, bottom = columns * width - 0.5, rows * height - 0.5
    if width > 1:
        axes.vlines(np.arange(1, columns) * width - 0.5, -0.5, bottom, **style)
    edges = np.arange(1, rows)
    if height > 1:
        axes.hlines(edges[edges % block > 0] * height - 0.5, -0.5, right, **style)
        style["linewidth"] = line if block == 1 else 3 * line
        axes.hlines(edges[edges % block == 0] * height - 0.5, -0.5, right, **style)
    used = int(np.ma.count(kernels[(rows - 1) * columns :, 0, 0]))
    if used < columns:
        corner = (used * width - 0.5, (rows - block) * height - 0.5)
        blank = Rectangle(corner, (columns - used) * width, block * height, facecolor="white", zorder=3, clip_on=False)
        axes.add_patch(blank)


def plot_kernels(lw: LayerWeights) -> Figure:
    """Draw a convolution's kernels on one scale, symmetric about 0.

    One input channel gives a grid of filters. Several give a matrix of kernels, filters against input channels; of more
    than 1024 kernels the L2 norm of each is drawn instead, and the first 16 × 16 kernels. Three input channels add the
    filters as colour pictures.

    Args:
        lw: The weight of a convolution.

    Raises:
        SelectionError: The weight has no spatial kernels (draw it with :func:`plot_matrix`).
        ModelError: The weight cannot be read.
    """
    kernels, note = kernel_stack(lw)
    scale = color_scale(kernels, signed=lw.signed)
    outputs, inputs = kernels.shape[:2]
    ending = [scale.caption(), *([note] if note else []), *dequantised(lw)]
    if outputs * inputs > _ALL_KERNELS:
        return _plot_norms(lw, kernels, scale, ending)
    flat, columns, block, what = _arrange(kernels)
    width, height = mosaic_size(flat, columns, 8.6, 7.0)
    colors = _color_layout(kernels, max(width, 4.2)) if inputs == 3 else None
    extra = colors[2] + 0.45 if colors else 0.0
    figure = weight_figure(lw, max(width, 4.2), max(height, 0.8) + extra, [what, *ending])
    draw_mosaic(inch_axes(figure, MARGIN, TOP, width, height), flat, columns, scale, block=block)
    colorbar(figure, inch_axes(figure, MARGIN + width + 0.15, TOP, 0.14, min(max(height, 0.8), 3.0)), scale)
    if colors:
        _draw_colors(figure, kernels, scale, TOP + max(height, 0.8) + 0.12, colors)
    return figure


def _arrange(kernels: Array) -> tuple[Array, int, int, str]:
    """Return kernels in drawing order, how many a row, how many rows belong together, and what is where."""
    outputs, inputs, height, width = kernels.shape
    if inputs == 1:
        what = f"{outputs} filters of 1 input channel, in index order"
        return kernels[:, 0], grid_columns(outputs, width / height), 1, what
    if outputs <= inputs:
        what = f"{outputs} filters down × {inputs} input channels across"
        return kernels.reshape(-1, height, width), inputs, 1, what
    if outputs <= 4 * inputs:
        what = f"{outputs} filters across × {inputs} input channels down"
        return kernels.swapaxes(0, 1).reshape(-1, height, width), outputs, 1, what
    columns = min(outputs, math.ceil(math.sqrt(outputs * inputs * height / width * 1.6)))
    blocks = math.ceil(outputs / columns)
    padded = _blank(blocks * columns, inputs, height, width)
    padded[:outputs] = kernels
    flat = padded.reshape(blocks, columns, inputs, height, width).swapaxes(1, 2).reshape(-1, height, width)
    what = f"{outputs} filters, {columns} a row, their {inputs} input channels one below the other"
    return flat, columns, inputs, what


def grid_columns(count: int, aspect: float) -> int:
    """Return how many tiles of width / height ``aspect`` a row makes their grid about 1.6 times as wide as high.

    >>> grid_columns(6, 1.0), grid_columns(64, 1.0)
    (4, 11)
    """
    return min(count, max(1, math.ceil(math.sqrt(count / aspect * 1.6))))


def dequantised(lw: LayerWeights) -> list[str]:
    """Return whether a picture shows stored integers or what they stand for."""
    return [f"{'stored codes of' if lw.as_codes else 'dequantised from'} {lw.quantization}"] if lw.quantization else []


def _color_layout(kernels: Array, widest: float) -> tuple[int, float, float]:
    """Return columns, width and height of the strip of filters in colour."""
    count, _, height, width = kernels.shape
    columns = min(grid_columns(count, width / height * 0.5), 40)
    across, down = mosaic_size(kernels[:, 0], columns, widest, 3.5)
    return columns, across, down


def _draw_colors(
    figure: Figure, kernels: Array, scale: ColorScale, top: float, layout: tuple[int, float, float]
) -> None:
    columns, width, height = layout
    figure_text(figure, MARGIN, top, "the filters as colour pictures: channels 0, 1, 2 as red, green, blue; 0 is grey",
                fontsize=7.5, color=MUTED)  # fmt: skip
    layers = [mosaic(kernels[:, channel], columns) for channel in range(3)]
    blank = np.ma.getmaskarray(layers[0])
    picture = np.stack([np.ma.getdata(layer).astype(np.float64) for layer in layers], axis=-1)
    picture = np.nan_to_num(picture / (2 * scale.vmax), posinf=1, neginf=-1) + 0.5
    picture = np.clip(picture, 0, 1)
    picture[blank] = 1.0
    axes = plain(inch_axes(figure, MARGIN, top + 0.2, width, height))
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    across, down = kernels.shape[3], kernels.shape[2]
    axes.vlines(np.arange(1, columns) * across - 0.5, -0.5, len(picture) - 0.5, color="white", linewidth=1.5)
    axes.hlines(
        np.arange(1, len(picture) // down) * down - 0.5, -0.5, columns * across - 0.5, color="white", linewidth=1.5
    )


def _plot_norms(lw: LayerWeights, kernels: Array, scale: ColorScale, ending: Sequence[str]) -> Figure:
    outputs, inputs = kernels.shape[:2]
    norms = np.sqrt(np.square(kernels, dtype=np.float64).sum(axis=(2, 3)))
    pooled, note = pool_matrix(norms)
    norm_scale = color_scale(pooled, signed=False)
    cell = min(4.0 / max(outputs, inputs), 0.12)
    left_width, left_height = max(inputs * cell, 0.6), max(outputs * cell, 0.6)
    first = kernels[:_FIRST, :_FIRST]
    flat = first.reshape(-1, *first.shape[2:])
    right_width, right_height = mosaic_size(flat, first.shape[1], 4.0, 4.0)
    parts = [
        f"left: L2 norm of each of {outputs} × {inputs} kernels, {norm_scale.caption()}",
        *([note] if note else []),
        f"right: the kernels of the first {first.shape[0]} filters (down) × {first.shape[1]} input channels (across)",
        *ending,
    ]
    figure = weight_figure(lw, left_width + right_width + 1.9, max(left_height, right_height) + 0.25, parts)
    left = MARGIN + 0.5
    axes = inch_axes(figure, left, TOP, left_width, left_height)
    draw_map(axes, pooled, norm_scale, (-0.5, inputs - 0.5, outputs - 0.5, -0.5))
    axes.locator_params(integer=True, nbins=6)
    label_axes(axes, "input channel", "filter")
    colorbar(figure, inch_axes(figure, left + left_width + 0.12, TOP, 0.14, min(left_height, 3.0)), norm_scale)
    right = left + left_width + 1.0
    draw_mosaic(inch_axes(figure, right, TOP, right_width, right_height), flat, first.shape[1], scale)
    colorbar(figure, inch_axes(figure, right + right_width + 0.12, TOP, 0.14, min(right_height, 3.0)), scale)
    return figure


def label_axes(axes: Axes, across: str, down: str) -> None:
    axes.set_xlabel(across, fontsize=8, color=MUTED, fontfamily=FONT)
    axes.set_ylabel(down, fontsize=8, color=MUTED, fontfamily=FONT)
    axes.tick_params(labelsize=7, width=0.5, length=2.5, labelfontfamily=FONT)


def weight_figure(lw: LayerWeights, width: float, height: float, parts: Sequence[str]) -> Figure:
    """Return a figure with room for ``width × height`` inches of picture under a heading and over a caption."""
    caption = wrap_caption(parts, width + 0.7)
    figure = new_figure(width + 2 * MARGIN + 0.8, height + 1.2 + 0.19 * (caption.count("\n") + 1))
    room = int((width + 0.7) * 8.5)
    figure_text(figure, MARGIN, 0.2, safe(lw.layer, room), fontsize=12, fontweight="bold")
    size = " × ".join(str(n) for n in lw.shape) or "scalar"
    about = f"{safe(lw.op_type, 40)} {lw.role} · {size} · {lw.dtype} · "
    figure_text(figure, MARGIN, 0.47, about + safe(lw.tensor, max(int(room * 1.5) - len(about), 20)), color=MUTED)
    figure_text(figure, MARGIN, height + TOP + 0.2, caption, fontsize=8, color=MUTED, linespacing=1.5)
    return figure


def pool_matrix(matrix: Array, limit: tuple[int, int] = MATRIX_LIMIT) -> tuple[Array, str]:
    """Return a matrix of at most ``limit`` rows and columns, each cell the mean of a block, and how it was made.

    >>> pool_matrix(np.arange(8.0).reshape(2, 4), limit=(2, 2))[0].tolist()
    [[0.5, 2.5], [4.5, 6.5]]
    """
    rows, columns = (min(size, most) for size, most in zip(matrix.shape, limit, strict=True))
    if (rows, columns) == matrix.shape:
        return matrix, ""
    edges = [np.arange(n) * size // n for n, size in zip((rows, columns), matrix.shape, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(matrix.astype(np.float64), edges[0], axis=0), edges[1], axis=1)
    areas = np.outer(*(np.diff(cuts, append=size) for cuts, size in zip(edges, matrix.shape, strict=True)))
    blocks = " × ".join(f"{size / n:.3g}" for n, size in zip((rows, columns), matrix.shape, strict=True))
    return sums / areas, f"each pixel is the mean of {blocks} values"


def plot_matrix(lw: LayerWeights, *, ax: Axes | None = None) -> Figure:
    """Draw a weight as a heat map on a scale symmetric about 0; a vector as bars.

    Axes beyond two are folded into the rows. More than 768 rows or columns are averaged in blocks, which the caption
    says.

    Args:
        lw: Any weight.
        ax: Axes to draw into, without heading, caption and colour bar; None makes a figure.

    Raises:
        ModelError: The weight cannot be read.
        SelectionError: The tensor is empty.
    """
    matrix, down, across = matrix_of(lw)
    if not matrix.size:
        raise SelectionError(f"{lw.tensor} of {lw.layer} is empty", hint="choose another weight")
    if ax is not None:
        draw_matrix(ax, matrix)
        return ax.figure  # type: ignore[return-value]
    rows, columns = matrix.shape
    if rows == 1:
        figure = weight_figure(lw, 6.4, 2.3, [f"{columns} values", *dequantised(lw)])
        axes = inch_axes(figure, MARGIN + 0.5, TOP, 5.9, 1.9)
        draw_vector(axes, matrix[0], labels=True)
        label_axes(axes, across, "value")
        return figure
    cell = min(6.2 / columns, 5.0 / rows, 0.25)
    width, height = max(columns * cell, 1.0), max(rows * cell, 0.8)
    _, note = pool_matrix(matrix)
    scale = color_scale(pool_matrix(matrix)[0], signed=lw.signed)
    parts = [f"{rows} {down}s down × {columns} {across}s across", scale.caption(), note, *dequantised(lw)]
    figure = weight_figure(lw, max(width + 0.6, 4.2), height + 0.3, [part for part in parts if part])
    axes = inch_axes(figure, MARGIN + 0.5, TOP, width, height)
    draw_matrix(axes, matrix, signed=lw.signed)
    label_axes(axes, across, down)
    colorbar(figure, inch_axes(figure, MARGIN + 0.65 + width, TOP, 0.14, min(height, 3.0)), scale)
    return figure


def draw_matrix(axes: Axes, matrix: Array, limit: tuple[int, int] = MATRIX_LIMIT, *, signed: bool = True) -> ColorScale:
    """Draw ``(rows, columns)`` as a heat map, or ``(1, columns)`` as bars, and return the scale."""
    rows, columns = matrix.shape
    if rows == 1:
        draw_vector(axes, matrix[0], labels=False)
        return color_scale(matrix, signed=signed)
    pooled, _ = pool_matrix(matrix, limit)
    scale = color_scale(pooled, signed=signed)
    draw_map(axes, pooled, scale, (-0.5, columns - 0.5, rows - 0.5, -0.5))
    axes.locator_params(integer=True, nbins=6)
    return scale
