"""``onnxviz explain``: certificates and exported files, as a user asks for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Onnxviz

GIVEN = ("explain", "models/lenet5.onnx", "-i", "models/samples/digit_3.png")
FAST = [word for text in ("steps=4", "stages=2", "redraws=1", "copies=1", "perturbations=4")
        for word in ("--certify-set", text)]  # fmt: skip


def test_a_certificate_as_data_and_as_a_figure(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz(*GIVEN, "--certificate", "c.json", *FAST)
    assert (run.code, run.files) == (0, ["c.json"]), run.err  # no picture was asked for
    made = json.loads((here / "c.json").read_text())
    assert made[0]["examination"]["steps"] == 4
    assert "examining grad-cam: 84 samples through the model, and up to 3 more explanations of 1, 2 of them" in run.err
    run = onnxviz(*GIVEN, "--certificate", "c.svg", "-o", "a.png", *FAST)
    assert (run.code, sorted(run.files)) == (0, ["a.png", "c.json", "c.svg"]), run.err


def test_a_setting_that_does_not_exist_costs_nothing(onnxviz: Onnxviz) -> None:
    run = onnxviz(*GIVEN, "--certify", "--certify-set", "nothing=3", "-o", "b.png")
    assert (run.code, run.files) == (2, [])
    assert "no setting 'nothing'; it has steps (24)" in run.err


def test_a_file_that_explains(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz(*GIVEN, "--export", "a.onnx", "--export-target", "input")
    assert (run.code, run.files) == (0, ["a.onnx"]), run.err
    assert "exported: attribution and heatmap, of the class that is fed as class" in run.err
    assert [value.name for value in onnx.load(here / "a.onnx").graph.input] == ["image", "class"]


def test_what_cannot_be_exported_writes_nothing(onnxviz: Onnxviz) -> None:
    run = onnxviz(*GIVEN, "--export", "b.onnx", "--method", "smoothgrad")
    assert (run.code, run.files) == (2, [])
    assert "those that can are grad-cam" in run.err


def test_bars_on_a_terminal_leave_nothing_behind(here: Path) -> None:
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals")
    master, slave = pty.openpty()
    words = [
        *GIVEN,
        "-m",
        "rise",
        "--set",
        "masks=1500",
        "--certify",
        "--certify-set",
        "stages=1",
        "--certify-set",
        "copies=0",
        "-o",
        "o.png",
    ]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "onnxviz", *words]
    with subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=slave) as run:
        os.close(slave)
        shown = b"".join(iter(lambda: _read(master), b"")).decode()
    os.close(master)
    assert run.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for counted in ("copies of samples", "random weights"):
        assert counted in plain
    for line in ("examining rise", "rise: certificate"):
        assert plain[plain.index(line) - 1] in "\r\n", "a line is written behind a piece of a bar"
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l"), "the cursor is hidden"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end is closed
        return b""
