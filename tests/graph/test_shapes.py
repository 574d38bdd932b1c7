from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import InputError
from onnxviz.graph.cost import model_parameters, node_cost
from onnxviz.graph.io import open_model
from onnxviz.graph.layouts import input_layout, tensor_layouts
from onnxviz.graph.select import node_tensors
from onnxviz.graph.shapes import bind_dims, dtype_name, infer_shapes, open_dims, shape_list
from onnxviz.graph.summary import inspect_model
from onnxviz.runtime.capture import capture


def text(body: str, opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> {body}')


def test_declared_names_of_dimensions_are_kept(small_cnn: ir.Model) -> None:
    inferred = infer_shapes(small_cnn)
    assert shape_list(node_tensors(inferred)[0]) == ["n", 2, 6, 6]
    assert small_cnn.graph.node(0).outputs[0].shape is None, "the caller's model changed"


def test_dimensions_are_bound_by_name_or_position() -> None:
    model = text("g (float[n, 3, ?] x) => (float[n, 3, ?] y) { y = Relu(x) }")
    assert open_dims(model) == {"n": ("x", 0), "x:2": ("x", 2)}
    assert shape_list(infer_shapes(model, {"n": 2, "x:2": 5}).graph.node(0).outputs[0]) == [2, 3, 5]
    for wrong in ({"batch": 1}, {"x:1": 3}, {"n": -1}):
        with pytest.raises(InputError):
            bind_dims(model, wrong)


def test_a_false_value_info_is_overruled() -> None:
    model = text("g (float[2, 3] x) => (float[2, 3] z) <float[9, 9] y> { y = Relu(x) z = Neg(y) }")
    assert shape_list(infer_shapes(model).graph.node(0).outputs[0]) == [2, 3]


def test_types_have_numpy_names() -> None:
    model = text("g (double[1] a, float16[1] b, bfloat16[1] c, string[1] d, bool[1] e) => (double[1] y) { y = Neg(a) }")
    assert [dtype_name(v) for v in model.graph.inputs] == ["float64", "float16", "bfloat16", "string", "bool"]


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        ("g (float[1, 4, 8, 8] x, float[8, 2, 3, 3] w) => (float[1, 8, 4, 4] y) { y = Conv<group = 2, strides = [2, 2], pads = [1, 1, 1, 1]>(x, w) }", 8 * 16 * 18),
        ("g (float[1, 4, 5] x, float[4, 2, 3] w) => (float[1, 2, 11] y) { y = ConvTranspose<strides = [2]>(x, w) }", 4 * 5 * 6),
        ("g (float[2, 3, 4] x, float[4, 5] w) => (float[2, 3, 5] y) { y = MatMul(x, w) }", 120),
        ("g (float[4, 3] x, float[5, 4] w) => (float[3, 5] y) { y = Gemm<transA = 1, transB = 1>(x, w) }", 60),
        ('g (float[2, 3] x, float[3, 4] w) => (float[2, 4] y) { y = Einsum<equation = "ij,jk->ik">(x, w) }', 24),
        ("g (float[7, 1, 3] x, float[1, 16, 3] w, float[1, 16, 4] r) => (float[7, 1, 1, 4] y) { y = LSTM<hidden_size = 4>(x, w, r) }", 7 * (48 + 64)),
        ("g (float[n, 3] x, float[3, 4] w) => (float[n, 4] y) { y = MatMul(x, w) }", None),
        ("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }", 0),
    ],
)  # fmt: skip
def test_macs_worked_out_by_hand(body: str, macs: int | None) -> None:
    assert node_cost(infer_shapes(text(body)).graph.node(0)).macs == macs


def test_macs_of_a_convolution_are_the_multiplications_of_its_matrix() -> None:
    """An independent count: a convolution is linear in x, so its non-zero Jacobian entries are its multiplications."""
    model = text("g (float[1, 2, 5, 5] x, float[3, 2, 3, 3] w) => (float[1, 3, 3, 3] y) { y = Conv(x, w) }")
    w = np.ones((3, 2, 3, 3), np.float32)
    count = 0
    for position in range(50):
        x = np.zeros((1, 2, 5, 5), np.float32)
        x.flat[position] = 1
        count += int(np.count_nonzero(capture(model, {"x": x, "w": w}, providers="cpu")["y"].array))
    assert node_cost(infer_shapes(model).graph.node(0)).macs == count


def test_parameters_are_learned_elements_only(small_cnn: ir.Model) -> None:
    assert model_parameters(small_cnn) == (18 + 2 + 54 + 3, 77 * 4)
    shaped = text("g (float[2, 3] x) => (float[6] y) <int64[1] s = {6}> { y = Reshape(x, s) }")
    assert model_parameters(shaped) == (0, 0)


def test_summary(small_cnn: ir.Model) -> None:
    summary = inspect_model(small_cnn)
    assert (summary.producer, summary.opset, summary.nodes, summary.parameters) == ("handmade 1", 17, 5, 77)
    assert summary.macs == 2 * 36 * 9 + 18 * 3
    assert summary.assumed == {"n": 1}
    assert summary.ops == {"Conv": 1, "Flatten": 1, "Gemm": 1, "MaxPool": 1, "Relu": 1}
    assert [(layer.name, layer.input_shape, layer.output_shape) for layer in summary.layers] == [
        ("conv1", [1, 1, 8, 8], [1, 2, 6, 6]),
        ("fc1", [1, 18], [1, 3]),
    ]


def test_nodes_in_bodies_count_and_their_macs_are_unknown() -> None:
    model = text(
        "g (float[2, 2] x, bool c) => (float[2, 2] y) { y = If (c) <then_branch = a () => (float[2, 2] n) { n = MatMul(x, x) },"
        "else_branch = e () => (float[2, 2] m) { m = Abs(x) }> }"
    )
    summary = inspect_model(model)
    assert (summary.nodes, summary.body_nodes, summary.macs, summary.macs_unknown) == (3, 2, None, 1)


def test_layouts_follow_convolutions_and_transposes() -> None:
    model = infer_shapes(
        text(
            "g (float[1, 8, 8, 3] x, float[4, 3, 3, 3] w) => (float[1, 6, 6, 4] z)"
            "{ t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv(t, w) r = Relu(c) z = Transpose<perm = [0, 2, 3, 1]>(r) }"
        )
    )
    assert tensor_layouts(model) == {"x": "NHWC", "t": "NCHW", "c": "NCHW", "r": "NCHW", "z": "NHWC"}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [("1, 3, 224, 224", "NCHW"), ("n, 224, 224, 3", "NHWC"), ("n, 1, ?, ?", "NCHW"), ("?, ?, ?, 3", "NHWC"),
     ("3, 32, 32", "CHW"), ("32, 32, 1", "HWC"), ("1, 16", None), ("1, 7, 9, 9", None)],
)  # fmt: skip
def test_layout_of_an_input_by_its_sizes(shape: str, layout: str | None) -> None:
    model = text(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}")
    assert input_layout(model, model.graph.inputs[0]) == layout


@pytest.mark.corpus
def test_inferred_shapes_are_those_of_the_run(corpus: Path) -> None:
    """onnxruntime is the second implementation."""
    for name in (
        "classifier/cnn_mnist_pytorch",
        "detector/blazeface_front_128",
        "generated/hf_clip_vision_mini_dynamo",
    ):
        model = open_model(corpus / "models" / f"{name}.onnx")
        inferred = infer_shapes(model, dict.fromkeys(open_dims(model), 1))
        run = capture(model, dims=dict.fromkeys(open_dims(model), 1), providers="cpu")
        for value in node_tensors(inferred):
            declared = shape_list(value)
            if declared is not None and value.name in run:
                known = [(d, n) for d, n in zip(declared, run[value.name].shape, strict=True) if isinstance(d, int)]
                assert all(d == n for d, n in known), value.name


@pytest.mark.corpus
def test_the_whole_corpus_can_be_inspected(corpus: Path) -> None:
    from onnxviz.errors import OnnxvizError

    summarised = 0
    for path in sorted(corpus.glob("models/*/*.onnx")):
        if path.name.startswith("big_"):
            continue
        try:
            summary = inspect_model(open_model(path))
        except OnnxvizError:
            continue
        assert sum(summary.ops.values()) == summary.nodes
        summarised += 1
    assert summarised > 100
