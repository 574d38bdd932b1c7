"""Tests of the picture of a flow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.figure import Figure

import onnxviz
from onnxviz.analysis.flow import Flow, Series
from onnxviz.plots.flow import plot_flow
from onnxviz.plots.flow_axes import linear_middle, log_axis
from onnxviz.plots.save import save_figure


def chain(depth: int, name: str = "a") -> Flow:
    lines = " ".join(f"{name}{i + 1} = Relu({name}{i})" for i in range(depth))
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] {name}0) => (float[N, 4] {name}{depth}) {{{lines}}}'
    )
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    return onnxviz.flow_numbers(model, {f"{name}0": x}, providers="cpu")


def test_500_layers_have_at_most_60_labels_within_the_picture() -> None:
    found = chain(500)
    figure = plot_flow(found)
    assert len(found.stages) == 501
    labels = [text for axes in figure.axes for text in axes.get_xticklabels() if text.get_text()]
    assert 40 <= len(labels) <= 60
    assert figure.get_size_inches()[0] < 15


def test_a_series_more_is_a_panel_more() -> None:
    found = chain(4)
    gradients = dataclasses.replace(found.series[0], name="gradients")
    more = dataclasses.replace(found, series=(*found.series, gradients))
    names = [axes.get_ylabel() for axes in plot_flow(more).axes if axes.get_ylabel()]
    assert names == ["activations", "weights", "gradients", "RMS, std"]


def test_names_are_drawn_as_they_are_and_never_as_markup(tmp_path: Path) -> None:
    found = chain(3)
    hostile = "$\\frac{</script>" + "x" * 10_000 + "\u202eevil"
    stages = tuple(dataclasses.replace(stage, layer=hostile) for stage in found.stages)
    save_figure(plot_flow(dataclasses.replace(found, stages=stages, model_name=hostile)), tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text()
    assert "</script>" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e38])
def test_values_that_have_no_place_on_the_axis(value: float) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y) {h = Relu(x) y = Neg(h)}'
    )
    feeds = {"x": np.full((3, 4), value, np.float32)}
    found = onnxviz.flow_numbers(model, feeds, providers="cpu")
    assert plot_flow(found).axes
    kinds = {mark.kind for mark in found.series[0].marks}
    assert ("not finite" in kinds) is not np.isfinite(value)
    assert ("zero" in kinds) is (value == 0)


def test_an_empty_series_says_so() -> None:
    found = chain(2)
    texts = [text.get_text() for axes in plot_flow(found).axes for text in axes.texts]
    assert "no layer has weights" in texts
    assert isinstance(found.series[1], Series)


def test_the_linear_middle_follows_the_smaller_layers() -> None:
    assert linear_middle(np.array([[-5.0, 5.0]]), [0.02, 1.0]) == 0.01
    assert linear_middle(np.array([[-5.0, 5.0]]), [1e-30, 1.0]) == 1e-6
    assert linear_middle(np.zeros((1, 2)), []) == 1.0


def gradients(depth: int = 4) -> Flow:
    lines = " ".join(f"m{i} = MatMul(a{i}, w) a{i + 1} = Relu(m{i})" for i in range(depth))
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[N, 2] a0) => (float[N, 2] a{depth}) '
        f"<float[2, 2] w = {{1, 0.5, -0.5, 1}}> {{{lines}}}"
    )
    x = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    return onnxviz.flow_numbers(model, {"a0": x}, on="gradients", batch=2, providers="cpu")


def test_gradients_have_a_logarithmic_axis_their_zeros_and_their_weights() -> None:
    found = gradients()
    panels = {axes.get_ylabel(): axes for axes in plot_flow(found).axes if axes.get_ylabel()}
    assert list(panels) == ["activations", "weights", "|gradients|, not 0", "= 0", "|∇W| / |W|", "RMS, std"]
    assert panels["|gradients|, not 0"].get_yscale() == "log"
    series = next(one for one in found.series if one.name == "gradients")
    heights = [bar.get_height() for bar in panels["= 0"].patches if bar.get_width() < 1]
    assert heights[: len(series.layers)] == [row.zero if row is not None else 0.0 for row in series.layers]
    assert found.gradients is not None
    dots = panels["|∇W| / |W|"].lines[-1].get_ydata()
    assert list(dots) == [found.gradients.weights[0].ratio] * 4
    assert panels["|∇W| / |W|"].collections, "the deviation between batches"


def test_layers_without_gradient_are_gaps_and_not_zeros() -> None:
    found = gradients()
    series = found.series[2]
    cut = dataclasses.replace(series, layers=(None, None, *series.layers[2:]))
    figure = plot_flow(dataclasses.replace(found, series=(*found.series[:2], cut)))
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "|gradients|, not 0")
    ends = [x for one in axes.collections for path in one.get_paths() for x in path.vertices[:, 0]]
    ends += [bar.get_x() for bar in axes.patches if bar.get_width() < 1]
    assert min(ends) > 1.0


def test_400_layers_of_gradients_fit() -> None:
    figure = plot_flow(gradients(200))
    assert figure.get_size_inches()[0] < 15


@pytest.mark.parametrize("values", [[0.3, 7.0], [1.0, 1.0], [2e-5, 6e-5], [1e-6, 3.0]])
def test_a_logarithmic_axis_has_two_ticks_or_more(values: list[float]) -> None:
    axes = Figure().add_subplot()
    log_axis(axes, values, 4)
    low, high = axes.get_ylim()
    assert 2 <= sum(low <= at <= high for at in axes.get_yticks()) <= 4
