"""The sheet of neurons, tested by what it draws: rows, colours, brackets, marks, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxviz.analysis.neuron_answers import neuron_answers
from onnxviz.analysis.neuron_samples import SampleView
from onnxviz.analysis.neurons import NeuronLayer, Neurons, neuron_layer
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.sample_labels import SampleLabels
from onnxviz.plots.neurons import plot_neurons
from onnxviz.plots.save import save_figure

RNG = np.random.default_rng(0)
LABELS = SampleLabels(("b", "a", "b", "a", "b", None), ("a", "b"), "folders")
VALUES = np.maximum(RNG.normal(size=(6, 9)), 0).astype(np.float32)
PICTURE = np.full((8, 8, 3), 200, np.uint8)


def layer(values: np.ndarray = VALUES, labels: SampleLabels | None = LABELS, **options: Any) -> NeuronLayer:
    return neuron_layer(neuron_answers(values, "fc", layout="NCHW" if values.ndim > 2 else None), labels, **options)


def sheet(*layers: NeuronLayer, view: SampleView | None = None, **options: Any) -> Neurons:
    names = tuple(f"s{i}" for i in range(6))
    found = Neurons("m", layers, names, options.pop("labels", LABELS), **options)
    views = {i: view or SampleView(names[i], PICTURE) for i in found.wanted}
    return Neurons("m", layers, names, found.labels, views, found.not_drawn, found.notes)


def texts(figure: Figure) -> list[str]:
    inside = (t for axes in figure.axes for t in (*axes.texts, axes.title, axes._left_title))  # type: ignore[attr-defined]
    return [t.get_text() for t in (*figure.texts, *inside)]


def test_the_heat_map_is_the_numbers_in_the_order_of_classes_and_units() -> None:
    one = layer()
    figure = plot_neurons(sheet(one))
    drawn = next(axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape == (9, 6))
    np.testing.assert_array_equal(drawn.images[0].get_array(), VALUES[[1, 3, 0, 2, 4, 5]][:, list(one.units)].T)
    assert [t.get_text() for t in drawn.get_yticklabels()] == [str(unit) for unit in one.units]
    assert [t.get_text() for t in drawn.texts] == ["a", "b", "no label"]
    means = next(axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape == (9, 2))
    expected = np.stack([VALUES[[1, 3]].mean(0), VALUES[[0, 2, 4]].mean(0)], axis=1)[list(one.units)]
    np.testing.assert_allclose(means.images[0].get_array(), expected, rtol=1e-6)
    assert means.images[0].norm.vmax == drawn.images[0].norm.vmax  # one scale
    dots = means.collections[-1].get_offsets()
    np.testing.assert_array_equal(np.asarray(dots)[:, 0] - 0.5, expected.argmax(1)[expected.max(1) > expected.min(1)])


def test_a_signed_layer_is_symmetric_and_has_no_strip_of_the_index() -> None:
    figure = plot_neurons(sheet(layer(RNG.normal(size=(6, 9)).astype(np.float32))))
    scale = next(axes for axes in figure.axes if axes.images).images[0].norm
    assert scale.vmin == -scale.vmax
    said = texts(figure)
    assert "ROC-AUC" in said
    assert "selectivity\nindex" not in said
    assert "class selectivity index not defined for any unit" in "\n".join(said)


def test_the_best_samples_stand_first_with_a_box() -> None:
    maps = np.zeros((6, 1, 4, 4), np.float32)
    maps[:, 0, 1, 2] = [0, 5, 1, 2, 9, 3]
    from onnxviz.graph.position_maps import identity_map
    from onnxviz.graph.receptive_field import ReceptiveField

    field = ReceptiveField((2, 3), (1, 1), (None, None), (None, None), (identity_map(2), identity_map(3)))
    one = layer(maps, field=field, extent=(4, 4))
    views = {i: SampleView(f"s{i}", np.full((4, 4, 3), i, np.uint8)) for i in range(6)}
    figure = plot_neurons(Neurons("m", (one,), tuple("abcdef"), LABELS, views))
    tiles = [axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape == (4, 4, 3)]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in tiles] == [4, 1, 5, 0, 2, 3]
    boxes = [[p for p in axes.patches if isinstance(p, Rectangle)] for axes in tiles]
    assert [len(found) for found in boxes] == [1, 1, 1, 0, 0, 0]
    assert boxes[0][0].get_bbox().bounds == (1.5, 0.5, 1.0, 1.0)


def test_dead_units_are_counted_and_coloured() -> None:
    values = VALUES.copy()
    values[:, :4] = 0
    figure = plot_neurons(sheet(layer(values)))
    assert "4 dead (never above 0), 0 always on, over 6 samples" in texts(figure)
    assert "prefer" in "\n".join(texts(figure))


@pytest.mark.parametrize(
    "view",
    [SampleView("s", None, np.zeros((1, 50), np.float32), 50), SampleView("s", None, words=("the", "cat")),
     SampleView("s\n</script>" + "x" * 9999)],
)  # fmt: skip
@pytest.mark.parametrize("labels", [LABELS, None])
def test_every_kind_of_sample_and_hostile_names(view: SampleView, labels: SampleLabels | None, tmp_path: Path) -> None:
    figure = plot_neurons(sheet(layer(labels=labels), view=view, labels=labels))
    save_figure(figure, tmp_path / "a.svg")
    assert "</script>" not in (tmp_path / "a.svg").read_text()
    save_figure(plot_neurons(sheet(layer(labels=labels), view=view, labels=labels)), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_one_picture_with_many_questions_is_written_and_several_are_drawn() -> None:
    one = layer()
    asked = ("[CLS]", "what", "is", "it", "[PAD]")

    def drawn(level: int) -> Figure:
        views = {i: SampleView(f"s{i}", np.full((4, 4, 3), i * level, np.uint8), words=asked) for i in range(6)}
        return plot_neurons(Neurons("m", (one,), tuple("abcdef"), LABELS, views))

    same, several = drawn(0), drawn(9)
    shapes = [[axes.images[0].get_array().shape for axes in f.axes if axes.images] for f in (same, several)]
    assert (4, 4, 3) not in shapes[0]
    assert (4, 4, 3) in shapes[1]
    assert any("[CLS] what is it [PAD]" in text for text in texts(same))
    assert "what is it" in texts(several)


def test_one_sample_is_bars_and_what_is_not_drawn_is_told() -> None:
    one = neuron_layer(neuron_answers(VALUES[:1], "fc"))
    figure = plot_neurons(Neurons("m", (one,), ("s",), None, {}, (NotDrawn("x", "has no axes"),), ("a note",)))
    said = "\n".join(texts(figure))
    assert "1 sample, without classes" in said
    assert "selectivity and a distribution need more" in said
    assert "not drawn: x: has no axes" in said
    assert "a note" in said


@pytest.mark.parametrize("fill", [0.0, 1.0, np.inf])
def test_constant_and_infinite_layers_are_drawn(fill: float) -> None:
    values = np.full((6, 9), fill, np.float32)
    values[:2, 0] = 1.0 if np.isinf(fill) else fill
    figure = plot_neurons(sheet(layer(values)))
    assert any(axes.images for axes in figure.axes)


def test_many_units_keep_the_figure_within_bounds() -> None:
    wide = RNG.normal(size=(6, 3000)).astype(np.float32)
    figure = plot_neurons(sheet(layer(wide, top=3000)))
    assert figure.get_size_inches()[1] < 25
    assert "all 3000 units" in "\n".join(texts(figure))


def test_long_names_of_classes_end_above_the_distributions() -> None:
    labels = SampleLabels(("golden retriever", "automobile") * 3, ("automobile", "golden retriever"), "folders")
    figure = plot_neurons(sheet(layer(labels=labels), labels=labels))
    figure.canvas.draw()
    means = next(axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape == (9, 2))
    lowest = min(label.get_window_extent().y0 for label in means.get_xticklabels())
    panels = [axes for axes in figure.axes if axes.get_xlabel() in ("mean activation", "class selectivity index")]
    titles = [part.get_window_extent().y1 for axes in panels for part in (axes, axes.title, axes._left_title)]  # type: ignore[attr-defined]
    assert lowest > max(titles)
