"""Which nodes convert and what is rounded at them; where outputs that jump are compared."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.graph.conversions import CODED, code_layers, half_layers
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.smooth_outputs import smooth_outputs


def net(body: str, inputs: str = "float[2, 4] x", outputs: str = "float[2, 4] y", constants: str = "") -> ir.Model:
    text = (
        f'<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> g ({inputs}) => ({outputs}) <{constants}> {{{body}}}'
    )
    return infer_shapes(ir.from_onnx_text(text.replace("<> {", "{")))


def dtypes(model: ir.Model) -> dict[str, str]:
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    return {
        str(v.name): v.dtype.name.lower().replace("float", "float32", 1).replace("float3216", "float16")
        for v in values
        if v.dtype
    }


W = "float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, float[4] b = {1, 2, 3, 4}"


def test_moving_and_choosing_is_no_layer() -> None:
    model = net(
        "t = Transpose<perm = [1, 0]>(x) r = Relu(t) m = MatMul(r, w) y = Neg(m)", outputs="float[4, 4] y", constants=W
    )
    layers, left = half_layers(model, dtypes(model))
    assert [layer.name for layer in layers] == ["MatMul of m"]
    assert left == {}


def test_a_table_is_a_layer_for_its_numbers() -> None:
    model = net("y = Gather(w, i)", inputs="int64[2] i", constants=W)
    for find in (half_layers, code_layers):
        layers, _ = find(model, dtypes(model))
        assert [layer.op_type for layer in layers] == ["Gather"]


def test_weights_have_channels_and_biases_stay_exact() -> None:
    model = net("y = Gemm<transB = 1>(x, w, b)", constants=W)
    (layer,), _ = code_layers(model, dtypes(model))
    (change,) = layer.changes.values()
    assert (dict(change.weights), change.constants, change.inputs, change.outputs) == ({1: 0}, set(), {0}, {0})
    (layer,), _ = half_layers(model, dtypes(model))
    assert set(layer.changes[layer.nodes[0]].weights) == {1, 2}


def test_a_rectifier_is_part_of_the_layer_that_it_alone_reads() -> None:
    model = net("m = MatMul(x, w) y = Relu(m)", constants=W)
    (layer,), _ = code_layers(model, dtypes(model))
    assert ([node.op_type for node in layer.nodes], layer.tensor) == (["MatMul", "Relu"], "y")
    model = net("m = MatMul(x, w) r = Relu(m) y = Add(r, m)", constants=W)
    layers, _ = code_layers(model, dtypes(model))
    assert [[node.op_type for node in layer.nodes] for layer in layers] == [["MatMul"], ["Add"]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("h = Cast<to = 10>(x) m = Exp(h) y = Cast<to = 1>(m)", "16 bits already"),
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Exp(d)", "quantised already"),
        ("y = If(c) <then_branch = p () => (float[2, 4] u) {u = Exp(x)}, else_branch = q () => (float[2, 4] v) {v = Abs(x)}>", "control flow"),
        ("y = CumSum(x, i)", "converter keeps"),
    ],
)  # fmt: skip
def test_what_stays_says_why(body: str, reason: str) -> None:
    model = net(body, "float[2, 4] x, bool c, int64 i", constants="float s = {0.1}, uint8 z = {3}")
    layers, left = half_layers(model, dtypes(model))
    assert layers == []
    assert left
    assert all(reason in why for why in left.values()), left


def test_what_the_quantiser_leaves_says_so() -> None:
    model = net("a = Exp(x) y = MatMul(a, w)", constants=W)
    layers, left = code_layers(model, dtypes(model))
    assert [layer.name for layer in layers] == ["MatMul of y"]
    assert "quantiser leaves" in left["Exp of a"]


def test_the_sizes_of_a_resize_stay_in_float32() -> None:
    model = net(
        'y = Resize<mode = "linear">(x, , s)', "float[1, 1, 2, 2] x", "float[1, 1, 4, 4] y", "float[4] s = {1, 1, 2, 2}"
    )
    (layer,), _ = half_layers(model, dtypes(model))
    (change,) = layer.changes.values()
    assert (dict(change.weights), change.inputs) == ({}, {0})


def test_all_that_is_coded_is_known_to_onnxruntimes_quantiser() -> None:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    assert set(QDQRegistry) | set(QLinearOpsRegistry) >= CODED


def names(values: list[ir.Value]) -> list[str]:
    return [str(value.name) for value in values]


def test_a_detector_is_compared_before_it_chooses() -> None:
    model = net(
        """scores = Sigmoid(x) boxes = Exp(b)
           keep = NonMaxSuppression(boxes, scores, k) at = Gather<axis = 1>(keep, two) y = Gather<axis = 1>(boxes, at)""",
        "float[1, 3, 8] x, float[1, 8, 4] b", "float[1, n, 4] y", "int64 k = {4}, int64 two = {2}",
    )  # fmt: skip
    smooth, instead = smooth_outputs(model)
    assert smooth == []
    assert sorted(names(instead)) == ["boxes", "scores"]


def test_a_threshold_is_compared_before_it() -> None:
    model = net(
        "s = Sigmoid(x) m = Greater(s, t) i = NonZero(m) y = GatherND(s, i)",
        outputs="float[n] y",
        constants="float t = {0.5}",
    )
    assert names(smooth_outputs(model)[1]) == ["s"]


def test_places_that_follow_from_shapes_alone_do_not_jump() -> None:
    model = net(
        "n = Shape(x) o = ConstantOfShape(n) i = NonZero(o) e = Exp(x) y = GatherND(e, i)", outputs="float[n] y"
    )
    smooth, instead = smooth_outputs(model)
    assert (names(smooth), instead) == (["y"], [])
