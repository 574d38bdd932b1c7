"""``onnxviz readiness``."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from tests.cli.conftest import Onnxviz

NET = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] y) %s {%s}'
FINE = NET % ("", "[one] h = Exp(x) [two] y = Tanh(h)")
LARGE = NET % ("<float k = {100000}>", "[big] h = Mul(x, k) [small] y = Div(h, k)")


def written(folder: Path, text: str) -> str:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return str(path)


def test_a_model_that_is_ready_ends_with_0(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz(
        "readiness", written(here, FINE), "--to", "fp16", "-o", str(here / "r.svg"), "--data", str(here / "r.npz")
    )
    assert run.code == 0
    assert "ready with all 2 nodes converted" in run.out
    assert "random numbers: x" in run.out
    assert b"<svg" in (here / "r.svg").read_bytes()
    assert (here / "r.npz").exists()


def test_what_the_parser_says_is_one_line(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("readiness", "model.onnx")
    assert run.code == 2
    assert "Choose from: fp16, int8" in run.err


def test_a_model_that_is_not_ends_with_1_and_says_what_to_keep(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("readiness", written(here, LARGE), "--to", "fp16", "--format", "json")
    assert run.code == 1
    told = json.loads(run.out)
    assert (told["ready"], sorted(told["keep"]), told["overflow"]) == (False, ["big", "small"], ["h", "k"])


def test_what_is_wrong_with_the_command(onnxviz: Onnxviz, here: Path) -> None:
    model = written(here, FINE)
    run = onnxviz("readiness", model)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert run.err.endswith("Choose from: fp16, int8; see onnxviz readiness --help\n")
    assert onnxviz("readiness", model, "--to", "int4").code == 2
    assert onnxviz("readiness", model, "--to", "fp16", "-o", str(here / "x.txt")).code == 2
    assert onnxviz("readiness", model, "--to", "fp16", "--layer", "nothing").code == 2
    run = onnxviz("readiness", written(here, NET % ("", "y = Relu(x)")), "--to", "int8")
    assert run.code == 3
    assert "nothing to convert" in run.err
