"""``onnxviz compare`` and the options of ``onnxviz check`` that run a model."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from tests.cli.conftest import Onnxviz

NET = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] y) {%s}'


def written(folder: Path, name: str, body: str) -> str:
    path = folder / name
    onnx.save(onnx.parser.parse_model(NET % body), path)
    return str(path)


def test_models_that_agree_end_with_0(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "h = Exp(x) y = Neg(h)")
    run = onnxviz("compare", one, one)
    assert run.code == 0
    assert "all agree" in run.out
    assert "random" in run.out


def test_models_that_differ_end_with_1_and_the_first_is_told(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "h = Exp(x) y = Neg(h)")
    other = written(here, "other.onnx", "h = Exp(x) y = Abs(h)")
    picture, data = here / "difference.svg", here / "difference.json"
    run = onnxviz("compare", one, other, "-o", str(picture))
    assert run.code == 1
    assert "first: Abs of y" in run.out
    assert b"<svg" in picture.read_bytes()
    assert onnxviz("compare", one, other, "-o", str(data)).code == 1
    assert json.loads(data.read_text())["first"] == "y"
    run = onnxviz("compare", one, other, "--format", "json", "-o", str(data))
    assert (run.out, run.err) == (data.read_text(), f"{data}\n"), "the file is told, and holds what is printed"


def test_what_the_optimiser_changes_is_asked_for_by_level(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "h = Exp(x) k = Identity(h) y = Neg(k)")
    run = onnxviz("compare", one, one, "--optimize", "all", "--provider", "cpu", "--model-provider", "cpu")
    assert run.code == 0
    assert "all agree" in run.out
    assert onnxviz("compare", one, one, "--optimize", "most").code == 2
    assert onnxviz("compare", one, one, "--model-provider", "nothing").code == 2


def test_models_with_other_inputs_end_with_2_in_one_line(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "y = Neg(x)")
    other = here / "other.onnx"
    text = NET.replace("float[n, 4] x", "float[n, 4] x, float[n, 4] z") % "y = Add(x, z)"
    onnx.save(onnx.parser.parse_model(text), other)
    run = onnxviz("compare", one, str(other))
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert "2 inputs (x, z)" in run.err


def test_nothing_in_common_but_no_tensor_to_compare_ends_with_3(onnxviz: Onnxviz, here: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (seq(float[2]) y) {y = SequenceConstruct(x)}'
    onnx.save(onnx.parser.parse_model(text), here / "list.onnx")
    run = onnxviz("compare", str(here / "list.onnx"), str(here / "list.onnx"))
    assert run.code == 3
    assert "nothing could be compared" in run.out


def test_what_is_wrong_with_the_command_ends_with_2(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "y = Neg(x)")
    assert onnxviz("compare", one, str(here / "none.onnx")).code == 2
    assert onnxviz("compare", one, one, "-o", str(here / "x.txt")).code == 2
    assert onnxviz("check", one, "--static", "--repro", str(here / "r.onnx")).code == 2


def test_a_node_with_nan_is_written(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "a = Abs(x) h = Neg(a) y = Log(h)")
    run = onnxviz("check", one, "--only", "N01", "--repro", "shown", "--format", "json")
    assert run.code == 1
    (finding,) = json.loads(run.out)["findings"]
    assert finding["evidence"]["repro"] == ["N01-1.onnx", "N01-1.npz"]
    assert [node.op_type for node in onnx.load(here / "shown" / "N01-1.onnx").graph.node] == ["Log"]
    assert (here / "shown" / "N01-1.npz").exists()
    (here / "file").write_text("")
    assert onnxviz("check", one, "--only", "N01", "--repro", "file").code == 2
    assert onnxviz("check", one, "--only", "N01", "--repro", "no/such").code == 2


def test_times_are_saved_and_compared_with(onnxviz: Onnxviz, here: Path) -> None:
    one = written(here, "one.onnx", "y = Neg(x)")
    times = here / "times.json"
    assert onnxviz("check", one, "--only", "P05", "--save-latency", str(times)).code == 0
    kept = json.loads(times.read_text())
    times.write_text(json.dumps({**kept, "median": 1e-9, "interval": [1e-9, 1e-9]}))
    run = onnxviz("check", one, "--only", "P05", "--latency-baseline", str(times), "--fail-on", "warning")
    assert run.code == 1
    assert "times the" in run.out
