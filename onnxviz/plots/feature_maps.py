"""Feature maps as figures: the grid of one layer, and one sheet of all layers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt
from matplotlib.figure import Figure

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.paired import NotDrawn
from onnxviz.errors import SelectionError
from onnxviz.plots.pairs import footer_lines
from onnxviz.plots.signals import draw_channel_lines, lines_height, mark_rows
from onnxviz.plots.style import (
    FONT,
    MUTED,
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
from onnxviz.plots.tiles import GAP, LABEL, draw_tiles, draw_vector, tile_shape

__all__ = ["MOST_TILES", "plot_feature_maps", "plot_feature_sheet", "spread"]

#: Most tiles of a grid.
MOST_TILES = 1024
_MARGIN = 0.35
_LINES = 5  # channels of an image that are drawn as lines too


def spread(count: int, limit: int) -> list[int]:
    """Return at most ``limit`` indices spread evenly over ``range(count)``, the first and the last among them.

    >>> spread(100, 3), spread(2, 3)
    ([0, 50, 99], [0, 1])
    """
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)]


def plot_feature_maps(fm: FeatureMaps, *, scale: Literal["shared", "channel"] = "shared") -> Figure:
    """Draw the feature maps of one layer.

    A grid shows a tile a channel, its index above it, constant channels in a dashed frame with their value, NaN and Inf
    hatched; several slices of a channel share a row, and tokens set aside are small squares above a tile. The image of
    a one-dimensional signal has its channels down and position or time across, below a few of them as lines. A vector
    is drawn as bars.

    Args:
        fm: What :func:`onnxviz.analysis.feature_maps.feature_maps` returned.
        scale: ``"shared"``: one scale for all channels, with one colour bar. ``"channel"``: each tile on its own,
            its range printed above it and no colour bar. Images and vectors have one scale in any case.

    Returns:
        The figure, in the object interface of matplotlib; :func:`onnxviz.plots.save.save_figure` writes it.

    Raises:
        SelectionError: ``scale`` is neither.

    >>> import numpy as np
    >>> from onnxviz.analysis.feature_maps import feature_maps
    >>> figure = plot_feature_maps(feature_maps(np.ones((1, 40, 5, 5)), name="relu"))
    >>> len(figure.axes[0].images)
    40
    """
    _check_scale(scale)
    if fm.kind == "vector":
        return _plot_vector(fm)
    if fm.kind == "image":
        return _plot_image(fm)
    return _plot_grid(fm, shared=scale == "shared")


def _check_scale(scale: str) -> None:
    if scale not in ("shared", "channel"):
        raise SelectionError(f"there is no scale {scale!r}", hint="choose shared or channel")


def _plot_grid(fm: FeatureMaps, *, shared: bool) -> Figure:
    fm = fm.first(MOST_TILES)
    count, shape = len(fm.maps), tile_shape(fm.maps)
    columns = min(count, max(1, math.ceil(math.sqrt(count * (shape + 0.15) * 1.2))))
    columns = max(round(columns / fm.strip), 1) * fm.strip if fm.strip > 1 else columns
    rows = math.ceil(count / columns)
    tile = min(1.6, max(0.62 if shared else 0.9, 8.4 / columns))
    width, height = columns * tile * (1 + GAP), rows * (tile * shape + LABEL)
    inner = max(width, 4.6)
    caption = fm.captions() if shared else _channel_caption(fm)
    if fm.aside and shared:
        caption.append("square above a tile: " + ", ".join(label for label, _ in fm.aside))
    lines = wrap_caption(caption, inner + 0.7)
    figure = new_figure(inner + 2 * _MARGIN + 0.75, height + 0.95 + 0.18 * (lines.count("\n") + 1) + 0.2)
    _heading(figure, fm, inner + 0.7)
    axes = inch_axes(figure, _MARGIN, 0.8, width, height)
    draw_tiles(axes, fm, range(count), columns, tile, shared=shared)
    if shared:
        bar_height = min(max(height - LABEL, 0.8), 3.5)
        top = 0.8 + LABEL
        colorbar(figure, inch_axes(figure, _MARGIN + width + 0.15, top, 0.14, bar_height), fm.scale)
    figure_text(figure, _MARGIN, height + 0.95, lines, fontsize=8, color=MUTED, linespacing=1.5)
    return figure


def _heading(figure: Figure, fm: FeatureMaps, room: float) -> None:
    figure_text(figure, _MARGIN, 0.2, safe(fm.name, int(room * 9)), fontsize=12, fontweight="bold")
    figure_text(figure, _MARGIN, 0.46, " · ".join(_kind_of_layer(fm)), fontsize=9, color=MUTED)


def _kind_of_layer(fm: FeatureMaps) -> list[str]:
    size = " × ".join(str(n) for n in fm.shape)
    return [safe(fm.op_type, 36) if fm.op_type else "input", size, fm.dtype]


def _channel_caption(fm: FeatureMaps) -> list[str]:
    parts = [fm.shown, "each channel on its own scale, its range above it"]
    for amount, what in ((fm.scale.nan, "NaN"), (fm.scale.inf, "Inf")):
        if amount:
            parts.append(f"{amount} {what} (hatched)")
    if fm.constant_total:
        parts.append(f"{fm.constant_total} constant")
    if fm.batch > 1:
        parts.append(f"sample {fm.sample} of {fm.batch}")
    return [*parts, fm.note] if fm.note else parts


def _plot_image(fm: FeatureMaps) -> Figure:
    channels, length = fm.maps.shape[1:]
    width, height = 8.4, min(max(channels * 0.04, 2.2), 6.0)
    chosen = fm.best(_LINES)
    left, above = _MARGIN + 0.45, lines_height(len(chosen))
    caption = [*fm.captions(), f"lines: channels {', '.join(str(fm.channels[i]) for i in chosen)}, {_line_order(fm)}"]
    lines = wrap_caption(caption, width + 0.7)
    figure = new_figure(width + 2 * _MARGIN + 1.2, above + height + 1.6 + 0.18 * (lines.count("\n") + 1))
    _heading(figure, fm, width + 0.7)
    axes = inch_axes(figure, left, 0.85 + above, width, height)
    draw_map(axes, fm.maps[0], fm.scale)
    axes.set_xlabel(f"{fm.across} (0 … {length - 1})", fontsize=8, color=MUTED, fontfamily=FONT)
    axes.set_ylabel("channel", fontsize=8, color=MUTED, fontfamily=FONT)
    axes.tick_params(labelsize=7, width=0.5, length=2.5, labelfontfamily=FONT)
    axes.locator_params(integer=True, axis="both")
    if fm.channels != tuple(range(channels)):
        axes.yaxis.set_major_formatter(
            lambda at, _: str(fm.channels[round(at)]) if 0 <= at < channels and at == round(at) else ""
        )
    mark_rows(axes, chosen)
    bar = inch_axes(figure, left + width + 0.15, 0.85 + above, 0.14, min(height, 3.5))
    colorbar(figure, bar, fm.scale)
    draw_channel_lines(figure, fm, chosen, (left, 0.85, width))
    figure_text(figure, _MARGIN, above + height + 1.35, lines, fontsize=8, color=MUTED, linespacing=1.5)
    return figure


def _line_order(fm: FeatureMaps) -> str:
    return {"index": "the first", "request": "as asked for"}.get(fm.by, f"those of highest {fm.by}")


def _plot_vector(fm: FeatureMaps) -> Figure:
    width, height = 8.4, 2.6
    lines = wrap_caption(fm.captions(), width)
    figure = new_figure(width + 2 * _MARGIN + 0.4, height + 1.6 + 0.18 * (lines.count("\n") + 1))
    _heading(figure, fm, width)
    axes = inch_axes(figure, _MARGIN + 0.45, 0.85, width - 0.2, height)
    draw_vector(axes, fm.maps[0, 0], labels=True, channels=fm.channels)
    axes.set_xlabel("channel", fontsize=8, color=MUTED, fontfamily=FONT)
    figure_text(figure, _MARGIN, height + 1.35, lines, fontsize=8, color=MUTED, linespacing=1.5)
    return figure


def plot_feature_sheet(
    layers: Sequence[FeatureMaps],
    *,
    picture: npt.NDArray[Any] | None = None,
    per_layer: int = 12,
    rows: int = 24,
    title: str = "Feature maps",
    scale: Literal["shared", "channel"] = "shared",
    not_drawn: Sequence[NotDrawn] = (),
) -> Figure:
    """Draw the feature maps of many layers on one sheet, a row a layer, each with its own scale and colour bar.

    Args:
        layers: The layers, in the order of the model; beyond ``rows`` of them an even spread is drawn and said so.
        picture: The input picture as ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8, drawn above the layers.
        per_layer: Tiles a row.
        rows: Most layers to draw.
        title: The sheet's title.
        scale: ``"shared"``: one scale for all channels of a layer. ``"channel"``: each tile on its own, its range above
            it; images and vectors have one scale in any case.
        not_drawn: Tensors that were asked for and have no maps, told at the foot.

    Raises:
        SelectionError: There is no layer, or ``scale`` is neither.

    >>> import numpy as np
    >>> from onnxviz.analysis.feature_maps import feature_maps
    >>> sheet = plot_feature_sheet([feature_maps(np.ones((1, 4, 5, 5)), name="conv")], per_layer=2)
    >>> len(sheet.axes[0].images)
    2
    """
    _check_scale(scale)
    if not layers:
        raise SelectionError("there are no feature maps to draw", hint="choose tensors with channels")
    chosen = [layers[i] for i in spread(len(layers), rows)]
    label, tile = 2.7, 0.78
    band = per_layer * tile * (1 + GAP)
    if scale == "channel":
        per_layer, tile = max(per_layer * 5 // 6, 1), band / max(per_layer * 5 // 6, 1) / (1 + GAP)
    heights = [_row_height(fm, tile) for fm in chosen]
    top = 0.85
    foot = footer_lines(not_drawn)
    picture_height = 1.5 if picture is not None else 0.0
    figure = new_figure(
        label + band + 1.15 + _MARGIN, top + picture_height + sum(heights) + 0.25 + 0.17 * len(foot)
    )  # fmt: skip
    figure_text(figure, _MARGIN, 0.2, safe(title, 90), fontsize=14, fontweight="bold")
    figure_text(figure, _MARGIN, 0.5, _said_of_all(chosen, len(layers), scale), fontsize=9, color=MUTED)
    if picture is not None:
        _draw_picture(figure, picture, label, top)
        top += picture_height
    for fm, height in zip(chosen, heights, strict=True):
        _draw_row(figure, fm, (label, top, band, height), per_layer, tile, shared=scale == "shared")
        top += height
    if foot:
        figure_text(figure, _MARGIN, top + 0.05, "\n".join(foot), fontsize=8, color=MUTED, linespacing=1.4)
    return figure


def _said_of_all(layers: Sequence[FeatureMaps], total: int, scale: str) -> str:
    shown = len(layers)
    which = next((f" · sample {fm.sample} of {fm.batch}" for fm in layers if fm.batch > 1), "")
    what = f"{shown} of {total} layers" if shown < total else f"{total} layer{'s' * (total > 1)}"
    own = "a row a layer on its own scale" if scale == "shared" else "each channel on its own scale, its range above it"
    return f"{what}{which} · {own} · blue below 0, red above · dark is 0 where nothing is negative"


def _row_height(fm: FeatureMaps, tile: float) -> float:
    if fm.kind == "grid":
        return max(_tile_width(fm, tile) * tile_shape(fm.maps) + LABEL, 0.8) + 0.16
    return 1.15 + (0.16 if fm.kind == "vector" else 0.0)


def _tile_width(fm: FeatureMaps, tile: float) -> float:
    """Return the width of a row's tiles: narrower where they are tall."""
    return tile * min(1.0, 1.5 / tile_shape(fm.maps))


def _draw_picture(figure: Figure, picture: npt.NDArray[Any], left: float, top: float) -> None:
    image = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    height, width = image.shape[:2]
    size = 1.3
    figure_text(figure, _MARGIN, top + 0.1, "input picture", fontsize=9.5, fontweight="bold")
    figure_text(figure, _MARGIN, top + 0.3, f"{width} × {height} pixels", fontsize=8, color=MUTED)
    axes = plain(inch_axes(figure, left, top, min(size * width / height, 6.0), size))
    gray: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    axes.imshow(image, aspect="auto", interpolation="nearest" if max(width, height) <= 64 else "antialiased", **gray)


def _draw_row(
    figure: Figure, fm: FeatureMaps, box: tuple[float, float, float, float], per_layer: int, tile: float,
    *, shared: bool,
) -> None:  # fmt: skip
    left, top, width, height = box
    inside = height - 0.16
    fm = fm.first(per_layer)
    name = name_lines(fm.name, 27)
    figure_text(figure, _MARGIN, top + 0.18, name, fontsize=8.5, fontweight="bold")
    notes = [wrap_caption(_kind_of_layer(fm), 2.7), *_row_notes(fm)]
    notes = [line for note in notes for line in textwrap.wrap(note, 46) or [note]]
    figure_text(
        figure,
        _MARGIN,
        top + 0.35 + 0.14 * name.count("\n"),
        "\n".join(notes),
        fontsize=7,
        color=MUTED,
        linespacing=1.4,
    )
    if fm.kind == "vector":
        draw_vector(
            inch_axes(figure, left + 0.15, top + 0.12, width - 0.15, inside - 0.3),
            fm.maps[0, 0],
            labels=True,
            channels=fm.channels,
        )
        return
    if fm.kind == "image":
        axes = plain(inch_axes(figure, left, top + 0.12, width * 0.985, inside - 0.12))
        draw_map(axes, fm.maps[0], fm.scale)
    else:
        which = range(min(per_layer, len(fm.maps)))
        tile = _tile_width(fm, tile)
        axes = inch_axes(figure, left, top, per_layer * tile * (1 + GAP), tile * tile_shape(fm.maps) + LABEL)
        draw_tiles(axes, fm, which, per_layer, tile, shared=shared)
        if not shared:
            return
    bar = inch_axes(figure, left + width + 0.08, top + LABEL, 0.1, inside - LABEL)
    colorbar(figure, bar, fm.scale, size=6.5)


def _row_notes(fm: FeatureMaps) -> list[str]:
    if fm.kind == "vector":
        count = f"{len(fm.channels)} of {fm.total}" if len(fm.channels) < fm.total else str(fm.total)
        return [f"{count} values", *_bad(fm)]
    notes = [fm.shown]
    if fm.kind == "image":
        count = f"{len(fm.channels)} of {fm.total}" if len(fm.channels) < fm.total else str(fm.total)
        notes = [f"{count} channels down, {fm.across} across"]
    if len(fm.aside) > 1:
        notes.append("square above a tile: " + ", ".join(label for label, _ in fm.aside))
    clipped = f"{100 * fm.scale.clipped:.1g} % clipped" if fm.scale.clipped else "nothing clipped"
    constant = f" · {fm.constant_total} constant" if fm.constant_total else ""
    return [*notes, *([fm.note] if fm.kind == "grid" and fm.note else []), clipped + constant, *_bad(fm)]


def _bad(fm: FeatureMaps) -> list[str]:
    bad = [f"{n} {what}" for n, what in ((fm.scale.nan, "NaN"), (fm.scale.inf, "Inf")) if n]
    return [" · ".join(bad) + " (hatched)"] if bad else []
