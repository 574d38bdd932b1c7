"""Pooling as a figure: maps before and after, pixel for pixel, with the survivors and the windows marked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.pooling import Pooling, PoolView
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pairs import LABEL_WIDTH, MARGIN, draw_lines, footer_lines, head, image_or_bars, row_text, side_text
from onnxviz.plots.style import (
    ACCENT,
    FONT,
    INK,
    MUTED,
    ZERO,
    colorbar,
    draw_map,
    figure_text,
    inch_axes,
    new_figure,
    plain,
)
from onnxviz.plots.tiles import GAP, LABEL, draw_tiles, tile_shape

__all__ = ["plot_pooling"]

_TILE = 1.45
_PER_LINE = 6
_ZOOM = 28  # input pixels across from which only a part is shown pixel by pixel
_LENGTH = 160  # positions of a signal shown one by one
_LINE = 0.62  # inches of a signal's axes
_BARS = 1.0


@dataclass(frozen=True)
class _Part:
    """The part of the maps that is drawn: output positions, and the input positions under them, an axis each.

    Attributes:
        out: First and last + 1 output position.
        area: Where they lie in input positions; may reach into the padding.
        whole: Whether that is all of the map.
    """

    out: tuple[tuple[int, int], ...]
    area: tuple[tuple[int, int], ...]
    whole: bool


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
    left, band = MARGIN + LABEL_WIDTH + 0.35, _PER_LINE * _TILE * (1 + GAP)
    heights = [_height(view) for view in views]
    notes = footer_lines(found.not_drawn)
    top = 1.05
    figure = new_figure(left + band + 0.95, top + sum(heights) + 0.2 + 0.17 * len(notes))
    count = f"{len(views)} of {len(found.views)}" if len(views) < len(found.views) else str(len(views))
    lines = [
        f"{count} pooling layer{'s' if count != '1' else ''} · "
        "the same channels before and after, on one scale a layer",
    ]
    if any(view.survivors is not None for view in views):
        lines.append(
            "dots: positions that survive, as the operator's Indices output says "
            "(hollow: others in the window are equal)"
        )
    if any(_is_grid(view) for view in views):
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


def _is_grid(view: PoolView) -> bool:
    return view.windows is not None and view.before.kind == view.after.kind == "grid"


def _is_signal(view: PoolView) -> bool:
    return view.windows is not None and len(view.windows.kernel) == 1 and view.before.kind == "image"


def _height(view: PoolView) -> float:
    """Return the inches of a row, the gap below it included."""
    if _is_signal(view):
        return max(1.3, _signal_count(view) * (_LINE + 0.14) + 0.3) + 0.3
    if _is_grid(view):
        part = _part(view)
        count = _bands(view)
        return max(1.3, count * (2 if part.whole else 3) * (_tile_height(view, part) + LABEL) + 0.1) + 0.3
    grid = _tile(view) * tile_shape(view.before.maps) + LABEL if view.before.kind == "grid" else 1.0
    return grid + _BARS + 0.75


def _tile(view: PoolView) -> float:
    return 0.95 if view.windows is None else _TILE


def _bands(view: PoolView) -> int:
    return math.ceil(len(view.before.maps) / _PER_LINE)


def _tile_height(view: PoolView, part: _Part) -> float:
    (y0, y1), (x0, x1) = part.area
    return _TILE * min(max((y1 - y0) / (x1 - x0), 0.25), 2.5)


def _part(view: PoolView) -> _Part:
    """Choose what is drawn: all of a small map, else the part around the largest value after."""
    assert view.windows is not None
    signal = _is_signal(view)
    before, after = view.before.maps, view.after.maps
    shape_in = before.shape[2:] if signal else before.shape[1:]
    shape_out = after.shape[2:] if signal else after.shape[1:]
    strides, pads = view.windows.strides[-len(shape_in) :], view.windows.pads[-len(shape_in) :]
    centre = _largest(np.nan_to_num(np.abs(after.astype(np.float64)), posinf=0.0).sum(axis=0), signal)
    out, area, whole = [], [], True
    for size, length, s, p, at in zip(shape_in, shape_out, strides, pads, centre, strict=True):
        limit = max(2, (_LENGTH if signal else _ZOOM) // s)
        if size <= (_LENGTH if signal else _ZOOM) * 1.5 or length <= limit:
            out.append((0, length))
            area.append((min(0, -p), max(size, length * s - p)))
            continue
        whole = False
        first = min(max(at - limit // 2, 0), length - limit)
        out.append((first, first + limit))
        area.append((first * s - p, (first + limit) * s - p))
    return _Part(tuple(out), tuple(area), whole)


def _largest(values: npt.NDArray[np.float64], signal: bool) -> tuple[int, ...]:
    if signal:
        values = values.max(axis=0)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(values)), values.shape))


def _row(figure: Figure, view: PoolView, top: float, height: float, place: tuple[float, float]) -> None:
    left, band = place
    sizes = " → ".join("×".join(map(str, shape)) for shape in (view.shape_before, view.shape_after))
    notes = [
        f"{n} {what} (hatched)" for n, what in ((view.before.scale.nan, "NaN"), (view.before.scale.inf, "Inf")) if n
    ]
    if view.before.batch > 1:
        notes.append(f"sample {view.before.sample} of {view.before.batch}")
    if _is_signal(view):
        shown = f"{_signal_count(view)} of {view.before.total} channels, by energy"
        if not (part := _part(view)).whole:
            notes.append(f"shown: positions {max(part.area[0][0], 0)} … {part.area[0][1] - 1}")
    else:
        shown = view.before.shown
    clipped = view.before.scale.clipped
    if _is_grid(view):
        notes.append(f"{100 * clipped:.1g} % clipped" if clipped else "nothing clipped")
        part = _part(view)
        if not part.whole:
            (y0, y1), (x0, x1) = part.area
            notes.append(f"zoomed: rows {max(y0, 0)} … {y1 - 1}, columns {max(x0, 0)} … {x1 - 1}")
    row_text(figure, top + 0.1, view.name, [view.op_type, sizes, shown, *view.captions(), *notes])
    if _is_signal(view):
        _signals(figure, view, top, left, band)
        return
    if _is_grid(view):
        _grids(figure, view, top, left, band)
    elif view.before.kind == "grid":
        _before_and_bars(figure, view, top, left, band)
    else:
        box = (left + 0.3, top + 0.12, band - 0.3, height - 0.3)
        image_or_bars(figure, (view.before, view.after), box, 0.2)
        if view.before.kind != "image":
            return
    bar = inch_axes(figure, left + band + 0.1, top + LABEL, 0.1, 1.4)
    colorbar(figure, bar, view.before.scale, size=6.5)


def _grids(figure: Figure, view: PoolView, top: float, left: float, band: float) -> None:
    part = _part(view)
    tall = _tile_height(view, part)
    for start in range(0, len(view.before.maps), _PER_LINE):
        which = range(start, min(start + _PER_LINE, len(view.before.maps)))
        if not part.whole:
            _line(figure, view, which, (left, top, band, tall), None, "whole")
            top += tall + LABEL
        for word in ("before", "after"):
            _line(figure, view, which, (left, top, band, tall), part, word)
            top += tall + LABEL


def _line(
    figure: Figure, view: PoolView, which: range, box: tuple[float, float, float, float], part: _Part | None, word: str
) -> None:
    """Draw one line of tiles: whole maps, or a part of what enters or leaves."""
    left, top, band, tall = box
    axes = plain(inch_axes(figure, left, top, band, tall + LABEL))
    axes.set_xlim(0, band)
    axes.set_ylim(tall + LABEL, 0)
    side_text(figure, left - 0.12, top + LABEL, tall, word)
    for place, index in enumerate(which):
        corner = place * _TILE * (1 + GAP)
        fm = view.after if word == "after" else view.before
        if part is None:
            _whole(axes, view, index, corner, tall)
        else:
            _Tile(axes, part, corner, tall).draw(view, index, word)
        text = str(fm.channels[index]) + (" · constant" if fm.constant[index] else "")
        axes.text(corner, LABEL - 0.03, text, fontsize=7, color=INK, va="bottom", parse_math=False, fontfamily=FONT)


def _whole(axes: Axes, view: PoolView, index: int, corner: float, tall: float) -> None:
    """Draw a whole map, and frame the part that is zoomed."""
    values = view.before.maps[index]
    draw_map(axes, values, view.before.scale, (corner, corner + _TILE, LABEL + tall, LABEL))
    _frame(axes, corner, LABEL, _TILE, tall)
    (y0, y1), (x0, x1) = _part(view).area
    rows, columns = values.shape
    axes.add_patch(
        Rectangle(
            (corner + _TILE * x0 / columns, LABEL + tall * y0 / rows), _TILE * (x1 - x0) / columns,
            tall * (y1 - y0) / rows, fill=False, edgecolor="white", linewidth=1.6,
        )
    )  # fmt: skip
    axes.add_patch(
        Rectangle(
            (corner + _TILE * x0 / columns, LABEL + tall * y0 / rows), _TILE * (x1 - x0) / columns,
            tall * (y1 - y0) / rows, fill=False, edgecolor=INK, linewidth=0.7,
        )
    )  # fmt: skip


def _frame(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    axes.add_patch(Rectangle((x, y), width, height, fill=False, linewidth=0.4, edgecolor="#9aa0a6", clip_on=False))


@dataclass(frozen=True)
class _Tile:
    """One tile whose coordinates are input pixels."""

    axes: Axes
    part: _Part
    corner: float
    tall: float

    def x(self, pixel: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return where the left edge of an input pixel lies."""
        low, high = self.part.area[1]
        return np.asarray(self.corner + _TILE * (np.asarray(pixel, float) - low) / (high - low))

    def y(self, pixel: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return where the upper edge of an input pixel lies."""
        low, high = self.part.area[0]
        return np.asarray(LABEL + self.tall * (np.asarray(pixel, float) - low) / (high - low))

    def draw(self, view: PoolView, index: int, word: str) -> None:
        """Draw what enters with its marks, or what leaves."""
        assert view.windows is not None
        fm = view.after if word == "after" else view.before
        strides, pads = view.windows.strides[-2:], view.windows.pads[-2:]
        values = fm.maps[index]
        if word == "after":
            rows, columns = (slice(*ends) for ends in self.part.out)
            edges = [[o * s - p for o in ends] for ends, s, p in zip(self.part.out, strides, pads, strict=True)]
        else:
            edges = [[max(a, 0), min(b, n)] for (a, b), n in zip(self.part.area, values.shape, strict=True)]
            rows, columns = (slice(*ends) for ends in edges)
        (y0, y1), (x0, x1) = edges
        extent = (float(self.x(x0)), float(self.x(x1)), float(self.y(y1)), float(self.y(y0)))
        draw_map(self.axes, values[rows, columns], fm.scale, extent)
        _frame(self.axes, extent[0], extent[3], extent[1] - extent[0], extent[2] - extent[3])
        if word == "before":
            self._marks(view, index)
        self._window(view, index, word)

    def _marks(self, view: PoolView, index: int) -> None:
        assert view.windows is not None
        if view.survivors is None:
            if view.windows.tiles:
                self._lines(view)
            return
        positions = view.survivors.positions[index]
        tied = view.survivors.tied[index]
        if view.slices is not None:
            entering, leaving = view.slices
            positions, tied = positions[leaving], tied[leaving]
            here = positions[..., 0] == entering
        else:
            here = positions[..., 0] >= 0
        pixels = positions[..., -2:]
        for axis, (low, high) in enumerate(self.part.area):
            here &= (pixels[..., axis] >= low) & (pixels[..., axis] < high)
        (x0, x1) = self.part.area[1]
        size = min(max(0.42 * _TILE * 72 / (x1 - x0), 0.8), 5.0)
        for among, fill in ((here & ~tied, "black"), (here & tied, "none")):
            found = pixels[among]
            self.axes.plot(
                self.x(found[:, 1] + 0.5), self.y(found[:, 0] + 0.5), linestyle="none", marker="o", markersize=size,
                markerfacecolor=fill, markeredgecolor="white", markeredgewidth=min(0.14 * size, 0.5),
            )  # fmt: skip

    def _lines(self, view: PoolView) -> None:
        assert view.windows is not None
        color = "white" if view.before.scale.kind == "sequential" else MUTED
        style: dict[str, Any] = {"color": color, "linewidth": 0.5, "alpha": 0.9, "zorder": 1.5}
        (y0, y1), (x0, x1) = self.part.area
        for axis, ((first, last), s, p) in enumerate(
            zip(self.part.out, view.windows.strides[-2:], view.windows.pads[-2:], strict=True)
        ):
            at = np.arange(first, last + 1) * s - p
            if axis == 0:
                self.axes.hlines(self.y(at), float(self.x(x0)), float(self.x(x1)), **style)
            else:
                self.axes.vlines(self.x(at), float(self.y(y0)), float(self.y(y1)), **style)

    def _window(self, view: PoolView, index: int, word: str) -> None:
        """Frame the window of the largest value after, or that value."""
        assert view.windows is not None
        after = view.after.maps[index].astype(np.float64)
        (r0, r1), (c0, c1) = self.part.out
        inside = after[r0:r1, c0:c1]
        if not np.isfinite(inside).any():
            return
        row, column = np.unravel_index(int(np.nanargmax(np.where(np.isfinite(inside), inside, np.nan))), inside.shape)
        at = (int(row) + r0, int(column) + c0)
        if word == "after":
            s, p = view.windows.strides[-2:], view.windows.pads[-2:]
            (y0, y1), (x0, x1) = [(o * a - b, (o + 1) * a - b) for o, a, b in zip(at, s, p, strict=True)]
        else:
            lead = (0,) * (len(view.windows.kernel) - 2)
            full = (*(1,) * len(lead), *view.before.maps.shape[1:])
            (y0, y1), (x0, x1) = view.windows.bounds((*lead, *at), full)[-2:]
        size = float(self.x(x1) - self.x(x0)), float(self.y(y1) - self.y(y0))
        for color, thickness in (("white", 2.2), (ZERO, 1.2)):
            frame = Rectangle((float(self.x(x0)), float(self.y(y0))), *size, fill=False, zorder=3)
            frame.set(edgecolor=color, linewidth=thickness)
            self.axes.add_patch(frame)


def _signal_count(view: PoolView) -> int:
    return min(int(view.before.maps.shape[1]), 6)


def _signals(figure: Figure, view: PoolView, top: float, left: float, band: float) -> None:
    """Draw channels of a signal, the strongest first: a line before, dots that survive, steps after."""
    assert view.windows is not None
    part = _part(view)
    (start, end), (first, last) = part.area[0], part.out[0]
    stride, pad = view.windows.strides[0], view.windows.pads[0]
    before, after = view.before.maps[0], view.after.maps[0]
    length = before.shape[1]
    strongest = np.argsort(-view.before.scores, kind="stable")[: _signal_count(view)]
    both = np.concatenate([before[strongest].reshape(-1), after[strongest].reshape(-1)]).astype(np.float64)
    both = both[np.isfinite(both)]
    low, high = float(both.min(initial=0.0)), float(both.max(initial=0.0))
    room = 0.12 * (high - low) or 1.0
    for place, channel in enumerate(strongest):
        axes = inch_axes(figure, left + 0.35, top + 0.12 + place * (_LINE + 0.14), band - 0.35, _LINE)
        inside = np.arange(max(start, 0), min(end, length))
        axes.plot(inside, before[channel, inside], color=ACCENT, linewidth=0.9, label="before")
        edges = np.arange(first, last + 1) * stride - pad - 0.5
        axes.stairs(after[channel, first:last], edges, baseline=None, color=ZERO, linewidth=1.0, label="after")
        if view.survivors is not None:
            for tied, fill in ((False, INK), (True, "white")):
                among = view.survivors.tied[channel, first:last] == tied
                at = view.survivors.positions[channel, first:last, 0][among]
                at = at[at >= 0]
                axes.plot(
                    at, before[channel, at], linestyle="none", marker="o", markersize=2.6, markerfacecolor=fill,
                    markeredgecolor=INK, markeredgewidth=0.5,
                )  # fmt: skip
        axes.set_xlim(start - 0.5, end - 0.5)
        axes.set_ylim(low - room, high + room)
        draw_lines(axes)
        axes.locator_params(axis="y", nbins=3)
        axes.set_ylabel(str(channel), fontsize=7, rotation=0, ha="right", va="center", fontfamily=FONT)
        if place + 1 < len(strongest):
            axes.set_xticklabels([])
        if place == 0:
            axes.legend(
                frameon=False, loc="lower right", ncols=2, bbox_to_anchor=(1.0, 0.92),
                prop={"family": FONT, "size": 6.5},
            )  # fmt: skip


def _before_and_bars(figure: Figure, view: PoolView, top: float, left: float, band: float) -> None:
    """Draw some maps before, and below them what is left of every channel as bars over the range that it had."""
    tile = _tile(view)
    columns = int(band / (tile * (1 + GAP)))
    which = range(min(columns, len(view.before.maps)))
    tall = tile * tile_shape(view.before.maps) + LABEL
    axes = inch_axes(figure, left, top, columns * tile * (1 + GAP), tall)
    draw_tiles(axes, view.before, which, columns, tile)
    side_text(figure, left - 0.12, top + LABEL, tall - LABEL, "before")
    bars = inch_axes(figure, left + 0.3, top + tall + 0.1, band - 0.3, _BARS)
    values = _vector(view.after)
    at = np.arange(values.size)
    if view.spans is not None:
        bars.vlines(
            at, view.spans[:, 0], view.spans[:, 1], color="#c9d3de", linewidth=min(6.0, 400.0 / values.size), zorder=1
        )
    bars.bar(at, np.nan_to_num(values), width=0.6, color=ACCENT, linewidth=0, zorder=2)
    bars.axhline(0, color=INK, linewidth=0.5)
    bars.set_xlim(-0.8, values.size - 0.2)
    draw_lines(bars)
    bars.locator_params(axis="y", nbins=4)
    bars.set_xlabel(
        "channel" + (" · blue: what leaves · grey: smallest to largest before" if view.spans is not None else ""),
        fontsize=7, color=MUTED, fontfamily=FONT, labelpad=1,
    )  # fmt: skip
    side_text(figure, left - 0.12, top + tall + 0.1, _BARS, "after")


def _vector(fm: FeatureMaps) -> npt.NDArray[np.float64]:
    return fm.maps.reshape(-1).astype(np.float64)
