"""Tests of ``onnxviz flow``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Onnxviz

LENET = "models/lenet5.onnx"


def test_a_folder_in_batches_with_data_and_architecture(onnxviz: Onnxviz, here: Path) -> None:
    files = ("-o", "flow.svg", "--data", "flow.npz", "--architecture", "key.svg")
    run = onnxviz("flow", LENET, "--input", "models/samples", *files)
    assert (run.code, run.out.split()) == (0, ["flow.svg", "flow.npz", "key.svg"])
    assert run.err == ""
    picture = (here / "flow.svg").read_text()
    assert "12 samples" in picture
    assert "saturated" in picture
    with np.load(here / "flow.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        assert data["activations/quantiles"].shape == (len(manifest["layers"]), 7)
        assert dict(zip(data["score_tensors"].tolist(), data["scores"].tolist(), strict=True))["conv1"] == 1.0
    drawn = (here / "key.svg").read_text()
    assert 'id="key-paths"' in drawn
    assert onnxviz("flow", LENET, "--input", "models/samples", "-o", "again.svg").code == 0
    assert (here / "again.svg").read_bytes() == (here / "flow.svg").read_bytes()


def test_weights_alone_run_nothing(onnxviz: Onnxviz, here: Path) -> None:
    assert onnxviz("flow", LENET, "--on", "weights", "-o", "w.svg").code == 0
    assert "samples" not in (here / "w.svg").read_text()


def test_what_is_not_drawn_is_told(onnxviz: Onnxviz, here: Path, models: Path) -> None:
    shutil.copy(models / "picture_question.onnx", here / "models")
    run = onnxviz("flow", "models/picture_question.onnx", "-o", "q.svg", "--architecture", "q.html")
    assert run.code == 0
    assert run.err.startswith("not drawn: ")
    assert run.err.split(":")[1].strip() in (here / "q.svg").read_text()
    assert "key" in (here / "q.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--on", "weights", "--architecture", "k.svg"), "key paths are made of activations; leave out --on weights"),
        (("--threshold", "speed=1"), "--threshold 'speed=1' is not NAME=VALUE above 0; the names are vanishing"),
        (("--architecture", "k.txt"), "k.txt"),
        (("--data", "k.csv"), "k.csv"),
    ],
)
def test_what_cannot_be_done_is_one_line(onnxviz: Onnxviz, arguments: tuple[str, ...], line: str) -> None:
    run = onnxviz("flow", LENET, *arguments, "-o", "f.png")
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert line in run.err


def test_gradients_by_labels_with_data(onnxviz: Onnxviz, here: Path) -> None:
    (here / "labels.csv").write_text("".join(f"digit_{i}.png,{i}\n" for i in range(10)) + "hard_8_123.png,8\n"
                                     "hard_9_1038.png,9\n")  # fmt: skip
    files = ("--labels", "labels.csv", "-o", "g.svg", "--data", "g.npz", "--architecture", "k.svg")
    run = onnxviz("flow", LENET, "--input", "models/samples", "--on", "gradients", *files)
    assert (run.code, run.err) == (0, "")
    assert "cross entropy" in (here / "g.svg").read_text()
    assert 'id="key-paths"' in (here / "k.svg").read_text()
    with np.load(here / "g.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        assert manifest["gradients"]["target"] == "cross_entropy(output, labels)"
        assert len(data["weight_gradients/norm"]) == 10
        assert (data["weight_gradients/noise"] > 0).all()
    onnxviz("flow", LENET, "--input", "models/samples", "--on", "gradients", "--labels", "labels.csv", "-o", "h.svg")
    assert (here / "h.svg").read_bytes() == (here / "g.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--target", "output[argmax]"), "ask for them: --on gradients"),
        (("--on", "gradients", "--target", "nothing[:, 0]"), "'nothing'"),
        (("--on", "gradients", "--target", "output"), "not a number for each sample"),
        (("--on", "gradients", "--labels", "none.csv"), "none.csv"),
    ],
)
def test_gradients_that_cannot_be_had_are_one_line(onnxviz: Onnxviz, arguments: tuple[str, ...], line: str) -> None:
    run = onnxviz("flow", LENET, "--input", "models/samples/digit_3.png", *arguments, "-o", "f.png")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert line in run.err
