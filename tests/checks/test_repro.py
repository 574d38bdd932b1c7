"""Findings about numbers come with a small model that shows them when it is run by onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.checks.finding import Finding, Problem, tensor_place
from onnxviz.checks.registry import Need, check
from onnxviz.checks.repro import MOST, Repro, node_repro, shrunk_repro
from onnxviz.checks.run import run_checks
from onnxviz.checks.subject import Options, Subject
from onnxviz.errors import CheckError
from tests.checks.cases import CASES
from tests.checks.cases.given import net

Arrays = list[np.ndarray[Any, Any]]


def executed(folder: Path, name: str) -> Arrays:
    """Run a repro twice in plain onnxruntime, as its reader would; returns the outputs of both runs."""
    onnx.checker.check_model(str(folder / f"{name}.onnx"), full_check=True)
    session = ort.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    with np.load(folder / f"{name}.npz") as feeds:
        given = dict(feeds)
    return [*session.run(None, given), *session.run(None, given)]


def found(subject: Subject, id: str, folder: Path) -> Finding:
    subject.options = replace(subject.options, repro=folder)
    return next(f for f in run_checks(subject, only=[id]).findings if f.verdict == "fail")


SHOWN: dict[str, Callable[[Arrays], bool]] = {
    "N01": lambda out: bool(np.isnan(out[0]).any()),
    "N02": lambda out: not np.isfinite(out[0]).all(),
    "N03": lambda out: float(np.abs(out[0]).max()) > 65504,
    "N04": lambda out: not np.isfinite(out[0]).all(),
    "N05": lambda out: not (out[0][:, 1] > 0).any(),
    "N06": lambda out: float(np.mean((out[0] < 1e-3) | (out[0] > 1 - 1e-3))) > 0.9,
    "N07": lambda out: not np.array_equal(out[0], out[1]),
}


@pytest.mark.parametrize("id", SHOWN)
def test_the_repro_shows_the_finding(id: str, tmp_path: Path) -> None:
    finding = found(CASES[id].bad(tmp_path).subject(), id, tmp_path / "shown")
    assert finding.evidence["repro"] == [f"{id}-1.onnx", f"{id}-1.npz"]
    assert SHOWN[id](executed(tmp_path / "shown", f"{id}-1"))


@pytest.mark.parametrize("id", SHOWN)
def test_without_the_option_nothing_is_written(id: str, tmp_path: Path) -> None:
    findings = run_checks(CASES[id].bad(tmp_path).subject(), only=[id]).findings
    assert all("repro" not in f.evidence for f in findings)
    assert list(tmp_path.rglob("*-1.onnx")) == []


@pytest.mark.parametrize("id", ["C01", "Q01"])
def test_what_the_reference_gives_stands_beside_it(id: str, tmp_path: Path) -> None:
    finding = found(CASES[id].bad(tmp_path).subject(), id, tmp_path)
    assert finding.evidence["repro"] == [f"{id}-1.onnx", f"{id}-1.npz", f"{id}-1.expected.npz"]
    with np.load(tmp_path / f"{id}-1.expected.npz") as kept:
        (expected,) = kept.values()
    assert np.abs(executed(tmp_path, f"{id}-1")[0] - expected).max() > 0.05


def test_the_layer_at_fault_is_cut_out_of_a_deep_model(tmp_path: Path) -> None:
    chain = "a = Tanh(x) b = Exp(a) c = %s(b) d = Neg(c) y = Sin(d)"
    reference, model = (ir.from_onnx_text(net(chain % op)) for op in ("Sqrt", "Log"))
    subject = Subject(model, Options(inputs={"x": np.float32([1, 2])}, reference=reference))
    assert isinstance(found(subject, "C01", tmp_path).evidence["repro"], list)
    assert [node.op_type for node in onnx.load(tmp_path / "C01-1.onnx").graph.node] == ["Log"]
    with np.load(tmp_path / "C01-1.npz") as feeds:
        assert np.allclose(feeds["b"], np.exp(np.tanh([1, 2])))


def test_clipped_activations_are_shown(tmp_path: Path) -> None:
    source = net(
        "h = Neg(x) q = QuantizeLinear(h, s, z) y = DequantizeLinear(q, s, z)", "float[512] x", "float[512] y",
        "float s = {0.001}, uint8 z = {128}",
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    finding = found(Subject(ir.from_onnx_text(source), Options(inputs={"x": x})), "Q02", tmp_path)
    assert finding.evidence["repro"] == ["Q02-1.onnx", "Q02-1.npz"]
    codes = executed(tmp_path, "Q02-1")[0]
    assert float(np.mean((codes == 0) | (codes == 255))) > 0.05


def test_shrinking_finds_the_one_node(tmp_path: Path) -> None:
    body = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(1, 20)) + " s = Sign(t20) " + "u0 = Abs(s) "
    body = "t1 = Neg(x) " + body + " ".join(f"u{i + 1} = Neg(u{i})" for i in range(19)) + " y = Neg(u19)"
    subject = Subject(ir.from_onnx_text(net(body)), Options(inputs={"x": np.float32([1, 2])}))

    def has_sign(piece: ir.Model, feeds: Any, tensor: str) -> bool:
        return any(node.op_type == "Sign" for node in piece.graph)

    repro = shrunk_repro(subject, "y", has_sign)()
    assert [node.op_type for node in repro.model.graph.node] == ["Sign"]
    assert list(repro.feeds) == ["t20"]
    with pytest.raises(CheckError, match="does not show it"):
        shrunk_repro(subject, "y", lambda piece, feeds, tensor: False)()


def test_what_cannot_be_shown_is_said() -> None:
    subject = Subject(ir.from_onnx_text(net("y = Neg(x)")), Options(inputs={"x": np.float32([1, 2])}))
    with pytest.raises(CheckError, match="do not show it"):
        node_repro(subject, "y", lambda array: False)()
    with pytest.raises(CheckError, match="no node"):
        node_repro(subject, "nothing", lambda array: True)()


def test_a_failure_to_write_one_is_evidence_and_no_crash(tmp_path: Path) -> None:
    words: dict[str, Any] = {"what": "a.", "why": "b.", "remedy": "c.", "false_positives": "d."}

    def fails() -> Repro:
        raise KeyError("x")

    @check("T01", "error", "a test", needs=Need.MODEL, **words)
    def several(subject: Subject) -> Any:
        shown = node_repro(subject, "y", lambda array: True)
        yield Problem("wrong", [tensor_place("y")], repro=fails)
        for number in range(MOST + 1):
            yield Problem("wrong", [tensor_place("y")], key=str(number), repro=shown)

    subject = Subject(ir.from_onnx_text(net("y = Neg(x)")), Options(inputs={"x": np.float32([1, 2])}, repro=tmp_path))
    findings = run_checks(subject, checks=[several]).findings
    assert findings[0].evidence["repro"] == "not written: KeyError: 'x'"
    assert findings[1].evidence["repro"] == ["T01-1.onnx", "T01-1.npz"]
    assert findings[-1].evidence["repro"] == f"not written: {MOST} were written for this check"
    assert {f.verdict for f in findings} == {"fail"}
    before = (tmp_path / "T01-1.onnx").read_bytes(), (tmp_path / "T01-1.npz").read_bytes()
    run_checks(subject, checks=[several])
    assert before == ((tmp_path / "T01-1.onnx").read_bytes(), (tmp_path / "T01-1.npz").read_bytes())
