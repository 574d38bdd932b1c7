"""Guided backpropagation, deconvolutional networks and redirected gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.overrides.names import rules_table
from tests.gradient.overrides_nets import apart, carried, planted


def net(body: str, weights: str = "", inputs: str = "float[n, 4] x", domain: str = "") -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 18{domain}]> g ({inputs}) => (float[n, 4] y) {weights} {{ {body} }}"""
    )


X = np.array([[-2.0, -0.5, 0.5, 7.0]], np.float32)


def carry(model: ir.Model, rules: str, signs: list[float], x: np.ndarray = X) -> list[float]:
    model = model.clone()
    w = np.array(signs, np.float32)
    arrays, delta, _ = carried(model, rules, {"x": x, "w": w}, "sum(z)", wrt=["x"])
    assert delta is None
    return arrays[0][0].tolist()


def signed(body: str, weights: str = "", domain: str = "") -> ir.Model:
    """What comes back to y is w."""
    return net(f"{body} z = Mul(y, w)", weights, "float[n, 4] x, float[4] w", domain)


@pytest.mark.parametrize(
    ("body", "weights", "guided", "deconvnet"),
    [
        ("y = Relu(x)", "", [0, 0, 0, 1], [1, 0, 0, 1]),
        ("y = LeakyRelu<alpha = 0.5>(x)", "", [0, 0, 0, 1], [1, -0.5, -0.5, 1]),
        ("y = PRelu(x, s)", "<float[4] s = {0.5, 0.25, 0.5, 0.5}>", [0, 0, 0, 1], [1, -0.25, -0.5, 1]),
        ("y = ThresholdedRelu<alpha = 0.1>(x)", "", [0, 0, 0, 1], [1, 0, 0, 1]),
        ("y = Clip(x, l, h)", "<float l = {0}, float h = {6}>", [0, 0, 0, 0], [1, 0, 0, 1]),
        ("y = Max(x, l)", "<float[1] l = {0}>", [0, 0, 0, 1], [1, 0, 0, 1]),
        ("y = Max(l, x)", "<float[1] l = {0}>", [0, 0, 0, 1], [1, 0, 0, 1]),
        # what clips, but not from 0, is no rectifier
        ("y = Clip(x, l, h)", "<float l = {-1}, float h = {6}>", [0, -1, -1, 0], [0, -1, -1, 0]),
    ],
)
def test_what_comes_back_is_rectified(body: str, weights: str, guided: list[float], deconvnet: list[float]) -> None:
    signs = [1.0, -1.0, -1.0, 1.0]
    assert carry(signed(body, weights), "guided", signs) == guided
    assert carry(signed(body, weights), "deconvnet", signs) == deconvnet


def test_a_dead_rectifier_lets_through_what_may_revive_it() -> None:
    """lucid's rule, for a target that is maximised: what would push further out of range is stopped."""
    dead, model = np.array([[-2.0, -0.5, -1.0, -3.0]], np.float32), signed("y = Relu(x)")
    assert carry(model, "redirected", [1, -1, 2, -2], dead) == [1, 0, 2, 0]
    assert carry(model, "redirected", [1, -1, 2, -2]) == [0, 0, 2, -2]  # something gets through: the true gradient
    six = signed("y = Clip(x, l, h)", "<float l = {0}, float h = {6}>")
    out = np.array([[-2.0, -0.5, 8.0, 9.0]], np.float32)
    assert carry(six, "redirected", [1, -1, 2, -2], out) == [1, 0, 0, -2]


def test_redirection_looks_at_each_sample() -> None:
    x = np.array([[-2.0, -0.5, -1.0, -3.0], [-2.0, -0.5, 1.0, -3.0]], np.float32)
    arrays, _, _ = carried(
        signed("y = Relu(x)"), "redirected", {"x": x, "w": np.ones(4, np.float32)}, "sum(z)", wrt=["x"]
    )
    assert arrays[0].tolist() == [[1, 1, 1, 1], [0, 0, 1, 0]]


@pytest.mark.parametrize("rules", ["guided", "deconvnet", "redirected"])
def test_smooth_activations_keep_their_gradient_and_say_so(rules: str) -> None:
    model = signed("y = Elu(x)")
    feeds = {"x": X, "w": np.array([1, -1, -1, 1], np.float32)}
    true, _, _ = carried(model, "gradient", feeds, "sum(z)", wrt=["x"])
    ours, _, made = carried(model, rules, feeds, "sum(z)", wrt=["x"])
    assert np.array_equal(true[0], ours[0])
    assert len(made.notes) == 2  # and that no rectifier lies on the way
    assert "Elu at 'y'" in made.notes[0]
    assert made.gives == "gradient"


def test_the_rectifier_of_a_fused_convolution_is_reached() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]>
        g (float[1, 1, 4] x, float[1, 1, 4] w) => (float[1, 1, 4] z) <float[1, 1, 1] k = {2}> {
          y = com.microsoft.FusedConv<activation = "Relu">(x, k)  z = Mul(y, w) }"""
    )
    feeds = {"x": X[None], "w": np.array([[[1, -1, -1, 1]]], np.float32)}
    guided, _, _ = carried(model, "guided", feeds, "sum(z)", wrt=["x"])
    assert guided[0].ravel().tolist() == [0, 0, 0, 2]
    deconvnet, _, _ = carried(model, "deconvnet", feeds, "sum(z)", wrt=["x"])
    assert deconvnet[0].ravel().tolist() == [2, 0, 0, 2]


def test_a_rectifier_inside_a_recurrent_operator_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[3, n, 2] x, float[1, 2, 2] w, float[1, 2, 2] r)
        => (float[3, 1, n, 2] y) {{ y = RNN<hidden_size = 2, activations = ["{}"]>(x, w, r) }}"""
    carried_names = {"wrt": ["x"], "table": rules_table("guided")}
    from onnxviz.gradient.model import gradient_model

    assert gradient_model(ir.from_onnx_text(text.format("Tanh")), "y", **carried_names).gradients
    with pytest.raises(GradientError, match="its activation relu has the rule of guided backpropagation"):
        gradient_model(ir.from_onnx_text(text.format("Relu")), "y", **carried_names)


CONV_NET = """<ir_version: 8, opset_import: ["": 18]> g (float[1, 1, 4, 4] x) => (float[1, 4] y)
  <float[2] b = {-50, -75}, float[8, 4] w = {1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, -1,-1,-1,-1, -1,-1,-1,-1, -1,-1,-1,-1},
   float[2, 1, 3, 3] k = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, int64[2] s = {-1, 8}> {
  c = Conv(x, k, b) r = Relu(c) f = Reshape(r, s) d = MatMul(f, w) y = Relu(d) }"""


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ("guided", [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]),
        ("deconvnet", [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]),
    ],
)
def test_values_published_by_captum(rules: str, wanted: list[list[int]]) -> None:
    """Captum's tests of guided backpropagation and deconvolution, ``BasicModel_ConvNet_One_Conv``."""
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    model = ir.from_onnx_text(CONV_NET)
    arrays, _, _ = carried(model, rules, {"x": x}, "y[:, 0]")
    assert arrays[0][0, 0].tolist() == wanted
    wrong, _, _ = carried(model, planted(rules_table(rules), "Relu"), {"x": x}, "y[:, 0]")
    assert apart(wrong[0][0, 0], np.array(wanted)) > 1e-3


@pytest.mark.parametrize(
    "body",
    [
        "i = Constant<value = int64 {0}>() j = Constant<value = int64 {6}>() l = Cast<to = 1>(i) h = Cast<to = 1>(j)"
        " r = Clip(x, l, h)",
        "s = Shape(x) z = ConstantOfShape(s) r = Max(x, z)",
        "s = Shape(x) o = Constant<value_float = 0.0>() z = Expand(o, s) r = Max(z, x)",
    ],
)
@pytest.mark.parametrize("rules", ["guided", "deconvnet", "redirected"])
def test_a_rectifier_is_known_by_bounds_that_are_cast_or_enlarged(body: str, rules: str) -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1, 4] x) => (float[1, 4] y)
        <float[1, 4] c = {{1, -1, 1, -1}}> {{ {} y = Mul(r, c) }}"""
    feeds = {"x": np.array([[2, 2, -1, -1]], np.float32)}
    found, _, made = carried(ir.from_onnx_text(text.format(body)), rules, feeds, "sum(y)")
    wanted, _, _ = carried(ir.from_onnx_text(text.format("r = Relu(x)")), rules, feeds, "sum(y)")
    np.testing.assert_array_equal(found[0], wanted[0])
    assert not made.notes


@pytest.mark.parametrize("rules", ["guided", "deconvnet", "redirected"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y = Tanh(x)", "no rectifier lies on the way"),
        ("l = ReduceMin<keepdims = 0>(x) y = Clip(x, l)", "its lower bound is computed"),
    ],
)
def test_what_is_the_true_gradient_is_said_to_be(body: str, said: str, rules: str) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1, 4] x) => (float[1, 4] y) {{ {body} }}"""
    )
    _, _, made = carried(model, rules, {"x": np.zeros((1, 4), np.float32)}, "sum(y)")
    assert any(said in note for note in made.notes)
