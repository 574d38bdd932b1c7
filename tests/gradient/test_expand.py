"""Nodes that are taken apart: what comes of them is what onnxruntime's own kernels give, and has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.expand import expand
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.registry import standard_table
from onnxviz.graph.model import to_proto
from tests.gradient.test_engine import run

RNG = np.random.default_rng(5)
HEAD = '<ir_version: 10, opset_import: ["": %d, "com.microsoft": 1]> g '


def session(model: Any) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    proto = model if isinstance(model, onnx.ModelProto) else to_proto(model)
    return ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


B, L, K, N, D = 2, 5, 7, 2, 8  # batch, queries, keys, heads, width
QKV = {"q": floats(B, L, D), "k": floats(B, K, D), "v": floats(B, K, D)}
LONG = "float[2, 5, 8] q, float[2, 7, 8] k, float[2, 7, 8] v"

FUSED: dict[str, tuple[str, str, dict[str, np.ndarray]]] = {
    "Gelu": ("float[3, 4] x", "y = com.microsoft.Gelu(x)", {"x": floats(3, 4)}),
    "BiasGelu": ("float[3, 4] x, float[4] b", "y = com.microsoft.BiasGelu(x, b)", {"x": floats(3, 4), "b": floats(4)}),
    "FastGelu": ("float[3, 4] x", "y = com.microsoft.FastGelu(x)", {"x": floats(3, 4)}),
    "FastGelu with bias": (
        "float[3, 4] x, float[4] b", "y = com.microsoft.FastGelu(x, b)", {"x": floats(3, 4), "b": floats(4)},
    ),
    "QuickGelu": ("float[3, 4] x", "y = com.microsoft.QuickGelu<alpha = 1.3>(x)", {"x": floats(3, 4)}),
    "BiasSoftmax": (
        "float[2, 3, 4] x, float[2, 1, 4] b",
        "y = com.microsoft.BiasSoftmax<axis = 2, is_inner_broadcast = 0>(x, b)",
        {"x": floats(2, 3, 4), "b": floats(2, 1, 4)},
    ),
    "FusedMatMul": (
        "float[2, 4, 3] a, float[2, 5, 4] b",
        "y = com.microsoft.FusedMatMul<alpha = 0.5, transA = 1, transB = 1>(a, b)",
        {"a": floats(2, 4, 3), "b": floats(2, 5, 4)},
    ),
    "FusedMatMul over a batch": (
        "float[4, 2, 3, 5] a, float[2, 3, 5, 6] b",
        "y = com.microsoft.FusedMatMul<transBatchA = 1>(a, b)",
        {"a": floats(4, 2, 3, 5), "b": floats(2, 3, 5, 6)},
    ),
    "FusedGemm": (
        "float[4, 3] a, float[4, 5] b, float[5] c",
        'y = com.microsoft.FusedGemm<alpha = 0.5, transA = 1, activation = "LeakyRelu", activation_alpha = 0.2>(a, b, c)',
        {"a": floats(4, 3), "b": floats(4, 5), "c": floats(5)},
    ),
    "SkipLayerNormalization": (
        "float[2, 3, 4] x, float[2, 3, 4] r, float[4] g, float[4] b, float[4] c",
        "y = com.microsoft.SkipLayerNormalization<epsilon = 0.01>(x, r, g, b, c)",
        {"x": floats(2, 3, 4), "r": floats(2, 3, 4), "g": floats(4), "b": floats(4), "c": floats(4)},
    ),
    "SkipSimplifiedLayerNormalization": (
        "float[2, 3, 4] x, float[2, 3, 4] r, float[4] g",
        "y, m, i, s = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.01>(x, r, g) z = Exp(s)",
        {"x": floats(2, 3, 4), "r": floats(2, 3, 4), "g": floats(4)},
    ),
    "SimplifiedLayerNormalization": (
        "float[2, 3, 4] x, float[4] g",
        "y = SimplifiedLayerNormalization<axis = -1, epsilon = 0.01>(x, g)",
        {"x": floats(2, 3, 4), "g": floats(4)},
    ),
    "EmbedLayerNormalization": (
        "int32[2, 3] i, int32[2, 3] s, float[9, 4] w, float[6, 4] p, float[2, 4] t, float[4] g, float[4] b",
        "y, m = com.microsoft.EmbedLayerNormalization<epsilon = 0.01>(i, s, w, p, t, g, b)",
        {
            "i": RNG.integers(0, 9, (2, 3)).astype(np.int32), "s": RNG.integers(0, 2, (2, 3)).astype(np.int32),
            "w": floats(9, 4), "p": floats(6, 4), "t": floats(2, 4), "g": floats(4), "b": floats(4),
        },
    ),
    "MultiHeadAttention": (LONG, "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v)", QKV),
    "MultiHeadAttention with bias and mask": (
        f"{LONG}, float[24] b, int32[2, 7] m, float[1, 2, 5, 7] a",
        "y = com.microsoft.MultiHeadAttention<num_heads = 2, scale = 0.3>(q, k, v, b, m, a)",
        {**QKV, "b": floats(24), "m": (RNG.random((2, 7)) > 0.3).astype(np.int32), "a": floats(1, 2, 5, 7)},
    ),
    "MultiHeadAttention with past": (
        f"{LONG}, float[2, 2, 3, 4] pk, float[2, 2, 3, 4] pv",
        "y, nk, nv = com.microsoft.MultiHeadAttention<num_heads = 2, unidirectional = 1>"
        "(q, q, q, '', '', '', pk, pv)".replace("''", ""),
        {"q": QKV["q"], "pk": floats(2, 2, 3, 4), "pv": floats(2, 2, 3, 4)},
    ),
    "Attention": (
        "float[2, 5, 8] x, float[8, 24] w, float[24] b, int32[2, 5] m",
        "y = com.microsoft.Attention<num_heads = 2>(x, w, b, m)",
        {"x": QKV["q"], "w": floats(8, 24), "b": floats(24), "m": (RNG.random((2, 5)) > 0.3).astype(np.int32)},
    ),
    "Attention, causal": (
        "float[2, 5, 8] x, float[8, 24] w, float[24] b",
        "y = com.microsoft.Attention<num_heads = 2, unidirectional = 1>(x, w, b)",
        {"x": QKV["q"], "w": floats(8, 24), "b": floats(24)},
    ),
    "Attention, with lengths": (
        "float[2, 5, 8] x, float[8, 24] w, float[24] b, int32[2] m",
        "y = com.microsoft.Attention<num_heads = 2>(x, w, b, m)",
        {"x": QKV["q"], "w": floats(8, 24), "b": floats(24), "m": np.int32([3, 5])},
    ),
    "Attention, heads of other sizes": (
        "float[2, 5, 8] x, float[8, 20] w, float[20] b",
        "y = com.microsoft.Attention<num_heads = 2, qkv_hidden_sizes = [8, 8, 4]>(x, w, b)",
        {"x": QKV["q"], "w": floats(8, 20), "b": floats(20)},
    ),
    "MatMulNBits": (
        "float[M, 20] x, uint8[5, 2, 8] w, float[10] s, uint8[5] z",
        "y = com.microsoft.MatMulNBits<K = 20, N = 5, bits = 4, block_size = 16>(x, w, s, z)",
        {
            "x": floats(3, 20), "w": RNG.integers(0, 255, (5, 2, 8)).astype(np.uint8),
            "s": np.abs(floats(10)), "z": RNG.integers(0, 255, 5).astype(np.uint8),
        },
    ),
    "FusedConv": (
        "float[1, 2, 5, 5] x, float[3, 2, 3, 3] w, float[3] b",
        'y = com.microsoft.FusedConv<activation = "HardSigmoid", activation_params = [0.1, 0.4]>(x, w, b)',
        {"x": floats(1, 2, 5, 5), "w": floats(3, 2, 3, 3), "b": floats(3)},
    ),
    "NhwcFusedConv": (
        "float[1, 5, 5, 2] x, float[3, 3, 3, 2] w, float[3] b",
        'y = com.microsoft.NhwcFusedConv<pads = [1, 1, 1, 1], activation = "Relu">(x, w, b)',
        {"x": floats(1, 5, 5, 2), "w": floats(3, 3, 3, 2), "b": floats(3)},
    ),
}  # fmt: skip


def parsed(name: str, opset: int = 20) -> ir.Model:
    inputs, body, feeds = FUSED[name]
    declared = [part for part in _declarations(inputs) if part.split()[-1] in feeds]
    return ir.from_onnx_text(HEAD % opset + f"({', '.join(declared)}) => (float[Y] y) {{{body}}}")


def _declarations(inputs: str) -> list[str]:
    found, depth, start = [], 0, 0
    for place, letter in enumerate(inputs + ","):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            found.append(inputs[start:place].strip())
            start = place + 1
    return found


def unshaped(model: ir.Model) -> ir.Model:
    for value in model.graph.outputs:
        value.shape = None
    return model


@pytest.mark.parametrize("name", list(FUSED))
@pytest.mark.parametrize("opset", [18, 20])
def test_fused_operators_are_what_their_kernels_compute(name: str, opset: int) -> None:
    model, feeds = unshaped(parsed(name, opset)), FUSED[name][2]
    wrt = [key for key, array in feeds.items() if array.dtype == np.float32]
    made = expand(prepare(model), standard_table(), "y", wrt)
    left = {node.op_type for node in made.graph if node.domain == "com.microsoft"} - {"Gelu", "MatMulNBits"}
    assert not left
    expected = None
    if not name.startswith(("Nhwc", "BiasSoftmax")):  # those kernels are a GPU's
        expected = session(model).run(["y"], feeds)[0]
        np.testing.assert_allclose(session(made).run(["y"], feeds)[0], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", [n for n in FUSED if n != "MatMulNBits"])
def test_fused_operators_have_gradients(name: str) -> None:
    model, feeds = unshaped(parsed(name)), FUSED[name][2]
    wrt = [key for key, array in feeds.items() if array.dtype == np.float32][:2]
    try:
        made = gradient_model(model, "y", wrt)
    except GradientError as error:
        pytest.skip(f"{error}")
    forward = session(to_proto(expand(prepare(model), standard_table(), "y", wrt)))
    base = forward.run(["y"], feeds)[0]
    seed = floats(*base.shape)
    found = run(made, {**feeds, "y.grad": seed})
    for key in wrt:
        v, h = floats(*feeds[key].shape), np.float32(1e-2)
        slopes = []
        for step in (h, h / 2):
            ahead, behind = (
                forward.run(["y"], {**feeds, key: feeds[key] + sign * step * v})[0].astype(np.float64)
                for sign in (1, -1)
            )
            slopes.append(((ahead - behind) * seed).sum() / (2 * step))
        measured = (4 * slopes[1] - slopes[0]) / 3
        terms = found[f"{key}.grad"].astype(np.float64) * v
        assert abs(terms.sum() - measured) < 2e-3 * np.abs(terms).sum()


def test_weights_of_few_bits_give_the_gradient_of_the_unpacked_product() -> None:
    model, feeds = parsed("MatMulNBits"), FUSED["MatMulNBits"][2]
    model.graph.outputs[0].shape = ir.Shape(["M", 5])
    unpacked = session(model).run(["y"], {**feeds, "x": np.eye(20, dtype=np.float32)})[0]
    seed = floats(3, 5)
    found = run(gradient_model(model, "y", ["x"]), {**feeds, "y.grad": seed})["x.grad"]
    np.testing.assert_allclose(found, seed @ unpacked.T, rtol=1e-4, atol=1e-4)


def test_a_function_body_stands_for_its_node_and_keeps_its_names() -> None:
    text = HEAD % 24 + (
        "(float[2, 3, 4, 8] q, float[2, 3, 6, 8] k) => (float[2, 3, 4, 8] y)"
        "{h = Mul(q, q) y = Attention<is_causal = 1>(h, k, k)}"
    )
    model = ir.from_onnx_text(text)
    made = expand(prepare(model), standard_table(), "y", ["q"])
    assert [v.name for v in (*made.graph.inputs, *made.graph.outputs)] == ["q", "k", "y"]
    assert all(str(node.name).startswith("y.") for node in made.graph if node.op_type == "Softmax")
    assert "onnxviz.expanded" not in made.opset_imports
    feeds = {"q": floats(2, 3, 4, 8), "k": floats(2, 3, 6, 8)}
    np.testing.assert_allclose(
        session(made).run(["y"], feeds)[0], session(model).run(["y"], feeds)[0], rtol=1e-4, atol=1e-5
    )


def test_only_what_lies_on_the_path_is_taken_apart() -> None:
    text = HEAD % 20 + (
        "(float[4] x, float[4] w) => (float[4] y)"
        "{a = com.microsoft.QuickGelu(w) b = Mul(x, a) c = com.microsoft.QuickGelu(b) y = Neg(c)}"
    )
    made = expand(prepare(ir.from_onnx_text(text)), standard_table(), "y", ["b"])
    assert [node.op_type for node in made.graph].count("QuickGelu") == 1
    assert "c" in {value.name for node in made.graph for value in node.outputs}


def test_sequences_of_known_length() -> None:
    text = HEAD % 18 + (
        "(float[6, 2] x, float[2, 2] w) => (float[N, 2] y) <int64 one = {1}, int64 two = {2}>"
        "{s = SplitToSequence<axis = 0>(x, two) t = SequenceInsert(s, w, one) u = SequenceErase(t)"
        " a = SequenceAt(u, one) b = ConcatFromSequence<axis = 0>(u) c = Concat<axis = 0>(a, b) y = Mul(c, c)}"
    )
    feeds = {"x": floats(6, 2), "w": floats(2, 2)}
    made = gradient_model(ir.from_onnx_text(text), "y")
    forward = session(ir.from_onnx_text(text)).run(["y"], feeds)[0]
    found = run(made, {**feeds, "y.grad": np.ones_like(forward)})
    x, w = feeds["x"], feeds["w"]
    np.testing.assert_allclose(found["w.grad"], 4 * w, rtol=1e-5)
    np.testing.assert_allclose(found["x.grad"], np.concatenate([2 * x[:4], 0 * x[4:]]), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 2>(x, x, x)", "GroupQueryAttention"),
        ("y = com.microsoft.Attention<num_heads = 2, do_rotary = 1>(x, x)", "it is rotary"),
        ('y = com.microsoft.FusedGemm<activation = "Odd">(x, x)', "its activation is Odd"),
        ("s = SequenceConstruct(x, x) y = SequenceAt(s, i)", "known at run time only"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_by_name(body: str, message: str) -> None:
    text = HEAD % 20 + f"(float[4, 12] x, int64 i) => (float[A, B] y) {{{body}}}"
    with pytest.raises(GradientError, match=message):
        gradient_model(ir.from_onnx_text(text), "y", ["x"])


def test_quantisation_passes_on_request_and_is_named_otherwise() -> None:
    text = HEAD % 20 + (
        "(float[2, 3] x, float[3] s) => (float[3, 2] y) <uint8[3] z = {3, 0, 128}>"
        "{q = QuantizeLinear<axis = 1>(x, s, z) t = Transpose<perm = [1, 0]>(q)"
        " d = DequantizeLinear<axis = 0>(t, s, z) y = Mul(d, d)}"
    )
    model = ir.from_onnx_text(text)
    with pytest.raises(GradientError, match="QuantizeLinear-19 at 'q': it rounds to integers; straight-through"):
        gradient_model(model, "y", ["x"])
    made = gradient_model(model, "y", ["x", "s"], straight_through=True)
    scales = np.float32([0.1, 0.5, 0.01])
    x = np.float32([[1, 40, 3], [-5, -3, -1]])  # within the range: 1, 40, and -1
    ones = np.ones((3, 2), np.float32)
    found = run(made, {"x": x, "s": scales, "y.grad": ones})
    inside = np.array([[1, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(found["x.grad"], 2 * x * inside, rtol=1e-4)
    low, high = -np.float32([3, 0, 128]), 255 - np.float32([3, 0, 128])
    steps = np.clip(np.rint(x / scales), low, high)
    np.testing.assert_allclose(found["s.grad"], (2 * steps**2 * scales).sum(0), rtol=1e-4)


def test_the_scale_of_blocks_has_a_gradient() -> None:
    text = HEAD % 21 + (
        "(float[2, 2] s) => (float[2, 5] y) <int8[2, 5] w = {1, 2, 3, 4, 5, -1, -2, -3, -4, -5}>"
        "{y = DequantizeLinear<axis = 1, block_size = 3>(w, s)}"
    )
    found = run(
        gradient_model(ir.from_onnx_text(text), "y"), {"s": floats(2, 2), "y.grad": np.ones((2, 5), np.float32)}
    )
    assert found["s.grad"].tolist() == [[6, 9], [-6, -9]]
