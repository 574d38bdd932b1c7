"""Looks of a finished diagram: the same boxes and lines in other colours."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from onnxviz.diagram.scene import Group, Image, Item, Scene, Text
from onnxviz.errors import InputError

__all__ = ["THEMES", "apply_theme", "check_theme"]


_LIGHT = 0.57  # luminance from which a colour is a fill


def check_theme(theme: str) -> None:
    """Raise where there is no such theme, before a drawing is made for it.

    Raises:
        InputError: There is none.
    """
    if theme not in THEMES:
        raise InputError(f"there is no theme {theme!r}", hint=f"the themes are {', '.join(THEMES)}")


def apply_theme(scene: Scene, theme: str) -> Scene:
    """Return a scene in the colours of a theme, one of :data:`THEMES`.

    ``light`` is as it is drawn. ``dark`` turns lightness around and keeps hues, so that kinds stay what they were.
    ``print`` is grey by luminance: what a greyscale printer makes of it, chosen rather than suffered; kinds are told
    apart by their glyphs.
    """
    change = THEMES[theme]
    if change is None:
        return scene
    groups = tuple(_recoloured(group, change) for group in scene.groups)
    return replace(scene, groups=groups, background=change(scene.background))


def _recoloured(group: Group, change: Callable[[str], str]) -> Group:
    return replace(group, items=tuple(_item(item, change) for item in group.items))


def _item(item: Item, change: Callable[[str], str]) -> Item:
    if isinstance(item, Text):
        return replace(item, fill=change(item.fill))
    if isinstance(item, Image):
        return item  # its colours are a scale
    fill, stroke = (change(colour) if colour else colour for colour in (item.fill, item.stroke))
    return replace(item, fill=fill, stroke=stroke)


@cache
def _dark(colour: str) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*_rgb(colour))
    if saturation < 0.2:  # paper, ink and what lies between
        return _hex(colorsys.hls_to_rgb(hue, 0.07 + 0.9 * (1 - lightness), saturation))
    # Light fills become dark ones that white text stands on, the darker the lighter; dark outlines become light.
    luminance = _luminance(colour)
    lightness = 0.15 + 0.38 * (1 - luminance) if luminance > _LIGHT else 0.72
    return _hex(colorsys.hls_to_rgb(hue, lightness, 0.6 * saturation))


@cache
def _grey(colour: str) -> str:
    luminance = _luminance(colour)
    return _hex((luminance, luminance, luminance))


def _luminance(colour: str) -> float:
    red, green, blue = _rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rgb(colour: str) -> tuple[float, float, float]:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


#: Name -> what becomes of a colour; None where it stays.
THEMES: dict[str, Callable[[str], str] | None] = {"light": None, "dark": _dark, "print": _grey}
