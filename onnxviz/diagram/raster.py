"""Writes a scene as PNG and PDF through matplotlib's own renderers; no pyplot, no global state."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

from onnxviz.diagram.scene import Image, Item, Path, Rect, Scene, Text

__all__ = ["write_pdf", "write_png"]

_DPI = 96.0  # one px of a scene is 1/96 inch, as in SVG
_MOST_PIXELS = 30_000
_MOST_AREA = 120_000_000  # pixels in all: about half a gigabyte while drawing
_MOST_INCHES = 200.0  # PDF viewers refuse larger pages
_CODES = {"M": Outline.MOVETO, "L": Outline.LINETO, "C": Outline.CURVE4, "Z": Outline.CLOSEPOLY}
_ROUND = 0.4477  # distance of a quarter circle's control points from the corner, in radii


def write_png(scene: Scene, path: str | os.PathLike[str], *, scale: float = 2.0) -> str | None:
    """Write a scene as PNG at ``scale`` pixels a px, fewer where a side would pass 30,000 pixels.

    Returns:
        A remark where the picture had to be scaled down, else None.
    """
    width, height = max(scene.width, 1.0), max(scene.height, 1.0)
    used = min(scale, _MOST_PIXELS / max(width, height), (_MOST_AREA / (width * height)) ** 0.5)
    # Agg needs at least one pixel a side.
    figure = Figure(figsize=(max(width * used, 1.0) / _DPI, max(height * used, 1.0) / _DPI), dpi=_DPI)
    figure.add_artist(_SceneArtist(scene, used))
    with matplotlib.rc_context({"text.hinting": "none", "path.simplify": False, "agg.path.chunksize": 20_000}):
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(path, metadata={"Software": None})
    if used == scale:
        return None
    return f"the picture was scaled to {used / scale:.1%} of its size to fit; SVG and PDF keep every detail"


def write_pdf(scene: Scene, path: str | os.PathLike[str]) -> str | None:
    """Write a scene as a one-page PDF in which text is text; pages end at 200 inches a side, as viewers demand.

    Returns:
        A remark where the drawing had to be scaled down, else None.
    """
    width, height = max(scene.width, 1.0), max(scene.height, 1.0)
    used = min(1.0, _MOST_INCHES * _DPI / max(width, height))
    figure = Figure(figsize=(width * used / _DPI, height * used / _DPI), dpi=72.0)
    figure.add_artist(_SceneArtist(scene, used * 72.0 / _DPI))
    # Type 42 fonts keep text selectable; without a date the same scene gives the same bytes.
    with matplotlib.rc_context({"pdf.fonttype": 42, "pdf.compression": 6, "path.simplify": False}):
        canvas: Any = FigureCanvasPdf(figure)
        canvas.print_pdf(path, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    if used == 1.0:
        return None
    return f"the page was scaled to {used:.1%} to stay within 200 inches; it can be enlarged without loss"


class _SceneArtist(Artist):
    """Draws a scene straight through a renderer: an artist an item would cost seconds on large graphs."""

    def __init__(self, scene: Scene, scale: float) -> None:
        super().__init__()
        self._scene, self._scale = scene, scale

    def draw(self, renderer: RendererBase) -> None:
        scene = self._scene
        height = scene.height * self._scale
        place = Affine2D().scale(self._scale, -self._scale).translate(0.0, height)
        gc = renderer.new_gc()
        background = Rect(0.0, 0.0, scene.width, scene.height, fill=scene.background)
        _draw_outline(renderer, gc, _outline(background), background, place, self._scale)
        for group in scene.groups:
            for item in group.items:
                self._draw_item(renderer, gc, item, place)
        gc.restore()

    def _draw_item(self, renderer: RendererBase, gc: GraphicsContextBase, item: Item, place: Affine2D) -> None:
        if isinstance(item, Text):
            self._draw_text(renderer, gc, item, place)
        elif isinstance(item, Image):
            _draw_image(renderer, gc, item, place, self._scale)
        else:
            _draw_outline(renderer, gc, _outline(item), item, place, self._scale)

    def _draw_text(self, renderer: RendererBase, gc: GraphicsContextBase, item: Text, place: Affine2D) -> None:
        points = item.size * self._scale / _pixels_a_point(renderer)
        if points < 0.3:  # smaller than a dot
            return
        font = _font(item.bold, item.italic, points)
        text = _showable(item.text, item.bold, item.italic)
        width, _, _ = renderer.get_text_width_height_descent(text, font, False)
        x, y = place.transform((item.x, item.y))
        x -= {"start": 0.0, "middle": 0.5, "end": 1.0}[item.anchor] * width
        gc.set_foreground(item.fill)
        if renderer.flipy():
            y = renderer.get_canvas_width_height()[1] - y
        renderer.draw_text(gc, x, y, text, font, 0.0)


def _draw_image(renderer: RendererBase, gc: GraphicsContextBase, item: Image, place: Affine2D, scale: float) -> None:
    """Draw a picture without smoothing, its rows upwards as renderers take them."""
    pixels = np.frombuffer(item.rgb, np.uint8).reshape(item.rows, item.columns, 3)[::-1]
    x, y = place.transform((item.x, item.y + item.height))
    width, height = item.width * scale, item.height * scale
    stretch = Affine2D().scale(width, height) if renderer.option_scale_image() else None
    if stretch is None:
        x, y = round(x), round(y)
        rows, columns = (
            np.arange(max(round(size), 1)) * count // max(round(size), 1)
            for size, count in ((height, item.rows), (width, item.columns))
        )
        pixels = pixels[rows[:, None], columns]
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    renderer.draw_image(gc, x, y, opaque, *([] if stretch is None else [stretch]))


def _pixels_a_point(renderer: RendererBase) -> float:
    return float(np.asarray(renderer.points_to_pixels(1.0)))


def _draw_outline(
    renderer: RendererBase, gc: GraphicsContextBase, outline: Outline, item: Rect | Path, place: Affine2D, scale: float
) -> None:
    gc.set_linewidth(item.stroke_width * scale / _pixels_a_point(renderer) if item.stroke else 0.0)
    if item.stroke:
        gc.set_foreground(item.stroke)
    gc.set_joinstyle("round")
    unit = scale / _pixels_a_point(renderer)
    gc.set_dashes(0.0, [4.0 * unit, 3.0 * unit] if item.dashed else None)
    renderer.draw_path(gc, outline, place, to_rgb(item.fill) if item.fill else None)


def _outline(item: Rect | Path) -> Outline:
    if isinstance(item, Path):
        return Outline(item.points, [_CODES[code] for code in item.codes])
    left, top, right, bottom = item.x, item.y, item.x + item.width, item.y + item.height
    r = min(item.radius, item.width / 2, item.height / 2)
    if not r:
        return Outline([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)
    k = _ROUND * r
    points = [(left + r, top), (right - r, top), (right - k, top), (right, top + k), (right, top + r)]
    points += [(right, bottom - r), (right, bottom - k), (right - k, bottom), (right - r, bottom)]
    points += [(left + r, bottom), (left + k, bottom), (left, bottom - k), (left, bottom - r)]
    points += [(left, top + r), (left, top + k), (left + k, top), (left + r, top), (left + r, top)]
    return Outline(points, [_CODES[code] for code in "MLCCCLCCCLCCCLCCCZ"])


def _font(bold: bool, italic: bool, size: float = 10.0) -> FontProperties:
    weight = "bold" if bold else "normal"
    return FontProperties(family="DejaVu Sans", weight=weight, style="italic" if italic else "normal", size=size)


@lru_cache(maxsize=4)
def _characters(bold: bool, italic: bool) -> frozenset[int]:
    return frozenset(get_font(findfont(_font(bold, italic))).get_charmap())


def _showable(text: str, bold: bool, italic: bool) -> str:
    """Replace characters that matplotlib's own font lacks, such as ideographs, by a box."""
    known = _characters(bold, italic)
    return "".join(c if ord(c) in known else "□" for c in text)
