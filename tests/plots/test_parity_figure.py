"""The figure of the error through the depth, tested by what it draws."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from onnxviz.analysis.layer_parity import LayerError, LayerParity
from onnxviz.errors import InputError
from onnxviz.plots.parity import plot_parity
from onnxviz.plots.save import save_figure

BAD = "#b3261e"


def layer(name: str, error: float, tolerance: float = 1e-5, folded: tuple[str, ...] = ()) -> LayerError:
    problem = "differs" if not error <= tolerance else None
    return LayerError(name, "torch.nn.Conv2d", folded, f"t_{name}", "", (1, 2), error, error, error, 1.0, problem)


def comparison(errors: dict[str, float], precision: str = "float32", tolerance: float = 1e-5) -> LayerParity:
    return LayerParity(tuple(layer(n, e, tolerance) for n, e in errors.items()), {}, precision, tolerance, (1, 2, 5))


def test_every_layer_has_a_point_at_its_error_and_those_that_differ_are_red() -> None:
    figure = plot_parity([comparison({"a": 1e-7, "b": 3e-4, "c": 2e-4})])
    (points,) = figure.axes[0].collections
    assert [tuple(p) for p in points.get_offsets()] == [(0, 1e-7), (1, 3e-4), (2, 2e-4)]
    assert [to_hex(c) for c in points.get_facecolors()] == ["#0072b2", BAD, BAD]
    assert figure.axes[0].get_yscale() == "log"
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    assert any(t.get_text() == "first: b (Conv2d)" for t in figure.axes[0].texts)
    assert "2 of 3 layers differ, worst 3.0e-04 at b" in figure.texts[1].get_text()


def test_each_precision_has_its_colour_and_tolerance_and_stands_at_the_same_layer() -> None:
    figure = plot_parity(
        [comparison({"a": 1e-7, "b": 1e-7, "c": 0.0}), comparison({"a": 1e-3, "c": 2e-3}, "float16", 1e-2)]
    )
    first, second = figure.axes[0].collections
    assert [x for x, _ in second.get_offsets()] == [0, 2]
    assert min(y for _, y in first.get_offsets()) == 1e-9  # an error of 0 has no logarithm
    assert {t.get_text() for t in figure.axes[0].texts} == {"tolerance 1e-05", "tolerance 1e-02"}
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["float32", "float16"]


def test_errors_without_a_number_stand_at_the_top() -> None:
    figure = plot_parity([comparison({"a": float("inf")})])
    assert figure.axes[0].collections[0].get_offsets()[0][1] == 10.0


def test_many_layers_and_hostile_names_are_drawn(tmp_path: Path) -> None:
    names = {f"block.{i}.$x_{{y}}$\n<b>{'long' * 200}": 10.0 ** -(i % 8) for i in range(300)}
    figure = plot_parity([comparison(names)])
    assert figure.get_figwidth() <= 16
    assert figure.axes[0].get_xlabel() == "layer, in order of execution"
    save_figure(figure, tmp_path / "p.svg")
    save_figure(plot_parity([comparison(dict(list(names.items())[:5]))]), tmp_path / "q.png")


def test_nothing_compared_is_said() -> None:
    with pytest.raises(InputError, match="no layer was compared"):
        plot_parity([comparison({})])


def test_layers_that_share_a_tensor_have_places_of_their_own() -> None:
    layers = [LayerError(name, "L", (), "t", "", (1, 2), 1e-7, 1e-7, 1e-7, 1.0) for name in ("inner", "outer")]
    figure = plot_parity([LayerParity(tuple(layers), {}, "float32", 1e-5, (1,))])
    assert [x for x, _ in figure.axes[0].collections[0].get_offsets()] == [0, 1]
