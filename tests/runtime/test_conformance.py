"""A sample of what benchmarks/conformance.py sweeps, and that its comparison notices one flipped bit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import conformance  # noqa: E402

from onnxviz.runtime import nodewise  # noqa: E402

FINE = ("same bits", "onnxruntime refuses it", "as expected", "differs: float16")
ALWAYS = ("test_if", "test_loop", "test_scan", "test_sequence", "test_optional", "test_range", "test_identity")
CORPUS = [
    "controlflow_functions/30_nested_loops.onnx", "controlflow_functions/loop_sub_one.onnx", "quantized/tract-qlstm.onnx",
    "generated/jit_script_sequence_legacy_op16.onnx", "generated/onnxscript_functions_loop_if.onnx",
    "classifier/winml-cifar-imageclassifier.onnx", "transformer/dummy_t5.onnx", "sklearn_ml/gen_onehot_logreg.onnx",
]  # fmt: skip


def test_backend_cases_have_the_bits_of_the_whole_graph() -> None:
    cases = conformance.backend_cases()
    chosen = [i for i, case in enumerate(cases) if i % 12 == 0 or case.name.startswith(ALWAYS)]
    assert len(chosen) > 150
    wrong = {cases[i].name: out for i in chosen if not (out := conformance.one_case(i))[0].startswith(FINE)}
    assert wrong == {}


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS)
def test_corpus_models_have_the_bits_of_the_whole_graph(corpus: Path, name: str) -> None:
    assert conformance.one_file(str(corpus / "models" / name))[0].startswith("same bits")


def test_one_flipped_bit_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = '<ir_version: 9, opset_import: ["": 19]> g (float[4] x) => (float[4] y) { a = Neg(x) y = Exp(a) }'
    ir.save(ir.from_onnx_text(text), tmp_path / "m.onnx")
    assert conformance.one_file(str(tmp_path / "m.onnx")) == ("same bits", "")
    real = nodewise.Observation.array

    def flipped(self: nodewise.Observation) -> np.ndarray:
        array = np.array(real(self))
        if self.value.name == "a":
            array.view(np.uint32)[2] ^= 1
        return array

    monkeypatch.setattr(nodewise.Observation, "array", flipped)
    verdict, detail = conformance.one_file(str(tmp_path / "m.onnx"))
    assert (verdict, detail) == ("UNEXPLAINED", "other bits: a")
