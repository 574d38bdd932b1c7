"""Every verb as a user types it, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file

from tests.cli.conftest import Onnxviz

LENET, DIGIT = "models/lenet5.onnx", "models/samples/digit_3.png"


def test_inspect_as_json(onnxviz: Onnxviz) -> None:
    run = onnxviz("inspect", LENET, "--json")
    found = json.loads(run.out)
    assert run.code == 0
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 32, 32]}]
    assert found["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["batch", 10]}]
    assert (found["parameters"], found["macs"], found["nodes"]) == (61706, 416520, sum(found["ops"].values()))
    assert found["producer"].startswith("pytorch")
    assert found["opset"] == onnx.load(Path(__file__).parents[2] / LENET).opset_import[0].version
    assert found["layers"][0]["input_shape"] == [1, 1, 32, 32]


def test_inspect_as_a_table(onnxviz: Onnxviz) -> None:
    run = onnxviz("inspect", LENET, "--dim", "batch=2")
    assert "61,706" in run.out
    assert "833,040 at batch=2" in run.out
    assert "2×6×28×28" in run.out


def test_expose(onnxviz: Onnxviz, here: Path) -> None:
    assert onnxviz("expose", LENET, "-o", "all.onnx").code == 0
    assert onnxviz("expose", LENET, "-o", "some.onnx", "--tensor", "@conv", "--tensor", "fc*").code == 0
    every, some = (ort.InferenceSession(here / name) for name in ("all.onnx", "some.onnx"))
    assert some.get_outputs()[0].name == "output"
    assert len(every.get_outputs()) == 12
    assert len(some.get_outputs()) == 5
    onnx.checker.check_model(here / "all.onnx", full_check=True)


def test_capture_and_statistics(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("capture", LENET, "--input", DIGIT, "-o", "c.safetensors", "--stats", "s.json")
    assert (run.code, run.files) == (0, ["c.safetensors", "s.json"])
    arrays, rows = load_file(here / "c.safetensors"), json.loads((here / "s.json").read_text())
    assert arrays["output"].argmax() == 3
    for row in rows:
        assert list(row)[:10] == ["name", "shape", "dtype", "min", "max", "mean", "std", "nan", "inf", "zero"]
        array = arrays[row["name"]].astype(np.float64)
        assert row["shape"] == list(array.shape)
        np.testing.assert_allclose(
            [row["min"], row["max"], row["mean"], row["std"]],
            [array.min(), array.max(), array.mean(), array.std()],
            rtol=1e-6,
        )
    table = onnxviz("capture", LENET, "--input", DIGIT, "--tensor", "output")
    assert "output" in table.out
    assert "conv1" not in table.out


def test_random_inputs_are_said(onnxviz: Onnxviz) -> None:
    run = onnxviz("capture", LENET, "-o", "c.npz")
    assert "random numbers were fed to image" in run.err


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_pictures_are_written_by_their_ending(onnxviz: Onnxviz, here: Path, ending: str) -> None:
    for verb, extra in (("graph", ()), ("features", ("--input", DIGIT)), ("weights", ())):
        run = onnxviz(verb, LENET, *extra, "-o", f"{verb}.{ending}")
        assert run.code == 0, run.err
        data = (here / f"{verb}.{ending}").read_bytes()
        if ending == "svg":
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert data.startswith(b"\x89PNG" if ending == "png" else b"%PDF")


def test_features_of_one_tensor(onnxviz: Onnxviz) -> None:
    run = onnxviz(
        "features", LENET, "-i", DIGIT, "--tensor", "conv3", "--top", "4", "--color-scale", "channel", "--by", "sparsity", "-o", "f.svg"
    )  # fmt: skip
    assert run.code == 0, run.err


@pytest.mark.parametrize("model", [LENET, "models/digits_cnn.onnx"])
def test_both_frameworks_take_the_same_path(onnxviz: Onnxviz, here: Path, model: str) -> None:
    run = onnxviz("report", model, "--input", DIGIT, "-o", "r.html")
    assert run.code == 0, run.err
    assert "class 3" in run.out
    assert (here / "r.html").read_text().startswith("<!doctype html>")


def test_doctor(onnxviz: Onnxviz) -> None:
    run = onnxviz("doctor", "--json")
    found = json.loads(run.out)
    assert run.code == (1 if found["problems"] else 0)
    assert any(p["short"] == "cpu" and p["loads"] for p in found["providers"])
    assert all(p["loads"] or p["reason"] for p in found["providers"])
    assert "onnxruntime" in onnxviz("doctor").out


def test_help_and_version(onnxviz: Onnxviz) -> None:
    assert onnxviz("--version").out.startswith("onnxviz ")
    verbs = ("inspect", "convert", "expose", "capture", "graph", "features", "weights", "attention", "report", "doctor")
    overview = onnxviz("--help").out
    assert all(verb in overview for verb in verbs)
    for verb in verbs:
        assert onnxviz(verb, "--help").code == 0


def test_same_inputs_same_bytes(onnxviz: Onnxviz, started: Onnxviz, here: Path) -> None:
    for name, run in (("a", onnxviz), ("b", started)):
        (here / name).mkdir()
        for arguments in (
            ("report", LENET, "-i", DIGIT, "-o", f"{name}/r.html"),
            ("graph", LENET, "-o", f"{name}/g.svg"),
            ("features", LENET, "-i", DIGIT, "-o", f"{name}/f.png"),
            ("weights", LENET, "-o", f"{name}/w.pdf"),
            ("capture", LENET, "-i", DIGIT, "-o", f"{name}/c.npz"),
            ("expose", LENET, "-o", f"{name}/e.onnx"),
        ):
            assert run(*arguments).code == 0
    for file in sorted((here / "a").iterdir()):
        assert file.read_bytes() == (here / "b" / file.name).read_bytes(), file.name
