"""``onnxviz check`` as a gate: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import onnx

from tests.cli.conftest import Onnxviz

LENET = "models/lenet5.onnx"


def bad_names(here: Path) -> str:
    model = onnx.load(here / LENET)
    model.graph.node[0].name = model.graph.node[1].name
    (here / "models/names.onnx").write_bytes(model.SerializeToString())
    return "models/names.onnx"


def test_exit_codes(onnxviz: Onnxviz, here: Path) -> None:
    assert onnxviz("check", LENET, "--static", "--only", "G01,G03,X01").code == 0
    bad = bad_names(here)
    assert onnxviz("check", bad, "--static", "--only", "G03").code == 0, "a warning"
    assert onnxviz("check", bad, "--static", "--only", "G03", "--fail-on", "warning").code == 1
    (here / "models/m.onnx").write_text("hello")
    run = onnxviz("check", "models/m.onnx")
    assert (run.code, run.err) == (1, "")
    assert "G01" in run.out
    assert onnxviz("check", "models/m.onnx", "--skip", "G01", "--only", "G03").code == 3
    missing = onnxviz("check", "models/none.onnx")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert onnxviz("check", LENET, "--only", "Z99").code == 2
    assert onnxviz("check", LENET, "--fail-on", "nothing").code == 2


def test_formats(onnxviz: Onnxviz, here: Path) -> None:
    arguments = ("check", bad_names(here), "--static", "--only", "G0*")
    assert "G03  duplicate" in onnxviz(*arguments).out
    assert any(f["id"] == "G03" for f in json.loads(onnxviz(*arguments, "--format", "json").out)["findings"])
    assert json.loads(onnxviz(*arguments, "--format", "sarif").out)["version"] == "2.1.0"
    run = onnxviz(*arguments, "--format", "junit", "-o", "r.xml")
    assert (run.out, run.files) == ("r.xml\n", ["r.xml"])
    assert ElementTree.parse(here / "r.xml").getroot().tag == "testsuites"
    assert onnxviz(*arguments, "-o", "no/such/r.txt").code == 2


def test_a_baseline(onnxviz: Onnxviz, here: Path) -> None:
    arguments = ("check", bad_names(here), "--static", "--only", "G03", "--fail-on", "warning")
    assert onnxviz(*arguments, "--save-baseline", "b.json").code == 1
    run = onnxviz(*arguments, "--baseline", "b.json")
    assert run.code == 0
    assert "1 known from the baseline" in run.out
    other = onnxviz("check", "models/digits_cnn.onnx", "--static", "--baseline", "b.json")
    assert other.code == 2
    assert "for another model" in other.err


def test_fix(onnxviz: Onnxviz, here: Path) -> None:
    model = onnx.load(here / LENET)
    model.graph.node[0].name = ""
    (here / "models/unnamed.onnx").write_bytes(model.SerializeToString())
    run = onnxviz(
        "check", "models/unnamed.onnx", "--static", "--only", "G03", "--format", "json", "--fix", "mended.onnx"
    )
    assert json.loads(run.out)["counts"]["warning"] == 1, "standard output holds the result alone"
    assert "mended.onnx: each step proven on 1 outputs" in run.err
    assert run.files == ["mended.onnx"]
    assert onnxviz("check", "mended.onnx", "--static", "--only", "G03", "--fail-on", "warning").code == 0
    itself = onnxviz("check", LENET, "--static", "--only", "G03", "--fix", LENET)
    assert (itself.code, itself.out) == (2, ""), "it is told before anything runs"
    assert onnxviz("check", LENET, "--static", "--only", "G03", "--fix", "m.txt").code == 2


def test_what_cannot_be_used(onnxviz: Onnxviz, here: Path) -> None:
    for arguments, what in (
        (("--input", "none.png"), "there is no file none.png"),
        (("--reference", "none.onnx"), "there is no file none.onnx"),
        (("--dim", "nonsense=2"), "no dimension 'nonsense'"),
        (("--static", "--input", "models/samples/digit_3.png"), "--static runs nothing"),
        (("--baseline", "none.json"), "cannot read the baseline"),
        (("--max-memory", "lots"), "is no size"),
    ):
        run = onnxviz("check", LENET, "--only", "G03", *arguments)
        assert (run.code, run.out, run.err.count("\n")) == (2, "", 1), run
        assert what in run.err
