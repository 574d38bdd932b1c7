"""Pooling as a figure: maps before and after, pixel for pixel, with the survivors and the windows marked."""

from __future__ import annotations

from matplotlib.figure import Figure

from onnxviz.analysis.pooling import Pooling, PoolView
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pairs import LABEL_WIDTH, MARGIN, footer_lines, head, image_or_bars, row_text
from onnxviz.plots.pool_lines import BARS, LINE, bar_tile, draw_bars, draw_signals, signal_count
from onnxviz.plots.pool_part import PER_LINE, TILE, bands, is_grid, is_signal, pool_part, tile_height
from onnxviz.plots.pool_tiles import draw_grids
from onnxviz.plots.style import MUTED, colorbar, figure_text, inch_axes, new_figure
from onnxviz.plots.tiles import GAP, LABEL, tile_shape

__all__ = ["plot_pooling"]


def plot_pooling(found: Pooling, *, rows: int = 16) -> Figure:
    """Draw pooling layers, a row each: maps before, maps after, the same channels on one scale, no smoothing.

    A pixel after stands below the place that it pools. Of max pooling the surviving pixels are dotted: filled where the
    largest value of a window is there alone, hollow where others are equal. One window is framed, that of the largest
    value after. Of large maps the part around it is drawn pixel by pixel. Global pooling is drawn as bars over the
    range of each channel, signals as lines.

    Args:
        found: What :func:`onnxviz.analysis.pooling.pool_views` returned.
        rows: Most layers to draw; beyond, an even spread is drawn and said so.

    Returns:
        The figure; :func:`onnxviz.plots.save.save_figure` writes it.
    """
    views = [found.views[i] for i in spread(len(found.views), rows)]
    left, band = MARGIN + LABEL_WIDTH + 0.35, PER_LINE * TILE * (1 + GAP)
    heights = [_height(view) for view in views]
    notes = footer_lines(found.not_drawn)
    top = 1.05
    figure = new_figure(left + band + 0.95, top + sum(heights) + 0.2 + 0.17 * len(notes))
    count = f"{len(views)} of {len(found.views)}" if len(views) < len(found.views) else str(len(views))
    lines = [
        f"{count} pooling layer{'s' if count != '1' else ''} · "
        "the same channels before and after, on one scale a layer" + (f" · {found.note}" if found.note else ""),
    ]
    if any(view.survivors is not None for view in views):
        windowed = any(view.survivors is not None and view.windows is not None for view in views)
        lines.append(
            "dots: positions that survive"
            + (", as the operator's Indices output says" if windowed else "")
            + " (hollow: others in the window are equal)"
        )
    if any(is_grid(view) for view in views):
        if any(view.windows is not None and view.windows.tiles and view.survivors is None for view in views):
            lines[-1] += " · lines: windows that lie side by side"
        lines[-1] += " · orange frame: one window and what it becomes"
    head(figure, f"Pooling of {found.model_name}", lines)
    for view, height in zip(views, heights, strict=True):
        _row(figure, view, top, height - 0.3, (left, band))
        top += height
    for line in notes:
        figure_text(figure, MARGIN, top, line, fontsize=7.5, color=MUTED)
        top += 0.17
    return figure


def _height(view: PoolView) -> float:
    """Return the inches of a row, the gap below it included."""
    if is_signal(view):
        return max(1.3, signal_count(view) * (LINE + 0.14) + 0.3) + 0.3
    if is_grid(view):
        part = pool_part(view)
        count = bands(view)
        return max(1.3, count * (2 if part.whole else 3) * (tile_height(view, part) + LABEL) + 0.1) + 0.3
    grid = bar_tile(view) * tile_shape(view.before.maps) + LABEL if view.before.kind == "grid" else 1.0
    return grid + BARS + 0.75


def _row(figure: Figure, view: PoolView, top: float, height: float, place: tuple[float, float]) -> None:
    left, band = place
    sizes = " → ".join("×".join(map(str, shape)) for shape in (view.shape_before, view.shape_after))
    notes = []
    if view.before.batch > 1:
        notes.append(f"sample {view.before.sample} of {view.before.batch}")
    if is_signal(view):
        order = "in index order" if view.before.by == "index" else f"by {view.before.by}"
        shown = f"{signal_count(view)} of {view.before.total} channels, {order}"
        if not (part := pool_part(view)).whole:
            notes.append(f"shown: positions {max(part.area[0][0], 0)} … {part.area[0][1] - 1}")
    else:
        shown = view.before.shown
    clipped = view.before.scale.clipped
    if is_grid(view):
        notes.append(f"{100 * clipped:.1g} % clipped" if clipped else "nothing clipped")
        part = pool_part(view)
        if not part.whole:
            (y0, y1), (x0, x1) = part.area
            notes.append(f"zoomed: rows {max(y0, 0)} … {y1 - 1}, columns {max(x0, 0)} … {x1 - 1}")
    row_text(figure, top + 0.1, view.name, [view.op_type, sizes, shown, *view.captions(), *notes])
    if is_signal(view):
        draw_signals(figure, view, top, left, band)
        return
    if is_grid(view):
        draw_grids(figure, view, top, left, band)
    elif view.before.kind == "grid":
        draw_bars(figure, view, top, left, band)
    else:
        box = (left + 0.3, top + 0.12, band - 0.3, height - 0.3)
        image_or_bars(figure, (view.before, view.after), box, 0.2)
        if view.before.kind != "image":
            return
    bar = inch_axes(figure, left + band + 0.1, top + LABEL, 0.1, 1.4)
    colorbar(figure, bar, view.before.scale, size=6.5)
