"""What counts as a parameter: by what reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.cost import model_parameters
from onnxviz.graph.io import open_model
from onnxviz.graph.learned import learned_inputs


def text(body: str, opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]>\n{body}')


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("g (float[2] x) => (float[2] y) <float h = {0.5}> {y = Mul(x, h)}", 0),
        ("g (float[2] x) => (float[2] y) <float[1] h = {0.5}> {y = Pow(x, h)}", 0),
        ("g (float[2] x) => (float[2] y) <float[2] h = {1, 2}> {y = Mul(x, h)}", 2),
        ("g (float[2] x) => (float[2] y) {h = Constant<value_float = 3.0>() y = Div(x, h)}", 0),
        ("g (float[2] x) => (float[2] y) <float a = {0}, float b = {6}> {y = Clip(x, a, b)}", 0),
        ("g (float[2] x) => (float[2] y) <float[1] s = {0.1}> {y = PRelu(x, s)}", 1),
        ("g (float[1, 2] x) => (float[1, 1] y) <float[2, 1] w = {1, 2}, float[1] b = {3}> {y = Gemm(x, w, b)}", 3),
        ("g (float[1, 2] x) => (float[1, 1] y) <float[2, 1] w = {1, 2}> {z = MatMul(x, w) y = Add(z, z)}", 2),
        ("g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) <float[4] s = {1, 1, 2, 2}> {y = Resize(x, , s)}", 0),
        # one tensor that two nodes read, and one behind a Cast
        ("g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}> {z = MatMul(x, w) y = MatMul(z, w)}", 4),
        (
            "g (float[1, 2] x) => (float[1, 1] y) <float[2, 1] w = {1, 2}, float16[1] b = {3}>"
            "{f = Cast<to = 1>(b) y = Gemm(x, w, f)}",
            3,
        ),
        ("g (float[2] x) => (float[2] y) <float16 h = {3}> {f = Cast<to = 1>(h) y = Add(x, f)}", 0),
        ("g (float[2] x) => (float[2] y) <float[7] unread = {1, 2, 3, 4, 5, 6, 7}> {y = Abs(x)}", 0),
        # initial states are no parameters, nor is a causal mask; integers that are cast to be multiplied are
        (
            "g (float[3, 1, 2] x) => (y) <float[1, 8, 2] w = {0}, float[1, 8, 2] r = {0}, float[1, 16] b = {0},"
            "float[1, 1, 2] h = {0, 0}, float[1, 1, 2] c = {0, 0}> {y = LSTM<hidden_size = 2>(x, w, r, b, , h, c)}",
            48,
        ),
        (
            "g (float[2] x, int64[1] n) => (float[2] y)"
            "<uint8[2] m = {1, 0}, int64[1] zero = {0}, float low = {-9}>"
            "{cut = Slice(m, zero, n) b = Cast<to = 9>(cut) y = Where(b, x, low)}",
            0,
        ),
        (
            "g (float[1, 2] x) => (float[1, 2] y) <int8[2, 2] q = {1, 2, 3, 4}, float s = {0.5}>"
            "{f = Cast<to = 1>(q) w = Mul(f, s) y = MatMul(x, w)}",
            4,
        ),
    ],
)
def test_parameters_by_their_readers(body: str, count: int) -> None:
    assert model_parameters(text(body))[0] == count


def test_a_rule_by_type_alone_would_count_constants_of_formulas() -> None:
    """The planted error: what was counted before, every floating-point constant."""
    model = text("g (float[2] x) => (float[2] y) <float h = {0.5}> {y = Mul(x, h)}")
    by_type = sum(
        value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None
    )
    assert by_type == 1 != model_parameters(model)[0]


def test_a_quantised_layer_has_the_parameters_of_its_float_twin() -> None:
    model = text(
        """g (uint8[1, 1, 4, 4] x) => (uint8[1, 2, 2, 2] y)
        <float xs = {0.1}, uint8 xz = {0}, int8[2, 1, 3, 3] w = {0}, float[2] ws = {1, 2}, int8[2] wz = {0, 0},
         float ys = {0.1}, uint8 yz = {0}, int32[2] b = {1, 2}>
        {y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)}"""
    )
    model.graph.initializers["w"].const_value = ir.Tensor(np.zeros((2, 1, 3, 3), np.int8), name="w")
    assert learned_inputs(model.graph.node(0)) == [3, 8]
    assert model_parameters(model) == (20, 18 + 8)


@pytest.mark.parametrize(
    ("file", "count"),
    [("vit_digits", 19658), ("picture_question", 33484), ("signal_cnn_lstm", 4868), ("lenet5", 61706)],
)
def test_the_zoo_has_the_parameters_that_pytorch_counts(models: Path, file: str, count: int) -> None:
    assert model_parameters(open_model(models / f"{file}.onnx"))[0] == count


@pytest.mark.corpus
def test_quantised_resnet18_has_the_parameters_of_resnet18(corpus: Path) -> None:
    """torchvision's ResNet-18 has 11,689,512; BatchNorm, 2 a channel of 4800, went into 4800 biases."""
    model = open_model(corpus / "models" / "generated" / "ort_resnet18_int8_qoperator.onnx")
    assert model_parameters(model)[0] == 11_689_512 - 4800
