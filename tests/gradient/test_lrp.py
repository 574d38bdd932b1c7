"""Relevance: published values, conservation, and the definitions of each rule worked out by torch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.overrides.lrp_plan import nonnegative
from onnxviz.gradient.overrides.names import rules_table
from tests.gradient.overrides_nets import LIMIT, apart, carried, exported, planted


def linear(second: str, first: str) -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 1] y)
        <float[3, 3] a = {{{first}}}, float[3, 1] b = {{{second}}}> {{
          h = Gemm(x, a) r = Relu(h) d = Dropout(r) y = Gemm(d, b) }}"""
    )


X = np.array([[1, 2, 3]], np.float32)


@pytest.mark.parametrize(
    ("rules", "first", "wanted"),
    [
        ("lrp-epsilon", "2,2,2,2,2,2,2,2,2", [18, 36, 54]),
        ("lrp-gamma:gamma=1", "-2,2,2,2,2,2,2,2,2", [28 / 3, 104 / 3, 52]),
        ("lrp-z-plus", "-2,2,2,2,2,2,2,2,2", [12, 33.6, 50.4]),
    ],
)
def test_values_published_by_captum(rules: str, first: str, wanted: list[float]) -> None:
    """``test_lrp.py``: ``SimpleLRPModel`` with the rules ε, γ and α1β0."""
    model = linear("3,3,3", first)
    arrays, delta, made = carried(model, rules, {"x": X}, "y[:, 0]")
    np.testing.assert_allclose(arrays[0], [wanted], rtol=1e-5)
    assert delta is not None
    assert abs(delta[0]) < 1e-3
    assert (made.gives, made.delta) == ("relevance", "relevance.delta")
    wrong, _, _ = carried(model, planted(rules_table(rules), "Relu"), {"x": X}, "y[:, 0]")
    assert apart(wrong[0], np.array([wanted])) > 5 * LIMIT


def test_each_rule_shares_as_its_formula() -> None:
    """One layer ``z = a₁ - 2 a₂ + 3 a₃`` at ``a = (1, 2, 3)``, so ``z = 6``, worked out by hand."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 1] y)
        <float[3, 1] w = {1, -2, 3}> { y = MatMul(x, w) }"""
    )
    wanted = {
        "lrp-epsilon": [1, -4, 9],
        "lrp-gamma:gamma=0.5": np.array([1.5, -4, 13.5]) * 6 / 11,
        "lrp-generalized-gamma:gamma=0.5": np.array([1.5, -4, 13.5]) * 6 / 11,
        "lrp-alpha-beta": [2 * 6 / 10, -6, 2 * 54 / 10],
        "lrp-alpha-beta:alpha=1,beta=0": [0.6, 0, 5.4],
        "lrp-z-plus": [0.6, 0, 5.4],
        "lrp-flat": [2, 2, 2],
        "lrp-w-square": np.array([1, 4, 9]) * 6 / 14,
        # l = 0, h = 4: a w - h min(w, 0)
        "lrp-epsilon-z-box:low=0,high=4": np.array([1, 4, 9]) * 6 / 14,
        "lrp-epsilon-z-box:low=-1,high=4": np.array([2, 4, 12]) * 6 / 18,
    }
    for rules, shares in wanted.items():
        arrays, delta, _ = carried(model, rules, {"x": X}, "y[:, 0]")
        np.testing.assert_allclose(arrays[0], [shares], rtol=1e-5, err_msg=rules)
        assert delta is not None
        assert abs(delta[0]) < 1e-4


def test_generalized_gamma_favours_what_has_the_sign_of_z() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 2] x) => (float[n, 1] y)
        <float[2, 1] w = {1, 1}> { y = MatMul(x, w) }"""
    )
    arrays, _, _ = carried(model, "lrp-generalized-gamma:gamma=1", {"x": np.array([[1, -3]], np.float32)}, "y[:, 0]")
    np.testing.assert_allclose(arrays[0], [[-2 * 1 / -5, -2 * -6 / -5]], rtol=1e-5)


def bias_free(residual: bool) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 1, bias=False)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x) + x)

    torch.manual_seed(5)
    middle = [Block(), Block()] if residual else [nn.ConvTranspose2d(6, 6, 2, 2, bias=False), nn.ReLU()]
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2, 2, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *middle,
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5, bias=False),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "residual"),
    [
        *(("lrp-epsilon", residual) for residual in (False, True)),
        *(("lrp-epsilon-gamma-box", residual) for residual in (False, True)),
        ("lrp-epsilon-plus", False), ("lrp-epsilon-plus-flat", False), ("lrp-z-plus", False),
    ],
)  # fmt: skip
def test_relevance_is_conserved_without_biases(rules: str, residual: bool) -> None:
    """z⁺ loses what a unit has without positive contributions; behind a rectifier, but not a residual, there is none."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = bias_free(residual)
    x = torch.rand(2, 3, 16, 16)
    model, tight = exported(net, x), f"{rules}:epsilon=1e-9"
    value = net(x)[:, 4].detach().numpy()
    arrays, delta, _ = carried(model, tight, {"x0": x.numpy()}, "y[:, 4]")
    assert delta is not None
    np.testing.assert_allclose(arrays[0].sum((1, 2, 3)), value, rtol=LIMIT)
    np.testing.assert_allclose(delta, value - arrays[0].sum((1, 2, 3)), atol=1e-6)
    head = "MatMul" if any(node.op_type == "MatMul" for node in model.graph) else "Gemm"
    wrong, _, _ = carried(model, planted(rules_table(tight), head), {"x0": x.numpy()}, "y[:, 4]")
    assert (np.abs(wrong[0].sum((1, 2, 3)) - value) > 5 * LIMIT * np.abs(value)).all()


def test_a_bias_takes_its_share_and_the_delta_tells_it() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 2] x) => (float[n, 1] y)
        <float[2, 1] w = {1, 2}, float[1] b = {3}> { y = Gemm(x, w, b) }"""
    )
    feeds = {"x": np.array([[1, 1]], np.float32)}
    arrays, delta, _ = carried(model, "lrp-epsilon", feeds, "y[:, 0]")
    np.testing.assert_allclose(arrays[0], [[1, 2]], rtol=1e-5)
    np.testing.assert_allclose(delta, [3], rtol=1e-5)
    arrays, delta, _ = carried(model, "lrp-epsilon:bias=zero", feeds, "y[:, 0]")
    np.testing.assert_allclose(arrays[0], [[2, 4]], rtol=1e-5)
    np.testing.assert_allclose(delta, [0], atol=1e-4)


def reference(kind: str, layer: Any, a: Any, r: Any, **p: Any) -> Any:
    """zennit's definitions: modified activations and weights, gradients of what they give."""
    import torch

    eps = p.get("epsilon", 1e-6)

    def run(a: Any, w: Any, b: Any) -> Any:
        bias = (
            torch.zeros(layer.out_channels if hasattr(layer, "out_channels") else layer.out_features)
            if b is None
            else b
        )
        return torch.func.functional_call(layer, {"weight": w, "bias": bias}, (a,))

    def shares(parts: list[tuple[Any, Any, Any]], r: Any, signs: tuple[int, ...] | None = None) -> Any:
        given = [part[0].detach().clone().requires_grad_() for part in parts]
        outs = [run(g, w, b) for g, (_, w, b) in zip(given, parts, strict=True)]
        signs = signs or (1,) * len(parts)
        z = sum(s * o for s, o in zip(signs, outs, strict=True)).detach()
        c = r / (z + eps * torch.where(z < 0, -1.0, 1.0))
        grads = [torch.autograd.grad(o, g, c)[0] for o, g in zip(outs, given, strict=True)]
        return sum(s * part[0] * g for s, part, g in zip(signs, parts, grads, strict=True))

    w, b = layer.weight.detach(), layer.bias.detach()
    ap, an, wp, wn = a.clamp(min=0), a.clamp(max=0), w.clamp(min=0), w.clamp(max=0)
    bp, bn = b.clamp(min=0), b.clamp(max=0)
    g = p.get("gamma", 0.25)
    if kind == "epsilon":
        return shares([(a, w, b)], r)
    if kind == "alpha-beta":
        alpha, beta = p.get("alpha", 2), p.get("beta", 1)
        return alpha * shares([(ap, wp, bp), (an, wn, None)], r) - beta * shares([(ap, wn, bn), (an, wp, None)], r)
    if kind == "gamma":
        z = run(a, w, b)
        upper = shares([(ap, w + g * wp, b + g * bp), (an, w + g * wn, None)], r * (z > 0))
        return upper + shares([(ap, w + g * wn, b + g * bn), (an, w + g * wp, None)], r * (z < 0))
    if kind in ("flat", "w-square"):
        return shares([(torch.ones_like(a), torch.ones_like(w) if kind == "flat" else w**2, None)], r)
    low, high = torch.full_like(a, p["low"]), torch.full_like(a, p["high"])
    return shares([(a, w, b), (low, wp, bp), (high, wn, bn)], r, (1, -1, -1))


def by_torch(net: Any, x: Any, choose: Callable[[str, bool], tuple[str, dict[str, Any]]], place: int) -> np.ndarray:
    """Propagate relevance through a sequence of layers; a BatchNorm is folded into the convolution before it."""
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layers: list[Any] = []
    for layer in net:
        layers[-1:] = (
            [fuse_conv_bn_eval(layers[-1], layer)] if isinstance(layer, nn.BatchNorm2d) else [*layers[-1:], layer]
        )
    kept = [x]
    for layer in layers:
        kept.append(layer(kept[-1]).detach())
    r = torch.zeros_like(kept[-1])
    r[:, place] = kept[-1][:, place]
    first = min(i for i, layer in enumerate(layers) if isinstance(layer, (nn.Conv2d, nn.Linear)))
    for i in reversed(range(len(layers))):
        layer, a = layers[i], kept[i]
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            kind, parameters = choose("conv" if isinstance(layer, nn.Conv2d) else "dense", i == first)
            r = reference(kind, layer, a, r, **parameters)
        elif not isinstance(layer, (nn.ReLU, nn.Tanh)):
            given = a.clone().requires_grad_()
            out = layer(given)
            c = (
                r
                if isinstance(layer, (nn.MaxPool2d, nn.Flatten))
                else r / (out.detach() + 1e-6 * torch.where(out < 0, -1.0, 1.0))
            )
            grad = torch.autograd.grad(out, given, c)[0]
            r = grad if isinstance(layer, (nn.MaxPool2d, nn.Flatten)) else a * grad
    return r.detach().numpy()


ONE, PLUS = {"alpha": 2, "beta": 1}, {"alpha": 1, "beta": 0}
BOX = {"low": -2.0, "high": 3.0}
CASES: dict[str, Callable[[str, bool], tuple[str, dict[str, Any]]]] = {
    "lrp-epsilon": lambda kind, first: ("epsilon", {}),
    "lrp-generalized-gamma:gamma=0.3": lambda kind, first: ("gamma", {"gamma": 0.3}),
    "lrp-alpha-beta": lambda kind, first: ("alpha-beta", ONE),
    "lrp-z-plus": lambda kind, first: ("alpha-beta", PLUS),
    "lrp-flat": lambda kind, first: ("flat", {}),
    "lrp-w-square": lambda kind, first: ("w-square", {}),
    "lrp-epsilon-z-box:low=-2,high=3": lambda kind, first: ("z-box", BOX) if first else ("epsilon", {}),
    "lrp-epsilon-plus": lambda kind, first: ("alpha-beta", PLUS) if kind == "conv" else ("epsilon", {}),
    "lrp-epsilon-plus-flat": lambda kind, first: (
        ("flat", {}) if first else ("alpha-beta", PLUS) if kind == "conv" else ("epsilon", {})
    ),
    "lrp-epsilon-alpha2-beta1": lambda kind, first: ("alpha-beta", ONE) if kind == "conv" else ("epsilon", {}),
    "lrp-epsilon-alpha2-beta1-flat": lambda kind, first: (
        ("flat", {}) if first else ("alpha-beta", ONE) if kind == "conv" else ("epsilon", {})
    ),
    "lrp-epsilon-gamma-box:low=-2,high=3": lambda kind, first: (
        ("z-box", BOX) if first else ("gamma", {}) if kind == "conv" else ("epsilon", {})
    ),
}


def sequence() -> Any:
    """Layers of all kinds, activations of both signs."""
    import torch
    from torch import nn

    torch.manual_seed(11)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), nn.Tanh(), nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Flatten(), nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip
    for part in net:
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in ((part.running_mean, -0.5, 0.5), (part.running_var, 0.5, 2), (part.bias, -1, 1)):
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(part.weight, -1.5, 1.5)
    return net.eval()


@pytest.mark.parametrize("rules", list(CASES))
def test_every_rule_is_that_of_its_definition(rules: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net, x = sequence(), torch.randn(2, 3, 8, 8)
    model = exported(net, x)
    for place in (1, 3):  # values below and above 0
        wanted = by_torch(net, x, CASES[rules], place)
        arrays, _, _ = carried(model, rules, {"x0": x.numpy()}, f"y[:, {place}]")
        assert apart(arrays[0], wanted) < LIMIT or not (wanted.any() or arrays[0].any())
    assert wanted.any()
    wrong, _, _ = carried(model, planted(rules_table(rules), "Gemm"), {"x0": x.numpy()}, "y[:, 3]")
    assert apart(wrong[0], wanted) > 5 * LIMIT


def test_folding_is_what_it_says() -> None:
    """A bias behind a MatMul and a BatchNormalization are of the layer; a planted shift is seen."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 2] y)
      <float[3, 2] w = {{1, 2, -1, 1, 3, -2}}, float[2] b = {{1, -1}}, float[2] s = {{2, -1}}, float[2] z = {{0, 0}},
       float[2] m = {{0.5, 1}}, float[2] v = {{3.99999, 0.99999}}> {{ {} }}"""
    apart_ = ir.from_onnx_text(text.format("p = MatMul(x, w) q = Add(b, p) y = BatchNormalization(q, s, z, m, v)"))
    whole = ir.from_onnx_text(
        text.replace("{{1, 2, -1, 1, 3, -2}}", "{{1, -2, -1, -1, 3, 2}}")
        .replace("b = {{1, -1}}", "b = {{0.5, 2}}")
        .format("y = Gemm(x, w, b)")
    )
    for rules in ("lrp-z-plus", "lrp-generalized-gamma", "lrp-alpha-beta", "lrp-w-square", "lrp-flat", "lrp-epsilon"):
        a, _, _ = carried(apart_, rules, {"x": X}, "y[:, 1]")
        b, _, _ = carried(whole, rules, {"x": X}, "y[:, 1]")
        assert apart(a[0], b[0]) < LIMIT, rules
    unfolded, _, _ = carried(apart_, "lrp-z-plus:fold=0", {"x": X}, "y[:, 1]")
    assert apart(unfolded[0], b[0]) > LIMIT


@pytest.mark.parametrize("shape", ["2, 1, 1", "1, 2, 1, 1"])
def test_a_bias_added_behind_a_convolution_is_of_the_layer(shape: str) -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1, 2, 2, 2] x) => (float[1, 2, 2, 2] y)
      <float[2, 2, 1, 1] k = {{1, -1, 2, 1}}, float[{}] b = {{0.5, -0.75}}> {{ {} }}"""
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 2)).astype(np.float32)
    for rules in ("lrp-z-plus", "lrp-alpha-beta", "lrp-w-square", "lrp-generalized-gamma", "lrp-epsilon:bias=zero"):
        added, _, _ = carried(
            ir.from_onnx_text(text.format(shape, "c = Conv(x, k) y = Add(c, b)")), rules, {"x": x}, "sum(y)"
        )
        inside, _, _ = carried(ir.from_onnx_text(text.format("2", "y = Conv(x, k, b)")), rules, {"x": x}, "sum(y)")
        assert apart(added[0], inside[0]) < LIMIT, rules


def test_functions_of_one_variable_pass_relevance_and_gates_share_it() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x{}) => (float[n, 3] y) <float h = {{0.5}}, float o = {{1}}> {{ {} }}"""
    gelu = ir.from_onnx_text(text.format("", "a = Mul(x, h) e = Erf(x) f = Add(e, o) y = Mul(a, f)"))
    arrays, delta, _ = carried(gelu, "lrp-epsilon", {"x": X}, "y[:, 1]")
    assert delta is not None
    assert abs(delta[0]) < 1e-6
    assert arrays[0][0, 1] > 0
    gate = ir.from_onnx_text(text.format(", float[n, 3] w", "s = Sigmoid(w) y = Mul(x, s)"))
    (r, s), _, _ = carried(gate, "lrp-epsilon", {"x": X, "w": X}, "y[:, 1]")
    np.testing.assert_allclose(r, s)
    np.testing.assert_allclose((r + s)[0, 1], 2 / (1 + np.exp(-2)), rtol=1e-5)


def test_attention_conserves_what_softmax_does_not_take() -> None:
    """A bilinear product conserves; a normalisation passes."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3, 2] a, float[n, 2, 3] b) => (float[n, 3, 3] y)
        <float[3] g = {1, 2, 3}> { p = MatMul(a, b) y = LayerNormalization(p, g) }"""
    )
    rng = np.random.default_rng(1)
    feeds = {"a": rng.normal(size=(2, 3, 2)).astype(np.float32), "b": rng.normal(size=(2, 2, 3)).astype(np.float32)}
    (ra, rb), delta, _ = carried(model, "lrp-epsilon:epsilon=1e-9", feeds, "y[:, 0, 1]")
    np.testing.assert_allclose(delta, 0, atol=1e-5)
    np.testing.assert_allclose(ra.sum((1, 2)), rb.sum((1, 2)), rtol=1e-4)


def test_masked_scores_get_no_relevance_and_no_nan() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 3] y)
        <float[3] m = {0, 0, -inf}> { s = Add(x, m) y = Softmax(s) }""".replace("-inf", "-3.0e38")
    )
    model.graph.initializers["m"].const_value = ir.tensor(np.array([0, 0, -np.inf], np.float32), name="m")
    arrays, _, _ = carried(model, "lrp-epsilon", {"x": X}, "y[:, 0]")
    assert np.isfinite(arrays[0]).all()
    assert arrays[0][0, 2] == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y = CumProd(x, k)", "no lrp-epsilon rule for CumProd"),
        ("y = Mod<fmod = 1>(x, x)", "no lrp-epsilon rule for Mod"),
        ("y = Dropout(x, r, t)", "no relevance of Dropout-.* at 'y': it is in training"),
        ("y = Pow(x, x)", "its parameters depend on the input"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(body: str, said: str) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 26]> g (float[2, 3] x) => (float[2, 3] y)
        <int64 k = {{1}}, float r = {{0.5}}, bool t = {{1}}> {{ {body} }}"""
    )
    with pytest.raises(GradientError, match=said):
        carried(model, "lrp-epsilon", {"x": X}, "sum(y)")


def test_an_operator_with_a_function_body_is_taken_apart() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 3] y) { y = LogSoftmax(x) }"""
    )
    arrays, _, _ = carried(model, "lrp-epsilon", {"x": X}, "y[:, 0]")
    assert np.isfinite(arrays[0]).all()


def test_weights_have_no_relevance() -> None:
    with pytest.raises(GradientError, match="a has no relevance"):
        carried(linear("3,3,3", "2,2,2,2,2,2,2,2,2"), "lrp-epsilon", {"x": X}, "y[:, 0]", wrt=["a"])


def test_quantised_tensors_pass_relevance_on_request() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 2] y)
        <float s = {0.05}, int8 z = {0}, int8[3, 2] w = {10, -20, 5, 30, 7, 9}> {
          q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s, z) y = MatMul(d, e) }"""
    )
    arrays, delta, _ = carried(model, "lrp-epsilon", {"x": X}, "y[:, 1]", wrt=["x"], straight_through=True)
    np.testing.assert_allclose(arrays[0], [[-1, 3, 3 * 0.45]], rtol=1e-5)
    np.testing.assert_allclose(delta, 0, atol=1e-5)


def test_first_layers_are_those_that_no_layer_lies_before() -> None:
    """A preprocessing in the graph changes no layer's place, and bounds may have a value a channel."""
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1, 2, 3, 3] x) => (float[1, 1, 1, 1] y)
      <float[2, 2, 1, 1] k = {1, -1, 2, 1}, float[1, 2, 3, 3] m = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float d = {2}> {
        s = Div(x, d) c = Conv(s, k) r = Relu(c) y = Conv(r, m) }"""
    x = np.random.default_rng(0).random((1, 2, 3, 3), np.float32)
    feeds = {"x": x}
    one, _, _ = carried(ir.from_onnx_text(text), "lrp-epsilon-gamma-box:low=0,high=0.5", feeds, "sum(y)")
    two, _, _ = carried(ir.from_onnx_text(text), "lrp-epsilon-gamma-box:low=0/0,high=0.5/0.5", feeds, "sum(y)")
    other, _, _ = carried(ir.from_onnx_text(text), "lrp-epsilon-gamma-box:low=0/0,high=0.5/0.9", feeds, "sum(y)")
    assert apart(one[0], two[0]) < 1e-6
    assert apart(one[0], other[0]) > 1e-3


@pytest.mark.corpus
def test_a_real_network_conserves_relevance(corpus: Path) -> None:
    """SqueezeNet, its biases left out of the shares."""
    from onnxviz.graph.io import open_model

    model = open_model(corpus / "models" / "classifier" / "SqueezeNet_fp32.onnx")
    entry = next(value for value in model.graph.inputs if not value.is_initializer())
    assert entry.shape is not None
    shape = [int(size) if isinstance(size, int) else 1 for size in entry.shape]
    feeds = {str(entry.name): np.random.default_rng(2).normal(size=shape).astype(np.float32)}
    output = str(model.graph.outputs[0].producer().inputs[0].name)  # type: ignore[union-attr]
    options = {"feeds": feeds, "target": f'max("{output}")', "wrt": [str(entry.name)]}
    for rules in ("lrp-epsilon-plus", "lrp-epsilon-gamma-box", "lrp-epsilon"):
        arrays, delta, _ = carried(model, f"{rules}:bias=zero,epsilon=1e-9", **options)
        assert delta is not None
        relevance = arrays[0].astype(np.float64)
        # ε alone spreads relevance of both signs, here a thousand times what they add up to; float32 holds six digits
        whole = LIMIT * abs(relevance.sum()) if rules != "lrp-epsilon" else 1e-6 * np.abs(relevance).sum()
        assert abs(float(delta[0])) < whole
    _, absorbed, _ = carried(model, "lrp-epsilon-plus", **options)
    assert absorbed is not None
    assert abs(float(absorbed[0])) > LIMIT


def test_signs_are_looked_up_no_further_back_than_is_cheap() -> None:
    def known(adds: int) -> bool:
        sums = " ".join(f"a{i + 1} = Add(a{i}, a{i})" for i in range(adds))
        model = ir.from_onnx_text(
            f"""<ir_version: 8, opset_import: ["": 18]> g (float[2] x) => (float[2] y) {{
            a0 = Relu(x) {sums} y = Identity(a{adds}) }}"""
        )
        return nonnegative(model.graph.outputs[0])

    assert known(7)
    assert not known(12)


LINEAR_FORMS = {
    "Gemm": ("y = Gemm(x, w, b)", "5", False),
    "weights transposed": ("t = Transpose<perm = [1, 0]>(w) p = MatMul(x, t) y = Add(p, b)", "5", True),
    "weights and bias cast": (
        "d = Cast<to = 11>(w) t = Cast<to = 1>(d) e = Cast<to = 11>(b) c = Cast<to = 1>(e) p = MatMul(x, t) y = Add(c, p)",
        "5",
        False,
    ),
    "Gemm, then Add": ("p = Gemm<transB = 1>(x, w) y = Add(p, b)", "5", True),
    "Einsum": ('p = Einsum<equation = "ni,io->no">(x, w) y = Add(p, b)', "1, 5", False),
}


@pytest.mark.parametrize("form", LINEAR_FORMS)
def test_a_layer_is_the_same_however_it_was_exported(form: str) -> None:
    """Weights may be computed from constants, and a bias may stand behind any layer that has none."""
    random = np.random.default_rng(0)
    w, b, x = random.normal(size=(4, 5)), random.normal(size=5), random.normal(size=(3, 4)).astype(np.float32)

    def made(body: str, shape: str, turned: bool) -> ir.Model:
        weights = ", ".join(f"{value:.6f}" for value in (w.T if turned else w).ravel())
        return ir.from_onnx_text(
            f"""<ir_version: 8, opset_import: ["": 18]> g (float[3, 4] x) => (float[3, 5] y)
            <float[{"5, 4" if turned else "4, 5"}] w = {{{weights}}},
             float[{shape}] b = {{{", ".join(f"{value:.6f}" for value in b)}}}> {{ {body} }}"""
        )

    for rules in ("lrp-gamma", "lrp-alpha-beta", "lrp-flat", "lrp-epsilon:bias=zero", "lrp-z-plus"):
        wanted, _, _ = carried(made(*LINEAR_FORMS["Gemm"]), rules, {"x": x}, "sum(y)")
        found, _, _ = carried(made(*LINEAR_FORMS[form]), rules, {"x": x}, "sum(y)")
        assert apart(found[0], wanted[0]) < 1e-5, rules


@pytest.mark.parametrize("rules", ["lrp-epsilon", "lrp-z-plus", "lrp-gamma"])
def test_a_batch_normalisation_over_another_axis_is_not_folded(rules: str) -> None:
    """Of (N, T, C) it scales the T tokens, a MatMul before it gives C columns."""
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 18]> g (float[2, 3, 2] x) => (float[2, 3, 3] y)
        <float[2, 3] w = {1, -2, 3, 0.5, 1, -1}, float[3] s = {1, 2, 0.5}, float[3] b = {0.1, 0.2, -0.3},
         float[3] m = {0, 0.5, 0}, float[3] v = {1, 1, 2}> {
          p = MatMul(x, w) y = BatchNormalization(p, s, b, m, v) }"""
    )
    x = np.random.default_rng(1).normal(size=(2, 3, 2)).astype(np.float32)
    folded, _, _ = carried(model, rules, {"x": x}, "sum(y)")
    unfolded, _, _ = carried(model, f"{rules}:fold=0", {"x": x}, "sum(y)")
    assert apart(folded[0], unfolded[0]) < 1e-6


@pytest.mark.parametrize(("shape", "leaves"), [("5", "3, 5"), ("1, 1, 1", "1, 3, 1")])
def test_what_enlarges_a_layer_is_no_bias_of_it(shape: str, leaves: str) -> None:
    count = 5 if shape == "5" else 1
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[3, 2] x) => (float[{leaves}] y)
        <float[2, 1] w = {{1, -2}}, float[{shape}] b = {{{", ".join(["0.5"] * count)}}}> {{
          p = MatMul(x, w) q = Add(p, b) y = Relu(q) }}"""
    )
    x = np.array([[3, 1], [2, -1], [1, 2]], np.float32)
    arrays, _, _ = carried(model, "lrp-z-plus", {"x": x}, "sum(y)")
    z = x @ np.float32([[1], [-2]])
    share = np.where(z + 0.5 > 0, count * z, 0)  # of what arrives at the layer, the bias has taken its part
    parts = np.maximum(x * np.float32([1, -2]), 0)
    np.testing.assert_allclose(arrays[0], share * parts / parts.sum(1, keepdims=True), rtol=1e-5, atol=1e-5)


NORMALISED = {
    "LayerNormalization": (
        "mu = ReduceMean(x, ax) d = Sub(x, mu) sq = Pow(d, two) va = ReduceMean(sq, ax) ve = Add(va, e) sd = Sqrt(ve)"
        " n = Div(d, sd) g = Mul(n, s) y = Add(g, b)"
    ),
    "reciprocal": (
        "mu = ReduceMean(x, ax) d = Sub(x, mu) sq = Mul(d, d) va = ReduceMean(sq, ax) ve = Add(va, e) sd = Sqrt(ve)"
        " r = Reciprocal(sd) k = Mul(r, s) n = Mul(d, k) y = Add(n, b)"
    ),
    "one factor, as Keras": (
        "mu = ReduceMean(x, ax) d = Sub(x, mu) sq = Mul(d, d) va = ReduceMean(sq, ax) ve = Add(va, e) sd = Sqrt(ve)"
        " r = Reciprocal(sd) k = Mul(r, s) n = Mul(x, k) mk = Mul(mu, k) h = Sub(b, mk) y = Add(n, h)"
    ),
    "RMSNormalization": (
        "sq = Pow(x, two) va = ReduceMean(sq, ax) ve = Add(va, e) sd = Sqrt(ve) r = Reciprocal(sd) n = Mul(x, r)"
        " y = Mul(s, n)"
    ),
}
NORMALISED_TEXT = """<ir_version: 8, opset_import: ["": 18]> g (float[n, 3] x) => (float[n, 1] z)
    <float[3] s = {{1, 2, 0.5}}, float[3] b = {{0.1, -2, 1}}, float e = {{0.00001}}, float two = {{2}}, int64[1] ax = {{-1}},
     float[3, 1] w = {{1, -2, 1}}> {{ {} z = MatMul(y, w) }}"""


@pytest.mark.parametrize("form", NORMALISED)
def test_a_normalisation_in_parts_passes_relevance_as_the_operator_does(form: str) -> None:
    x = np.array([[1, 2, 4], [-1, 0.5, 3]], np.float32)
    model = ir.from_onnx_text(NORMALISED_TEXT.format(NORMALISED[form]))
    arrays, _, _ = carried(model, "lrp-epsilon", {"x": x}, "z[:, 0]", wrt=["x", "y"])
    np.testing.assert_allclose(arrays[0], arrays[1], rtol=1e-5)


def test_a_gate_by_a_mean_is_no_normalisation() -> None:
    body = "m = ReduceMean(x, ax) k = Sigmoid(m) y = Mul(x, k)"
    model = ir.from_onnx_text(NORMALISED_TEXT.format(body))
    x = np.array([[1, 2, 4]], np.float32)
    arrays, _, _ = carried(model, "lrp-epsilon", {"x": x}, "z[:, 0]", wrt=["x", "y"])
    half = arrays[1] / 2
    np.testing.assert_allclose(arrays[0], half + half.sum() * x / x.sum(), rtol=1e-4)
