"""Sheets of activations and pooling, tested by what they draw: images, marks, limits, texts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from onnxviz.analysis.activations import Activations, activation_views, plan_activations
from onnxviz.analysis.paired import NotDrawn, observable
from onnxviz.analysis.pooling import Pooling, is_pool, plan_pooling, pool_views
from onnxviz.graph.activations import POINTWISE
from onnxviz.plots.activations import plot_activations
from onnxviz.plots.pairs import MARGIN, head
from onnxviz.plots.pooling import plot_pooling
from onnxviz.plots.save import save_figure
from onnxviz.plots.style import new_figure
from onnxviz.runtime.capture import capture

RNG = np.random.default_rng(0)


def net(body: str, shape: tuple[int, ...]) -> ir.Model:
    names = ", ".join("abcdef"[: len(shape)])
    sizes = ", ".join(map(str, shape))
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{sizes}] x) => (float[{names}] y) {{{body}}}'
    )


def active(body: str, x: np.ndarray, **options: Any) -> Activations:
    model = observable(net(body, x.shape), lambda node: node.op_type in POINTWISE)
    plan = plan_activations(model)
    return activation_views(plan, capture(model, {"x": x}, plan.tensors, providers="cpu"), **options)


def pooled(body: str, x: np.ndarray, **options: Any) -> Pooling:
    model = observable(net(body, x.shape), is_pool)
    plan = plan_pooling(model)
    return pool_views(plan, capture(model, {"x": x}, plan.tensors, providers="cpu"), **options)


def texts(figure: Figure) -> str:
    return "\n".join(
        t.get_text() for t in (*figure.texts, *(t for axes in figure.axes for t in (*axes.texts, axes.title)))
    )


def images(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images and not hasattr(axes, "_colorbar")]


X = RNG.normal(size=(1, 4, 6, 6)).astype(np.float32)
MAX = "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)"


def test_before_and_after_are_drawn_on_one_scale() -> None:
    found = active("y = Relu(x)", X)
    before, after = images(plot_activations(found))
    (view,) = found.views
    for axes, maps in ((before, view.before.maps), (after, view.after.maps)):
        for image, values in zip(axes.images, maps, strict=True):
            np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), values)
            assert image.get_clim() == (view.before.scale.vmin, view.before.scale.vmax)
            assert image.get_interpolation() == "nearest"


def test_the_curve_is_the_one_that_was_run_and_the_histogram_is_behind() -> None:
    found = active("y = Tanh(x)", 3 * X)
    figure = plot_activations(found)
    axes = next(a for a in figure.axes if any(len(line.get_xdata()) > 10 for line in a.lines))
    line = next(line for line in axes.lines if len(line.get_xdata()) > 10)
    np.testing.assert_allclose(line.get_ydata(), np.tanh(line.get_xdata()), atol=1e-6)
    behind = next(a for a in figure.axes if a is not axes and a.get_position().bounds == axes.get_position().bounds)
    assert behind.get_zorder() < axes.get_zorder()
    (steps,) = behind.patches
    np.testing.assert_array_equal(steps.get_data().values, found.views[0].entering.counts)  # type: ignore[attr-defined]


def test_nan_is_hatched_constant_is_marked_and_the_rest_is_told() -> None:
    x = X.copy()
    x[0, 1, 2, 2] = np.nan
    x[0, 2] = -1
    found = active("y = Relu(x)", x)
    found = Activations(found.model_name, found.views, (NotDrawn("soft", "it is a Softmax"),), found.samples)
    figure = plot_activations(found)
    assert any(isinstance(p, PathPatch) and p.get_hatch() for axes in images(figure) for p in axes.patches)
    said = texts(figure)
    for part in (
        "not drawn: soft: it is a Softmax",
        "const 0",
        "dead: 2",
        "1 NaN enter, 1 leave (0.69 %, hatched)",
        "over 1 sample",
    ):
        assert part in said


@pytest.mark.parametrize("shape", [(1, 12), (1, 9, 5), (1, 3, 1, 1), (1, 2, 4, 4, 4), (1, 1, 3, 90)])
def test_any_rank_is_drawn(shape: tuple[int, ...], tmp_path: Path) -> None:
    figure = plot_activations(active("y = Relu(x)", RNG.normal(size=shape).astype(np.float32)))
    save_figure(figure, tmp_path / "a.png", dpi=40)
    assert "all" in texts(figure) or "1 channel" in texts(figure)


def test_a_constant_tensor_is_drawn() -> None:
    figure = plot_activations(active("y = Relu(x)", np.zeros_like(X)))
    assert texts(figure).count("const 0") == 8


def test_more_functions_than_rows_are_counted() -> None:
    names = "xabcdefghijklmnopqrstuvwz"[:9]
    chain = " ".join(f"{b} = Relu({a})" for a, b in itertools.pairwise(names))
    figure = plot_activations(active(f"{chain} y = Relu({names[-1]})", X, top=1), rows=3)
    assert "3 of 9 activation functions" in texts(figure)


def dots(axes: Axes) -> tuple[int, int]:
    filled = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "black"]
    hollow = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "none"]
    return sum(len(line.get_xdata()) for line in filled), sum(len(line.get_xdata()) for line in hollow)


def test_every_survivor_is_dotted_on_its_pixel() -> None:
    found = pooled(MAX, X)
    (view,) = found.views
    before, after = images(plot_pooling(found))
    assert dots(before) == (4 * 9, 0)
    assert dots(after) == (0, 0)
    filled = [line for line in before.lines if line.get_markerfacecolor() == "black"]
    assert view.survivors is not None
    for image, line, positions, values in zip(
        before.images, filled, view.survivors.positions, view.after.maps, strict=True
    ):
        left, right, bottom, top = image.get_extent()
        columns = np.floor((np.asarray(line.get_xdata()) - left) / (right - left) * 6).astype(int)
        rows = np.floor((np.asarray(line.get_ydata()) - top) / (bottom - top) * 6).astype(int)
        np.testing.assert_array_equal(np.stack([rows, columns], axis=1), positions.reshape(-1, 2))
        drawn = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_array_equal(drawn[rows, columns], values.reshape(-1))


def test_ties_are_hollow() -> None:
    x = np.maximum(X, 0)
    x[:, :, :4] = 0
    found = pooled(MAX, x)
    before, _ = images(plot_pooling(found))
    alone, among = dots(before)
    assert found.views[0].survivors is not None
    assert (alone, among) == (
        int((~found.views[0].survivors.tied).sum()), int(found.views[0].survivors.tied.sum()),
    )  # fmt: skip
    assert among >= 4 * 6


def test_a_pixel_after_lies_on_its_stride_and_the_scale_is_shared() -> None:
    x = RNG.normal(size=(1, 2, 7, 7)).astype(np.float32)
    figure = plot_pooling(pooled(MAX, x))
    before, after = images(figure)
    for first, second in zip(before.images, after.images, strict=True):
        assert first.get_clim() == second.get_clim()
        width = first.get_extent()[1] - first.get_extent()[0]
        assert second.get_extent()[1] - second.get_extent()[0] == pytest.approx(width * 6 / 7)
        assert {first.get_interpolation(), second.get_interpolation()} == {"nearest"}


def test_a_large_map_is_zoomed_and_said_so() -> None:
    x = RNG.normal(size=(1, 2, 90, 120)).astype(np.float32)
    found = pooled("y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)", x)
    figure = plot_pooling(found)
    whole, before, after = images(figure)
    assert np.shape(whole.images[0].get_array()) == (90, 120)
    assert np.shape(after.images[0].get_array()) == (14, 14)
    assert "zoomed: rows" in texts(figure)
    assert sum(dots(before)) > 14 * 14 * 2 * 0.5


def test_signals_are_lines_with_steps() -> None:
    x = RNG.normal(size=(1, 3, 40)).astype(np.float32)
    found = pooled("y = MaxPool<kernel_shape = [4], strides = [4]>(x)", x)
    figure = plot_pooling(found)
    assert len(figure.axes) == 3
    assert len(plot_pooling(pooled("y = MaxPool<kernel_shape = [4], strides = [4]>(x)", x, top=2)).axes) == 2
    strongest = np.argsort(-np.square(x[0].astype(float)).mean(axis=1))
    for axes, channel in zip(figure.axes, strongest, strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), x[0, channel])
        steps = next(p for p in axes.patches if hasattr(p, "get_data"))
        np.testing.assert_array_equal(steps.get_data().values, x[0, channel].reshape(10, 4).max(axis=1))
        assert sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o") == 10


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = GlobalAveragePool(x)", (1, 300, 5, 5)),
        ("y = GlobalAveragePool(x)", (1, 3, 50)),
        ("y = AveragePool<kernel_shape = [3, 3], strides = [1, 1]>(x)", (1, 8, 9, 9)),
        ("y = MaxPool<kernel_shape = [4, 4]>(x)", (1, 3, 4, 4)),
        ("y = MaxPool<kernel_shape = [2, 2, 2], strides = [2, 2, 2]>(x)", (1, 2, 4, 4, 4)),
        ("y = MaxPool<kernel_shape = [3], strides = [2]>(x)", (1, 2, 900)),
        ("y = MaxPool<kernel_shape = [1, 2], strides = [1, 2]>(x)", (1, 2, 1, 30)),
        ("y = LpPool<kernel_shape = [2, 2], strides = [2, 2]>(x)", (1, 2, 6, 6)),
    ],
)
def test_any_pooling_is_drawn(body: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    figure = plot_pooling(pooled(body, RNG.normal(size=shape).astype(np.float32)))
    save_figure(figure, tmp_path / "p.png", dpi=40)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_bytes(ending: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_figure(plot_pooling(pooled(MAX, X)), tmp_path / f"{name}.{ending}")
        save_figure(plot_activations(active("y = Relu(x)", X)), tmp_path / f"{name}2.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert (tmp_path / f"a2.{ending}").read_bytes() == (tmp_path / f"b2.{ending}").read_bytes()


def test_names_that_a_font_lacks_or_that_are_long() -> None:
    found = pooled(MAX, X)
    from dataclasses import replace

    bad = replace(found.views[0], name="卷\n" * 40 + "$x^2$" * 500)
    save = plot_pooling(Pooling("m$\\frac" * 40, (bad,), tuple(NotDrawn("n" * 9000, "r" * 9000) for _ in range(20))))
    assert "not drawn: 12 more" in texts(save)


@pytest.mark.parametrize("name", ["lenet5", "W" * 300, "M_" * 25, "卷" * 80])
@pytest.mark.parametrize("width", [3.0, 6.5, 13.0])
def test_titles_stay_on_their_page(name: str, width: float) -> None:
    figure = new_figure(width, 2)
    head(figure, f"Pooling of {name}", ["a line"])
    right = figure.texts[0].get_window_extent().x1 / figure.dpi
    assert right <= width - MARGIN + 0.02
    if name == "lenet5" and width > 3:
        assert (figure.texts[0].get_text(), figure.texts[0].get_fontsize()) == ("Pooling of lenet5", 14)


def test_many_values_are_one_artist_and_said_so(tmp_path: Path) -> None:
    x = RNG.normal(size=(1, 100_000)).astype(np.float32)
    figure = plot_activations(active("y = Relu(x)", x))
    save_figure(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size < 2_000_000
    assert "least and most of every 50 values" in texts(figure)
    drawn = [
        p for axes in figure.axes for p in axes.patches if hasattr(p, "get_data") and len(p.get_data().values) == 2000
    ]
    np.testing.assert_array_equal(drawn[0].get_data().values, np.maximum(x.reshape(2000, 50).max(axis=1), 0))


@pytest.mark.parametrize("channels", [40, 700, 20_000])
def test_bars_of_global_pooling(channels: int, tmp_path: Path) -> None:
    x = RNG.normal(size=(1, channels, 2, 2)).astype(np.float32)
    figure = plot_pooling(pooled("y = GlobalMaxPool(x)", x))
    save_figure(figure, tmp_path / "p.png", dpi=40)
    bars = next(axes for axes in figure.axes if axes.get_xlabel().startswith("channel"))
    assert len(bars.patches) + len(bars.collections) + len(bars.lines) <= 4
    before = next(axes for axes in figure.axes if dots(axes) != (0, 0))
    assert sum(dots(before)) >= 6


def test_ticks_are_short() -> None:
    figure = plot_activations(active("y = Relu(x)", np.float32([[-25000.0, 3.0, 20000.0]])))
    figure.draw_without_rendering()
    ticks = [t.get_text() for axes in figure.axes for t in axes.get_yticklabels()]
    assert "2e4" in ticks
