"""Models of low opsets are raised to the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient import prepare as module
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.prepare import OPSET, prepare
from onnxviz.graph.io import open_model
from onnxviz.graph.model import from_proto, to_proto
from tests.gradient.numeric import answers_differently
from tests.gradient.test_expand import session

RNG = np.random.default_rng(1)
SIZED = """(float[1, 2, 4, 4] x) => (float[1, 2, A, B] y) <float[4] s = {1, 1, %s}> {y = %s (x, s)}"""
UPSAMPLE, LINEAR, NEAREST = 'Upsample <mode = "linear">', 'Resize <mode = "linear">', 'Resize <mode = "nearest">'


def low(text: str, opset: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 6, opset_import: ["": {opset}]> g {text}')


def answers(model: onnx.ModelProto, feeds: dict[str, Any]) -> np.ndarray:
    return np.asarray(session(model).run(None, feeds)[0])


SIZES = [
    (9, UPSAMPLE, "2, 3"), (9, 'Upsample <mode = "nearest">', "1.5, 2"), (10, LINEAR, "2, 1.7"), (10, LINEAR, "0.5, 0.7"),
    (10, NEAREST, "1.5, 2.3"), (10, NEAREST, "0.5, 0.7"),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "op", "scales"), SIZES)
def test_pixels_stay_where_they_lay_before_version_11(opset: int, op: str, scales: str) -> None:
    model, feeds = low(SIZED % (scales, op), opset), {"x": RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)}
    raised = to_proto(prepare(from_proto(model)))
    assert raised.opset_import[0].version == OPSET
    np.testing.assert_allclose(answers(raised, feeds), answers(model, feeds), rtol=1e-5, atol=1e-6)


def test_a_conversion_that_changes_the_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = low(SIZED % ("2, 3", UPSAMPLE), 9), {"x": RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)}
    made = gradient_model(from_proto(model), "y")
    assert answers_differently(model, made.model, feeds, made.seed) == ""
    monkeypatch.setattr(module, "_keep_coordinates", lambda *_: None)
    made = gradient_model(from_proto(model), "y")
    assert answers_differently(model, made.model, feeds, made.seed) == "y"


@pytest.mark.parametrize(
    ("text", "opset", "message"),
    [
        (SIZED % ("0.5, 2", NEAREST), 10, "'y' grows along one axis and shrinks along another.*export the model with"),
        ("(float[2] x) => (float[2] y) {y = Mish(x)}", 9, "Mish at 'y' is no operator of opset 9"),
    ],
)
def test_what_cannot_be_raised_is_named(text: str, opset: int, message: str) -> None:
    with pytest.raises(GradientError, match=message):
        gradient_model(from_proto(low(text, opset)), "y")


@pytest.mark.corpus
def test_branches_that_contradict_pass_the_checker(corpus: Path) -> None:
    model = open_model(corpus / "models" / "audio" / "silero_vad_16k_op15.onnx")
    made = gradient_model(model, str(model.graph.outputs[0].name))
    onnx.checker.check_model(to_proto(made.model), full_check=True)


def test_the_mask_of_an_old_dropout_becomes_boolean() -> None:
    typed = from_proto(low("(float[2] x) => (float[2] y) {d, mask = Dropout(x) y = Relu(d)}", 7))
    mask = typed.graph.node(0).outputs[1]
    mask.type, mask.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])  # as opset 7 infers it
    raised = prepare(typed)
    assert all(value.dtype != ir.DataType.FLOAT for value in raised.graph.node(0).outputs[1:])
    np.testing.assert_array_equal(answers(to_proto(raised), {"x": np.float32([-1, 2])}), [0, 2])


@pytest.mark.parametrize("opset", [7, 9])
def test_tensors_keep_their_names(opset: int) -> None:
    op = 'Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (x)' if opset == 7 else "Upsample (x, s)"
    model = low(
        f"(float[N, 2, 4, 4] x) => (float[N, 2, 8, 8] y) <float[4] s = {{1, 1, 2, 2}}> {{u = {op} y = Tanh (u)}}", opset
    )
    made = gradient_model(from_proto(model), "u", ["x"])
    assert made.gradients == {"x": "x.grad"}
    assert [value.name for value in made.model.graph.outputs] == ["y", "x.grad"]


def test_a_pool_that_leaves_its_last_window_out_has_a_gradient() -> None:
    model = low(
        """(float[1, 1, 9, 7] x) => (float[1, 1, 3, 6] y)
        {p = AveragePool <ceil_mode = 1, kernel_shape = [1, 2], pads = [0, 1, 0, 0], strides = [4, 1]> (x)
         y = Tanh (p)}""",
        12,
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": RNG.normal(size=(1, 1, 9, 7)).astype(np.float32)}
    made = gradient_model(from_proto(model), "y")
    seed = np.ones_like(answers(model, feeds))
    assert session(to_proto(made.model)).run(["x.grad"], {**feeds, "y.grad": seed})[0].shape == (1, 1, 9, 7)


def test_the_standard_domain_may_be_imported_by_its_long_name() -> None:
    proto = low("(float[2, 3] x) => (float[2, 3] y) {y = Exp(x)}", 17)
    proto.opset_import[0].domain = "ai.onnx"
    made = prepare(from_proto(proto))
    assert made.opset_imports[""] >= OPSET
    assert "ai.onnx" not in made.opset_imports
    gradient_model(from_proto(proto), target="sum(y)", wrt=["x"])
