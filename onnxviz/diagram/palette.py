"""Colours and glyphs by kind of operator.

The fills are light and differ in hue and lightness (after Paul Tol's "light" scheme, safe for colour-blind readers);
the glyph beside each heading tells kinds apart in greyscale too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from onnxviz.diagram.scene import Path

__all__ = ["INK", "KEY", "KIND_TITLES", "LINE", "MUTED", "WARNING", "KindStyle", "glyph", "kind_style"]

INK = "#1b1b1b"
MUTED = "#5a6068"
LINE = "#6b727b"
WARNING = "#b3261e"
#: Of ways through a graph that stand out.
KEY = "#0b5cad"


@dataclass(frozen=True, slots=True)
class KindStyle:
    """How a kind of operator looks: fill of its heading, outline, and its name in the legend."""

    fill: str
    stroke: str
    title: str


_STYLES = {
    "conv": KindStyle("#77aadd", "#3a6ea5", "convolution"),
    "linear": KindStyle("#ee9a78", "#b4532a", "linear"),
    "attention": KindStyle("#f2a9bd", "#b04a6a", "attention"),
    "recurrent": KindStyle("#c3a5de", "#7a51a1", "recurrent"),
    "embedding": KindStyle("#a8d8c0", "#3f8f68", "embedding, gather"),
    "norm": KindStyle("#cbd66a", "#7d8a12", "normalisation"),
    "activation": KindStyle("#f4e08e", "#a98a12", "activation"),
    "pool": KindStyle("#93d6bf", "#1f7d60", "pooling"),
    "elementwise": KindStyle("#e3e6ea", "#7b8590", "elementwise"),
    "reduce": KindStyle("#b4e1f7", "#3c8db4", "reduction"),
    "shape": KindStyle("#f4f5f7", "#8f98a3", "shape"),
    "quantize": KindStyle("#dcb98c", "#8d6427", "quantisation"),
    "constant": KindStyle("#fbfbfb", "#a5adb6", "constant"),
    "control": KindStyle("#b3b14a", "#6e6c10", "control flow"),
    "detection": KindStyle("#e7a1d8", "#a14a90", "detection"),
    "signal": KindStyle("#9fb8f0", "#4c66ad", "signal"),
    "ml": KindStyle("#d2c2f0", "#7a62b0", "classical ML"),
    "function": KindStyle("#c7cdd6", "#4d5865", "function"),
    "group": KindStyle("#d8d4ea", "#4b4570", "group"),
    "other": KindStyle("#ffffff", "#4d5865", "other"),
}
#: Kinds in the order of the legend, with their titles.
KIND_TITLES = {kind: style.title for kind, style in _STYLES.items()}

# Strokes in a unit square, y downwards, in the letters of scene.Path.
_GLYPHS: dict[str, str] = {
    "conv": "M0 0 L1 0 L1 1 L0 1 Z M.33 0 L.33 1 M.67 0 L.67 1 M0 .33 L1 .33 M0 .67 L1 .67",
    "linear": "M.05 .12 L.95 .12 L.05 .88 L.95 .88 L.05 .12",
    "attention": "M0 .5 L.5 0 L1 .5 L.5 1 Z M.3 .5 L.5 .3 L.7 .5 L.5 .7 Z",
    "recurrent": "M.95 .5 C.95 .1 .55 0 .4 .05 C.05 .1 0 .5 .05 .6 C.15 .95 .5 1 .7 .9 M.75 .4 L.95 .55 L1 .3",
    "embedding": "M0 0 L1 0 L1 1 L0 1 Z M0 .25 L1 .25 M0 .5 L1 .5 M0 .75 L1 .75",
    "norm": "M0 .95 C.4 .95 .35 .05 .5 .05 C.65 .05 .6 .95 1 .95",
    "activation": "M0 .9 L.5 .9 L1 .1",
    "pool": "M0 .1 L1 .1 L.5 .95 Z",
    "elementwise": "M1 .5 C1 .78 .78 1 .5 1 .22 1 0 .78 0 .5 0 .22 .22 0 .5 0 .78 0 1 .22 1 .5 Z "
    "M.5 .4 L.6 .5 L.5 .6 L.4 .5 Z",
    "reduce": "M.95 .2 L.95 .02 L.05 .02 L.55 .5 L.05 .98 L.95 .98 L.95 .8",
    "shape": "M.3 .15 L1 .15 L.7 .85 L0 .85 Z",
    "quantize": "M0 .95 L.25 .95 L.25 .65 L.5 .65 L.5 .35 L.75 .35 L.75 .05 L1 .05",
    "constant": "M.5 .2 L.8 .5 L.5 .8 L.2 .5 Z",
    "control": "M.5 1 L.5 .55 L.05 .1 M.5 .55 L.95 .1",
    "detection": "M0 .3 L0 0 L.3 0 M.7 0 L1 0 L1 .3 M1 .7 L1 1 L.7 1 M.3 1 L0 1 L0 .7",
    "signal": "M0 .5 C.15 -.15 .35 -.15 .5 .5 C.65 1.15 .85 1.15 1 .5",
    "ml": "M.5 .05 L.15 .5 M.5 .05 L.85 .5 M.15 .5 L0 .95 M.15 .5 L.35 .95 M.85 .5 L.65 .95 M.85 .5 L1 .95",
    "function": "M.2 0 L0 0 L0 1 L.2 1 M.8 0 L1 0 L1 1 L.8 1 M.3 .5 L.7 .5",
    "group": "M0 .2 L.8 .2 L.8 1 L0 1 Z M.2 .2 L.2 0 L1 0 L1 .8 L.8 .8",
    "other": "M.25 .25 L.75 .25 L.75 .75 L.25 .75 Z",
}

_STROKE = re.compile(r"([MLCZ]?)(?:(?<=Z)|\s*([\d.-]+)\s+([\d.-]+))")


def kind_style(kind: str) -> KindStyle:
    """Return how a kind looks; an unknown one looks like ``other``."""
    return _STYLES.get(kind, _STYLES["other"])


def glyph(kind: str, x: float, y: float, size: float) -> Path:
    """Return the sign of a kind, its top left corner at (x, y)."""
    codes, points = _strokes(kind)
    return Path(tuple((x + u * size, y + v * size) for u, v in points), codes, stroke=INK, stroke_width=0.9)


@cache
def _strokes(kind: str) -> tuple[str, list[tuple[float, float]]]:
    """Return the strokes of a sign in a unit square."""
    points: list[tuple[float, float]] = []
    codes = ""
    for code, right, down in _STROKE.findall(_GLYPHS.get(kind, _GLYPHS["other"])):
        codes += code or ("C" if codes[-1] == "C" else "L")
        points.append((float(right), float(down)) if right else points[-1])
    return codes, points
