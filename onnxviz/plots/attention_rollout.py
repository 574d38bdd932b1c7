"""Attention rolled out through all layers: over the picture, or as a matrix with words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attention import LayerAttention
from onnxviz.analysis.rollout import Rollout
from onnxviz.analysis.scale import color_scale, number
from onnxviz.plots.attention_grid import draw_over, mark_query, masses, query_tiles
from onnxviz.plots.attention_parts import (
    HEAD,
    MARGIN,
    header,
    header_height,
    label_axis,
    short_labels,
    small_text,
    thin_frame,
)
from onnxviz.plots.style import colorbar, draw_map, inch_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_rollout"]


def plot_rollout(
    result: Rollout,
    *,
    picture: npt.NDArray[Any] | None = None,
    query: str | None = None,
    title: str = "Attention rollout",
) -> Figure:
    """Draw a rollout: over the picture and beside it for patches, as a matrix with words for text.

    Args:
        result: The rollout.
        picture: What was fed, ``(H, W, 3)``.
        query: The output token, as :func:`plot_attention_grid` takes it.
        title: Above the figure.

    Raises:
        InputError: No token is named so.
    """
    as_layer = LayerAttention(
        title, title, "self", 0, (0,), result.matrix[None].astype(np.float32), result.tokens, result.tokens, 0.0, 0
    )
    layers = result.layers
    through = f"{len(layers)} layers" if len(layers) > 1 else layers[0]
    parts = [f"through {through}, residual {result.residual:g} (Abnar & Zuidema 2020)", result.note]
    if result.tokens.image is None:
        return _rollout_matrix(result, title, parts)
    row, tiles, grid, name = query_tiles(as_layer, query)
    scale = color_scale(tiles[0], signed=False)
    parts = [f"output: {name}", *parts, scale.caption(), *(f"from {mass}" for mass in masses(as_layer, row))]
    aspect = min(max(grid[0] / grid[1], 0.25), 4)
    side, panels = 2.8, 3 if picture is not None else 1
    width = max(2 * MARGIN + panels * (side + 0.2) + 0.6, 6.0)
    top = header_height(parts, width) + 0.1
    figure = new_figure(width, top + side * aspect + 0.4)
    header(figure, title, parts)
    left = MARGIN
    if picture is not None:
        axes = plain(inch_axes(figure, left, top + HEAD, side, side * aspect))
        axes.imshow(picture, aspect="auto", interpolation="nearest" if max(picture.shape) <= 64 else "antialiased")
        small_text(axes, 0, 1.02, "input picture", transform=axes.transAxes, va="bottom", fontsize=8)
        over = plain(inch_axes(figure, left + side + 0.2, top + HEAD, side, side * aspect))
        most = draw_over(over, picture, tiles[0])
        mark_query(over, as_layer, row, grid)
        said = f"over the picture, opaque at {number(most)}"
        small_text(over, 0, 1.02, said, transform=over.transAxes, va="bottom", fontsize=8)
        left += 2 * (side + 0.2)
    axes = plain(inch_axes(figure, left, top + HEAD, side, side * aspect))
    draw_map(axes, tiles[0], scale)
    mark_query(axes, as_layer, row, grid)
    said = f"rollout, {grid[0]} × {grid[1]} patches"
    small_text(axes, 0, 1.02, said, transform=axes.transAxes, va="bottom", fontsize=8)
    colorbar(figure, inch_axes(figure, left + side + 0.1, top + HEAD, 0.1, side * aspect), scale, size=7)
    return figure


def _rollout_matrix(result: Rollout, title: str, parts: list[str]) -> Figure:
    """Draw a rollout as a matrix, with words where they are legible."""
    count = len(result.tokens)
    scale = color_scale(result.matrix, signed=False)
    parts = ["output tokens down, input tokens across", *parts, scale.caption()]
    side = min(max(0.3 * count, 3.0), 7.0)
    room = 0.06 * max(len(label) for label in short_labels(result.tokens)) + 0.25
    width = max(2 * MARGIN + room + side + 0.8, 6.0)
    top = header_height(parts, width) + 0.1
    figure = new_figure(width, top + side + room + 0.2)
    header(figure, title, parts)
    axes = inch_axes(figure, MARGIN + room, top, side, side)
    draw_map(axes, result.matrix, scale)
    thin_frame(axes)
    label_axis(axes, result.tokens, count, side, across=True)
    label_axis(axes, result.tokens, count, side, across=False)
    colorbar(figure, inch_axes(figure, MARGIN + room + side + 0.1, top, 0.1, side), scale, size=7)
    return figure
