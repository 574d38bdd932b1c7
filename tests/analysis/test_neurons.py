"""The units of a layer over samples: numbers against numpy, choice and order, extremes, what is told."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage

from onnxviz.analysis.neuron_answers import NeuronAnswers, Outcome, answer_reducer, neuron_answers
from onnxviz.analysis.neuron_data import neuron_data, neuron_table
from onnxviz.analysis.neuron_samples import sample_view
from onnxviz.analysis.neurons import NeuronLayer, Neurons, neuron_layer
from onnxviz.analysis.sample_labels import SampleLabels
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.last_hidden import last_hidden
from onnxviz.graph.quantised import decoders
from onnxviz.graph.receptive_field import receptive_fields
from onnxviz.graph.shapes import infer_shapes

RNG = np.random.default_rng(1)
LABELS = SampleLabels(("a", "b", "c", None) * 6, ("a", "b", "c"), "folders")
MAPS = np.maximum(RNG.normal(size=(24, 7, 4, 5)), 0).astype(np.float32)


def answers(array: np.ndarray, **options: Any) -> NeuronAnswers:
    return neuron_answers(array, layout="NCHW", **options)


def test_answers_peaks_and_ranges_merge() -> None:
    array = RNG.normal(size=(5, 3, 4, 6))
    merged = answers(array[:2], over="max").merge(answers(array[2:], over="max"))
    assert merged.sizes == (2, 3)
    np.testing.assert_allclose(merged.values.matrix, array.max((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(merged.highest, array.max((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(merged.lowest, array.min((0, 2, 3)), rtol=1e-6)
    for sample in range(5):
        for unit in range(3):
            peak = merged.peak(sample, unit)
            assert peak == tuple(np.argwhere(array[sample, unit] == array[sample, unit].max())[0])
    assert merged.peak(5, 0) is None
    with pytest.raises(AssertionError):  # positions in the wrong order of axes are seen
        assert merged.peak(0, 0) == answers(np.swapaxes(array, 2, 3)).peak(0, 0)


def test_peaks_of_energy_of_channels_last_and_around_nan() -> None:
    array = np.zeros((1, 3, 2, 1), np.float32)  # (N, H, W, C)
    array[0, :, 0, 0], array[0, 2, 1, 0] = (1, np.nan, 3), -9
    assert neuron_answers(array, layout="NHWC").peak(0, 0) == (2, 0)
    assert neuron_answers(array, layout="NHWC", over="energy").peak(0, 0) == (2, 1)
    assert neuron_answers(np.ones((2, 3))).peak(0, 0) is None


def test_numbers_are_those_of_numpy() -> None:
    layer = neuron_layer(answers(MAPS), LABELS)
    means = MAPS.mean((2, 3), dtype=np.float64)
    np.testing.assert_allclose(layer.mean, means.mean(0), rtol=1e-6)
    np.testing.assert_allclose(layer.deviation, means.std(0), rtol=1e-5)
    np.testing.assert_allclose(layer.share_on, (means > 0).mean(0))
    with pytest.raises(AssertionError):  # the deviation of a sample instead of the population is seen
        np.testing.assert_allclose(layer.deviation, means.std(0, ddof=1), rtol=1e-5)
    z = neuron_layer(answers(MAPS), LABELS, z_score=True)
    expected = ((means - means.mean(0)) / means.std(0))[z.rows()][:, list(z.units)].T
    np.testing.assert_allclose(z.shown(), expected, rtol=1e-4, atol=1e-5)


def test_dead_and_always_on_look_at_every_position() -> None:
    array = np.zeros((3, 4, 2, 2), np.float32)
    array[0, 1, 0, 0], array[:, 2], array[:, 3] = 0.1, 1.0, np.nan
    layer = neuron_layer(answers(array), order="index")
    assert layer.dead.tolist() == [True, False, False, False]
    assert layer.always_on.tolist() == [False, False, True, False]
    array[:, 0, 1, 1] = -2  # the mean is negative, and so is the unit: never above 0 still
    array[0, 0, 0, 0] = 1  # above 0 once, though no mean is
    once = neuron_layer(answers(array), order="index")
    assert once.signed
    assert not once.dead[0]
    assert (once.share_on[0], once.mean[0] < 0) == (0, True)


def test_units_are_chosen_and_ordered() -> None:
    found = neuron_layer(answers(MAPS), LABELS, top=4)
    assert (found.by, found.order) == ("auc", "class")
    assert found.selectivity is not None
    assert found.ranked == tuple(np.argsort(-found.selectivity.auc, kind="stable")[:4])
    best = [found.selectivity.best[u] for u in found.units]
    assert best == sorted(best)
    assert set(found.units) == set(found.ranked)
    plain = neuron_layer(answers(MAPS), by="mean", order="score")
    assert plain.ranked == plain.units == tuple(np.argsort(-plain.mean, kind="stable"))
    first = neuron_layer(answers(MAPS), by="index", order="index", top=3)
    assert first.units == (0, 1, 2)


def test_rows_are_grouped_by_class() -> None:
    layer = neuron_layer(answers(MAPS), LABELS)
    labels = layer.labels[layer.rows()]
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [-1] * 6
    np.testing.assert_array_equal(layer.shown(), layer.values[layer.rows()][:, list(layer.units)].T)


def test_clusters_are_those_of_scipy() -> None:
    base = RNG.normal(size=(24, 3))
    array = np.concatenate([base, base + 0.01 * RNG.normal(size=(24, 3))], axis=1).astype(np.float32)
    layer = neuron_layer(neuron_answers(array), order="cluster", by="index")
    z = (array - array.mean(0)) / array.std(0)
    assert layer.units == tuple(leaves_list(linkage(z.T, "ward", optimal_ordering=True)))
    place = {unit: i for i, unit in enumerate(layer.units)}
    assert all(abs(place[u] - place[u + 3]) == 1 for u in range(3))  # twins stand together


def test_extremes_are_sorted_ties_counted_and_nan_samples_left_out() -> None:
    array = np.array([[0.0], [3.0], [np.nan], [0.0], [5.0], [0.0], [3.0], [1.0]], np.float32)
    layer = neuron_layer(neuron_answers(array))
    (one,) = layer.extremes
    assert [(e.sample, e.value) for e in one.top] == [(4, 5.0), (1, 3.0), (6, 3.0), (7, 1.0)]
    assert [e.sample for e in one.bottom] == [0, 3, 5]
    assert (one.tied, layer.left_out, layer.samples.tolist()) == (3, 1, [0, 1, 3, 4, 5, 6, 7])
    assert "1 sample without a finite answer left out" in layer.notes
    array = np.array([[1.0, np.inf], [2.0, 4.0]], np.float32)
    assert "1 other answer is not finite" in " ".join(neuron_layer(neuron_answers(array)).notes)


def test_the_box_is_what_the_most_active_position_sees() -> None:
    model = infer_shapes(ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 8, 8] x) => (float[1, 1, 3, 3] y) '
        "<float[1, 1, 3, 3] w = {1, 1, 1, 1, 1, 1, 1, 1, 1}> {y = Conv<strides = [2, 2]>(x, w)}"
    ))  # fmt: skip
    maps = np.zeros((2, 1, 3, 3), np.float32)
    maps[0, 0, 2, 1] = 1
    options: dict[str, Any] = {"field": receptive_fields(model)["y"], "extent": (8, 8)}
    (one,) = neuron_layer(answers(maps), **options).extremes
    assert (one.top[0].peak, one.top[0].box) == ((2, 1), ((4, 6), (2, 4)))
    assert one.bottom[0].box is None


def test_what_cannot_be_asked() -> None:
    with pytest.raises(InputError, match="'auc' needs two classes"):
        neuron_layer(answers(MAPS), by="auc")
    with pytest.raises(InputError, match="samples are of 1"):
        neuron_layer(answers(MAPS), SampleLabels(("a",) * 24, ("a",), "folders"), order="class")
    with pytest.raises(InputError, match="4 labels for 24"):
        neuron_layer(answers(MAPS), SampleLabels(("a", "b") * 2, ("a", "b"), "x.csv"))
    with pytest.raises(InputError, match="choose from"):
        neuron_layer(answers(MAPS), by="beauty")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="no answer to any of 2 samples is finite"):
        neuron_layer(neuron_answers(np.full((2, 3), np.nan)))
    with pytest.raises(SelectionError, match="top 0"):
        neuron_layer(answers(MAPS), top=0)
    single = neuron_layer(answers(MAPS[:1]))
    assert single.extremes == ()
    assert "need more" in " ".join(single.notes)


def test_a_layer_without_units_stops_no_other() -> None:
    reduce = answer_reducer({}, {})
    good, bad = reduce("x", np.ones((2, 3))), reduce("text", np.array([["a"]], dtype=object))
    assert isinstance(good, Outcome)
    assert bad.answers is None
    assert "holds object" in bad.reason
    assert "3 units for one sample and 4" in good.merge(reduce("x", np.ones((2, 4)))).reason
    assert good.merge(bad).reason == bad.reason


def test_a_million_channels() -> None:
    wide = np.zeros((4, 1_000_000), np.float32)
    wide[:, 7] = (1, 2, 3, 4)
    wide[:, 999_999] = (1, 1, 3, 3)
    layer = neuron_layer(neuron_answers(wide), SampleLabels(("a", "a", "b", "b"), ("a", "b"), "folders"), top=2)
    assert set(layer.ranked) == {7, 999_999}
    assert int(layer.dead.sum()) == 999_998


GRAPHS = {
    "r": "<float[2, 2] a = {1, 2, 3, 4}> {h = MatMul(x, a) r = Relu(h) z = MatMul(r, a) y = Softmax(z)}",
    "y": "<float[2, 2] a = {1, 2, 3, 4}> {y = MatMul(x, a)}",
    "n": "<float[2, 2] a = {1, 2, 3, 4}> {h = MatMul(x, a) n = Tanh(h) i = Identity(n) z = MatMul(i, a) y = Add(z, h)}",
}


@pytest.mark.parametrize("expected", GRAPHS)
def test_the_last_hidden_layer(expected: str) -> None:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[k, 2] x) => (float[k, 2] y) {GRAPHS[expected]}'
    value, role = last_hidden(infer_shapes(ir.from_onnx_text(text)))
    if expected == "n":  # whichever way is shorter: the last product and the skip both lead to a layer
        assert value.name == "n"
    else:
        assert value.name == expected
    assert role.startswith("output" if expected == "y" else "last hidden")


def test_a_flattened_map_keeps_its_channels_and_no_layer_is_told() -> None:
    w, a = (", ".join(["1"] * size) for size in (27, 24))
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[k, 1, 4, 4] x) => (float[k, 2] y) '
        f"<float[3, 1, 3, 3] w = {{{w}}}, float[12, 2] a = {{{a}}}> "
        "{c = Conv(x, w) f = Flatten(c) y = MatMul(f, a)}"
    )
    assert last_hidden(infer_shapes(model))[0].name == "c"
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Relu(x)}'
    value, role = last_hidden(ir.from_onnx_text(text))
    assert (value.name, role) == ("y", "output: no layer has weights")


def test_codes_become_numbers() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (uint8[3, 2] y) '
        "<float s = {0.5}, uint8 z = {128}> {q = QuantizeLinear(x, s, z) y = Transpose(q)}"
    )
    found = decoders(value for node in model.graph for value in node.outputs)
    assert found["y"](np.array([128, 130], np.uint8)).tolist() == [0.0, 1.0]


def test_what_a_sample_looks_like() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (%s x) => (%s y) {y = Identity(x)}'
    pictures = ir.from_onnx_text(text % (("float[n, 3, 4, 5]",) * 2))
    view = sample_view(pictures, "s", {"x": np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)}, 1)
    assert view.picture is not None
    assert (view.picture.shape, view.picture.min(), view.picture.max()) == ((4, 5, 3), 0, 255)
    tokens = ir.from_onnx_text(text % (("int64[n, t]",) * 2))
    view = sample_view(tokens, "s", {"x": np.array([[1, 2], [2, 9]])}, 1, words={2: "cat"})
    assert view.words == ("cat", "9")
    signals = ir.from_onnx_text(text % (("float[n, 1, 900]",) * 2))
    view = sample_view(signals, "s", {"x": np.ones((2, 1, 900), np.float32)}, 0)
    assert view.signal is not None
    assert (view.signal.shape, view.length) == ((1, 512), 900)


def sheet(layer: NeuronLayer) -> Neurons:
    return Neurons("m", (layer,), tuple(f"s{i}" for i in range(24)), LABELS)


def test_data_and_table() -> None:
    layer = neuron_layer(answers(MAPS), LABELS, pictures=3)
    arrays, manifest = neuron_data(sheet(layer))
    np.testing.assert_array_equal(arrays["0/values"], layer.values)
    assert arrays["0/top_samples"].shape == (3, 5)
    assert arrays["0/top_peaks"].shape == (3, 5, 2)
    assert manifest["layers"][0]["units"] == 7
    rows = list(csv.DictReader(io.StringIO(neuron_table(sheet(layer)))))
    assert len(rows) == 7
    assert layer.selectivity is not None
    np.testing.assert_allclose([float(row["roc_auc"]) for row in rows], layer.selectivity.auc)
    index = [
        (float(r["class_mean"]) - float(r["other_classes_mean"]))
        / (float(r["class_mean"]) + float(r["other_classes_mean"]))
        for r in rows
    ]
    np.testing.assert_allclose(index, layer.selectivity.index, rtol=1e-6)


def test_a_name_in_the_table_is_no_formula() -> None:
    layer = neuron_layer(neuron_answers(np.ones((2, 1)), '=cmd()\n"'))
    rows = list(csv.reader(io.StringIO(neuron_table(sheet(layer)))))
    assert rows[1][0] == "'=cmd()\n\""
