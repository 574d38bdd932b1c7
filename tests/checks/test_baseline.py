"""Known findings pass, new ones do not, and a baseline belongs to its model."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.errors import InputError
from tests.checks.cases.given import net

BAD = net("[a] h = Relu(x) [a] y = Neg(h)")


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    onnxviz.check(ir.from_onnx_text(BAD), only=["G03"], save_baseline=tmp_path / "known.json")
    return tmp_path / "known.json"


def test_known_findings_pass(baseline: Path) -> None:
    result = onnxviz.check(ir.from_onnx_text(BAD), only=["G03"], baseline=baseline)
    assert [f.known for f in result.findings] == [True]
    assert (result.exit_code("warning"), result.counts()["known"]) == (0, 1)


def test_new_findings_do_not(baseline: Path) -> None:
    worse = net("[a] h = Relu(x) [a] i = Neg(h) [b] j = Neg(i) [b] y = Neg(j)")
    result = onnxviz.check(ir.from_onnx_text(worse), only=["G03"], baseline=baseline)
    assert [(f.known, f.where[0].name) for f in result.findings] == [(True, "a"), (False, "b")]
    assert result.exit_code("warning") == 1


def test_what_is_mended_is_told(baseline: Path) -> None:
    result = onnxviz.check(ir.from_onnx_text(net("[a] h = Relu(x) [b] y = Neg(h)")), only=["G03"], baseline=baseline)
    assert "no longer found, of the baseline's: G03 node 'a'" in result.notes[0]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (net("[a] h = Relu(x) [a] y = Neg(h)", inputs="float[2] z, float[2] x"), "inputs are x float32, z float32"),
        (net("[a] h = Relu(x) [a] z = Neg(h)", outputs="float[2] z"), "outputs are z float32"),
        (net("[a] h = Exp(x) [a] i = Log(h) [a] j = Abs(i) [a] k = Relu(j) [b] y = Sqrt(k)"), "only 1 of 5 operators"),
    ],
)
def test_another_model_is_refused(baseline: Path, other: str, why: str) -> None:
    with pytest.raises(InputError, match="for another model") as raised:
        onnxviz.check(ir.from_onnx_text(other), only=["G03"], baseline=baseline)
    assert why in str(raised.value)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"onnxviz_baseline": 9}', "null", "[" * 100_000])
def test_files_that_are_no_baseline(tmp_path: Path, content: str) -> None:
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(InputError, match="no baseline"):
        onnxviz.check(ir.from_onnx_text(BAD), baseline=tmp_path / "b.json")
    with pytest.raises(InputError, match="cannot read the baseline"):
        onnxviz.check(ir.from_onnx_text(BAD), baseline=tmp_path / "missing.json")


def test_a_model_that_does_not_open(tmp_path: Path, baseline: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 99)
    result = onnxviz.check(tmp_path / "m.onnx", only=["G01"], baseline=baseline)
    assert result.exit_code() == 1
    assert "the baseline was not used" in result.notes[0]
    with pytest.raises(InputError, match="no baseline is written"):
        onnxviz.check(tmp_path / "m.onnx", only=["G01"], save_baseline=tmp_path / "n.json")


def test_the_same_findings_give_the_same_bytes(baseline: Path, tmp_path: Path) -> None:
    onnxviz.check(ir.from_onnx_text(BAD), only=["G03"], save_baseline=tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == baseline.read_bytes()
    assert json.loads(baseline.read_text())["findings"][0]["id"] == "G03"
