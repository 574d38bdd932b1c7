"""Convolutions lose an axis of size 1 that Unsqueeze added and Squeeze removes; the values stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.convolutions import drop_unit_axes
from onnxviz.graph.model import copy_model
from onnxviz.runtime.session import run_model

KERNEL = "float[4, 3, {h}, {w}] w = {{" + ", ".join(str(i % 7 - 3) for i in range(36)) + "}}"
FLAT, TALL = KERNEL.format(h=1, w=3), KERNEL.format(h=3, w=1)


def build(body: str, inputs: str, constants: str) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["": 18]> g ({inputs} x) => (float[n, a, b] y) <{constants}> {{ {body} }}'
    )


CASES = {
    "beside": (
        "u = Unsqueeze(x, i) c = Conv<strides = [1, 2], pads = [0, 1, 0, 2], kernel_shape = [1, 3]>(u, w, v) "
        "y = Squeeze(c, i)",
        "float[n, 3, 9]", f"{FLAT}, int64[1] i = {{2}}, float[4] v = {{1, 2, 3, 4}}", (2, 3, 9), ["Conv"],
    ),
    "the last axis": (
        "u = Unsqueeze(x, i) c = Conv<dilations = [2, 1]>(u, w) y = Squeeze(c, j)",
        "float[n, 3, 9]", f"{TALL}, int64[1] i = {{3}}, int64[1] j = {{-1}}", (2, 3, 9), ["Conv"],
    ),
    "behind a transpose": (
        "u = Unsqueeze(x, i) t = Transpose<perm = [0, 3, 1, 2]>(u) c = Conv(t, w) y = Squeeze(c, j)",
        "float[n, 9, 3]", f"{FLAT}, int64[1] i = {{1}}, int64[1] j = {{2}}", (2, 9, 3), ["Transpose", "Conv"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_stay(name: str) -> None:
    body, inputs, constants, shape, ops = CASES[name]
    model = build(body, inputs, constants)
    changed = copy_model(model)
    assert drop_unit_axes(changed) == 1
    assert [node.op_type for node in changed.graph] == ops
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(run_model(changed, {"x": x})["y"], run_model(model, {"x": x})["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "u = Unsqueeze(x, i) c = Conv<pads = [1, 0, 1, 0]>(u, w) d = ReduceSum<keepdims = 1>(c, i) y = Squeeze(d, i)",
        "u = Unsqueeze(x, j) c = Conv(u, w) y = Squeeze(c, i)",  # another axis than was added
        "u = Unsqueeze(x, i) c = Conv<strides = [2, 1]>(u, w) y = Squeeze(c, i)",
    ],
)
def test_other_graphs_stay(body: str) -> None:
    model = build(body, "float[n, 3, 9]", f"{FLAT}, int64[1] i = {{2}}, int64[1] j = {{3}}")
    before = [node.op_type for node in model.graph]
    assert drop_unit_axes(model) == 0
    assert [node.op_type for node in model.graph] == before
