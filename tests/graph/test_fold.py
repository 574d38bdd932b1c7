"""Per-channel arithmetic behind convolutions and products goes into their weights; the values stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph import fold
from onnxviz.graph.fold import fold_affine
from onnxviz.graph.model import copy_model
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.runtime.session import run_model

RNG = np.random.default_rng(5)


def build(body: str, inputs: str, outputs: str, **weights: tuple[int, ...]) -> ir.Model:
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": 19]> g ({inputs}) => ({outputs}) {{ {body} }}')
    made = {value.name for node in model.graph for value in node.outputs}
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.name in weights and value.name not in model.graph.initializers:
                assert value.name not in made
                array = RNG.uniform(0.5, 2, weights[value.name]).astype(np.float32)
                value.const_value = ir.Tensor(array, name=value.name)
                value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
                model.graph.register_initializer(value)
    return model


CONV = ("float[n, 4, 6, 5] x", "float[n, a, b, c] y")
ROWS = ("float[n, 4] x", "float[n, 6] y")
CASES: dict[str, tuple[ir.Model, list[str]]] = {
    "keras batchnorm": (
        build("c = Conv(x, w) s = Sub(c, m) t = Mul(s, k) u = Mul(t, g) y = Add(u, b)", *CONV,
              w=(6, 4, 3, 3), m=(1, 6, 1, 1), k=(6, 1, 1), g=(6, 1, 1), b=(1, 6, 1, 1)), ["Conv"],
    ),
    "bias, BatchNormalization, scalar": (
        build("c = Conv(x, w, v) n1 = BatchNormalization(c, g, b, m, q) t = Div(n1, k) y = Relu(t)", *CONV,
              w=(6, 4, 1, 1), v=(6,), g=(6,), b=(6,), m=(6,), q=(6,), k=()), ["Conv", "Relu"],
    ),
    "groups of a transposed convolution": (
        build("c = ConvTranspose<group = 2>(x, w) t = Mul(c, k) y = Sub(b, t)", *CONV,
              w=(4, 3, 2, 2), k=(6, 1, 1), b=(6, 1, 1)), ["ConvTranspose"],
    ),
    "a product keeps one Add": (
        build("c = MatMul(x, w) a = Add(c, v) t = Mul(a, k) y = Add(t, b)", *ROWS,
              w=(4, 6), v=(6,), k=(6,), b=(6,)), ["MatMul", "Add"],
    ),
    "a product without shift": (build("c = MatMul(x, w) y = Mul(c, k)", *ROWS, w=(4, 6), k=(6,)), ["MatMul"]),
    "transB and beta": (
        build("c = Gemm<transB = 1, beta = 0.5>(x, w, v) t = Mul(c, k) y = Add(t, b)", *ROWS,
              w=(6, 4), v=(6,), k=(6,), b=(1, 6)), ["Gemm"],
    ),
    "a weight that two read": (
        build("c = Conv(x, w) t = Mul(c, k) d = Conv(x, w) y = Add(t, d)", *CONV, w=(6, 4, 1, 1), k=(6, 1, 1)),
        ["Conv", "Conv", "Add"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_stay(name: str) -> None:
    model, ops = CASES[name]
    folded = copy_model(model)
    gone = fold_affine(folded)
    assert [node.op_type for node in folded.graph] == ops
    assert gone == model.graph.num_nodes() - len(ops) > 0
    shape = [3 if isinstance(n, ir.SymbolicDim) else n for n in model.graph.inputs[0].shape or ()]
    feed = {"x": RNG.standard_normal(shape).astype(np.float32)}
    expected, got = run_model(model, feed)["y"], run_model(folded, feed)["y"]
    assert got.shape == expected.shape
    assert float(np.abs(got - expected).max()) <= 2e-6 * float(np.abs(expected).max())


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("c = Conv(x, w) y = Mul(c, k)", {"w": (6, 4, 1, 1), "k": (1, 1, 6, 5)}),  # not per channel
        ("c = Conv(x, w) y = Mul(c, k)", {"w": (5, 4, 1, 1), "k": (5,)}),  # the last axis, as long as the channels
        ("c = Conv(x, w) y = Mul(c, k)", {"w": (1, 4, 1, 1), "k": (1, 1, 1, 1, 1)}),  # adds an axis
        ("c = Conv(x, w) y = Div(k, c)", {"w": (6, 4, 1, 1), "k": ()}),
        ("c = Conv(x, w) t = Mul(c, k) y = Add(t, c)", {"w": (6, 4, 1, 1), "k": ()}),  # a second reader
        ("c = MatMul(x, w) y = Add(c, k)", {"w": (5, 6), "k": (6,)}),  # saves nothing
    ],
)
def test_what_cannot_be_folded_stays(body: str, weights: dict[str, Any]) -> None:
    model = build(body, *CONV, **weights)
    before = [node.op_type for node in model.graph]
    assert fold_affine(model) == 0
    assert [node.op_type for node in model.graph] == before


def test_a_bias_for_each_row_is_none_for_each_column() -> None:
    for rows in ((6, 1), (3, 6)):
        model = build("c = Gemm(x, w, v) y = Mul(c, k)", *ROWS, w=(4, 6), v=rows, k=(6,))
        assert fold_affine(model) == 0


def test_nodes_that_may_not_be_folded_end_the_chain() -> None:
    model = build("c = Conv(x, w) t = Mul(c, k) y = Add(t, b)", *CONV, w=(6, 4, 1, 1), k=(6, 1, 1), b=(6, 1, 1))
    assert fold_affine(model, lambda node: node.op_type == "Mul") == 1
    assert [node.op_type for node in model.graph] == ["Conv", "Add"]


def test_outputs_of_the_graph_stay() -> None:
    model = build("c = Conv(x, w) y = Mul(c, k)", CONV[0], "float[n, a, b, d] c, float[n, a, b, d] y",
                  w=(6, 4, 1, 1), k=())  # fmt: skip
    assert fold_affine(model) == 0


def test_weights_that_are_inputs_or_overflow_stay() -> None:
    model = build("c = Conv(x, w) y = Mul(c, k)", CONV[0] + ", float[6, 4, 1, 1] w", CONV[1], k=())
    assert fold_affine(model) == 0
    model = build("c = Conv(x, w) y = Mul(c, k)", *CONV, w=(6, 4, 1, 1), k=())
    model.graph.initializers["k"].const_value = ir.tensor(np.float32(3e38), name="k")
    assert fold_affine(model) == 0


def test_layers_that_were_folded_are_known() -> None:
    model = build("c = Conv(x, w) s = Sub(c, m) t = Mul(s, k) y = Relu(t)", *CONV,
                  w=(6, 4, 3, 3), m=(6, 1, 1), k=(6, 1, 1))  # fmt: skip
    for node, layer in zip(model.graph, ("conv", "bn", "bn", "act"), strict=True):
        set_provenance(node, Provenance(layer, f"keras.{layer}"))
    fold_affine(model)
    assert [provenance_of(node) for node in model.graph] == [
        Provenance("conv", "keras.conv", "", ("bn",)), Provenance("act", "keras.act"),
    ]  # fmt: skip
    assert set(model.graph.initializers) == {"w", "c/bias"}


def test_a_planted_error_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "_scaled", lambda node, weight, scale: weight * scale.reshape(-1, 1, 1, 1) * 1.001)
    with pytest.raises(AssertionError):
        test_values_stay("keras batchnorm")
