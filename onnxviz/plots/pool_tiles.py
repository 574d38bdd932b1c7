"""Maps before and after pooling as tiles, with the survivors and the windows marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.pooling import PoolView
from onnxviz.plots.pairs import side_text
from onnxviz.plots.pool_part import PER_LINE, TILE, PoolPart, pool_part, tile_height
from onnxviz.plots.style import FONT, INK, MUTED, ZERO, draw_map, inch_axes, plain
from onnxviz.plots.tiles import GAP, LABEL, tile_note

__all__ = ["draw_grids"]


def draw_grids(figure: Figure, view: PoolView, top: float, left: float, band: float) -> None:
    """Draw lines of tiles: of large maps the whole first, then what enters, then what leaves."""
    part = pool_part(view)
    tall = tile_height(view, part)
    for start in range(0, len(view.before.maps), PER_LINE):
        which = range(start, min(start + PER_LINE, len(view.before.maps)))
        if not part.whole:
            _line(figure, view, which, (left, top, band, tall), None, "whole")
            top += tall + LABEL
        for word in ("before", "after"):
            _line(figure, view, which, (left, top, band, tall), part, word)
            top += tall + LABEL


def _line(
    figure: Figure,
    view: PoolView,
    which: range,
    box: tuple[float, float, float, float],
    part: PoolPart | None,
    word: str,
) -> None:
    """Draw one line of tiles: whole maps, or a part of what enters or leaves."""
    left, top, band, tall = box
    axes = plain(inch_axes(figure, left, top, band, tall + LABEL))
    axes.set_xlim(0, band)
    axes.set_ylim(tall + LABEL, 0)
    side_text(figure, left - 0.12, top + LABEL, tall, word)
    for place, index in enumerate(which):
        corner = place * TILE * (1 + GAP)
        fm = view.after if word == "after" else view.before
        if part is None:
            _whole(axes, view, index, corner, tall)
        else:
            _Tile(axes, part, corner, tall).draw(view, index, word)
        note = tile_note(fm, index)
        text = str(fm.channels[index]) + (f" · {note}" if note else "")
        axes.text(corner, LABEL - 0.03, text, fontsize=7, color=INK, va="bottom", parse_math=False, fontfamily=FONT)


def _whole(axes: Axes, view: PoolView, index: int, corner: float, tall: float) -> None:
    """Draw a whole map, and frame the part that is zoomed."""
    values = view.before.maps[index]
    draw_map(axes, values, view.before.scale, (corner, corner + TILE, LABEL + tall, LABEL))
    _frame(axes, corner, LABEL, TILE, tall)
    (y0, y1), (x0, x1) = pool_part(view).area
    rows, columns = values.shape
    axes.add_patch(
        Rectangle(
            (corner + TILE * x0 / columns, LABEL + tall * y0 / rows), TILE * (x1 - x0) / columns,
            tall * (y1 - y0) / rows, fill=False, edgecolor="white", linewidth=1.6,
        )
    )  # fmt: skip
    axes.add_patch(
        Rectangle(
            (corner + TILE * x0 / columns, LABEL + tall * y0 / rows), TILE * (x1 - x0) / columns,
            tall * (y1 - y0) / rows, fill=False, edgecolor=INK, linewidth=0.7,
        )
    )  # fmt: skip


def _frame(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    axes.add_patch(Rectangle((x, y), width, height, fill=False, linewidth=0.4, edgecolor="#9aa0a6", clip_on=False))


@dataclass(frozen=True)
class _Tile:
    """One tile whose coordinates are input pixels."""

    axes: Axes
    part: PoolPart
    corner: float
    tall: float

    def x(self, pixel: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return where the left edge of an input pixel lies."""
        low, high = self.part.area[1]
        return np.asarray(self.corner + TILE * (np.asarray(pixel, float) - low) / (high - low))

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
        if view.survivors is None or not view.survivors.outside:
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
        size = min(max(0.42 * TILE * 72 / (x1 - x0), 0.8), 5.0)
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
