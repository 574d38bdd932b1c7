"""Weights: found by their operators, followed through constants, dequantised as the runtime computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import ModelError
from onnxviz.graph.io import open_model

RNG = np.random.default_rng(0)


def build(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: dict[str, tuple[int, Any]],
    outputs: dict[str, tuple[int, Any]],
    opset: int = 21,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [helper.make_tensor_value_info(name, *info) for name, info in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # else weights are requantised
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def find(model: onnx.ModelProto | ir.Model, role: str = "weight") -> LayerWeights:
    loaded = model if isinstance(model, ir.Model) else ir.from_proto(model)
    (found,) = [lw for lw in layer_weights(loaded) if lw.role == role]
    return found


FLOAT = TensorProto.FLOAT


def linear(op: str, weight: np.ndarray, *, first: bool = False, **attributes: Any) -> onnx.ModelProto:
    """A linear layer whose input is the identity, so that its output is the weight as (in, out)."""
    names = ["w", "x"] if first else ["x", "w"]
    domain = "com.microsoft" if op == "FusedMatMul" else ""
    node = helper.make_node(op, names, ["y"], name="fc", domain=domain, **attributes)
    return build([node], {"w": weight}, {"x": (FLOAT, [4, 4])}, {"y": (FLOAT, [None, None])})


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("MatMul", (4, 3), {}),
        ("Gemm", (4, 3), {}),
        ("Gemm", (3, 4), {"transB": 1}),
        ("FusedMatMul", (3, 4), {"transB": 1}),
    ],
)
def test_linear_layers_are_out_in(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    weight = RNG.normal(size=shape).astype(np.float32)
    model = linear(op, weight, **attributes)
    lw = find(model)
    np.testing.assert_allclose(lw.kernel, run(model, x=np.eye(4, dtype=np.float32)).T)
    assert (lw.layer, lw.op_type, lw.orientation, lw.shape) == ("fc", op, "(out, in)", shape)
    assert lw.parameters == 12


@pytest.mark.parametrize(("shape", "attributes"), [((3, 4), {}), ((4, 3), {"transA": 1})])
def test_a_weight_may_be_the_first_factor(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    weight = RNG.normal(size=shape).astype(np.float32)
    model = linear("Gemm", weight, first=True, **attributes)
    np.testing.assert_allclose(find(model).kernel, run(model, x=np.eye(4, dtype=np.float32)))


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_is_turned_output_first(groups: int) -> None:
    weight = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)  # (in, out / groups, kH, kW)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups)
    model = build([node], {"w": weight}, {"x": (FLOAT, [1, 4, 1, 1])}, {"y": (FLOAT, [1, None, 2, 2])})
    kernel = find(model).kernel
    assert kernel.shape == (3 * groups, 4 // groups, 2, 2)
    for channel in range(4):  # an impulse in one input channel writes its kernels into the output
        x = np.zeros((1, 4, 1, 1), np.float32)
        x[0, channel] = 1
        group, inside = divmod(channel, 4 // groups)
        got = run(model, x=x)[0, group * 3 : (group + 1) * 3]
        np.testing.assert_allclose(got, kernel[group * 3 : (group + 1) * 3, inside])
    plain = weight.swapaxes(0, 1)
    assert (plain.shape == kernel.shape and np.array_equal(plain, kernel)) is (groups == 1)  # the naive turn is caught


def dequantised(array: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, **attributes: Any) -> onnx.ModelProto:
    weights = {"q": array, "s": scale} | ({} if zero is None else {"z": zero})
    nodes = [
        helper.make_node("DequantizeLinear", list(weights), ["w"], **attributes),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    return build(nodes, weights, {"x": (FLOAT, [array.shape[1]] * 2)}, {"y": (FLOAT, [None, None])})


@pytest.mark.parametrize(
    ("scale", "zero", "attributes", "text"),
    [
        (np.float32(0.1), np.int8(3), {}, "int8, one scale"),
        (RNG.random(6).astype(np.float32), None, {"axis": 0}, "int8, a scale per channel (6)"),
        (RNG.random(8).astype(np.float32), RNG.integers(-9, 9, 8).astype(np.int8), {"axis": -1}, "channel (8)"),
        (RNG.random((6, 2)).astype(np.float32), None, {"axis": 1, "block_size": 4}, "int8, a scale per block of 4"),
    ],
)
def test_weights_behind_dequantize_linear(
    scale: np.ndarray, zero: np.ndarray | None, attributes: dict[str, Any], text: str
) -> None:
    stored = RNG.integers(-128, 128, (6, 8)).astype(np.int8)
    model = dequantised(stored, np.asarray(scale), None if zero is None else np.asarray(zero), **attributes)
    lw = find(model)
    np.testing.assert_array_equal(lw.kernel, run(model, x=np.eye(8, dtype=np.float32)).T)
    np.testing.assert_array_equal(lw.raw, stored)
    assert (lw.dtype, lw.tensor, lw.steps) == ("int8", "q", ("DequantizeLinear", "Transpose"))
    assert lw.quantization is not None
    assert text in lw.quantization


def test_the_oracle_notices_a_forgotten_zero_point() -> None:
    stored = RNG.integers(-128, 128, (6, 8)).astype(np.int8)
    model = dequantised(stored, np.asarray(np.float32(0.1)), np.asarray(np.int8(3)))
    without = dequantised(stored, np.asarray(np.float32(0.1)), None)
    assert not np.array_equal(find(without).kernel, run(model, x=np.eye(8, dtype=np.float32)).T)


def test_fake_quantisation_rounds_and_saturates() -> None:
    weight = np.array([[0.04, 0.06], [99.0, -99.0]], np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    weights: dict[str, Any] = {"w": weight, "s": np.array(0.1, np.float32), "z": np.array(1, np.int8)}
    model = build(nodes, weights, {"x": (FLOAT, [2, 2])}, {"y": (FLOAT, [2, 2])})
    np.testing.assert_array_equal(find(model).kernel.T, run(model, x=np.eye(2, dtype=np.float32)))


@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv_weight_and_bias(per_channel: bool) -> None:
    channels = 3
    w_scale = RNG.random(channels).astype(np.float32) if per_channel else np.array(0.05, np.float32)
    weights: dict[str, Any] = {
        "xs": np.array(0.02, np.float32), "xz": np.array(0, np.uint8), "w": RNG.integers(-9, 9, (3, 2, 1, 1), np.int8),
        "ws": w_scale, "wz": np.zeros(channels, np.int8) if per_channel else np.array(0, np.int8),
        "ys": np.array(1.0, np.float32), "yz": np.array(0, np.uint8), "b": np.array([100, 200, 300], np.int32),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", *weights], ["y"], name="c")
    model = build([node], weights, {"x": (TensorProto.UINT8, [1, 2, 1, 1])}, {"y": (TensorProto.UINT8, [1, 3, 1, 1])})
    expected = weights["w"].astype(np.float32) * np.reshape(w_scale, (-1, 1, 1, 1))
    np.testing.assert_allclose(find(model).kernel, expected, rtol=1e-6)
    bias = find(model, "bias")
    np.testing.assert_allclose(bias.kernel, weights["b"] * np.float32(0.02) * w_scale, rtol=1e-6)
    assert bias.dtype == "int32"


def test_qgemm_scales_run_along_the_outputs() -> None:
    weights: dict[str, Any] = {
        "as": np.array(0.5, np.float32), "az": np.array(0, np.uint8), "b": RNG.integers(-9, 9, (3, 4), np.int8),
        "bs": RNG.random(3).astype(np.float32), "bz": np.zeros(3, np.int8),
    }  # fmt: skip
    node = helper.make_node("QGemm", ["x", *weights], ["y"], domain="com.microsoft", transB=1)
    model = build([node], weights, {"x": (TensorProto.UINT8, [4, 4])}, {"y": (FLOAT, [4, 3])})
    got = run(model, x=2 * np.eye(4, dtype=np.uint8))  # 2 * 0.5 = 1: the output is the weight
    np.testing.assert_allclose(find(model).kernel, got.T, rtol=1e-6)


def test_matmul_integer_without_a_scale_says_so() -> None:
    weights = {
        "w": RNG.integers(0, 255, (4, 3)).astype(np.uint8),
        "xz": np.array(0, np.uint8),
        "wz": np.array(7, np.uint8),
    }
    node = helper.make_node("MatMulInteger", ["x", *weights], ["y"])
    model = build([node], weights, {"x": (TensorProto.UINT8, [4, 4])}, {"y": (TensorProto.INT32, [4, 3])})
    lw = find(model)
    np.testing.assert_array_equal(lw.kernel, run(model, x=np.eye(4, dtype=np.uint8)).T)
    assert lw.quantization == "uint8, scaled after the product"


@pytest.mark.parametrize("zero_points", [False, True])
def test_matmul_n_bits_is_unpacked(zero_points: bool) -> None:
    outputs, inputs, block = 5, 40, 16
    blocks = -(-inputs // block)
    weights: dict[str, Any] = {
        "w": RNG.integers(0, 256, (outputs, blocks, block // 2)).astype(np.uint8),
        "s": RNG.random(outputs * blocks).astype(np.float32),
    }
    if zero_points:
        weights["z"] = RNG.integers(0, 256, outputs * ((blocks + 1) // 2)).astype(np.uint8)
    node = helper.make_node(
        "MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", K=inputs, N=outputs, bits=4, block_size=block
    )
    model = build([node], weights, {"x": (FLOAT, [inputs, inputs])}, {"y": (FLOAT, [inputs, outputs])})
    lw = find(model)
    np.testing.assert_allclose(lw.kernel, run(model, x=np.eye(inputs, dtype=np.float32)).T, rtol=1e-3, atol=2e-2)
    assert lw.kernel.shape == (outputs, inputs)
    assert lw.quantization == "4-bit, a scale per block of 16"


def test_gates_put_together_by_concat_are_followed() -> None:
    parts = {"a": RNG.normal(size=(2, 3)), "b": RNG.normal(size=(6, 3)), "r": RNG.normal(size=(1, 8, 2))}
    weights = {name: array.astype(np.float32) for name, array in parts.items()}
    weights |= {"axes": np.array([0]), "starts": np.array([6]), "ends": np.array([-99]), "steps": np.array([-1])}
    nodes = [
        helper.make_node("Slice", ["b", "starts", "ends", "axes", "steps"], ["c"]),
        helper.make_node("Concat", ["a", "c"], ["d"], axis=0),
        helper.make_node("Unsqueeze", ["d", "axes"], ["w"]),
        helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, name="lstm"),
    ]
    model = build(nodes, weights, {"x": (FLOAT, [5, 1, 3])}, {"y": (FLOAT, [5, 1, 1, 2])})
    found = layer_weights(ir.from_proto(model))
    assert [(lw.layer, lw.role) for lw in found] == [("lstm", "weight"), ("lstm", "recurrence")]  # Concat is no layer
    expected = np.concatenate([weights["a"], weights["b"][::-1]])[None]
    np.testing.assert_array_equal(found[0].kernel, expected)
    assert (found[0].tensor, found[0].shape) == ("a + 1 more", (1, 8, 3))


def test_roles_come_from_the_operator_not_the_rank() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[1, 2, 4, 4] x, int64[3] i, float[2] free) => (float[1, 2, 4, 4] y, float[3, 5] e)
        <float[2, 1, 1, 1] w = {1, 2}, float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] m = {0, 0},
         float[2] v = {1, 1}, float[1, 2, 1, 1] mask = {1, 0}, float half = {0.5}, float[7, 5] table = {0},
         int64[4] shape = {1, 2, 4, 4}, float[4] lookup = {1, 2, 3, 4}>
        {
          c = Conv<group = 2>(x, w, free)
          n = BatchNormalization(c, s, b, m, v)
          k = Mul(n, mask)
          h = Mul(k, half)
          y = Reshape(h, shape)
          e = Gather(table, i)
          l = Gather(lookup, i)
        }"""
    )
    got = [(lw.layer, lw.tensor, lw.role) for lw in layer_weights(model)]
    assert got == [
        ("Conv_0", "w", "weight"),
        ("BatchNormalization_1", "s", "scale"),
        ("BatchNormalization_1", "b", "bias"),
        ("BatchNormalization_1", "m", "mean"),
        ("BatchNormalization_1", "v", "variance"),
        ("Mul_2", "mask", "scale"),
        ("Gather_5", "table", "embedding"),
    ]


def test_attention_of_onnx_and_of_microsoft_differ() -> None:
    weight = RNG.normal(size=(4, 12)).astype(np.float32)
    bias = np.zeros(12, np.float32)
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=2)
    model = build([node], {"w": weight, "b": bias}, {"x": (FLOAT, [1, 3, 4])}, {"y": (FLOAT, [1, 3, 4])})
    np.testing.assert_array_equal(find(model).kernel, weight.T)
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"])
    model = build([node], {"w": weight, "b": bias}, {"x": (FLOAT, [1, 3, 4])}, {"y": (FLOAT, [1, 3, 4])}, opset=23)
    assert layer_weights(ir.from_proto(model)) == []


def test_bodies_and_functions_are_searched() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 21, "local": 1]>
        g (bool c, float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}>
        {
          z = local.layer(x, w)
          [branch] y = If (c) <
            then_branch = t () => (float[2, 2] a) <float[2, 2] v = {5, 6, 7, 8}> { [inside] a = MatMul(z, v) },
            else_branch = e () => (float[2, 2] b) { b = Identity(z) }
          >
        }
        <domain: "local", opset_import: ["": 21]> layer (p, q) => (r) { r = MatMul(p, q) }"""
    )
    found = layer_weights(model)
    assert [lw.tensor for lw in found] == ["w", "v"]
    assert found[1].layer == "branch/then_branch/inside"


def test_a_shared_tensor_is_listed_for_every_user(small_cnn: ir.Model) -> None:
    roles = [(lw.layer, lw.role) for lw in layer_weights(small_cnn)]
    assert roles == [("conv1", "weight"), ("conv1", "bias"), ("fc1", "weight"), ("fc1", "bias")]
    small_cnn.graph.node(4).replace_input_with(2, small_cnn.graph.initializers["b"])
    assert [lw.tensor for lw in layer_weights(small_cnn)].count("b") == 2


def test_nothing_is_loaded_until_asked(small_cnn: ir.Model) -> None:
    def refuse() -> ir.TensorProtocol:
        raise AssertionError("loaded")

    shape = ir.Shape((2, 1, 3, 3))
    small_cnn.graph.initializers["w"].const_value = ir.LazyTensor(
        refuse, dtype=ir.DataType.FLOAT, shape=shape, name="w"
    )
    lw = layer_weights(small_cnn)[0]
    assert lw.shape == (2, 1, 3, 3)
    with pytest.raises(AssertionError, match="loaded"):
        _ = lw.kernel


def test_damaged_weights_are_told_by_name(tmp_path: Path) -> None:
    model = linear("MatMul", np.ones((4, 3), np.float32))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    opened = open_model(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    lw = layer_weights(opened)[0]
    with pytest.raises(ModelError, match="the weights w of fc cannot be read"):
        _ = lw.statistics


def test_a_chain_of_concats_that_doubles_for_ever_is_left_alone() -> None:
    nodes = [helper.make_node("Concat", [f"w{i}"] * 2, [f"w{i + 1}"], axis=0) for i in range(40)]
    nodes.append(helper.make_node("MatMul", ["x", "w40"], ["y"]))
    model = build(nodes, {"w0": np.ones((1, 1), np.float32)}, {"x": (FLOAT, [1, 1])}, {"y": (FLOAT, [1, 1])})
    assert all(lw.role != "weight" for lw in layer_weights(ir.from_proto(model)))


def test_statistics_and_histogram_are_of_the_values_computed_with() -> None:
    stored = RNG.integers(-100, 100, (6, 8)).astype(np.int8)
    lw = find(dequantised(stored, np.asarray(np.float32(0.5)), None))
    assert lw.statistics.max == stored.max() * 0.5
    assert (lw.statistics.dtype, lw.statistics.shape) == ("int8", (6, 8))
    assert lw.histogram.counts.sum() == 48


@pytest.mark.corpus
def test_real_models(corpus: Path) -> None:
    expected = {
        "classifier/cnn_mnist_pytorch.onnx": {"Conv.weight": 2, "Gemm.weight": 2},
        "classifier/mnist-8-cntk.onnx": {"Conv.weight": 2, "MatMul.weight": 1},
        "generated/ort_resnet18_int8_qoperator.onnx": {"QLinearConv.weight": 20, "QGemm.weight": 1},
        "generated/lstm_gru_dynamo.onnx": {
            "LSTM.weight": 2,
            "LSTM.recurrence": 2,
            "GRU.weight": 1,
            "Gather.embedding": 1,
        },
        "transformer/gpt2_embedlayer_one_attn_exp.onnx": {
            "Attention.weight": 1,
            "EmbedLayerNormalization.embedding": 3,
        },
    }
    for path, counts in expected.items():
        found = layer_weights(open_model(corpus / "models" / path))
        names = [f"{lw.op_type}.{lw.role}" for lw in found]
        assert {name: names.count(name) for name in counts} == counts, path
        for lw in found:
            assert np.isfinite(lw.kernel).all()


def test_tables_that_are_cut_or_spread_to_a_size_known_later_are_listed() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[1, n, 2] x, int64[1] n) => (float[1, n, 2] y)
        <float[4, 2] positions = {0}, int64[1] zero = {0}, float[1, 1, 2] token = {1, 2}, int64[3] shape = {1, 3, 2}>
        {cut = Slice(positions, zero, n) spread = Expand(token, shape) a = Add(x, cut) y = Add(a, spread)}"""
    )
    found = [(lw.op_type, lw.role, lw.tensor, lw.shape) for lw in layer_weights(model)]
    assert found == [("Slice", "parameter", "positions", (4, 2)), ("Expand", "parameter", "token", (1, 1, 2))]
