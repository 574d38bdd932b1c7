from __future__ import annotations

import pytest

from onnxviz.diagram.text import ellipsize, fit_text, text_width


@pytest.mark.parametrize("bold", [False, True])
def test_widths_are_those_of_the_font(bold: bool) -> None:
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font, LoadFlags

    font = FT2Font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    for text in ("Conv 3×3 · stride 2 · pad 1", "W 64×3×7×7, b 64 → [1, −1]", "MultiHeadAttention_q/k.v{}~", "…"):
        advance = sum(font.load_char(ord(c), flags=LoadFlags.NO_SCALE).horiAdvance for c in text)
        assert text_width(text, 2048.0, bold=bold) == pytest.approx(advance)


def test_unknown_characters_are_never_underestimated() -> None:
    assert text_width("漢字", 10.0) >= 20.0
    assert text_width("😀", 10.0) >= 12.0
    assert text_width("e\u0301", 10.0) == text_width("e", 10.0)


@pytest.mark.parametrize("text", ["short", "x" * 10_000, "a\nb\tc\x00" * 50, "漢" * 300, "\u202eevil\ud800" * 20])
@pytest.mark.parametrize("width", [20.0, 61.5, 200.0])
def test_fitted_text_is_one_line_within_its_width(text: str, width: float) -> None:
    fitted = fit_text(text, 9.5, width)
    assert text_width(fitted, 9.5) <= width
    assert fitted.isprintable()
    assert fitted


def test_ellipsis_keeps_both_ends() -> None:
    assert ellipsize("encoder.layer.11.output.dense", 11) == "encod…dense"
    assert ellipsize("conv1", 5) == "conv1"
