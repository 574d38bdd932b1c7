"""Tests of gradient statistics: numbers against torch, planted nets against their healthy twins, merging, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.analysis.flow import Flow
from onnxviz.analysis.flow_data import flow_data
from onnxviz.analysis.gradient_flow import GRADIENT
from onnxviz.analysis.gradient_statistics import GradientStatistics
from onnxviz.errors import GradientError, InputError, SelectionError
from onnxviz.graph.io import open_model
from tests.conftest import make_small_cnn

WIDE = 32


def mlp(gain: float, function: str = "Sigmoid", depth: int = 12, *, residual: bool = False) -> ir.Model:
    """Return ``depth`` layers ``f(x W)`` with normal W of ``gain / sqrt(width)``; residual ones with LayerNormalization."""
    lines, before = [], "x"
    for i in range(depth):
        if residual:
            lines.append(f"n{i} = LayerNormalization({before}, one) m{i} = MatMul(n{i}, w{i}) f{i} = {function}(m{i})")
            lines.append(f"a{i} = Add({before}, f{i})")
        else:
            lines.append(f"m{i} = MatMul({before}, w{i}) a{i} = {function}(m{i})")
        before = f"a{i}"
    given = ", ".join(f"float[{WIDE}, {WIDE}] w{i} = {{0}}" for i in range(depth))
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 18]> net (float[N, {WIDE}] x) => (float[N, {WIDE}] y) '
        f"<{given}, float[{WIDE}] one = {{1}}> {{{' '.join(lines)} y = MatMul({before}, w0)}}"
    )
    for i in range(depth):
        array = np.random.default_rng(i).standard_normal((WIDE, WIDE)) * gain / np.sqrt(WIDE)
        _fill(model, f"w{i}", array.astype(np.float32))
    _fill(model, "one", np.ones(WIDE, np.float32))
    return model


def _fill(model: ir.Model, name: str, array: np.ndarray) -> None:
    value = model.graph.initializers[name]
    value.const_value = ir.Tensor(array, name=name)
    value.shape = ir.Shape(array.shape)


def samples(count: int = 24) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(3).standard_normal((count, WIDE)).astype(np.float32)}


def pictures(count: int = 6) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 1, 8, 8)).astype(np.float32)


def flow(model: ir.Model, feeds: Any = None, **options: Any) -> Flow:
    feeds = samples() if feeds is None else feeds
    return onnxviz.flow_numbers(model, feeds, on="gradients", providers="cpu", **options)


def statistics(model: ir.Model, feeds: Any = None, **options: Any) -> GradientStatistics:
    return onnxviz.gradient_statistics(model, samples() if feeds is None else feeds, providers="cpu", **options)


def kinds(found: Flow) -> set[str]:
    return {mark.kind for mark in next(one for one in found.series if one.name == "gradients").marks}


def torch_gradients(labels: np.ndarray) -> dict[str, Any]:
    """Return what torch autograd gives for the small net: gradients of layers (each sample's own) and of weights."""
    torch = pytest.importorskip("torch")
    model = make_small_cnn()
    weights = {name: torch.tensor(value.const_value.numpy().copy()) for name, value in model.graph.initializers.items()}
    for weight in weights.values():
        weight.requires_grad_()
    x = torch.tensor(pictures(len(labels)), requires_grad=True)
    c = torch.nn.functional.conv2d(x, weights["w"], weights["b"])
    r = torch.relu(c)
    p = torch.nn.functional.max_pool2d(r, 2)
    y = p.flatten(1) @ weights["fw"] + weights["fb"]
    loss = torch.nn.functional.cross_entropy(y, torch.tensor(labels), reduction="sum")
    tensors = {"x (input)": x, "c": c, "r": r, "p": p, "y": y, **weights}
    found = torch.autograd.grad(loss, list(tensors.values()))
    return {name: grad.numpy() for name, grad in zip(tensors, found, strict=True)}


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.array([0, 2, 1, 1, 0, 2], np.int64)


@pytest.mark.parametrize("batch", [2, 4, 6])
def test_layers_and_weights_are_those_of_torch(labels: np.ndarray, batch: int) -> None:
    wanted = torch_gradients(labels)
    found = statistics(make_small_cnn(), {"x": pictures()}, labels=labels, batch=batch)
    assert {layer.name for layer in found.layers} == {"x (input)", "c", "r", "p", "y"}
    for layer in found.layers:
        grad = wanted[layer.name].astype(np.float64)
        assert layer.rms == pytest.approx(np.sqrt(np.mean(grad**2)), rel=1e-5)
        assert layer.norm == pytest.approx(np.sqrt((grad**2).sum() / 6), rel=1e-5)
        assert layer.zero == np.mean(grad == 0)
        sizes = np.sort(np.abs(grad[grad != 0]))
        assert layer.quantiles([0.5, 1.0]) == pytest.approx([np.quantile(sizes, 0.5), sizes[-1]], rel=1 / 16)
    assert [one.tensor for one in found.weights] == ["w", "b", "fw", "fb"]
    for one in found.weights:
        grad = wanted[one.tensor].astype(np.float64) / 6
        assert one.norm == pytest.approx(np.linalg.norm(grad), rel=1e-5)
        outputs = grad.T if one.tensor == "fw" else grad
        each = np.sqrt(np.square(outputs.reshape(len(outputs), -1)).sum(axis=1))
        np.testing.assert_allclose(one.channel_norms, each, rtol=1e-4, atol=1e-7)
        assert one.ratio is not None


def test_a_weight_that_is_off_by_a_thousandth_is_seen(labels: np.ndarray) -> None:
    wanted = torch_gradients(labels)
    planted = make_small_cnn()
    _fill(planted, "fw", planted.graph.initializers["fw"].const_value.numpy() * np.float32(1.001))
    found = statistics(planted, {"x": pictures()}, labels=labels)
    off = [layer.name for layer in found.layers
           if layer.rms != pytest.approx(np.sqrt(np.mean(wanted[layer.name].astype(np.float64) ** 2)), rel=1e-5)]  # fmt: skip
    assert {"c", "r", "p", "x (input)"} <= set(off)


def test_noise_is_the_spread_of_batches_about_their_mean(labels: np.ndarray) -> None:
    parts = [statistics(make_small_cnn(), {"x": pictures()[i : i + 2]}, labels=labels[i : i + 2]) for i in (0, 2, 4)]
    whole = statistics(make_small_cnn(), {"x": pictures()}, labels=labels, batch=2)
    for place, one in enumerate(whole.weights):
        each = np.stack([part.weights[place].gradient.reshape(-1) for part in parts])
        assert one.deviation == pytest.approx(np.sqrt(each.var(axis=0).sum()), rel=1e-5)
        assert one.noise == pytest.approx(one.deviation / np.linalg.norm(each.mean(axis=0)), rel=1e-5)
    assert parts[0].weights[0].noise is None


def test_parts_merge_in_any_order_to_the_same_numbers(labels: np.ndarray) -> None:
    parts = [statistics(make_small_cnn(), {"x": pictures()[i : i + 1]}, labels=labels[i : i + 1]) for i in range(6)]
    whole = statistics(make_small_cnn(), {"x": pictures()}, labels=labels, batch=1)
    for order in ((0, 1, 2, 3, 4, 5), (5, 3, 1, 0, 2, 4), (4, 5, 0, 3, 2, 1)):
        merged = parts[order[0]]
        for place in order[1:]:
            merged = merged.merge(parts[place])
        assert merged.samples == 6
        for a, b in zip(merged.layers, whole.layers, strict=True):
            assert a.summary == b.summary
        for c, d in zip(merged.weights, whole.weights, strict=True):
            assert (c.norm, c.deviation, c.channel_norms.tolist()) == (d.norm, d.deviation, d.channel_norms.tolist())
    with pytest.raises(InputError, match="different models or targets"):
        whole.merge(statistics(make_small_cnn(), {"x": pictures()}))


def test_channels_without_gradient_are_named() -> None:
    model = make_small_cnn()
    bias = np.float32([-1000.0, 0.5])
    _fill(model, "b", bias)
    found = statistics(model, {"x": pictures()})
    layer = found.layer("c")
    assert layer is not None
    assert layer.dead == (0,)
    quantiles = layer.channel_quantiles([0.5, 1.0])
    assert np.isnan(quantiles[0]).all()
    assert quantiles[1, 1] > 0
    assert "dead" in kinds(flow(model, {"x": pictures()}))


@pytest.mark.parametrize(
    ("sick", "healthy", "kind"),
    [
        (mlp(1.0), mlp(4.5), "vanishing"),
        (mlp(5.0, "Relu"), mlp(1.42, "Relu"), "exploding"),
        (mlp(0.4, "Tanh"), mlp(1.2, "Tanh"), "vanishing"),
    ],
)
def test_a_sick_net_is_marked_and_its_healthy_twin_is_not(sick: ir.Model, healthy: ir.Model, kind: str) -> None:
    found = flow(sick)
    assert kind in kinds(found)
    mark = next(one for one in found.series[2].marks if one.kind == kind)
    assert "decades a layer" in mark.text
    assert mark.first < mark.last
    assert found.trend is not None
    assert (found.trend.norm < 1e-3) is (kind == "vanishing")
    assert (found.trend.slope < 0) is (kind == "vanishing")
    assert not kinds(flow(healthy)) & {"vanishing", "exploding", "not finite"}


def test_a_deep_residual_net_is_silent() -> None:
    assert not kinds(flow(mlp(1.0, "Relu", 40, residual=True)))


def test_what_a_line_goes_around_has_not_vanished_and_what_it_does_not_has() -> None:
    """Three weak layers in each block: their gradient falls by 1e-4, and the line around the block keeps it."""
    for around, expected in ((True, set()), (False, {"vanishing"})):
        lines, before, names = [], "x", []
        for i in range(3):
            lines.append(f"a{i} = MatMul({before}, u{i}) b{i} = MatMul(a{i}, v{i}) c{i} = MatMul(b{i}, w{i})")
            lines.append(f"s{i} = Add({before}, c{i})" if around else f"s{i} = Identity(c{i})")
            before, names = f"s{i}", [*names, f"u{i}", f"v{i}", f"w{i}"]
        given = ", ".join(f"float[{WIDE}, {WIDE}] {name} = {{0}}" for name in names)
        model = ir.from_onnx_text(
            f'<ir_version: 8, opset_import: ["": 18]> net (float[N, {WIDE}] x) => (float[N, {WIDE}] y) '
            f"<{given}> {{{' '.join(lines)} y = Relu({before})}}"
        )
        for i, name in enumerate(names):
            array = np.random.default_rng(i).standard_normal((WIDE, WIDE)) * 0.05 / np.sqrt(WIDE)
            _fill(model, name, array.astype(np.float32))
        assert kinds(flow(model)) & {"vanishing", "exploding"} == expected


def test_thresholds_move_the_verdict() -> None:
    from onnxviz.analysis.flow_marks import read_thresholds

    assert "vanishing" not in kinds(flow(mlp(1.0), thresholds=read_thresholds(["gradient_vanishing=1e-20"])))
    assert "vanishing" in kinds(flow(mlp(1.2, "Tanh"), thresholds=read_thresholds(["gradient_vanishing=0.9"]))) or (
        "exploding" in kinds(flow(mlp(1.2, "Tanh"), thresholds=read_thresholds(["gradient_exploding=1.1"])))
    )


def test_the_same_forward_numbers_with_and_without_gradients() -> None:
    with_them = flow(make_small_cnn(), {"x": pictures()}).series[0]
    alone = onnxviz.flow_numbers(make_small_cnn(), {"x": pictures()}, providers="cpu").series[0]
    assert with_them == alone


def test_key_paths_are_by_gradient_times_activation() -> None:
    joined = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N, 2] x) => (float[N, 1] y)
        <float[4, 1] w = {1, 1, 100, 100}, float[2, 2] e = {1, 0, 0, 1}>
        {a = MatMul(x, e) b = Tanh(x) c = Concat<axis = 1>(a, b) y = MatMul(c, w)}"""
    )
    feeds = {"x": np.float32([[3.0, 4.0], [2.0, 5.0]])}
    found = flow(joined, feeds)
    assert found.paths is not None
    assert found.paths.measure == GRADIENT
    ours = {"a": np.abs(feeds["x"]).sum(), "b": 100 * np.tanh(feeds["x"]).sum()}
    assert found.paths.scores["b"] == pytest.approx(ours["b"] / sum(ours.values()), rel=1e-5)
    assert "b" in found.paths.paths[0].tensors
    energy = onnxviz.flow_numbers(joined, feeds, providers="cpu").paths
    assert energy is not None
    assert "a" in energy.paths[0].tensors


def test_a_skip_counts_as_it_is_read_not_by_all_its_readers() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N, 1] x) => (float[N, 1] y) <float[1, 1] w = {9}>
        {h = Relu(x) m = MatMul(h, w) y = Add(h, m)}"""
    )
    found = flow(model, {"x": np.float32([[1.0], [2.0]])})
    assert found.paths is not None
    assert found.paths.scores["m"] == pytest.approx(0.9)


QUANTISED = """<ir_version: 8, opset_import: ["": 18]> g (float[N, 2] x) => (float[N, 2] y)
  <float s = {0.1}, uint8 z = {128}, float[2, 2] w = {1, 2, 3, 4}>
  {h = MatMul(x, w) q = QuantizeLinear(h, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w)}"""


def test_layers_before_a_cut_are_said_to_be_cut_and_not_drawn_as_0() -> None:
    feeds = {"x": np.float32([[0.5, 1.0]])}
    found = flow(ir.from_onnx_text(QUANTISED), feeds)
    reasons = {one.name: one.reason for one in found.not_drawn}
    assert "QuantizeLinear" in reasons["h"]
    assert "--straight-through" in reasons["h"]
    assert [row is None for row in found.series[2].layers][:2] == [True, True]
    through = flow(ir.from_onnx_text(QUANTISED), feeds, straight_through=True)
    assert not [one for one in through.not_drawn if one.name == "h"]


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("g (float[N, 2] x) => (int64[N] y) {y = ArgMax<axis = 1, keepdims = 0>(x)}", {}, GradientError, "floating"),
        ("g (float[N, 2] x) => (float[N, 2] y) {y = Round(x)}", {}, GradientError, "cut"),
        ("g (float[N, 2, 3] x) => (float[N, 2, 3] y) {y = Relu(x)}", {}, GradientError, "max(y)"),
        ("g (float[N, 2] x) => (float[N, 2] y) {y = Relu(x)}", {"target": "z[:, 0]"}, SelectionError, "'z'"),
        ("g (float[N, 2] x) => (float[N, 2] y) {y = Relu(x)}", {"target": "cross_entropy(y, labels)"}, InputError,
         "--labels"),
        ("g (float[N, 2] x) => (float[N, 2] y) {y = Relu(x)}", {"labels": [5, 0]}, InputError, "0 to 1"),
        ("g (float[N, 2] x) => (float[N, 2] y) {y = Relu(x)}", {"labels": [0]}, InputError, "for 2 samples"),
        ("g (float[N, 2] x) => (float[N, 2] y) {y = Relu(x)}", {"labels": [0, 1], "target": "y[argmax]"}, InputError,
         "takes no labels"),
    ],
)  # fmt: skip
def test_what_has_no_gradient_is_one_line_with_a_way_out(
    text: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    shape = [2 if not isinstance(dim, int) else dim for dim in model.graph.inputs[0].shape or ()]
    with pytest.raises(error) as caught:
        statistics(model, {"x": np.ones(shape, np.float32)}, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_gradients_are_refused_elsewhere() -> None:
    with pytest.raises(InputError, match="--on gradients"):
        onnxviz.flow_numbers(mlp(1.0), samples(), target="y[argmax]")


def test_the_target_is_the_score_before_a_softmax() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {50, 0, 0, 50}>
        {h = MatMul(x, w) y = Softmax(h)}"""
    )
    found = statistics(model, {"x": np.float32([[1.0, -1.0]])})
    assert found.target == "h[argmax]"
    assert "softmax" in found.said
    assert found.weights[0].norm > 0


def test_half_precision() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float16[N, 2] x) => (float16[N, 2] y)
        <float16[2, 2] w = {1, 2, 3, 4}> {h = MatMul(x, w) a = Tanh(h) y = Add(a, h)}"""
    )
    found = flow(model, {"x": np.float16([[0.1, 0.2], [0.3, 0.4]])})
    assert found.gradients is not None
    assert found.gradients.weights[0].norm > 0
    assert found.paths is not None


def test_the_data_holds_what_the_picture_shows() -> None:
    found = flow(make_small_cnn(), {"x": pictures()}, batch=2)
    arrays, manifest = flow_data(found)
    assert found.gradients is not None
    told = manifest["gradients"]
    assert told["target"] == "y[argmax]"
    assert arrays["gradients/quantiles"].shape == (len(manifest["layers"]), 7)
    assert arrays["weight_gradients/norm"].shape == (len(told["weights"]),)
    assert arrays["weight_gradients/channel_norms/0"].shape == (2,)
    place = [one["name"] for one in told["layers"]].index("c")
    assert arrays[f"channel_gradients/quantiles/{place}"].shape == (2, 7)
    assert dataclasses.asdict(found.thresholds)["gradient_vanishing"] == 1e-3


def test_the_notebook_table_escapes_names() -> None:
    model = make_small_cnn()
    for node in model.graph:
        node.name = f"<script>{node.op_type}" + "x" * 10_000
    text = statistics(model, {"x": pictures()})._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;Conv" in text
    assert "Gradients of each sample&#x27;s largest class in &#x27;y&#x27;, 6 samples" in text
    assert len(text) < 20_000


def test_recurrent_weights_have_a_norm_a_unit_of_each_gate(models: Path) -> None:
    found = statistics(open_model(models / "signal_cnn_lstm.onnx"), str(models / "samples" / "signals"))
    recurrent = [one for one in found.weights if one.role == "recurrence"]
    assert len(recurrent) == 1
    one = recurrent[0]
    assert one.outputs == one.gradient.shape[0] * one.gradient.shape[1]
    assert np.sqrt((one.channel_norms**2).sum()) == pytest.approx(one.norm)
    assert one.noise is not None


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "picture", "target"),
    [
        ("classifier/SqueezeNet_fp32", "skimage_chelsea.png", None),
        ("generated/hf_segformer_mini_dynamo", None, None),
        ("generated/hf_clip_vision_mini_dynamo", None, "max(layer_norm_9)"),
    ],
)
def test_real_nets_that_are_fine_are_not_said_to_vanish_or_explode(
    corpus: Path, name: str, picture: str | None, target: str | None
) -> None:
    feeds = None if picture is None else str(corpus / "images" / picture)
    found = onnxviz.flow_numbers(
        corpus / "models" / f"{name}.onnx", feeds, on="gradients", target=target, providers="cpu"
    )
    assert found.gradients is not None
    assert len(found.gradients.layers) > 50
    assert not kinds(found) & {"vanishing", "exploding", "not finite", "zero"}


@pytest.mark.corpus
def test_an_untrained_net_without_normalisation_vanishes(corpus: Path) -> None:
    model = corpus / "models" / "generated" / "tv_mobilenet_v3_small_dynamo_op23.onnx"
    found = onnxviz.flow_numbers(model, str(corpus / "images" / "skimage_chelsea.png"), on="gradients", providers="cpu")
    assert "vanishing" in kinds(found)


@pytest.mark.corpus
def test_a_model_that_computes_in_codes_is_refused_with_a_way_out(corpus: Path) -> None:
    with pytest.raises(GradientError, match="model in floats") as caught:
        onnxviz.gradient_statistics(corpus / "models" / "generated" / "ort_resnet18_int8_qoperator.onnx")
    assert "cut at QuantizeLinear" in str(caught.value)


def test_gradients_of_weights_that_are_not_finite_are_told() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] a = {1, 2, 3, 4}, float[2, 2] b = {1, 0, 0, 1}> { h = MatMul(x, a) r = Sqrt(h) y = MatMul(r, b) }"""
    )
    feeds = {"x": np.float32([[0, 0], [1, 1]])}
    found = onnxviz.gradient_statistics(model, feeds, target="sum(y)", providers="cpu")
    shares = {one.tensor: one.not_finite for one in found.weights}
    assert shares["a"] > 0
    assert shares["b"] == 0
    assert "not finite" in found._repr_html_()
    flow = onnxviz.flow_numbers(model, feeds, on="gradients", target="sum(y)", providers="cpu")
    assert any("1 of 2 learned tensors have NaN" in note for note in flow.notes)
