"""Sub, Mul and Add of one BatchNorm layer become one BatchNormalization with the layer's parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.batchnorm import BatchNorm, gather_batchnorms
from onnxviz.graph.model import copy_model
from onnxviz.graph.provenance import Provenance, set_provenance
from onnxviz.runtime.session import run_model

RNG = np.random.default_rng(8)
NORM = BatchNorm(*(RNG.uniform(0.5, 2, 3) for _ in range(4)), epsilon=1e-3)


def build(shape: str, body: str, tail: tuple[int, ...]) -> ir.Model:
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": 18]> g ({shape} x) => ({shape} y) {{ {body} }}')
    scale, shift = NORM.affine
    constants = {"m": NORM.mean, "k": scale, "b": NORM.beta, "t": shift}
    for node in model.graph:
        set_provenance(node, Provenance("bn" if node.op_type in ("Sub", "Mul", "Add") else "act"))
        for value in node.inputs:
            if value is not None and value.name in constants and not value.is_initializer():
                array = constants[value.name].astype(np.float32).reshape(3, *tail)
                value.const_value = ir.Tensor(array, name=value.name)
                value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
                model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize(
    ("shape", "body", "tail", "ops"),
    [
        ("float[n, 3, 4, 5]", "s = Sub(x, m) u = Mul(s, k) y = Add(u, b)", (1, 1), ["BatchNormalization"]),
        ("float[n, 3]", "u = Mul(k, x) v = Add(u, t) y = Relu(v)", (), ["BatchNormalization", "Relu"]),
        ("float[n, 3, 4]", "u = Mul(x, k) v = Add(u, t) y = Mul(v, x)", (1,),
         ["BatchNormalization", "Mul"]),
    ],
)  # fmt: skip
def test_values_stay(shape: str, body: str, tail: tuple[int, ...], ops: list[str]) -> None:
    model = build(shape, body, tail)
    changed = copy_model(model)
    assert gather_batchnorms(changed, {"bn": NORM}) == 1
    assert [node.op_type for node in changed.graph] == ops
    x = RNG.standard_normal((2, 3, 4, 5)[: shape.count(",") + 1]).astype(np.float32)
    np.testing.assert_allclose(run_model(changed, {"x": x})["y"], run_model(model, {"x": x})["y"], rtol=1e-5, atol=1e-5)
    assert len(changed.graph.initializers) == 4


def test_other_arithmetic_stays() -> None:
    body = "s = Sub(x, m) u = Mul(s, k) y = Add(u, b)"
    model = build("float[n, 3, 4, 5]", body, (1, 1))
    for wrong in (replace(NORM, epsilon=0.5), replace(NORM, beta=NORM.beta + 1)):
        assert gather_batchnorms(model, {"bn": wrong}) == 0
    assert gather_batchnorms(model, {"another": NORM}) == 0
    last_axis = build("float[n, 5, 4, 3]", body, ())
    assert gather_batchnorms(last_axis, {"bn": NORM}) == 0
    assert [node.op_type for node in last_axis.graph] == ["Sub", "Mul", "Add"]
