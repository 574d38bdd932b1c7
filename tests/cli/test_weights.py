"""``onnxviz weights``, as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxviz.analysis.weights import layer_weights
from onnxviz.graph.io import open_model
from tests.cli.conftest import Onnxviz

LENET, CNN = "models/lenet5.onnx", "models/digits_cnn.onnx"


def test_a_view_with_its_numbers(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("weights", CNN, "--view", "spectra", "-o", "s.png", "--data", "s.npz", "-l", "conv2*")
    assert (run.code, run.files, run.out, run.err) == (0, ["s.npz", "s.png"], "s.png\ns.npz\n", "")
    weight = next(lw for lw in layer_weights(open_model(here / CNN)) if lw.layer.startswith("conv2"))
    want = np.linalg.svd(weight.kernel.reshape(32, -1).astype(np.float64), compute_uv=False)
    with np.load(here / "s.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        np.testing.assert_allclose(data["0/singular_values"], want, rtol=1e-6)
    assert manifest["format"] == "onnxviz.weights.spectra/1"
    assert manifest["views"][0]["stable_rank"] == pytest.approx((want**2).sum() / want[0] ** 2)


def test_the_table_in_the_terminal_and_as_a_file(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("weights", LENET, "--table", "-", "--sort", "parameters")
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[0].split()[:4] == ["layer", "operator", "shape", "parameters"]
    assert [line.split()[0] for line in lines[1:]] == ["conv5", "fc6", "conv3", "output", "conv1"]
    assert onnxviz("weights", LENET, "--table", "t.csv").out == "t.csv\n"
    assert onnxviz("weights", LENET, "--table", "t.json").code == 0
    rows = list(csv.DictReader((here / "t.csv").read_text().splitlines()))
    exact = json.loads((here / "t.json").read_text())["rows"]
    assert [float(row["l2"]) for row in rows] == [row["l2"] for row in exact]
    assert sum(row["parameters"] for row in exact) == 61706 - 6 - 16 - 120 - 84 - 10


def test_the_table_of_stored_integers(onnxviz: Onnxviz, here: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y)
      <int8[2, 2] q = {1, 2, 3, 4}, float s = {0.5}> {w = DequantizeLinear(q, s) y = MatMul(x, w)}"""
    (here / "q.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    for options, values, largest in (((), "dequantised", 2.0), (("--raw",), "codes", 4.0)):
        assert onnxviz("weights", "q.onnx", "--table", "q.json", *options).code == 0
        row = json.loads((here / "q.json").read_text())["rows"][0]
        assert (row["values"], row["max"]) == (values, largest)


def test_kernels_of_one_layer_and_python(onnxviz: Onnxviz, here: Path) -> None:
    assert onnxviz("weights", LENET, "--view", "kernels", "-l", "conv3", "-o", "k.png").files == ["k.png"]
    import onnxviz as package

    assert package.weights(here / LENET, view="norms").axes
    assert len(package.weight_table(here / LENET).rows) == 5


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("-o", "a.gif"), ".png, .svg, .pdf"),
        (("--table", "t.txt"), ".csv, .json"),
        (("-o", "a.png", "--data", "d.csv"), ".npz"),
        (("--table", "-", "--sort", "size"), "there is no column 'size'"),
        (("-o", "a.png", "--sort", "l2"), "--sort is for the table"),
        (("-o", "a.png", "--view", "kernels"), "the kernels of one layer are drawn, 5 match"),
        (("-o", "a.png", "--view", "filters", "-l", "*bias*"), "is a vector"),
        (("-o", "a.png", "--view", "pie"), "pie"),
        (("-o", "a.png", "-l", "nothing"), "the layers are conv1"),
    ],
)
def test_bad_input(onnxviz: Onnxviz, arguments: tuple[str, ...], what: str) -> None:
    run = onnxviz("weights", LENET, *arguments)
    assert (run.code, run.files) == (2, [])
    assert what in run.err
    assert run.err.count("\n") == 1
