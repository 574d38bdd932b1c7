"""Attention as matrices: queries by keys, kinds of tokens, head against head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from onnxviz.analysis.attention import SINK, AttentionMaps, LayerAttention, finite_mean
from onnxviz.analysis.head_distance import HeadDistances
from onnxviz.analysis.scale import ColorScale, color_scale, number
from onnxviz.analysis.tokens import TokenBlock
from onnxviz.plots.attention_parts import (
    GAP,
    HEAD,
    MARGIN,
    MOST_ROWS,
    NAMES,
    capped,
    header,
    header_height,
    label_axis,
    layer_name,
    layer_notes,
    short_labels,
    small_text,
    thin_frame,
)  # fmt: skip
from onnxviz.plots.style import FONT, INK, MUTED, ZERO, colorbar, draw_map, figure_text, inch_axes, new_figure, safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_attention_blocks", "plot_attention_matrices", "plot_head_distances"]

_MOST_LABELS = 64


def plot_attention_matrices(maps: AttentionMaps, *, title: str | None = None) -> Figure:
    """Draw attention matrices, queries down and keys across: a row a layer, the head mean and every head.

    Words stand at the rows and columns where they are legible. Keys that are attention sinks in at least half of the
    heads are marked by a triangle above the head mean. All matrices have one scale, or, where layers differ in
    the number of their keys, one a layer: a row of 500 keys cannot hold what a row of 7 does.

    Args:
        maps: Layers.
        title: Above the sheet.
    """
    shown, heads, said = capped(maps)
    columns = heads + (1 if heads > 1 else 0)
    groups = [[layer] for layer in shown] if len({layer.weights.shape[2] for layer in shown}) > 1 else [shown]
    scales = [color_scale(np.concatenate([x.weights[:heads].reshape(-1) for x in g]), signed=False) for g in groups]
    largest = max(max(layer.weights.shape[1:]) for layer in shown)
    tile = min(4.6, max(1.5, 9.0 / columns)) if len(shown) < 5 else min(1.8, max(1.0, 12.0 / columns))
    if len(shown) == 1 and columns == 1 and largest <= _MOST_LABELS:
        tile = max(tile, 0.16 * largest)
    sizes = [_matrix_size(layer, tile) for layer in shown]
    words = [_label_room(layer, size) for layer, size in zip(shown, sizes, strict=True)]
    side = max(room for room, _ in words)
    heights = [size[1] + HEAD + GAP + below for size, (_, below) in zip(sizes, words, strict=True)]
    parts = ["queries down, keys across", *said, _scale_caption(scales), *maps.notes[:2], *layer_notes(shown)]
    if any(layer.sinks().max() >= 0.5 for layer in shown):
        parts.append(f"▼ sink: gets more than {SINK:g} on average in half of the heads or more")
    width = max(2 * MARGIN + NAMES + side + columns * (tile + GAP) + 0.75, 6.0)
    top = header_height(parts, width)
    figure = new_figure(width, top + sum(heights) + 0.3)
    header(figure, title or f"Attention of {maps.model_name}", parts)
    for place, (layer, size, (room, below), height) in enumerate(zip(shown, sizes, words, heights, strict=True)):
        scale = scales[place if len(scales) > 1 else 0]
        if place < len(scales):
            tall = size[1] if len(scales) > 1 else min(max(size[1], 1.2), sum(heights) - 0.3)
            colorbar(figure, inch_axes(figure, width - MARGIN - 0.42, top + HEAD, 0.1, tall), scale, size=7)
        _draw_matrix_row(figure, layer, (MARGIN + NAMES + side, top), size, tile, scale, (room, below), heads)
        top += height
    return figure


def _scale_caption(scales: list[ColorScale]) -> str:
    if len(scales) == 1:
        return scales[0].caption()
    clipped = max(scale.clipped for scale in scales)
    return f"a scale a layer (99.5th percentile, at most {100 * clipped:.1g} % clipped)"


def _matrix_size(layer: LayerAttention, tile: float) -> tuple[float, float]:
    queries, keys = layer.weights.shape[1:]
    shape = min(max(queries / keys, 0.35), 1.5)
    legible = 0.13 * queries if queries <= _MOST_LABELS // 2 else 0.0
    return (tile, max(tile * shape, min(legible, 1.5 * tile)))


def _label_room(layer: LayerAttention, size: tuple[float, float]) -> tuple[float, float]:
    """Return the inches that labels take left of and below a row of matrices; 0 where they would not be legible."""
    queries, keys = layer.weights.shape[1:]
    left = 0.06 * max(len(label) for label in short_labels(layer.queries)) + 0.1 if size[1] / queries > 0.1 else 0.3
    below = 0.06 * max(len(label) for label in short_labels(layer.keys)) + 0.1 if size[0] / keys > 0.1 else 0.22
    return left, below


def _draw_matrix_row(
    figure: Figure,
    layer: LayerAttention,
    corner: tuple[float, float],
    size: tuple[float, float],
    tile: float,
    scale: ColorScale,
    room: tuple[float, float],
    heads: int,
) -> None:
    left, top = corner
    queries, keys = layer.weights.shape[1:]
    known = layer.entropy()[np.isfinite(layer.entropy())]
    bits = float(known.mean()) if known.size else float("nan")
    extra = [f"{queries} queries × {keys} keys", f"entropy {number(bits)} of {math.log2(keys):.3g} bits"]
    if layer.keys.special:
        extra.append(f"special tokens get {100 * float(finite_mean(layer.special_mass())):.0f} %")
    layer_name(figure, layer, top + HEAD, extra)
    several = len(layer.heads) > 1
    matrices = [layer.mean(), *layer.weights] if several else list(layer.weights)
    for place, values in enumerate(matrices[: heads + several]):
        axes = inch_axes(figure, left, top + HEAD, *size)
        draw_map(axes, values, scale)
        thin_frame(axes)
        _bounds(axes, layer)
        label = "mean" if several and place == 0 else f"head {layer.heads[place - several]}"
        small_text(axes, 0, 1.02, label, transform=axes.transAxes, va="bottom")
        label_axis(axes, layer.keys, keys, size[0], across=True)
        if place == 0:
            label_axis(axes, layer.queries, queries, size[1], across=False)
            for key in np.flatnonzero(layer.sinks() >= 0.5)[:20]:
                axes.plot(
                    key, 1.01, marker="v", markersize=3, color=ZERO, transform=axes.get_xaxis_transform(), clip_on=False
                )
        else:
            axes.set_yticks([])
        left += tile + GAP


def _bounds(axes: Axes, layer: LayerAttention) -> None:
    """Draw the bounds between blocks of tokens."""
    for block in layer.keys.blocks[1:]:
        axes.axvline(block.start - 0.5, color="white", linewidth=0.6)
    for block in layer.queries.blocks[1:]:
        axes.axhline(block.start - 0.5, color="white", linewidth=0.6)


def plot_attention_blocks(maps: AttentionMaps, *, title: str | None = None) -> Figure:
    """Draw where each kind of token looks: a matrix of blocks a layer, the mass printed (head mean; least … most).

    Args:
        maps: Layers.
        title: Above the sheet.
    """
    shown = list(maps.layers)[:MOST_ROWS]
    columns = min(len(shown), 4)
    rows = math.ceil(len(shown) / columns)
    cell = 0.85
    most_keys = max(len(layer.keys.blocks) for layer in shown)
    most_queries = max(len(layer.queries.blocks) for layer in shown)
    box = (max(0.8 + cell * most_keys + 0.2, 2.0), 0.62 + cell * 0.62 * most_queries + 0.25)
    parts = [
        "queries down, keys across: share of their attention", "mean of the heads, below it their least … most",
        "rows sum to 100 %", f"{len(shown)} of {len(maps.layers)} layers" if len(maps.layers) > len(shown) else "",
        *maps.notes[:2], *layer_notes(shown),
    ]  # fmt: skip
    width = max(2 * MARGIN + columns * box[0], 6.5)
    top = header_height(parts, width)
    figure = new_figure(width, top + rows * box[1] + 0.2)
    header(figure, title or f"Attention between kinds of tokens in {maps.model_name}", parts)
    scale = ColorScale("sequential", 0.0, 1.0, 0.0, 0, 0, False, 1, 100)
    for place, layer in enumerate(shown):
        left, down = MARGIN + (place % columns) * box[0], top + (place // columns) * box[1]
        figure_text(figure, left, down, layer.title, fontsize=9, fontweight="bold")
        figure_text(figure, left, down + 0.17, safe(layer.name, int(box[0] * 15)), fontsize=6.5, color=MUTED)
        size = (cell * len(layer.keys.blocks), cell * 0.62 * len(layer.queries.blocks))
        _draw_blocks(inch_axes(figure, left + 0.8, down + 0.4, *size), layer, scale)
    return figure


def _draw_blocks(axes: Axes, layer: LayerAttention, scale: ColorScale) -> None:
    mass = layer.block_mass()
    mean = finite_mean(mass)
    draw_map(axes, mean, scale)
    thin_frame(axes)
    for (row, column), share in np.ndenumerate(mean):
        if not math.isfinite(share):
            continue
        ink = "white" if share < 0.55 else INK
        small_text(axes, column, row - 0.1, f"{100 * share:.0f} %", ha="center", va="center", color=ink, fontsize=9)
        low, high = 100 * np.nanmin(mass[:, row, column]), 100 * np.nanmax(mass[:, row, column])
        if len(mass) > 1:
            small_text(
                axes, column, row + 0.24, f"{low:.0f} … {high:.0f}", ha="center", va="center", color=ink, fontsize=6
            )
    for axis, blocks in ((axes.xaxis, layer.keys.blocks), (axes.yaxis, layer.queries.blocks)):
        axis.set_ticks(range(len(blocks)))
        axis.set_ticklabels([_block_label(b) for b in blocks], fontfamily=FONT)


def _block_label(block: TokenBlock) -> str:
    return block.name if len(block) == 1 else f"{block.name} ({len(block)})"


def plot_head_distances(result: HeadDistances, *, title: str = "How far apart the heads are") -> Figure:
    """Draw the Jensen-Shannon divergence between every two heads, layers apart by lines.

    Args:
        result: The distances.
        title: Above the figure.
    """
    count = len(result.heads)
    side = min(max(0.26 * count, 2.6), 8.0)
    scale = color_scale(result.matrix, signed=False, percentile=100)
    apart = result.matrix[~np.eye(count, dtype=bool)]
    if not np.isfinite(apart).any():
        closest = "no two heads can be compared"
    else:
        i, j = np.unravel_index(np.nanargmin(result.matrix + np.diag(np.full(count, np.inf))), (count, count))
        closest = (
            f"closest: {result.layers[i]} head {result.heads[i]} and {result.layers[j]} head {result.heads[j]}, "
            f"{number(float(result.matrix[i, j]))} bits"
        )
    blank = bool(np.isnan(result.matrix).any())
    parts = [
        "mean Jensen-Shannon divergence of the heads' rows: 0 alike … 1 bit apart", closest, result.note,
        "blank: other tokens, not comparable" if blank else "",
    ]  # fmt: skip
    width = max(2 * MARGIN + side + 1.9, 6.0)
    top = header_height(parts, width) + 0.1
    figure = new_figure(width, top + side + 0.75)
    header(figure, title, parts)
    axes = inch_axes(figure, MARGIN + 1.0, top, side, side)
    draw_map(axes, np.ma.masked_invalid(result.matrix), scale)
    thin_frame(axes)
    _label_heads(axes, result, side / count)
    colorbar(figure, inch_axes(figure, MARGIN + 1.1 + side, top, 0.1, side), scale, label="bits", size=7)
    return figure


def _label_heads(axes: Axes, result: HeadDistances, cell: float) -> None:
    count = len(result.heads)
    starts = [i for i in range(count) if i == 0 or result.layers[i] != result.layers[i - 1]]
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="white", linewidth=0.8)
        axes.axhline(start - 0.5, color="white", linewidth=0.8)
    if cell > 0.11:
        axes.set_xticks(range(count), [str(h) for h in result.heads], fontfamily=FONT)
        axes.set_yticks(range(count), [str(h) for h in result.heads], fontfamily=FONT)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        middle = (start + stop - 1) / 2
        if (stop - start) * cell > 0.12:
            small_text(axes, -0.5 - 0.2 / cell, middle, result.layers[start], ha="right", va="center", fontsize=7)
        if (stop - start) * cell > 0.7:
            small_text(axes, middle, count - 0.5 + 0.22 / cell, result.layers[start], ha="center", va="top", fontsize=7)
