"""Pools that round up have the sizes that runtimes compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.graph.ceiled import round_down
from onnxviz.graph.model import from_proto, to_proto
from onnxviz.graph.shapes import infer_shapes

POOLS = [
    "kernel_shape = [1, 2], pads = [0, 1, 0, 0], strides = [3, 1]",
    "kernel_shape = [2, 3], pads = [0, 1, 1, 1], strides = [2, 1]",
    "kernel_shape = [1, 2], pads = [0, 1, 0, 1], strides = [2, 3]",
    "kernel_shape = [3, 2], pads = [2, 1, 1, 1], strides = [2, 2]",
    'kernel_shape = [3, 2], auto_pad = "SAME_UPPER", strides = [2, 2]',
]


def pooled(op: str, given: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": {opset}]>
      g (float[1, 2, 9, 8] x) => (float[N, C, H, W] y)
      <float[1, 4, 1, 1] w = {{1.0, 2.0, 3.0, 4.0}}, int64[4] r = {{1, 2, 1, 1}}>
      {{p = {op} <ceil_mode = 1, {given}> (x) q = Tile (p, r) y = Mul (q, w)}}""")


def run(model: onnx.ModelProto) -> np.ndarray:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # it warns of its own inference
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, 2, 9, 8)).astype(np.float32)
    return np.asarray(session.run(None, {"x": image})[0])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("given", POOLS)
def test_inference_counts_the_windows_of_runtimes(op: str, given: str) -> None:
    model = pooled(op, given)
    true = run(model).shape
    declared = onnx.shape_inference.infer_shapes(model)  # as exporters write it, weights' shapes among them
    declared.graph.value_info.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.INT64, [4]))
    for proto in (model, declared):
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = infer_shapes(from_proto(proto))
        assert inferred.graph.outputs[0].shape == ir.Shape(true)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("given", [POOLS[0], POOLS[2]])
def test_what_misleads_is_rounded_down_to_the_same_numbers(op: str, given: str) -> None:
    model = pooled(op, given)
    changed = infer_shapes(from_proto(model))
    round_down(changed)
    assert "ceil_mode" not in changed.graph[0].attributes
    np.testing.assert_array_equal(run(to_proto(changed)), run(model))


@pytest.mark.parametrize("given", [POOLS[3] + ", count_include_pad = 1", POOLS[4], "kernel_shape = [3, 2]"])
def test_the_others_stay(given: str) -> None:
    model = infer_shapes(from_proto(pooled("AveragePool", given)))
    round_down(model)
    assert model.graph[0].attributes["ceil_mode"].as_int() == 1
