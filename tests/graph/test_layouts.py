"""Which axis holds the channels: group normalisation, which exporters write with Reshapes."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.shapes import infer_shapes

GROUPED = """<ir_version: 8, opset_import: ["": 17]>
g (float[1, 3, 6, 6] x) => (float[1, 4, 4, 4] y)
<float[4, 3, 3, 3] w, int64[3] groups = {0, 2, -1}, float[2] one = {1, 1}, float[2] none = {0, 0},
 int64[4] back = {1, 4, 4, 4}, float[4, 1, 1] scale = {1, 2, 3, 4}>
{c = Conv(x, w) r = Reshape(c, groups) n = InstanceNormalization(r, one, none) b = Reshape(n, back) y = Mul(b, scale)}"""


def test_behind_group_normalisation_channels_are_still_second() -> None:
    layouts = tensor_layouts(infer_shapes(ir.from_onnx_text(GROUPED)))
    assert {name: layouts.get(name) for name in ("c", "b", "y")} == dict.fromkeys("cby", "NCHW")


def test_a_reshape_to_another_shape_tells_nothing() -> None:
    other = GROUPED.replace("{1, 4, 4, 4}", "{1, 2, 8, 4}").replace(
        "float[4, 1, 1] scale = {1, 2, 3, 4}", "float[1] scale = {2}"
    )
    layouts = tensor_layouts(
        infer_shapes(ir.from_onnx_text(other.replace("float[1, 4, 4, 4] y", "float[1, 2, 8, 4] y")))
    )
    assert "b" not in layouts


LAYER_NORM = """<ir_version: 8, opset_import: ["": 17]>
g (float[2, 6] x) => (float[2, 6] y)
<int64[4] apart = {1, 2, 6, 1}, int64[2] back = {2, 6}, float[2] one = {1, 1}, float[2] none = {0, 0},
 float[2] fixed = {0, 0}>
{r = Reshape(x, apart) m = ReduceMean<axes = [0, 2, 3]>(r) k = ReduceMean<axes = [0, 2, 3], keepdims = 0>(r)
 d = Sub(r, m) s = Mul(d, d) v = ReduceMean<axes = [0, 2, 3], keepdims = 0>(s)
 n = BatchNormalization(r, one, none, k, v) y = Reshape(n, back)}"""


def test_a_layer_normalisation_of_keras_has_no_channels() -> None:
    """Its samples stand in the place of channels, its features in that of rows."""
    model = infer_shapes(ir.from_onnx_text(LAYER_NORM))
    assert "n" not in tensor_layouts(model)
    fixed = infer_shapes(ir.from_onnx_text(LAYER_NORM.replace("none, k, v)", "none, fixed, one)")))
    assert tensor_layouts(fixed)["n"] == "NCHW", "means that are weights are those of channels"
