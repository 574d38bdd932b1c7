"""Heat maps of layers over the picture or the signal that the model was fed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from onnxviz.analysis.scale import ColorScale, number
from onnxviz.analysis.spatial_heat import Canvas, HeatSheet, SpatialHeat
from onnxviz.errors import SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pairs import footer_lines
from onnxviz.plots.signals import draw_line
from onnxviz.plots.style import (
    FONT,
    INK,
    MUTED,
    colorbar,
    colormap,
    draw_map,
    figure_text,
    inch_axes,
    name_lines,
    new_figure,
    norm,
    plain,
    safe,
    wrap_caption,
)

__all__ = ["draw_over", "plot_overlays", "small_bar"]

_MARGIN = 0.35
_MOST = 30  # layers of a sheet
_FINEST = 1024  # longest side at which a heat map is laid over a picture, px
_OPAQUE, _FAINT = 0.85, 0.4  # of the heat where its magnitude is largest, and where it is 0
_DARKEST = 70  # grey of what is black in the picture: dark enough to be seen, light enough for colours above it
_SIGNALS = 3  # channels of the input that are drawn
_WORDS = {
    "mean": "mean over channels",
    "max": "maximum over channels",
    "energy": "energy, the mean of x² over channels",
}


def plot_overlays(sheet: HeatSheet, *, rows: int = _MOST) -> Figure:
    """Draw heat maps over their input.

    One layer over a picture: the picture, the heat over its grey version, and the map's own cells, with one colour bar.
    Several: a tile a layer, each on its own scale, its colour bar below it. Over a signal: the signal, and a strip a
    layer below it, aligned with it.

    The heat is interpolated bilinearly between the centres of what its cells see; it is the more opaque the larger its
    magnitude, and nothing is drawn where no cell lies.

    Args:
        sheet: What :func:`onnxviz.analysis.spatial_heat.spatial_heats` returned.
        rows: Most layers; of more an even spread is drawn and said so.

    Raises:
        SelectionError: There is no layer.
    """
    if not sheet.heats:
        raise SelectionError("there are no heat maps to draw", hint="choose tensors with spatial axes")
    chosen = [sheet.heats[i] for i in spread(len(sheet.heats), rows)]
    if sheet.canvas.signal is not None:
        return _plot_signal(sheet, chosen)
    return _plot_one(sheet, chosen[0]) if len(chosen) == 1 else _plot_sheet(sheet, chosen)


def _gray(canvas: Canvas) -> npt.NDArray[np.float64]:
    assert canvas.picture is not None
    luma = canvas.picture[..., :3] @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    return np.asarray(_DARKEST + luma * (255 - _DARKEST) / 255)


def _aspect(sheet: HeatSheet) -> float:
    return float(min(max(sheet.canvas.size[0] / sheet.canvas.size[1], 0.25), 4.0))


def _colours(values: npt.NDArray[np.float32], scale: ColorScale) -> npt.NDArray[np.float64]:
    """Return RGBA of a heat map; what is not finite is transparent."""
    finite = np.isfinite(values)
    known = np.where(finite, values, 0.0).astype(np.float64)
    rgba = np.asarray(colormap(scale)(norm(scale)(known)), np.float64)
    strength = np.clip(np.abs(known) / scale.vmax, 0.0, 1.0)
    rgba[..., 3] = np.where(finite, _FAINT + (_OPAQUE - _FAINT) * strength, 0.0)
    return rgba


def draw_over(axes: Axes, canvas: Canvas, heat: SpatialHeat) -> None:
    """Draw the picture in grey and the heat over it; cells without a finite value are hatched."""
    plain(axes)
    height, width = canvas.size
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    fine = "nearest" if max(height, width) <= 64 else "antialiased"
    axes.imshow(_gray(canvas), cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation=fine)
    # A small picture has too few pixels to show how the heat runs between them.
    finer = max(-(-256 // max(height, width)), 1)
    coarser = max(-(-max(height, width) // _FINEST), 1)
    at = [(np.arange(max(size * finer // coarser, 1)) + 0.5) * coarser / finer - 0.5 for size in (height, width)]
    values = heat.at(*at)
    axes.imshow(_colours(values, heat.scale), extent=extent, aspect="auto", interpolation="nearest")
    rows, columns = heat.placement.axes
    for row, column in np.argwhere(~np.isfinite(heat.heat))[:400]:
        corner = (columns.ends[0] + column * columns.step, rows.ends[0] + row * rows.step)
        axes.add_patch(
            Rectangle(corner, columns.step, rows.step, facecolor="none", edgecolor="black", hatch="////", linewidth=0)
        )
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _about(heat: SpatialHeat) -> list[str]:
    """Return what there is to say of one heat map."""
    size = " × ".join(str(n) for n in heat.heat.shape) if heat.heat.shape[0] > 1 else f"{heat.heat.shape[1]} steps"
    parts = [f"{size}, {heat.channels} channel{'s' * (heat.channels > 1)}"]
    if heat.note:
        parts.append(heat.note)
    if heat.placement.note:
        parts.append(safe(heat.placement.note, 60))
    if heat.nonfinite:
        parts.append(f"{heat.nonfinite} NaN or Inf left out")
    if not heat.scale.count:
        parts.append("no finite value (hatched)")
    elif heat.scale.constant:
        parts.append(f"constant {number(float(heat.heat[np.isfinite(heat.heat)][0]))}")
    return parts


def _of_all(sheet: HeatSheet, shown: int) -> list[str]:
    parts = [_WORDS[sheet.by]]
    total = len(sheet.heats)
    if total > 1:
        parts.insert(0, f"{shown} of {total} layers" if shown < total else f"{total} layers")
    if sheet.batch > 1:
        parts.append(f"sample {sheet.sample} of {sheet.batch}")
    if shown > 1:
        parts += dict.fromkeys(heat.note for heat in sheet.heats if heat.note)
    if sheet.canvas.note:
        parts.append(sheet.canvas.note)
    return parts


def _foot(sheet: HeatSheet) -> list[str]:
    lines = footer_lines(sheet.not_drawn)
    if sheet.without:
        names = ", ".join(safe(name, 30) for name in sheet.without[:4])
        more = f" and {len(sheet.without) - 4} more" if len(sheet.without) > 4 else ""
        lines.append(f"without positions of the input, left out: {names}{more}")
    return lines


def _plot_one(sheet: HeatSheet, heat: SpatialHeat) -> Figure:
    aspect = _aspect(sheet)
    big = min(5.2, 5.2 / aspect) if aspect > 1 else 5.2
    small = max((big * aspect - 0.62) / 2 / aspect, 1.2)
    width = 2 * _MARGIN + big + 0.75 + small + 0.3
    height = max(big * aspect, 2 * small * aspect + 0.62)
    kind = [safe(heat.op_type, 36) if heat.op_type else "input", " × ".join(map(str, heat.shape)), heat.dtype]
    aligned = "each cell over the centre of what it sees" if heat.placement.aligned else ""
    caption = [
        *_of_all(sheet, 1),
        *_about(heat),
        aligned,
        "the more opaque the larger its magnitude",
        heat.scale.caption(),
    ]
    lines = wrap_caption([part for part in caption if part], width - 2 * _MARGIN)
    foot = footer_lines(sheet.not_drawn)
    top = 1.05
    figure = new_figure(width, top + height + 0.35 + 0.19 * (lines.count("\n") + 1) + 0.18 * len(foot))
    figure_text(figure, _MARGIN, 0.2, safe(heat.name, int(width * 8)), fontsize=12, fontweight="bold")
    figure_text(figure, _MARGIN, 0.46, " · ".join(kind), fontsize=9, color=MUTED)
    figure_text(figure, _MARGIN, top - 0.2, f"{sheet.by} over the picture", fontsize=8)
    draw_over(inch_axes(figure, _MARGIN, top, big, big * aspect), sheet.canvas, heat)
    bar = inch_axes(figure, _MARGIN + big + 0.1, top, 0.14, min(big * aspect, 3.5))
    colorbar(figure, bar, heat.scale)
    left = _MARGIN + big + 0.85
    picture = plain(inch_axes(figure, left, top, small, small * aspect))
    assert sheet.canvas.picture is not None
    fine = "nearest" if max(sheet.canvas.size) <= 64 else "antialiased"
    picture.imshow(sheet.canvas.picture, aspect="auto", interpolation=fine)
    seen = f"input picture, {sheet.canvas.size[1]} × {sheet.canvas.size[0]} pixels"
    figure_text(figure, left, top - 0.2, seen, fontsize=8)
    below = top + small * aspect + 0.62
    figure_text(
        figure, left, below - 0.2, f"the map's own cells, {heat.heat.shape[1]} × {heat.heat.shape[0]}", fontsize=8
    )
    draw_map(plain(inch_axes(figure, left, below, small, small * aspect)), heat.heat, heat.scale)
    figure_text(figure, _MARGIN, top + height + 0.15, lines, fontsize=8, color=MUTED, linespacing=1.5)
    if foot:
        where = top + height + 0.2 + 0.19 * (lines.count("\n") + 1)
        figure_text(figure, _MARGIN, where, "\n".join(foot), fontsize=8, color=MUTED, linespacing=1.4)
    return figure


def _plot_sheet(sheet: HeatSheet, heats: Sequence[SpatialHeat]) -> Figure:
    aspect, count = _aspect(sheet), len(heats) + 1
    columns = min(count, max(round(math.sqrt(count * (aspect + 0.45) * 1.4)), 3))
    tile = min(2.3, max(1.55, 10.5 / columns))
    above, below, gap = 0.48, 0.42, 0.22
    step_x, step_y = tile + gap, above + tile * aspect + below
    rows = math.ceil(count / columns)
    width = 2 * _MARGIN + columns * step_x - gap
    caption = wrap_caption(
        [*_of_all(sheet, len(heats)), "each on its own scale", "the more opaque the larger its magnitude",
         "nothing is drawn where no cell lies"], width - 2 * _MARGIN,
    )  # fmt: skip
    foot = _foot(sheet)
    top = 0.62 + 0.17 * (caption.count("\n") + 1)
    figure = new_figure(width, top + rows * step_y + 0.15 + 0.17 * len(foot))
    title = f"{sheet.by.capitalize()} of layers of {sheet.model_name} over the picture"
    figure_text(figure, _MARGIN, 0.2, safe(title, int(width * 8)), fontsize=13, fontweight="bold")
    figure_text(figure, _MARGIN, 0.5, caption, fontsize=8, color=MUTED, linespacing=1.4)
    names = _short([heat.name for heat in heats])
    for place in range(count):
        left, upper = _MARGIN + (place % columns) * step_x, top + (place // columns) * step_y
        axes = plain(inch_axes(figure, left, upper + above, tile, tile * aspect))
        if place == 0:
            _draw_input(figure, axes, sheet, (left, upper))
            continue
        heat = heats[place - 1]
        name = name_lines(safe(names[place - 1], int(tile * 24)), int(tile * 13.5))
        figure_text(figure, left, upper + above - 0.04, _tile_text(heat, tile), fontsize=6.5, color=MUTED, va="bottom")
        figure_text(figure, left, upper + above - 0.17, name, fontsize=7.5, fontweight="bold", va="bottom")
        draw_over(axes, sheet.canvas, heat)
        said = " · ".join(part for part in _about(heat)[1:] if part != heat.note)
        small_bar(figure, heat.scale, (left, upper + above + tile * aspect + 0.05, tile), said)
    if foot:
        where = top + rows * step_y + 0.05
        figure_text(figure, _MARGIN, where, "\n".join(foot), fontsize=8, color=MUTED, linespacing=1.4)
    return figure


def _short(names: Sequence[str]) -> list[str]:
    """Return names without the endings that exporters give to every output, where they still differ.

    >>> _short(["/a/Conv_output_0_quantized", "/b/Relu_output_0", "fc"])
    ['/a/Conv', '/b/Relu', 'fc']
    """
    cut = [re.sub(r"(_output_\d+)?(_quantized)?$", "", name) or name for name in names]
    return cut if len(set(cut)) == len(set(names)) else list(names)


def _tile_text(heat: SpatialHeat, tile: float) -> str:
    size = f" · {heat.channels} × {heat.heat.shape[0]} × {heat.heat.shape[1]}"
    return safe(heat.op_type or "input", max(int(tile * 19) - len(size), 6)) + size


def _draw_input(figure: Figure, axes: Axes, sheet: HeatSheet, corner: tuple[float, float]) -> None:
    left, upper = corner
    assert sheet.canvas.picture is not None
    fine = "nearest" if max(sheet.canvas.size) <= 64 else "antialiased"
    axes.imshow(sheet.canvas.picture, aspect="auto", interpolation=fine)
    figure_text(figure, left, upper + 0.31, "input picture", fontsize=7.5, fontweight="bold", va="bottom")
    size = f"{sheet.canvas.size[1]} × {sheet.canvas.size[0]} pixels"
    figure_text(figure, left, upper + 0.44, size, fontsize=6.5, color=MUTED, va="bottom")


def small_bar(figure: Figure, scale: ColorScale, box: tuple[float, float, float], said: str = "") -> None:
    """Draw a flat colour bar with its two ends named, and what else is to be said of the tile.

    Args:
        figure: Where.
        scale: The colours.
        box: Left, top and width in inches.
        said: Between the ends.
    """
    left, top, width = box
    axes = plain(inch_axes(figure, left, top, width, 0.07))
    axes.imshow(
        np.linspace(scale.vmin, scale.vmax, 128)[None], cmap=colormap(scale), norm=norm(scale), aspect="auto"
    )  # fmt: skip
    for at, value, side in ((left, scale.vmin, "left"), (left + width, scale.vmax, "right")):
        figure_text(figure, at, top + 0.09, number(value), fontsize=6, ha=side)
    if said:
        figure_text(figure, left, top + 0.2, safe(said, int(width * 24)), fontsize=5.5, color=MUTED)


def _plot_signal(sheet: HeatSheet, heats: Sequence[SpatialHeat]) -> Figure:
    signal = sheet.canvas.signal
    assert signal is not None
    length = signal.shape[1]
    label, width, line, strip = 2.4, 8.4, 0.7, 0.52
    shown = signal[:_SIGNALS]
    foot = _foot(sheet)
    parts = [*_of_all(sheet, len(heats)), "each strip on its own scale"]
    if len(shown) < len(signal):
        parts.append(f"{len(shown)} of {len(signal)} channels of the input")
    caption = wrap_caption(parts, label + width)
    top = 0.66 + 0.17 * (caption.count("\n") + 1)
    total = top + len(shown) * line + 0.12 + len(heats) * strip + 0.42 + 0.17 * len(foot)
    figure = new_figure(2 * _MARGIN + label + width + 1.0, total)
    title = f"{sheet.by.capitalize()} of layers of {sheet.model_name} under the signal"
    if len(heats) == 1:
        title = f"{heats[0].name} under the signal"
    figure_text(figure, _MARGIN, 0.2, safe(title, 100), fontsize=13, fontweight="bold")
    figure_text(figure, _MARGIN, 0.5, caption, fontsize=8, color=MUTED, linespacing=1.4)
    left = _MARGIN + label
    figure_text(figure, _MARGIN, top, safe(sheet.canvas.name, 28), fontsize=8.5, fontweight="bold")
    figure_text(figure, _MARGIN, top + 0.17, f"input · {len(signal)} × {length}", fontsize=7, color=MUTED)
    for values in shown:
        axes = inch_axes(figure, left, top, width, line * 0.88)
        draw_line(axes, values)
        axes.set_xticks([])
        axes.set_xlim(-0.5, length - 0.5)
        axes.tick_params(labelsize=6, width=0.4, length=2, labelfontfamily=FONT)
        axes.locator_params(axis="y", nbins=3)
        top += line
    top += 0.12
    for heat in heats:
        axes = _draw_strip(figure, heat, (left, top, width), length)
        top += strip
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.tick_params(labelsize=6.5, width=0.4, length=2, labelfontfamily=FONT)
    figure_text(
        figure, left + width / 2, top + 0.12, f"position in the input (0 … {length - 1})", fontsize=7.5, ha="center"
    )
    if foot:
        figure_text(figure, _MARGIN, top + 0.3, "\n".join(foot), fontsize=8, color=MUTED, linespacing=1.4)
    return figure


def _draw_strip(figure: Figure, heat: SpatialHeat, box: tuple[float, float, float], length: int) -> Axes:
    left, top, width = box
    name = name_lines(heat.name, 30).split("\n")[-1]
    figure_text(figure, _MARGIN, top, name, fontsize=7.5, fontweight="bold", color=INK)
    about = _about(heat)
    kind = f"{safe(heat.op_type or 'input', 20)} · {about[0]}"
    figure_text(
        figure, _MARGIN, top + 0.14, "\n".join([kind, safe(" · ".join(about[1:]), 46)]), fontsize=6.5, color=MUTED
    )  # fmt: skip
    axes = plain(inch_axes(figure, left, top, width, 0.34))
    (axis,) = heat.placement.axes
    draw_map(axes, heat.heat, heat.scale, (*axis.ends, 1.0, 0.0))
    axes.set_xlim(-0.5, length - 0.5)
    axes.set_ylim(1.0, 0.0)
    bar = inch_axes(figure, left + width + 0.1, top, 0.08, 0.34)
    colorbar(figure, bar, heat.scale, size=5.5)
    return axes
