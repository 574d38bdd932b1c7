"""Transposes move into reductions and over padding; the values stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph import transposes
from onnxviz.graph.model import copy_model
from onnxviz.graph.transposes import move_transposes
from onnxviz.runtime.session import run_model

RNG = np.random.default_rng(2)
LAST = "Transpose<perm = [0, 2, 3, 1]>"


def build(body: str, outputs: str, weights: str = "", inputs: str = "float[n, 3, 4, 5] x") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => ({outputs}) <{weights}> {{ {body} }}'
    )


AXES = "int64[2] a = {1, 2}"
CASES: dict[str, tuple[ir.Model, list[str]]] = {
    "through a Relu into a mean": (
        build(f"t = {LAST}(x) r = Relu(t) y = ReduceMean<keepdims = 0>(r, a)", "float[n, 3] y", AXES),
        ["Relu", "ReduceMean"],
    ),
    "both operands and a constant": (
        build(f"s = {LAST}(x) t = {LAST}(z) u = Add(s, t) v = Mul(u, k) w = Sub(c, v) y = ReduceMax<keepdims = 0>(w, a)",
              "float[n, 3] y", f"{AXES}, float[3] k = {{1, 2, 3}}, float[4, 1, 3] c = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}",
              "float[n, 3, 4, 5] x, float[n, 3, 4, 5] z"), ["Add", "Mul", "Sub", "ReduceMax"],
    ),
    "to the output, whose name stays": (
        build(f"t = {LAST}(x) y = Tanh(t)", "float[n, 4, 5, 3] y"), ["Tanh", "Transpose"],
    ),
    "over a Pad": (
        build(f"p = Pad(x, b) t = {LAST}(p) y = Relu(t)", "float[n, q, r, s] y",
              "int64[8] b = {0, 1, 2, 0, 0, 0, 3, 1}"), ["Transpose", "Pad", "Relu"],
    ),
}  # fmt: skip


PADS = "int64[8] b = {0, 0, 1, 0, 0, 1, 2, 0}, float v = {7}"
for how in ("(x, b)", "(x, b, v)", '<mode = "reflect">(x, b)'):
    body = f"p = Pad{how} y = Transpose<perm = [0, 3, 1, 2]>(p)"
    CASES[f"over Pad{how}"] = (build(body, "float[n, q, r, s] y", PADS), ["Transpose", "Pad"])


@pytest.mark.parametrize("name", CASES)
def test_values_names_and_shapes_stay(name: str) -> None:
    model, ops = CASES[name]
    moved = copy_model(model)
    assert move_transposes(moved) > 0
    assert sorted(node.op_type for node in moved.graph) == sorted(ops)
    feeds = {str(v.name): RNG.standard_normal((2, 3, 4, 5)).astype(np.float32) for v in model.graph.inputs}
    expected, got = run_model(model, feeds), run_model(moved, feeds)
    assert list(got) == list(expected) == ["y"]
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "outputs", "weights"),
    [
        (f"t = {LAST}(x) r = Relu(t) s = Neg(t) y = Add(r, s)", "float[n, 4, 5, 3] y", ""),  # two readers
        (f"t = {LAST}(x) y = ReduceMean<keepdims = 1>(t, a)", "float[n, 1, 1, 3] y", AXES),
        (f"t = {LAST}(x) y = ReduceMean<keepdims = 0>(t, a)", "float[n, 4] y", "int64[2] a = {2, 3}"),
        (f"t = {LAST}(x) y = Softmax(t)", "float[n, 4, 5, 3] y", ""),
        ("t = Transpose(x) y = ReduceMean<keepdims = 0>(t, a)", "float[5, n] y", AXES),  # perm unsaid
        ("t = Transpose<perm = [3, 2, 1, 0]>(x) y = ReduceMean<keepdims = 0>(t, a)", "float[5, n] y", AXES),
    ],
)
def test_what_must_not_move_stays_or_gives_the_same(body: str, outputs: str, weights: str) -> None:
    model = build(body, outputs, weights)
    moved = copy_model(model)
    move_transposes(moved)
    feed = {"x": RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)}
    np.testing.assert_allclose(run_model(moved, feed)["y"], run_model(model, feed)["y"], rtol=1e-6, atol=1e-6)


def test_padding_that_the_caller_gives_stays() -> None:
    model = build(f"p = Pad(x, b) y = {LAST}(p)", "float[n, q, r, s] y", "", "float[n, 3, 4, 5] x, int64[8] b")
    assert move_transposes(model) == 0


def test_an_output_in_the_middle_stays() -> None:
    model = build(f"t = {LAST}(x) y = Relu(t)", "float[n, 4, 5, 3] t, float[n, 4, 5, 3] y")
    assert move_transposes(model) == 0


def test_a_planted_error_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transposes, "_turned", lambda graph, value, tensor, perm: value)
    with pytest.raises(Exception, match=r"broadcast|Broadcast|mismatch|Not equal|inputs|BroadcastIterator|dimension"):
        test_values_names_and_shapes_stay("both operands and a constant")
