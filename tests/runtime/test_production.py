"""Production mode: the tensors of the optimised graph, bit for bit those of the optimised session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.inline import inline_functions
from onnxviz.graph.io import open_model
from onnxviz.runtime.capture import capture
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.production import optimized_model, verify_production
from onnxviz.runtime.session import Session

CORPUS = [
    "classifier/SqueezeNet_fp32.onnx", "detector/RFB-1280-masked_face-v2.onnx", "generated/ort_resnet18_int8_qoperator.onnx",
    "generated/hf_clip_vision_mini_dynamo.onnx", "generated/ort_mobilenet_v3_small_fp16_keepio.onnx",
    "generated/jit_script_loop_if_legacy_op16.onnx", "quantized/tract-qlstm.onnx",
]  # fmt: skip

FUSED = (
    '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) '
    "<float[1, 1, 1, 1] w = {2}> { c = Conv(x, w) r = Relu(c) i = Identity(r) y = Exp(i) }"
)


def test_what_was_fused_away_is_listed_with_what_replaced_it() -> None:
    model = ir.from_onnx_text(FUSED)
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype(np.float32)
    result = capture(model, {"x": x}, mode="production", providers="cpu")
    assert {record.mode for record in result.values()} == {"production"}
    assert result.mode == "production"
    assert "y" in result
    assert "Conv" in result.not_captured["c"]
    whole = Session(model, "cpu", optimize=True).run({"x": x})
    np.testing.assert_array_equal(result["y"].array, whole["y"])


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS)
def test_outputs_are_bit_for_bit_those_of_the_optimised_session(corpus: Path, name: str) -> None:
    model = open_model(corpus / "models" / name)
    inputs = load_inputs(model)
    whole = Session(model, "cpu", optimize=True).run(inputs.feeds)
    result = capture(model, inputs, mode="production", providers="cpu")
    compared = 0
    for output, expected in whole.items():
        if isinstance(expected, np.ndarray) and output in result:
            np.testing.assert_array_equal(result[output].array, expected)
            compared += 1
    assert compared
    semantic = capture(model, inputs, providers="cpu")
    every = {name for name in semantic if not semantic[name].iteration}
    assert every - set(result) <= set(result.not_captured), "what is missing is listed"


def test_another_graph_is_not_taken_for_the_optimised_one() -> None:
    model = ir.from_onnx_text(FUSED)
    feeds = {"x": np.ones((1, 1, 4, 4), np.float32)}
    optimized = optimized_model(inline_functions(model), "cpu")
    assert verify_production(model, optimized, feeds, "cpu").exact
    wrong = optimized_model(ir.from_onnx_text(FUSED.replace("{2}", "{2.0001}")), "cpu")
    assert not verify_production(model, wrong, feeds, "cpu").exact, "a planted error must show"
