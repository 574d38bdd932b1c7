"""Attention over a picture: a sheet of layers and heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from onnxviz.analysis.attention import AttentionMaps, LayerAttention
from onnxviz.analysis.scale import ColorScale, color_scale, number
from onnxviz.errors import InputError, SelectionError
from onnxviz.plots.attention_parts import (
    GAP,
    HEAD,
    MARGIN,
    NAMES,
    capped,
    header,
    header_height,
    layer_name,
    layer_notes,
    small_text,
)  # fmt: skip
from onnxviz.plots.style import INK, MUTED, colorbar, draw_map, inch_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_over", "mark_even", "mark_query", "masses", "plot_attention_grid", "query_tiles"]

_OVER, _OPAQUE = "#ff5a1f", 0.85  # colour of attention over a picture, and its opacity where it is largest


def _query_row(layer: LayerAttention, query: str | None) -> tuple[int | None, str]:
    """Return which query is looked at (None: all), and how it is called."""
    tokens = layer.queries
    if query is None:
        cls = next((b.start for b in tokens.blocks if b.name == "CLS"), None)
        return (cls, "CLS") if cls is not None else (None, "mean over all queries")
    if query.strip().lower() == "all":
        return None, "mean over all queries"
    index = tokens.find(query)
    block = next(b for b in tokens.blocks if b.start <= index < b.stop)
    if block.grid is not None:
        return index, f"patch {tokens.labels[index]} (row, column)"
    label = tokens.labels[index]
    return index, label if label == "CLS" else f"token {index}" + (f" {label!r}" if label != str(index) else "")


def plot_attention_grid(maps: AttentionMaps, *, query: str | None = None, title: str | None = None) -> Figure:
    """Draw where a query looks in the picture: a row a layer; over the picture, the head mean, and every head.

    CLS and register tokens are set aside; each tile says which share of the query's attention its patches get. All
    tiles have one scale.

    Args:
        maps: Layers; those whose keys are no grid of patches are left out, which the caption says.
        query: ``"cls"``, an index, ``"row,column"``, a word, or ``"all"`` for the mean over the queries; by default CLS
            where there is one, else all.
        title: Above the sheet.

    Raises:
        SelectionError: No layer's keys are a grid of patches.
        InputError: No query is named so.
    """
    pictured = [layer for layer in maps.layers if layer.keys.image is not None]
    if not pictured:
        raise SelectionError("no attention layer has keys that are patches of a picture", hint="use --view matrix")
    having = _with_query(pictured, query)
    shown, heads, said = capped(AttentionMaps(maps.model_name, tuple(having), None))
    rows = [query_tiles(layer, query) for layer in shown]
    scale = color_scale(np.concatenate([tile.reshape(-1) for _, tiles, _, _ in rows for tile in tiles]), signed=False)
    over = maps.picture is not None
    columns = heads + (1 if heads > 1 else 0) + over
    left_out = len(maps.layers) - len(pictured)
    without = len(pictured) - len(having)
    parts = [
        f"query: {rows[0][3]}", *said, "first: mean over the picture, opaque where largest" if over else "",
        scale.caption(), "%: share of the attention that the patches get", *maps.notes[:2],
        f"layers without patches, left out: {left_out}" if left_out else "",
        f"layers without this query, left out: {without}" if without else "", *layer_notes(shown),
    ]  # fmt: skip
    tile = min(2.4, max(1.0, 9.0 / columns)) if len(shown) < 4 else min(1.4, max(0.9, 12.0 / columns))
    aspects = [grid[0] / grid[1] for _, _, grid, _ in rows]
    heights = [tile * min(max(a, 0.25), 4) + HEAD + GAP for a in aspects]
    width = max(2 * MARGIN + NAMES + columns * (tile + GAP) + 0.75, 6.0)
    top = header_height(parts, width)
    figure = new_figure(width, top + sum(heights) + 0.3)
    header(figure, title or f"Attention of {maps.model_name}", parts)
    for layer, row, height in zip(shown, rows, heights, strict=True):
        _draw_grid_row(figure, layer, row, (top, tile, height), scale, maps.picture, heads)
        top += height
    bar = inch_axes(figure, width - MARGIN - 0.42, top - heights[-1] + HEAD, 0.1, heights[-1] - HEAD - GAP)
    colorbar(figure, bar, scale, size=7)
    mark_even(bar, [1 / layer.weights.shape[2] for layer in shown], scale.vmax)
    return figure


def mark_even(bar: Axes, shares: list[float], most: float) -> None:
    """Mark on a colour bar what each key gets where attention is even, if that is the same for all."""
    if len(set(shares)) == 1 and shares[0] <= most:
        bar.plot([0, 1], [shares[0]] * 2, color="white", linewidth=1.0, transform=bar.get_yaxis_transform())
        small_text(
            bar, -0.3, shares[0], "even", transform=bar.get_yaxis_transform(), ha="right", va="center", fontsize=6
        )


def _with_query(layers: list[LayerAttention], query: str | None) -> list[LayerAttention]:
    """Return the layers that have a query: their tokens may differ in number.

    Raises:
        InputError: None has it.
    """
    kept, failed = [], None
    for layer in layers:
        try:
            _query_row(layer, query)
            kept.append(layer)
        except InputError as error:
            failed = error
    if failed is not None and not kept:
        raise failed
    return kept


_Row = tuple[int | None, list[npt.NDArray[np.float64]], tuple[int, int], str]


def query_tiles(layer: LayerAttention, query: str | None) -> _Row:
    """Return the query, what each head (and before them, if there are several, their mean) sees, grid, query's name."""
    block = layer.keys.image
    assert block is not None
    assert block.grid is not None
    row, name = _query_row(layer, query)
    looks = layer.looks(row)[:, block.start : block.stop]
    tiles = [look.reshape(block.grid) for look in looks]
    if len(tiles) > 1:
        tiles.insert(0, layer.mean_look(row)[block.start : block.stop].reshape(block.grid))
    return row, tiles, block.grid, name


def _draw_grid_row(
    figure: Figure,
    layer: LayerAttention,
    row: _Row,
    place: tuple[float, float, float],
    scale: ColorScale,
    picture: npt.NDArray[Any] | None,
    heads: int,
) -> None:
    index, tiles, grid, _ = row
    top, tile, height = place
    layer_name(figure, layer, top + HEAD, extra=_beside(layer, index, grid))
    left = MARGIN + NAMES
    inside = height - HEAD - GAP
    if picture is not None:
        axes = plain(inch_axes(figure, left, top + HEAD, tile, inside))
        most = draw_over(axes, picture, tiles[0])
        mark_query(axes, layer, index, grid)
        small_text(axes, 0, 1.03, f"opaque: {number(most)}", transform=axes.transAxes, va="bottom", fontsize=6.5)
        left += tile + GAP
    several = len(layer.heads) > 1
    for place_, values in enumerate(tiles[: heads + several]):
        axes = plain(inch_axes(figure, left, top + HEAD, tile, inside))
        draw_map(axes, values, scale)
        mark_query(axes, layer, index, grid)
        label = "mean" if several and place_ == 0 else f"head {layer.heads[place_ - several]}"
        small_text(axes, 0, 1.03, label, transform=axes.transAxes, va="bottom")
        total = float(values.sum())
        if math.isfinite(total):
            small_text(
                axes, 1, 1.03, f"{100 * total:.0f} %", transform=axes.transAxes, va="bottom", ha="right", color=MUTED,
                fontsize=6,
            )  # fmt: skip
        left += tile + GAP


def _beside(layer: LayerAttention, index: int | None, grid: tuple[int, int]) -> list[str]:
    even = f"even share of {layer.weights.shape[2]} keys: {number(1 / layer.weights.shape[2])}"
    return [f"{grid[0]} × {grid[1]} patches", even, *masses(layer, index)]


def masses(layer: LayerAttention, index: int | None) -> list[str]:
    """Return the shares of the learned tokens among the keys, for the query that is shown."""
    looks = layer.mean_look(index)
    return [
        f"{block.name}: {100 * looks[block.start : block.stop].sum():.0f} %"
        for block in layer.keys.blocks
        if block.kind == "learned"
    ]


def draw_over(axes: Axes, picture: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """Draw patches over the picture in one colour, the more opaque the more attention; return the largest value.

    The picture is grey, so that all colour is attention's, and what gets none is seen as it is.
    """
    rows, columns = values.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    gray = picture.mean(axis=-1)
    fine = "nearest" if max(gray.shape) <= 64 else "antialiased"
    axes.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation=fine)
    finite = np.where(np.isfinite(values), values, 0.0)
    most = float(finite.max())
    color = np.empty((rows, columns, 4))
    color[..., :3] = to_rgb(_OVER)
    color[..., 3] = _OPAQUE * finite / (most or 1.0)
    axes.imshow(color, extent=extent, aspect="auto", interpolation="nearest")
    return most


def mark_query(axes: Axes, layer: LayerAttention, index: int | None, grid: tuple[int, int]) -> None:
    """Frame the patch that the query is, where it is one of the same picture; its grid may be finer than the keys'."""
    block = layer.queries.image
    if index is None or layer.kind == "cross" or block is None or not block.start <= index < block.stop:
        return
    assert block.grid is not None
    row, column = divmod(index - block.start, block.grid[1])
    high, wide = grid[0] / block.grid[0], grid[1] / block.grid[1]
    corner = (column * wide - 0.5, row * high - 0.5)
    frame = Rectangle(corner, wide, high, fill=False, edgecolor="white", linewidth=1.2, clip_on=False)
    frame.set_path_effects([withStroke(linewidth=2.8, foreground=INK)])  # to be seen on dark, bright and orange
    axes.add_patch(frame)
