"""Figures of attention: over the picture, as matrices with words, as blocks, rolled out, and head against head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from onnxviz.analysis.attention import AttentionMaps, HeadDistances, LayerAttention, Rollout
from onnxviz.analysis.scale import ColorScale, color_scale, number
from onnxviz.analysis.tokens import TokenBlock, Tokens
from onnxviz.errors import SelectionError
from onnxviz.plots.style import (
    FONT,
    INK,
    MUTED,
    ZERO,
    colorbar,
    draw_map,
    figure_text,
    inch_axes,
    name_lines,
    new_figure,
    plain,
    safe,
    wrap_caption,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_attention_blocks",
    "plot_attention_grid",
    "plot_attention_matrices",
    "plot_head_distances",
    "plot_rollout",
]

_MARGIN = 0.35
_NAMES = 1.75  # room for the name of a layer, in inches
_MOST_COLUMNS, _MOST_ROWS = 16, 24
_MOST_LABELS = 64
_GAP = 0.1
_HEAD = 0.2  # line above a tile
_OVER, _OPAQUE = "#ff5a1f", 0.85  # colour of attention over a picture, and its opacity where it is largest


def _header(figure: Figure, title: str, parts: Sequence[str]) -> None:
    width = figure.get_size_inches()[0]
    figure_text(figure, _MARGIN, 0.22, safe(title, int(width * 10)), fontsize=12, fontweight="bold")
    caption = wrap_caption([p for p in parts if p], width - 2 * _MARGIN)
    figure_text(figure, _MARGIN, 0.52, caption, fontsize=8, color=MUTED, linespacing=1.4)


def _header_height(parts: Sequence[str], width: float) -> float:
    lines = wrap_caption([p for p in parts if p], width - 2 * _MARGIN).count("\n") + 1
    return 0.62 + 0.16 * lines


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    settings: dict[str, Any] = {"fontsize": 7, "color": INK, "fontfamily": FONT, "clip_on": False} | style
    axes.text(x, y, text, parse_math=False, **settings)


def _capped(maps: AttentionMaps) -> tuple[list[LayerAttention], int, list[str]]:
    """Return the layers and the number of heads that a sheet shows, and what it leaves out."""
    layers, most = list(maps.layers), max(len(layer.heads) for layer in maps.layers)
    said = []
    if len(layers) > _MOST_ROWS:
        said.append(f"{_MOST_ROWS} of {len(layers)} layers")
    if most > _MOST_COLUMNS:
        said.append(f"{_MOST_COLUMNS} of {most} heads")
    return layers[:_MOST_ROWS], min(most, _MOST_COLUMNS), said


def _notes(layers: Sequence[LayerAttention]) -> list[str]:
    return list(dict.fromkeys(layer.note for layer in layers if layer.note))[:3]


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


def _looks(weights: npt.NDArray[Any], row: int | None) -> npt.NDArray[np.float64]:
    """Return where a query looks, or all on average: ``(heads, K)``."""
    if row is not None:
        return weights[:, row].astype(np.float64)
    return np.asarray(np.nanmean(weights.astype(np.float64), axis=1))


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
    shown, heads, said = _capped(AttentionMaps(maps.model_name, tuple(pictured), None))
    rows = [_tiles(layer, query) for layer in shown]
    scale = color_scale(np.concatenate([tile.reshape(-1) for _, tiles, _, _ in rows for tile in tiles]), signed=False)
    over = maps.picture is not None
    columns = heads + (1 if heads > 1 else 0) + over
    left_out = len(maps.layers) - len(pictured)
    parts = [
        f"query: {rows[0][3]}", *said, "first: mean over the picture, opaque where largest" if over else "",
        scale.caption(), "%: share of the attention that the patches get",
        f"{left_out} layers without patches left out" if left_out else "", *_notes(shown),
    ]  # fmt: skip
    tile = min(2.4, max(1.0, 9.0 / columns)) if len(shown) < 4 else min(1.4, max(0.9, 12.0 / columns))
    aspects = [grid[0] / grid[1] for _, _, grid, _ in rows]
    heights = [tile * min(max(a, 0.25), 4) + _HEAD + _GAP for a in aspects]
    width = max(2 * _MARGIN + _NAMES + columns * (tile + _GAP) + 0.75, 6.0)
    top = _header_height(parts, width)
    figure = new_figure(width, top + sum(heights) + 0.3)
    _header(figure, title or f"Attention of {maps.model_name}", parts)
    for layer, row, height in zip(shown, rows, heights, strict=True):
        _draw_grid_row(figure, layer, row, (top, tile, height), scale, maps.picture, heads)
        top += height
    bar = inch_axes(figure, width - _MARGIN - 0.42, top - heights[-1] + _HEAD, 0.1, heights[-1] - _HEAD - _GAP)
    colorbar(figure, bar, scale, size=7)
    return figure


_Row = tuple[int | None, list[npt.NDArray[np.float64]], tuple[int, int], str]


def _tiles(layer: LayerAttention, query: str | None) -> _Row:
    """Return the query, what each head (and before them, if there are several, their mean) sees, grid, query's name."""
    block = layer.keys.image
    assert block is not None
    assert block.grid is not None
    row, name = _query_row(layer, query)
    looks = _looks(layer.weights, row)[:, block.start : block.stop]
    tiles = [look.reshape(block.grid) for look in looks]
    if len(tiles) > 1:
        tiles.insert(0, looks.mean(axis=0).reshape(block.grid))
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
    _layer_name(figure, layer, top + _HEAD, extra=[f"{grid[0]} × {grid[1]} patches", *_masses(layer, index)])
    left = _MARGIN + _NAMES
    inside = height - _HEAD - _GAP
    if picture is not None:
        axes = plain(inch_axes(figure, left, top + _HEAD, tile, inside))
        most = _draw_over(axes, picture, tiles[0])
        _mark_query(axes, layer.queries, index, grid)
        _text(
            axes,
            0,
            1.03,
            f"opaque: {number(most)}",
            transform=axes.transAxes,
            va="bottom",
            fontsize=6.5,
        )
        left += tile + _GAP
    several = len(layer.heads) > 1
    for place_, values in enumerate(tiles[: heads + several]):
        axes = plain(inch_axes(figure, left, top + _HEAD, tile, inside))
        draw_map(axes, values, scale)
        _mark_query(axes, layer.queries, index, grid)
        label = "mean" if several and place_ == 0 else f"head {layer.heads[place_ - several]}"
        _text(axes, 0, 1.03, label, transform=axes.transAxes, va="bottom")
        total = float(values.sum())
        if math.isfinite(total):
            _text(
                axes, 1, 1.03, f"{100 * total:.0f} %", transform=axes.transAxes, va="bottom", ha="right", color=MUTED,
                fontsize=6,
            )  # fmt: skip
        left += tile + _GAP


def _masses(layer: LayerAttention, index: int | None) -> list[str]:
    """Return the shares of the learned tokens among the keys, for the query that is shown."""
    looks = _looks(layer.weights, index).mean(axis=0)
    return [
        f"{block.name}: {100 * looks[block.start : block.stop].sum():.0f} %"
        for block in layer.keys.blocks
        if block.kind == "learned"
    ]


def _layer_name(figure: Figure, layer: LayerAttention, top: float, extra: Sequence[str] = ()) -> None:
    figure_text(figure, _MARGIN, top, layer.title, fontsize=9, fontweight="bold")
    lines = [name_lines(layer.name, 27), *extra]
    figure_text(figure, _MARGIN, top + 0.17, "\n".join(lines), fontsize=6.5, color=MUTED, linespacing=1.4)


def _draw_over(axes: Axes, picture: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """Draw patches over the picture in one colour, the more opaque the more attention; return the largest value.

    The picture is grey, so that all colour is attention's, and what gets none is seen as it is.
    """
    rows, columns = values.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    gray = picture.reshape(*picture.shape[:2], -1)[..., :3].mean(axis=-1)
    fine = "nearest" if max(gray.shape) <= 64 else "antialiased"
    axes.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation=fine)
    finite = np.where(np.isfinite(values), values, 0.0)
    most = float(finite.max())
    color = np.empty((rows, columns, 4))
    color[..., :3] = to_rgb(_OVER)
    color[..., 3] = _OPAQUE * finite / (most or 1.0)
    axes.imshow(color, extent=extent, aspect="auto", interpolation="nearest")
    return most


def _mark_query(axes: Axes, queries: Tokens, index: int | None, grid: tuple[int, int]) -> None:
    """Frame the patch that the query is, where it is one of the same picture."""
    block = queries.image
    if index is None or block is None or block.grid != grid or not block.start <= index < block.stop:
        return
    row, column = divmod(index - block.start, grid[1])
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ZERO, linewidth=1.6, clip_on=False))


def plot_attention_matrices(maps: AttentionMaps, *, title: str | None = None) -> Figure:
    """Draw attention matrices, queries down and keys across: a row a layer, the head mean and every head.

    Words stand at the rows and columns where they are legible. Keys that are attention sinks in at least half of the
    heads are marked by a triangle above the head mean. All matrices have one scale.

    Args:
        maps: Layers.
        title: Above the sheet.
    """
    shown, heads, said = _capped(maps)
    columns = heads + (1 if heads > 1 else 0)
    scale = color_scale(np.concatenate([layer.weights.reshape(-1) for layer in shown]), signed=False)
    largest = max(max(layer.weights.shape[1:]) for layer in shown)
    tile = min(4.6, max(1.5, 9.0 / columns)) if len(shown) < 5 else min(1.8, max(1.0, 12.0 / columns))
    if len(shown) == 1 and columns == 1 and largest <= _MOST_LABELS:
        tile = max(tile, 0.16 * largest)
    sizes = [_matrix_size(layer, tile) for layer in shown]
    words = [_label_room(layer, size) for layer, size in zip(shown, sizes, strict=True)]
    side = max(room for room, _ in words)
    heights = [size[1] + _HEAD + _GAP + below for size, (_, below) in zip(sizes, words, strict=True)]
    parts = ["queries down, keys across", *said, scale.caption(), *_notes(shown)]
    if any(layer.sinks().max() >= 0.5 for layer in shown):
        parts.append("▼ sink: gets more than 0.3 on average in half of the heads or more")
    width = max(2 * _MARGIN + _NAMES + side + columns * (tile + _GAP) + 0.75, 6.0)
    top = _header_height(parts, width)
    figure = new_figure(width, top + sum(heights) + 0.3)
    _header(figure, title or f"Attention of {maps.model_name}", parts)
    for layer, size, (room, below), height in zip(shown, sizes, words, heights, strict=True):
        _draw_matrix_row(figure, layer, (_MARGIN + _NAMES + side, top), size, tile, scale, (room, below), heads)
        top += height
    first = _header_height(parts, width) + _HEAD
    bar = inch_axes(figure, width - _MARGIN - 0.42, first, 0.1, min(max(sizes[0][1], 1.2), sum(heights) - 0.3))
    colorbar(figure, bar, scale, size=7)
    return figure


def _matrix_size(layer: LayerAttention, tile: float) -> tuple[float, float]:
    queries, keys = layer.weights.shape[1:]
    shape = min(max(queries / keys, 0.35), 1.5)
    legible = 0.13 * queries if queries <= _MOST_LABELS // 2 else 0.0
    return (tile, max(tile * shape, min(legible, 1.5 * tile)))


def _label_room(layer: LayerAttention, size: tuple[float, float]) -> tuple[float, float]:
    """Return the inches that labels take left of and below a row of matrices; 0 where they would not be legible."""
    queries, keys = layer.weights.shape[1:]
    left = 0.06 * max(len(label) for label in _short(layer.queries)) + 0.1 if size[1] / queries > 0.1 else 0.3
    below = 0.06 * max(len(label) for label in _short(layer.keys)) + 0.1 if size[0] / keys > 0.1 else 0.22
    return left, below


def _short(tokens: Tokens) -> list[str]:
    return [safe(label.strip() or repr(label), 14) for label in tokens.labels]


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
    bits = np.nanmean(layer.entropy(), axis=-1) if layer.empty < layer.weights[..., 0].size else np.full(1, np.nan)
    extra = [f"{queries} queries × {keys} keys", f"entropy {number(float(bits.mean()))} of {math.log2(keys):.3g} bits"]
    if layer.keys.special:
        extra.append(f"special tokens get {100 * float(layer.special_mass().mean()):.0f} %")
    _layer_name(figure, layer, top + _HEAD, extra)
    several = len(layer.heads) > 1
    matrices = [layer.mean(), *layer.weights] if several else list(layer.weights)
    for place, values in enumerate(matrices[: heads + several]):
        axes = inch_axes(figure, left, top + _HEAD, *size)
        draw_map(axes, values, scale)
        _frame(axes)
        _bounds(axes, layer)
        label = "mean" if several and place == 0 else f"head {layer.heads[place - several]}"
        _text(axes, 0, 1.02, label, transform=axes.transAxes, va="bottom")
        _label_axis(axes, layer.keys, keys, size[0], across=True)
        if place == 0:
            _label_axis(axes, layer.queries, queries, size[1], across=False)
            for key in np.flatnonzero(layer.sinks() >= 0.5)[:20]:
                axes.plot(
                    key, 1.01, marker="v", markersize=3, color=ZERO, transform=axes.get_xaxis_transform(), clip_on=False
                )
        else:
            axes.set_yticks([])
        left += tile + _GAP


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("#9aa0a6")
    axes.tick_params(labelsize=6.5, width=0.4, length=1.5, pad=1.5, labelfontfamily=FONT)


def _bounds(axes: Axes, layer: LayerAttention) -> None:
    """Draw the bounds between blocks of tokens."""
    for block in layer.keys.blocks[1:]:
        axes.axvline(block.start - 0.5, color="white", linewidth=0.6)
    for block in layer.queries.blocks[1:]:
        axes.axhline(block.start - 0.5, color="white", linewidth=0.6)


def _label_axis(axes: Axes, tokens: Tokens, count: int, inches: float, *, across: bool) -> None:
    axis = axes.xaxis if across else axes.yaxis
    if inches / count > 0.1:
        axis.set_ticks(range(count))
        for text, label in zip(
            axes.set_xticklabels([""] * count) if across else axes.set_yticklabels([""] * count), _short(tokens),
            strict=True,
        ):  # fmt: skip
            text.set(text=label, rotation=90 if across else 0, parse_math=False, fontfamily=FONT)
        axis.set_ticklabels(_short(tokens), rotation=90 if across else 0, parse_math=False, fontfamily=FONT)
    else:
        axis.set_ticks(sorted({0, count - 1}))


def plot_attention_blocks(maps: AttentionMaps, *, title: str | None = None) -> Figure:
    """Draw where each kind of token looks: a matrix of blocks a layer, the mass printed (head mean; least … most).

    Args:
        maps: Layers.
        title: Above the sheet.
    """
    shown = list(maps.layers)[:_MOST_ROWS]
    columns = min(len(shown), 4)
    rows = math.ceil(len(shown) / columns)
    cell = 0.85
    most_keys = max(len(layer.keys.blocks) for layer in shown)
    most_queries = max(len(layer.queries.blocks) for layer in shown)
    box = (max(0.8 + cell * most_keys + 0.2, 2.0), 0.62 + cell * 0.62 * most_queries + 0.25)
    parts = [
        "queries down, keys across: share of their attention", "mean of the heads, below it their least … most",
        "rows sum to 100 %", *_notes(shown),
    ]  # fmt: skip
    width = max(2 * _MARGIN + columns * box[0], 6.5)
    top = _header_height(parts, width)
    figure = new_figure(width, top + rows * box[1] + 0.2)
    _header(figure, title or f"Attention between kinds of tokens in {maps.model_name}", parts)
    scale = ColorScale("sequential", 0.0, 1.0, 0.0, 0, 0, False, 1, 100)
    for place, layer in enumerate(shown):
        left, down = _MARGIN + (place % columns) * box[0], top + (place // columns) * box[1]
        figure_text(figure, left, down, layer.title, fontsize=9, fontweight="bold")
        figure_text(figure, left, down + 0.17, safe(layer.name, int(box[0] * 15)), fontsize=6.5, color=MUTED)
        size = (cell * len(layer.keys.blocks), cell * 0.62 * len(layer.queries.blocks))
        _draw_blocks(inch_axes(figure, left + 0.8, down + 0.4, *size), layer, scale)
    return figure


def _draw_blocks(axes: Axes, layer: LayerAttention, scale: ColorScale) -> None:
    mass = layer.block_mass()
    mean = mass.mean(axis=0)
    draw_map(axes, mean, scale)
    _frame(axes)
    for (row, column), share in np.ndenumerate(mean):
        if not math.isfinite(share):
            continue
        ink = "white" if share < 0.55 else INK
        _text(axes, column, row - 0.1, f"{100 * share:.0f} %", ha="center", va="center", color=ink, fontsize=9)
        low, high = 100 * mass[:, row, column].min(), 100 * mass[:, row, column].max()
        if len(mass) > 1:
            _text(axes, column, row + 0.24, f"{low:.0f} … {high:.0f}", ha="center", va="center", color=ink, fontsize=6)
    for axis, blocks in ((axes.xaxis, layer.keys.blocks), (axes.yaxis, layer.queries.blocks)):
        axis.set_ticks(range(len(blocks)))
        axis.set_ticklabels([_block_label(b) for b in blocks], fontfamily=FONT)


def _block_label(block: TokenBlock) -> str:
    return block.name if len(block) == 1 else f"{block.name} ({len(block)})"


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
    parts = [f"through {through}, residual {result.residual:g}, head mean (Abnar & Zuidema 2020)", result.note]
    if result.tokens.image is None:
        maps = AttentionMaps("", (as_layer,), None)
        figure = plot_attention_matrices(maps, title=title)
        _replace_caption(figure, parts)
        return figure
    row, tiles, grid, name = _tiles(as_layer, query)
    scale = color_scale(tiles[0], signed=False)
    parts = [f"output: {name}", *parts, scale.caption(), *(f"{m} of it" for m in _masses(as_layer, row))]
    aspect = min(max(grid[0] / grid[1], 0.25), 4)
    side, panels = 2.8, 3 if picture is not None else 1
    width = max(2 * _MARGIN + panels * (side + 0.2) + 0.6, 6.0)
    top = _header_height(parts, width) + 0.1
    figure = new_figure(width, top + side * aspect + 0.4)
    _header(figure, title, parts)
    left = _MARGIN
    if picture is not None:
        axes = plain(inch_axes(figure, left, top + _HEAD, side, side * aspect))
        image = (
            picture if picture.ndim == 3 and picture.shape[-1] == 3 else picture.reshape(*picture.shape[:2], -1)[..., 0]
        )
        shade: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
        axes.imshow(
            image, aspect="auto", interpolation="nearest" if max(image.shape[:2]) <= 64 else "antialiased", **shade
        )
        _text(axes, 0, 1.02, "input picture", transform=axes.transAxes, va="bottom", fontsize=8)
        over = plain(inch_axes(figure, left + side + 0.2, top + _HEAD, side, side * aspect))
        most = _draw_over(over, picture, tiles[0])
        _mark_query(over, result.tokens, row, grid)
        _text(
            over,
            0,
            1.02,
            f"over the picture, opaque at {number(most)}",
            transform=over.transAxes,
            va="bottom",
            fontsize=8,
        )
        left += 2 * (side + 0.2)
    axes = plain(inch_axes(figure, left, top + _HEAD, side, side * aspect))
    draw_map(axes, tiles[0], scale)
    _mark_query(axes, result.tokens, row, grid)
    _text(axes, 0, 1.02, f"rollout, {grid[0]} × {grid[1]} patches", transform=axes.transAxes, va="bottom", fontsize=8)
    colorbar(figure, inch_axes(figure, left + side + 0.1, top + _HEAD, 0.1, side * aspect), scale, size=7)
    return figure


def _replace_caption(figure: Figure, parts: Sequence[str]) -> None:
    """Put the rollout's caption in place of the matrices'."""
    old = figure.texts[1].get_text().replace("\n", " · ").split(" · ")
    width = figure.get_size_inches()[0]
    figure.texts[1].set_text(wrap_caption([p for p in (*parts, *old) if p], width - 2 * _MARGIN))


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
    width = max(2 * _MARGIN + side + 1.9, 6.0)
    top = _header_height(parts, width) + 0.1
    figure = new_figure(width, top + side + 0.75)
    _header(figure, title, parts)
    axes = inch_axes(figure, _MARGIN + 1.0, top, side, side)
    draw_map(axes, np.ma.masked_invalid(result.matrix), scale)
    _frame(axes)
    _label_heads(axes, result, side / count)
    colorbar(figure, inch_axes(figure, _MARGIN + 1.1 + side, top, 0.1, side), scale, label="bits", size=7)
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
            _text(axes, -0.5 - 0.2 / cell, middle, result.layers[start], ha="right", va="center", fontsize=7)
        if (stop - start) * cell > 0.7:
            _text(axes, middle, count - 0.5 + 0.22 / cell, result.layers[start], ha="center", va="top", fontsize=7)
