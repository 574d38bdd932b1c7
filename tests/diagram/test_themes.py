"""Themes change colours and nothing else, and text stays legible in all of them."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from onnxviz.diagram.architecture import architecture
from onnxviz.diagram.overlay import Scale
from onnxviz.diagram.palette import KIND_TITLES, kind_style
from onnxviz.diagram.scene import Group, Rect, Scene, Text
from onnxviz.diagram.themes import THEMES, apply_theme
from onnxviz.errors import InputError


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_headings_are_legible_on_every_kind(theme: str) -> None:
    items = tuple(Rect(0, 0, 9, 9, kind_style(kind).fill, kind_style(kind).stroke) for kind in KIND_TITLES)
    scene = apply_theme(Scene(9, 9, "t", (Group("g", "node", "", (*items, Text(0, 0, "Conv", 11))),)), theme)
    *fills, text = scene.groups[0].items
    assert isinstance(text, Text)
    for kind, fill in zip(KIND_TITLES, fills, strict=True):
        assert isinstance(fill, Rect)
        assert fill.fill is not None
        assert contrast(fill.fill, text.fill) > 4.5, kind
    assert contrast(scene.background, text.fill) > 10


@pytest.mark.parametrize("theme", THEMES)
def test_numbers_stay_in_order_and_headings_legible_on_them(theme: str) -> None:
    scale = Scale(0.0, 10.0, False)
    items = tuple(Rect(0, 0, 9, 9, scale.colour(value)) for value in range(11))
    scene = apply_theme(Scene(9, 9, "t", (Group("g", "node", "", (*items, Text(0, 0, "Conv", 11))),)), theme)
    *fills, text = scene.groups[0].items
    assert isinstance(text, Text)
    contrasts = [contrast(fill.fill or "", text.fill) for fill in fills if isinstance(fill, Rect)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert contrasts[-1] > 4.5
    assert contrasts[0] > 1.5 * contrasts[-1]


@pytest.mark.parametrize("theme", ["dark", "print"])
def test_only_colours_change(theme: str, small_cnn: ir.Model) -> None:
    light, other = architecture(small_cnn), architecture(small_cnn, theme=theme)
    assert other.network == light.network
    assert other.scene.background != "#ffffff" or theme == "print"

    def bare(scene: Scene) -> list[object]:
        return [
            replace(item, fill=None) if isinstance(item, Text) else replace(item, fill=None, stroke=None)
            for group in scene.groups
            for item in group.items
        ]

    assert bare(other.scene) == bare(light.scene)


def test_print_is_grey(small_cnn: ir.Model) -> None:
    for group in architecture(small_cnn, theme="print").scene.groups:
        for item in group.items:
            for colour in (item.fill, getattr(item, "stroke", None)):
                assert colour is None or colour[1:3] == colour[3:5] == colour[5:7]


def test_an_unknown_theme_names_the_others(small_cnn: ir.Model) -> None:
    with pytest.raises(InputError, match="no theme 'neon'") as error:
        architecture(small_cnn, theme="neon")
    assert "dark" in str(error.value.hint)
