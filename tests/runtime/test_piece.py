"""A few nodes run by themselves, with constants, changed attributes and a second output."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import ExecutionError
from onnxviz.runtime.piece import run_piece


def test_attributes_and_constants_come_along() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float16[3] x) => (float16[3] z) <float16 k = {0}>
        {y = LeakyRelu<alpha = 0.3>(x) z = Mul(y, k)}"""
    )
    model.graph.initializers["k"].const_value = ir.Tensor(np.float16(2), name="k")
    nodes = list(model.graph)
    x = np.float32([-1, 0, 2])
    (z,) = run_piece(model, nodes, model.graph.inputs[0], x, nodes[1].outputs[0])
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, [-0.6, 0, 4], rtol=1e-6)


def test_a_second_output_and_an_older_opset() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 3, opset_import: ["": 7]> g (float[1, 1, 4] x) => (float[1, 1, 2] y)
        {y = MaxPool<kernel_shape = [2], strides = [2]>(x)}"""
    )
    (node,) = model.graph
    x = np.float32([[[1, 3, 5, 4]]])
    y, at = run_piece(model, [node], model.graph.inputs[0], x, node.outputs[0], extra="at", opset=8)
    assert (y.ravel().tolist(), at.ravel().tolist()) == ([3, 5], [1, 2])


def test_what_is_not_constant_is_named() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, float[2] w) => (float[2] y) {y = Mul(x, w)}"""
    )
    (node,) = model.graph
    with pytest.raises(ExecutionError, match="depends on w"):
        run_piece(model, [node], model.graph.inputs[0], np.zeros(2, np.float32), node.outputs[0])
