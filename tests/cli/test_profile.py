"""``onnxviz profile`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz.graph.io import save_model
from tests.cli.conftest import Onnxviz

LENET, DIGIT = "models/lenet5.onnx", "models/samples/digit_3.png"


def test_the_table_and_all_outputs(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz(
        "profile",
        LENET,
        "-i",
        DIGIT,
        "--runs",
        "3",
        "--warmup",
        "1",
        "-o",
        "p.json",
        "-o",
        "p.png",
        "--trace",
        "t.json",
    )
    assert run.code == 0, run.err
    assert run.files == ["p.json", "p.png", "t.json"]
    for said in ("median of 3 after 1 warm-up", "under the profiler", "416,520 MACs", "by liveness", "conv1 + tanh1"):
        assert said in run.out
    found = json.loads((here / "p.json").read_text())
    assert found["macs"] == 416520
    assert found["format"] == "onnxviz.profile/1"
    assert {"seconds", "low", "high", "macs", "bytes", "intensity", "gflops", "provider", "originals"} <= found[
        "nodes"
    ][0].keys()
    assert (here / "p.png").read_bytes()[:4] == b"\x89PNG"
    assert any(event["ph"] == "X" for event in json.loads((here / "t.json").read_text())["traceEvents"])


def test_semantic_mode_has_the_nodes_of_the_file(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("profile", LENET, "--mode", "semantic", "--runs", "1", "--warmup", "0", "-o", "p.json")
    assert "random numbers were fed to image" in run.err
    assert [node["op_type"] for node in json.loads((here / "p.json").read_text())["nodes"]].count("Conv") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--runs", "0"), "give --runs 1 or more"),
        (("--warmup", "-1"), "--warmup 0 or more"),
        (("-o", "p.txt"), "use .json, .png, .svg, .pdf"),
        (("-o", "p.png", "-o", "nowhere/p.json"), "does not exist"),
        (("--trace", "t.perfetto"), "use .json"),
        (("--mode", "fast"), "--mode"),
        (("-o", "p.json", "--trace", "p.json"), "p.json is named twice"),
    ],
)
def test_bad_arguments_end_in_one_line_before_the_run(onnxviz: Onnxviz, arguments: tuple[str, ...], said: str) -> None:
    run = onnxviz("profile", LENET, *arguments)
    assert run.code == 2
    assert said in run.err
    assert run.err.count("\n") == 1
    assert run.files == []


def test_names_are_escaped(onnxviz: Onnxviz, here: Path) -> None:
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}')
    model.graph.node(0).name = "a\x1b[31m\n\u202eb[bold]" + "x" * 10_000
    save_model(model, here / "m.onnx")
    run = onnxviz("profile", "m.onnx", "--runs", "1")
    assert run.code == 0
    assert "\x1b[31m" not in run.out
    assert "\u202e" not in run.out
    assert "b[bold]" in run.out
