"""Activation functions are found: operators by themselves, and patterns that stand for one."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.graph.activations import activation_sites

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (float[2, 4] z)'


def sites(body: str, weights: str = "") -> list[tuple[str, str, str, int]]:
    model = ir.from_onnx_text(f"{HEAD} {weights} {{{body}}}")
    return [(str(s.source.name), str(s.output.name), s.op_type, len(s.nodes)) for s in activation_sites(model)]


@pytest.mark.parametrize(
    ("body", "weights", "found"),
    [
        ("y = Relu(x) z = Tanh(y)", "", [("x", "y", "Relu", 1), ("y", "z", "Tanh", 1)]),
        ("s = Sigmoid(x) z = Mul(x, s)", "", [("x", "z", "Sigmoid", 2)]),
        ("h = HardSigmoid(x) z = Mul(h, x)", "", [("x", "z", "HardSigmoid", 2)]),
        ("p = Softplus(x) t = Tanh(p) z = Mul(x, t)", "", [("x", "z", "Softplus", 3)]),
        ("v = Mul(x, k) s = Sigmoid(v) z = Mul(x, s)", "<float k = {1.702}>", [("x", "z", "Sigmoid", 3)]),
        (
            "d = Div(x, r) e = Erf(d) a = Add(e, o) m = Mul(x, a) z = Mul(m, h)",
            "<float r = {1.4142135}, float o = {1}, float h = {0.5}>",
            [("x", "z", "Erf", 5)],
        ),
        (
            "a = Add(x, t) c = Clip(a, o, s) m = Mul(x, c) z = Div(m, s)",
            "<float t = {3}, float o = {0}, float s = {6}>",
            [("x", "z", "Clip", 4)],
        ),
        ("n = Neg(x) y = Exp(n) s = Sigmoid(x) z = Mul(y, s)", "", [("x", "z", "Sigmoid", 4)]),
        ("s = Sigmoid(x) m = MatMul(x, w) z = Mul(m, s)", f"<float[4, 4] w = {{{', '.join(['0'] * 16)}}}>", [("x", "s", "Sigmoid", 1)]),
        ("t = Tanh(x) m = Mul(x, t) z = Mul(m, k)", "<float k = {0.1}>", [("x", "m", "Tanh", 2)]),  # a layer's scale
        ("t = Tanh(x) m = Mul(x, t) z = Mul(m, k)", "<float k = {0.5}>", [("x", "m", "Tanh", 2)]),
        ("a = Sigmoid(x) b = Mul(a, x) r = Relu(a) z = Mul(r, b)", "", [("x", "b", "Sigmoid", 2), ("a", "r", "Relu", 1)]),
        ("z = Max(x, k)", "<float k = {0}>", [("x", "z", "Max", 1)]),
        ("z = Max(k, x)", "<float k = {1}>", []),
        ("s = Softmax(x) z = Mul(x, s)", "", []),
        ("e = Erf(x) z = Neg(e)", "", []),
    ],
)  # fmt: skip
def test_what_is_found(body: str, weights: str, found: list[tuple[str, str, str, int]]) -> None:
    assert sites(body, weights) == found


def test_a_gate_of_another_tensor_is_no_pattern() -> None:
    """Squeeze and excitation: the gate depends on the whole map, so the product is no function of one value."""
    found = sites("p = ReduceMean<axes = [1]>(x) s = Sigmoid(p) z = Mul(x, s)")
    assert found == [("p", "s", "Sigmoid", 1)]


def test_bounds_that_are_computed_have_no_curve() -> None:
    assert sites("m = ReduceMax<keepdims = 0>(x) z = Clip(x, , m)") == []
