"""On real models no check crashes, and what is an error there has been looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxviz.checks.run import run_checks
from onnxviz.checks.subject import Options, Subject

pytestmark = pytest.mark.corpus
#: Errors of models of the corpus that are real: looked at, one by one.
REAL = {
    "contrib_ops/custom_op_mnist_ov_wrapper.onnx": {"G08"},  # an operator of a library that is not there
    "contrib_ops/gpt2_tok.onnx": {"G08"},
    "controlflow_functions/function_opset_test.onnx": {"G08"},
    "controlflow_functions/ort-training_model.onnx": {"G08", "G10"},  # gradients
    "generated/ort_mobilenet_v3_small_fp16_keepio.onnx": {"G01"},  # nodes out of order
    "misc_trained/polygraphy-residual_block.onnx": {"G01", "G02"},  # scalars declared that are maps
    "misc_trained/polygraphy-sparse.conv.onnx": {"G01"},  # an output without a shape
    "quantized/attention_past_state.u8s8.onnx": {"G01"},  # nodes out of order
    "sklearn_ml/coreml_OneHotEncoder_BikeSharing.onnx": {"G01"},  # IR 3, a weight that is no input
    "sklearn_ml/sklearn_bin_voting_classifier_soft.onnx": {"G01"},  # nodes out of order
    "superres/pytorch-super_resolution-onnxtutorials.onnx": {"G01"},  # IR 1: attributes without a type
    "superres/pytorch_superresolution_with_pre_post_processing_op18.onnx": {"G08"},
    "transformer/gpt2_embedlayer_one_attn_exp.onnx": {"G01"},  # nodes out of order
}
_SLOW = {"generated/deep_1000_blocks_legacy_op14.onnx"}


def real_models(corpus: Path) -> list[str]:
    names = sorted(path.relative_to(corpus / "models").as_posix() for path in (corpus / "models").rglob("*.onnx"))
    elsewhere = ("adversarial/", "opset_sweep/", "external_data/")  # bad, of single nodes, with or without their data
    return [name for name in names if not name.startswith(elsewhere) and name not in _SLOW]


def test_errors_are_real_and_nothing_crashes(corpus: Path) -> None:
    errors: dict[str, set[str]] = {}
    for name in real_models(corpus):
        result = run_checks(Subject(corpus / "models" / name, Options(static=True)))
        assert [f for f in result.findings if f.cause == "crashed"] == [], name
        if failed := {f.id for f in result.failures("error")}:
            errors[name] = failed
    assert errors == REAL


#: Errors that only a run shows; each was looked at.
REAL_IN_A_RUN = {
    "misc_trained/polygraphy-residual_block.onnx": {"G02"},  # a scalar is declared that is a map
    "transformer/genai-whisper-dummy_decoder.onnx": {"D01"},  # its outputs always have a batch of 2
    "transformer/vespa-random_decoder.onnx": {"D01"},  # fails with two samples: a batch of 1 was traced into it
}
_RUNNING = ("D0[123]", "N0[13567]", "C*", "P0[2-9]", "Q*", "G02")


@pytest.mark.slow
def test_errors_of_runs_are_real_and_nothing_crashes(corpus: Path) -> None:
    errors: dict[str, set[str]] = {}
    for name in real_models(corpus):
        result = run_checks(Subject(corpus / "models" / name), only=_RUNNING)
        assert [f for f in result.findings if f.cause == "crashed"] == [], name
        if failed := {f.id for f in result.failures("error")}:
            errors[name] = failed
    assert errors == REAL_IN_A_RUN
