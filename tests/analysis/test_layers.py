from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.layers import layer_feature_maps, select_weights
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import SelectionError
from onnxviz.runtime.capture import capture
from onnxviz.runtime.record import Capture

PICTURE = np.random.default_rng(3).standard_normal((1, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def captured(small_cnn: ir.Model) -> Capture:
    return capture(small_cnn, {"x": PICTURE}, providers="cpu")


def model(text: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')


def run(text: str, **feeds: np.ndarray) -> tuple[ir.Model, Capture]:
    opened = model(text)
    return opened, capture(opened, feeds, providers="cpu")


def test_layers_and_outputs_have_maps_in_the_models_order(small_cnn: ir.Model, captured: Capture) -> None:
    maps = layer_feature_maps(small_cnn, captured)
    assert [(fm.name, fm.kind) for fm in maps] == [("c", "grid"), ("r", "grid"), ("p", "grid"), ("y", "vector")]


def test_every_tensor_where_it_is_asked_for(small_cnn: ir.Model, captured: Capture) -> None:
    assert [fm.name for fm in layer_feature_maps(small_cnn, captured, every=True)] == ["c", "r", "p", "f", "y"]


def test_a_model_without_layers_shows_all_it_has() -> None:
    maps = layer_feature_maps(
        *run("g (float[1, 4] x) => (float[1, 4] z) {y = Neg(x) z = Abs(y)}", x=np.ones((1, 4), np.float32))
    )
    assert [fm.name for fm in maps] == ["y", "z"]


def test_an_output_that_no_layer_makes_is_among_the_layers() -> None:
    text = "g (float[1, 4] x) => (float[1, 4] z) {a = Relu(x) b = Neg(a) z = Abs(b)}"
    assert [fm.name for fm in layer_feature_maps(*run(text, x=np.ones((1, 4), np.float32)))] == ["a", "z"]


def test_top_and_score_reach_the_maps(small_cnn: ir.Model, captured: Capture) -> None:
    first = layer_feature_maps(small_cnn, captured, top=1, by="index")[0]
    assert first.channels == (0,)
    np.testing.assert_array_equal(first.maps[0], captured["c"].array[0, 0])


def test_channels_last_is_known_from_the_graph() -> None:
    text = """g (float[1, 6, 5, 2] x) => (float[1, 6, 5, 3] y) <float[3, 2, 1, 1] w = {1, 0, 0, 1, 1, 1}>
    {t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv(t, w) u = Transpose<perm = [0, 2, 3, 1]>(c) y = Relu(u)}"""
    maps = {fm.name: fm for fm in layer_feature_maps(*run(text, x=np.ones((1, 6, 5, 2), np.float32)))}
    assert (maps["c"].total, maps["y"].total) == (3, 3)
    assert maps["y"].maps.shape == (3, 6, 5)


def test_tensors_inside_functions_keep_their_layout() -> None:
    opened = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {y = local.twice(x)}
        <domain: "local", opset_import: ["": 17]> twice (a) => (b) {m = Relu(a) b = MaxPool<kernel_shape = [1, 1]>(m)}"""
    )
    maps = layer_feature_maps(opened, capture(opened, {"x": np.ones((1, 2, 4, 4), np.float32)}, providers="cpu"))
    assert [fm.total for fm in maps] == [2, 2]


def test_a_layer_that_cannot_be_drawn_does_not_hide_the_others() -> None:
    text = """g (float[1, 4] x, float[1, 1, 1, 1, 1, 1, 2] many) => (float[1, 4] y, float[1, 1, 1, 1, 1, 1, 2] z)
    {y = Relu(x) z = Relu(many)}"""
    feeds = {"x": np.ones((1, 4), np.float32), "many": np.ones((1, 1, 1, 1, 1, 1, 2), np.float32)}
    assert [fm.name for fm in layer_feature_maps(*run(text, **feeds))] == ["y"]


def test_nothing_to_draw_says_why() -> None:
    opened, captured = run("g (float s) => (float y) {y = Neg(s)}", s=np.float32(1))
    with pytest.raises(SelectionError, match="y is a scalar"):
        layer_feature_maps(opened, captured)
    with pytest.raises(SelectionError, match="the model has no tensors to draw"):
        layer_feature_maps(opened, Capture({}, (), "g", ("cpu",)))


def names(chosen: list[LayerWeights]) -> list[tuple[str, str]]:
    return [(lw.layer, lw.role) for lw in chosen]


def test_weights_by_default_are_kernels_and_matrices(small_cnn: ir.Model) -> None:
    assert names(select_weights(layer_weights(small_cnn))) == [("conv1", "weight"), ("fc1", "weight")]


def test_a_model_of_other_weights_shows_these() -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) <float[4] s = {1, 2, 3, 4}> {[scale] y = Mul(x, s)}"
    chosen = select_weights(layer_weights(model(text)))
    assert [lw.layer for lw in chosen] == ["scale"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("conv1", [("conv1", "weight"), ("conv1", "bias")]),
        ("f*", [("fc1", "weight"), ("fc1", "bias")]),
        ("w", [("conv1", "weight")]),
        ("op:Gemm", [("fc1", "weight"), ("fc1", "bias")]),
        (["fb", "w", "conv1"], [("conv1", "weight"), ("conv1", "bias"), ("fc1", "bias")]),
    ],
)
def test_weights_by_name(small_cnn: ir.Model, patterns: str | list[str], expected: list[tuple[str, str]]) -> None:
    assert names(select_weights(layer_weights(small_cnn), patterns)) == expected


def test_a_pattern_that_matches_nothing_names_the_layers(small_cnn: ir.Model) -> None:
    with pytest.raises(SelectionError, match="no weight matches 'conv9'; the layers are conv1, fc1"):
        select_weights(layer_weights(small_cnn), ["conv1", "conv9"])


def test_names_with_brackets_match_themselves(small_cnn: ir.Model) -> None:
    next(iter(small_cnn.graph)).name = "block[0].conv"
    assert names(select_weights(layer_weights(small_cnn), "block[0].conv"))[0] == ("block[0].conv", "weight")


def test_no_weights_at_all() -> None:
    with pytest.raises(SelectionError, match="the model has no weights; it may take them as inputs"):
        select_weights([])
