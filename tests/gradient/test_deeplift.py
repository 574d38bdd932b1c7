"""DeepLIFT: published values, completeness, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.overrides.names import rules_table
from tests.gradient.overrides_nets import LIMIT, apart, carried, planted


def net(body: str, weights: str = "", opset: int = 18, rank: str = "n, 4", out: str = "n, 4") -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": {opset}]> g (float[{rank}] x) => (float[{out}] y) {weights} {{ {body} }}"""
    )


RELU = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 1] a, float[n, 1] b) => (float[n, 1] y)
  <float two = {2}, float c = {1.5}> { p = Relu(a) l = Mul(p, two) d = Sub(b, c) q = Relu(d) r = Mul(q, two) y = Add(l, r) }"""
LINEAR_RELU = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] a, float[n, 3] b) => (float[n, 1] y)
  <float[3, 1] u = {3, 1, 0}, float[3, 1] v = {2, 3, 0}, float[2, 1] w = {1, 1}> {
    p = Gemm(a, u) q = Gemm(b, v) c = Concat<axis = 1>(p, q) r = Relu(c) y = Gemm(r, w) }"""
POOL = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 1, 4] x) => (float[n, 1, 1] y) {
    y = MaxPool<kernel_shape = [4], strides = [4]>(x) }"""


def test_values_published_by_captum() -> None:
    """``test_deeplift_basic.py``: rectifiers, and pooling whose largest element moves."""
    x = np.array([[-10, 1, -5]], np.float32)
    feeds = {"a": x, "b": -2 * x[:, [1, 1, 1]], "a.baseline": np.zeros((1, 3), np.float32)}
    arrays, delta, made = carried(ir.from_onnx_text(LINEAR_RELU), "deeplift", feeds, "y[:, 0]")
    assert made.baselines == {"a": "a.baseline", "b": "b.baseline"}
    assert made.gives == "contribution"
    assert arrays[0].tolist() == [[0, 0, 0]]
    assert delta is not None
    assert delta.tolist() == [0]
    pooled = ir.from_onnx_text(POOL)
    for given, baseline, wanted in (([1, 2, 3, 9], [0, 1, 7, 17], [0, 0, 0, -8]), ([1, 2, 3, 9], [0, 9, 17, 8], None)):
        fed = {"x": np.array([[given]], np.float32), "x.baseline": np.array([[baseline]], np.float32)}
        arrays, delta, _ = carried(pooled, "deeplift", fed, "sum(y)")
        assert delta is not None
        np.testing.assert_allclose(delta, 0, atol=1e-5)
        if wanted is not None:
            np.testing.assert_allclose(arrays[0][0, 0], wanted)
            wrong, _, _ = carried(pooled, planted(rules_table("deeplift"), "MaxPool"), fed, "sum(y)")
            assert apart(wrong[0][0, 0], np.array(wanted)) > 5 * LIMIT
    fed = {"x": np.array([[[0, 0, 0, 0]]], np.float32), "x.baseline": np.array([[[0, 7, 0, 0]]], np.float32)}
    arrays, _, _ = carried(pooled, "deeplift", fed, "sum(y)")
    np.testing.assert_allclose(arrays[0][0, 0], [0, -7, 0, 0])


def test_the_rescale_rule_by_hand() -> None:
    """``2 relu(a) + 2 relu(b - 1.5)`` from (-1, 0) to (3, 4): Δ = 6 and 5, whatever the gradients are."""
    feeds: dict[str, Any] = {"a": [[3]], "b": [[4]], "a.baseline": [[-1]], "b.baseline": [[0]]}
    feeds = {name: np.array(given, np.float32) for name, given in feeds.items()}
    (a, b), delta, _ = carried(ir.from_onnx_text(RELU), "deeplift", feeds, "y[:, 0]")
    assert (a.tolist(), b.tolist()) == ([[6]], [[5]])
    assert delta is not None
    assert delta.tolist() == [0]


@pytest.mark.parametrize(
    ("body", "weights", "opset"),
    [
        ("a = Sigmoid(x) y = Mul(a, x)", "", 18),
        ("y = Mul(x, x)", "", 18),
        ("a = Exp(x) b = Mul(x, x) c = Add(b, o) y = Div(a, c)", "<float o = {1}>", 18),
        ("y = Pow(x, p)", "<float p = {3}>", 18),
        ("y = Max(x, o)", "<float o = {0.25}>", 18),
        ("a = Tanh(x) y = Max(x, a)", "", 18),
        ("a = Neg(x) y = Min(x, a)", "", 18),
        ("y = Clip(x, l, h)", "<float l = {-0.5}, float h = {0.5}>", 18),
        ("a = ReduceMax<keepdims = 1>(x, k) y = Sub(x, a)", "<int64[1] k = {1}>", 18),
        ("a = ReduceMin<keepdims = 1>(x, k) y = Sub(x, a)", "<int64[1] k = {1}>", 18),
        ("a = Softmax(x) y = Mul(a, x)", "", 18),
        ("a = LogSoftmax(x) y = Mul(a, x)", "", 18),
        ("a = LayerNormalization(x, s) y = Mul(a, x)", "<float[4] s = {1, 2, -1, 0.5}>", 18),
        ("y = Gelu(x)", "", 20),
        ("y = HardSwish(x)", "", 18),
        ("y = PRelu(x, s)", "<float[4] s = {1, 2, -1, 0.5}>", 18),
        ("a = Unsqueeze(x, k) t = Transpose<perm = [0, 2, 1]>(a) p = MatMul(t, a) e = Exp(p) y = ReduceSum<keepdims=0>(e, k)",
         "<int64[1] k = {1}>", 18),
        ("a = Unsqueeze(x, k) t = Einsum<equation = \"bij,bik->bjk\">(a, a) y = ReduceSum<keepdims=0>(t, k)",
         "<int64[1] k = {1}>", 18),
        ("a = Reshape(x, f) n = InstanceNormalization(a, s, b) t = Tanh(n) y = Reshape(t, g)",
         "<int64[3] f = {-1, 2, 2}, int64[2] g = {-1, 4}, float[2] s = {1, 2}, float[2] b = {0.5, 1}>", 18),
    ],
)  # fmt: skip
def test_contributions_add_up_to_the_difference(body: str, weights: str, opset: int) -> None:
    rng = np.random.default_rng(3)
    feeds = {name: rng.normal(0, 0.5, (3, 4)).astype(np.float32) for name in ("x", "x.baseline")}
    model = net(body, weights, opset)
    import onnxruntime as ort

    from onnxviz.graph.model import to_proto

    session = ort.InferenceSession(to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    values = [session.run(None, {"x": feeds[name]})[0] for name in ("x", "x.baseline")]
    wanted = (values[0] - values[1]) @ np.array([1, 2, 3, 4])
    arrays, delta, _ = carried(model, "deeplift", feeds, "y[:, 0] + 2 * y[:, 1] + 3 * y[:, 2] + 4 * y[:, 3]")
    np.testing.assert_allclose(arrays[0].sum(1), wanted, rtol=LIMIT, atol=1e-5)
    np.testing.assert_allclose(delta, 0, atol=1e-4)
    none, _, _ = carried(model, "deeplift", {**feeds, "x.baseline": feeds["x"]}, "sum(y)")
    assert not none[0].any()


def test_a_planted_error_leaves_a_delta() -> None:
    feeds = {"x": np.array([[1, 2, 3, 4]], np.float32)}
    model = net("y = Tanh(x)")
    _, delta, _ = carried(model, planted(rules_table("deeplift"), "Tanh"), feeds, "sum(y)")
    assert delta is not None
    assert abs(delta[0]) > 5 * LIMIT


def test_a_target_softmax_is_normalised_as_captum_does() -> None:
    x = np.array([[1, 2, 0.5, -1]], np.float32)
    arrays, _, _ = carried(net("y = Softmax(x)"), "deeplift", {"x": x}, "y[:, 1]")
    probability = np.exp(x) / np.exp(x).sum()
    multipliers = np.where([False, True, False, False], (probability - 0.25) / x, 0)
    np.testing.assert_allclose(arrays[0], (multipliers - multipliers.mean()) * x, rtol=1e-4)


def test_baselines_broadcast_and_are_zeros_unless_fed() -> None:
    feeds = {"x": np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)}
    model = net("y = Mul(x, x)")
    zeros, _, _ = carried(model, "deeplift", feeds, "sum(y)")
    assert zeros[0].tolist() == (feeds["x"] ** 2).tolist()
    ones, _, _ = carried(model, "deeplift", {**feeds, "x.baseline": np.ones((1, 1), np.float32)}, "sum(y)")
    np.testing.assert_allclose(ones[0], feeds["x"] ** 2 - 1, rtol=1e-6)


def test_tensors_between_have_contributions_too() -> None:
    feeds = {"x": np.array([[1, 2, 3, 4]], np.float32)}
    arrays, delta, made = carried(net("h = Exp(x) y = Tanh(h)"), "deeplift", feeds, "sum(y)", wrt=["h"])
    assert made.baselines == {"x": "x.baseline"}
    np.testing.assert_allclose(arrays[0], np.tanh(np.exp(feeds["x"])) - np.tanh(1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(delta, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y = CumProd(x, k)", "no DeepLIFT rule for CumProd"),
        ("v, i = TopK(x, f) y = GatherElements<axis = 1>(x, i)", "what it does depends on the input"),
        ("c = Greater(x, h) y = Where(c, x, h)", "what it does depends on the input"),
        ("y = Dropout(x, h, t)", "no contribution of Dropout-.* it is in training"),
        ("y = Pow(x, x)", "its parameters depend on the input"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(body: str, said: str) -> None:
    weights = "<int64 k = {1}, int64[1] f = {4}, float h = {0.5}, bool t = {1}>"
    with pytest.raises(GradientError, match=said):
        carried(net(body, weights, 26), "deeplift", {"x": np.ones((1, 4), np.float32)}, "sum(y)")


def test_weights_have_no_contribution() -> None:
    with pytest.raises(GradientError, match="w has no contribution"):
        carried(net("y = Mul(x, w)", "<float[4] w = {1, 2, 3, 4}>"), "deeplift", {}, "sum(y)", wrt=["w"])


def test_many_ways_to_the_input_are_not_walked_one_by_one() -> None:
    blocks = " ".join(f"h{i + 1} = Add(h{i}, h{i})" for i in range(60))
    model = net(f"h0 = Tanh(x) {blocks} y = Tanh(h60)")
    (contribution,), _, _ = carried(model, "deeplift", {"x": np.zeros((1, 4), np.float32)}, "sum(y)", wrt=["h60"])
    assert not contribution.any()


@pytest.mark.parametrize("target", ["y[argmax]", "y[:, argmax]"])
def test_the_class_is_that_of_the_input_on_the_baseline_too(target: str) -> None:
    """The baseline's own largest class may be another one: the difference is of one class."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 2] x) => (float[n, 2] y)
        <float[2, 2] w = {1, 0, 0, 1}> { h = Relu(x) y = MatMul(h, w) }"""
    )
    feeds = {"x": np.array([[3, 1], [1, 2]], np.float32), "x.baseline": np.array([[1, 5], [4, 0]], np.float32)}
    arrays, delta, _ = carried(model, "deeplift", feeds, target)
    np.testing.assert_allclose(arrays[0], [[2, 0], [0, 2]], atol=1e-6)
    assert delta is not None
    np.testing.assert_allclose(delta, 0, atol=1e-6)
