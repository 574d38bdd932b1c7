"""A MatMul between a Reshape to rows and the Reshape back takes the tensor as it is; the values stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.model import copy_model
from onnxviz.graph.products import drop_flattening
from onnxviz.runtime.session import run_model

CONSTANTS = (
    "float[2, 3] w = {1, -2, 3, 4, 5, -6}, int64[2] r = {-1, 2}, int64[2] i = {0, 1}, int64[1] c = {3}, "
    "int64[2] turned = {1, 0}, int64[3] z = {0, 0, 3}"
)
BODY = (
    "s = Shape(x) e = Cast<to = 6>(s) d = Gather(e, {indices}) f = Cast<to = 7>(d) h = Concat<axis = 0>(f, c) "
    "a = Reshape(x, r) p = MatMul(a, w) y = Reshape(p, h)"
)


def build(body: str, inputs: str = "float[n, t, 2] x") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => (float[a, b, 3] y) <{CONSTANTS}> {{ {body} }}'
    )


def test_values_stay() -> None:
    model = build(BODY.format(indices="i"))
    changed = copy_model(model)
    assert drop_flattening(changed) == 1
    assert [node.op_type for node in changed.graph] == ["MatMul"]
    for shape in ((1, 4, 2), (3, 5, 2)):
        x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(run_model(changed, {"x": x})["y"], run_model(model, {"x": x})["y"], rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        (BODY.format(indices="turned"), "float[n, t, 2] x"),  # sizes change places
        (BODY.format(indices="i"), "float[n, t, u, 2] x"),  # two axes become one
        (BODY.format(indices="i").replace("Shape(x)", "Shape(o)"), "float[n, t, 2] x, float[a, b, 2] o"),
        ("a = Reshape(x, r) p = MatMul(a, w) q = Relu(p) y = Reshape(q, z)", "float[n, t, 2] x"),
    ],
)
def test_other_graphs_stay(body: str, inputs: str) -> None:
    model = build(body, inputs)
    before = [node.op_type for node in model.graph]
    assert drop_flattening(model) == 0
    assert [node.op_type for node in model.graph] == before
