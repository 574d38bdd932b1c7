"""Attributions as pictures, by what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.figure import Figure

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.api import attribute
from onnxviz.errors import SelectionError
from onnxviz.plots.attribution import plot_attributions
from tests.conftest import make_small_cnn

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
X = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)


def texts(figure: Figure) -> str:
    own = [t.get_text() for t in figure.texts]
    return "\n".join(own + [t.get_text() for axes in figure.axes for t in axes.texts])


def of(name: str, **options: Any) -> Attribution:
    return attribute(make_small_cnn(), {"x": X}, method=name, providers="cpu", **options)


def test_a_row_a_sample_and_a_tile_a_method() -> None:
    found = [of("grad-cam"), of("saliency"), of("integrated-gradients")]
    figure = plot_attributions(found)
    pictures = [axes for axes in figure.axes if axes.images and axes.get_position().height > 0.05]
    assert len(pictures) == 3 * 4
    text = texts(figure)
    for part in ("sample 2: class", "grad-cam", "p · 3 × 3", "score / input", "completeness delta", "steps 50 · baseline zeros",
                 "layer p, the last tensor with spatial axes", "each map on its own scale"):  # fmt: skip
        assert part in text, part


def test_signed_maps_are_white_at_zero_and_others_dark() -> None:
    for name, ends in (("input-x-gradient", True), ("saliency", False)):
        figure = plot_attributions([of(name)])
        bar = next(axes for axes in figure.axes if axes.get_position().height < 0.03 and axes.images)
        low, high = bar.images[0].get_clim()
        assert (low == -high) is ends
        assert (low == 0) is not ends


def test_a_layer_is_drawn_over_the_picture_with_a_contour_at_half() -> None:
    half = {"x": X * (np.arange(8) < 3)}
    figure = plot_attributions([attribute(make_small_cnn(), half, target=0, providers="cpu")])
    over = [axes for axes in figure.axes if axes.collections]
    assert over, "the contour"
    assert len(over[0].images) == 2, "the picture in grey, and the heat"


def test_more_samples_than_fit_are_counted() -> None:
    figure = plot_attributions([of("saliency")], samples=2)
    assert "2 of 3 samples" in texts(figure)


def test_tables_are_bars_with_what_was_fed() -> None:
    model = ir.from_onnx_text(HEAD + "g (float[N, 30] x) => (float[N, 30] y) {y = Neg(x)}")
    x = np.arange(30, dtype=np.float32)[None]
    found = attribute(model, {"x": x}, method="input-x-gradient", target=7, providers="cpu")
    figure = plot_attributions([found])
    axes = figure.axes[0]
    assert len(axes.patches) == 20
    assert axes.get_yticklabels()[0].get_text() == "[7] = 7"
    assert axes.patches[0].get_width() == pytest.approx(-7)
    assert "20 of 30" in texts(figure)


def test_words_stand_on_their_colours() -> None:
    text = (
        HEAD
        + """g (int64[N, 3] ids) => (float[N, 2] y)
    <float[4, 2] table = {0, 0, 1, 2, 3, 4, -5, 6}, int64[1] one = {1}>
    {e = Gather(table, ids) y = ReduceSum<keepdims = 0>(e, one)}"""
    )
    found = attribute(
        ir.from_onnx_text(text), {"ids": np.int64([[1, 3, 0]])}, method="input-x-gradient", target=0, providers="cpu"
    )
    figure = plot_attributions([found])
    axes = next(axes for axes in figure.axes if axes.patches)
    colours = [patch.get_facecolor() for patch in axes.patches]
    assert colours[0][0] > colours[0][2], "1 is red"
    assert colours[1][2] > colours[1][0], "-5 is blue"
    assert colours[2][:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.03)
    assert [t.get_text() for t in axes.texts] == ["1", "3", "0"]


def test_a_signal_stands_once_above_its_strips() -> None:
    model = ir.from_onnx_text(
        HEAD
        + """g (float[N, 1, 16] x) => (float[N, 2] y) <float[2, 1, 3] w = {1, 0, 1, 0, 1, 0}> {
          c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p)}"""
    )
    x = np.sin(np.arange(16, dtype=np.float32))[None, None]
    found = [attribute(model, {"x": x}, method=name, providers="cpu") for name in ("grad-cam", "saliency")]
    figure = plot_attributions(found)
    assert sum(bool(axes.lines) for axes in figure.axes) == 1
    strips = [axes for axes in figure.axes if axes.images and axes.get_xlim() == (-0.5, 15.5)]
    assert len(strips) == 2
    assert strips[0].images[0].get_extent()[:2] == [0.5, 14.5], (
        "a cell of the layer lies over the middle of what it sees"
    )


def test_volumes_show_the_slice_that_counts_most() -> None:
    model = ir.from_onnx_text(
        HEAD
        + """g (float[N, 1, 4, 5, 6] x) => (float[N, 2] y) <float[2, 1, 1, 1, 1] w = {1, 2}> {
          c = Conv(x, w) p = GlobalAveragePool(c) y = Flatten(p)}"""
    )
    x = np.zeros((1, 1, 4, 5, 6), np.float32)
    x[0, 0, 2] = 1
    found = attribute(model, {"x": x}, method="input-x-gradient", target=0, providers="cpu")
    assert "slice 2 of 4" in texts(plot_attributions([found]))


def test_hostile_names_are_drawn_as_they_are_spelt() -> None:
    found = of("saliency", labels=["</script>\n$x$", "\u202eevil", "ordinary"])
    text = texts(plot_attributions([found]))
    assert "\u202e" not in text
    assert "\n$x$" not in text


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(SelectionError, match="no attributions"):
        plot_attributions([])


def test_words_stand_below_a_picture_in_lines_of_their_own() -> None:
    from tests.conftest import ROOT

    feeds = {
        "image": np.random.default_rng(0).random((1, 1, 28, 28), np.float32),
        "tokens": np.int64([[1, 4, 5, 6, 7, 2, 0]]),
    }
    found = attribute(ROOT / "models" / "picture_question.onnx", feeds, method="gradient-attention", providers="cpu")
    figure = plot_attributions([found])
    text = texts(figure)
    assert "tokens" in text
    assert "picture.conv2 · 7 × 7" in text
    assert "tokens · 7 × 7" not in text, "the size is that of the patches"
    words = next(axes for axes in figure.axes if len(axes.patches) == 7)
    picture = next(axes for axes in figure.axes if axes.images and axes.get_position().height > 0.2)
    assert words.get_position().y1 < picture.get_position().y0
    assert words.get_position().width > 2 * picture.get_position().width


def test_maps_of_different_kinds_stand_in_rows_of_their_own() -> None:
    """Many words beside a table and a map: no tile lies over another."""
    rng = np.random.default_rng(0)
    made = [
        Attribution("words", {"w": rng.random((1, 400), np.float32)}, {}, ("class 0",), np.ones(1), axes={"w": "NT"}),
        Attribution("table", {"t": rng.random((1, 30), np.float32)}, {}, ("class 0",), np.ones(1), axes={"t": "NC"}),
        Attribution("map", {"m": rng.random((1, 9, 3), np.float32)}, {}, ("class 0",), np.ones(1), axes={"m": "NHW"}),
        Attribution("more", {"w": rng.random((1, 400), np.float32)}, {}, ("class 0",), np.ones(1), axes={"w": "NT"}),
    ]
    for order in (made, made[::-1]):
        figure = plot_attributions(order)
        boxes = [axes.get_position() for axes in figure.axes]
        assert len(boxes) == 4 + 3, "a tile each, and bars of all but the table"
        for place, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:place]), f"{place} in {[o.method for o in order]}"
        assert min(box.y0 for box in boxes) > 0
