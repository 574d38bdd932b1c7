"""The verb ``neurons``, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.metrics import roc_auc_score

import onnxviz
from onnxviz.errors import SelectionError
from tests.cli.conftest import Onnxviz

LENET, CNN = "models/lenet5.onnx", "models/digits_cnn.onnx"


@pytest.fixture
def classes(here: Path) -> Path:
    """The sample digits in a folder a class, and two more of one class."""
    for file in sorted((here / "models" / "samples").glob("digit_*.png")):
        kind = "round" if file.stem[-1] in "0689" else "straight"
        (here / "data" / kind).mkdir(parents=True, exist_ok=True)
        (here / "data" / kind / file.name).write_bytes(file.read_bytes())
    return here / "data"


def test_neurons_over_class_folders(onnxviz: Onnxviz, here: Path, classes: Path) -> None:
    run = onnxviz(
        "neurons", CNN, "--input", "data", "-t", "conv2/Relu", "-t", "fc1/Relu", "--over", "max", "-o", "n.svg",
        "--data", "n.npz", "--table", "n.csv", "--batch", "4",
    )  # fmt: skip
    assert (run.code, run.out, run.err) == (0, "n.svg\nn.npz\nn.csv\n", "")
    assert run.files == ["data", "n.csv", "n.npz", "n.svg"]
    with np.load(here / "n.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        found = {name: data[name] for name in data.files}
    captured = onnxviz_capture(here, manifest["samples"])
    np.testing.assert_allclose(found["0/values"], captured.max(axis=(2, 3)), rtol=1e-5, atol=1e-5)
    assert manifest["layers"][1]["name"] == "fc1/Relu"
    assert [row["units"] for row in manifest["layers"]] == [32, 32]
    for unit in np.flatnonzero(found["1/best_class"] >= 0):
        expected = roc_auc_score(found["1/labels"] == found["1/best_class"][unit], found["1/values"][:, unit])
        assert found["1/auc"][unit] == pytest.approx(expected)
    text = (here / "n.svg").read_text()
    assert "what its most active position sees" in text
    assert "10 samples of 2 classes (folders)" in text
    assert len((here / "n.csv").read_text().splitlines()) == 65


def onnxviz_capture(here: Path, names: list[str]) -> np.ndarray:
    files = [here / "data" / name for name in names]
    records = onnxviz.capture(here / CNN, files, "conv2/Relu")
    return np.asarray(records["conv2/Relu"].array)


def test_a_table_of_labels_and_what_does_not_match(onnxviz: Onnxviz, here: Path) -> None:
    (here / "labels.csv").write_text("file,class\n" + "".join(f"digit_{i}.png,{i % 2}\n" for i in range(10)))
    run = onnxviz("neurons", LENET, "-i", "models/samples", "--labels", "labels.csv", "-o", "n.png", "--z-score")
    assert (run.code, run.err) == (0, "2 of 12 samples have no label in labels.csv\n")


def test_one_sample_and_none(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("neurons", LENET, "-i", "models/samples/digit_3.png", "-o", "n.svg")
    assert run.code == 0, run.err
    assert "selectivity and a distribution need more" in (here / "n.svg").read_text()
    run = onnxviz("neurons", LENET, "-o", "n.svg")
    assert (run.code, run.err) == (0, "random numbers were fed to image\n")


def test_samples_that_come_as_an_array(models: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 1, 32, 32)).astype(np.float32)
    found = onnxviz.neuron_views(models / "lenet5.onnx", {"image": rows}, "tanh1")
    assert found.names[:2] == ("sample 0", "sample 1")
    (layer,) = found.layers
    captured = onnxviz.capture(models / "lenet5.onnx", {"image": rows}, "tanh1")["tanh1"].array
    np.testing.assert_allclose(layer.values, captured.mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    best = layer.extremes[0].top[0]
    row = captured[best.sample, layer.extremes[0].unit]
    assert best.peak == np.unravel_index(row.argmax(), row.shape)
    assert found.views[best.sample].picture is not None


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("-i", "models/samples", "--labels", "folders", "-o", "n.png"), "do not lie in a folder a class"),
        (("-i", "models/samples", "--labels", "none.csv", "-o", "n.png"), "labels cannot be read"),
        (("-i", "models/samples", "--by", "auc", "-o", "n.png"), "needs two classes"),
        (("-i", "models/samples", "-t", "nothing", "-o", "n.png"), "nothing"),
        (("-i", "models/samples", "-o", "n.gif"), ".png"),
        (("-i", "models/samples", "-o", "n.png", "--table", "n.txt"), ".csv"),
    ],
)
def test_bad_input(onnxviz: Onnxviz, arguments: tuple[str, ...], what: str) -> None:
    run = onnxviz("neurons", LENET, *arguments)
    assert (run.code, run.files) == (2, [])
    assert what in run.err
    assert run.err.count("\n") == 1


def test_a_layer_whose_first_axis_is_not_the_samples_is_told_and_the_rest_is_drawn() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] y) '
        "{h = Relu(x) t = Transpose<perm = [1, 0]>(h) y = Transpose<perm = [1, 0]>(t)}"
    )
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = onnxviz.neuron_views(model, {"x": rows}, ["h", "t"])
    assert [layer.name for layer in found.layers] == ["h"]
    assert "is not the samples: it has 4 rows for 3 samples" in found.not_drawn[0].reason
    with pytest.raises(SelectionError, match="no units to draw: t: its first axis"):
        onnxviz.neuron_views(model, {"x": rows}, "t")


@pytest.mark.corpus
def test_a_detector(corpus: Path) -> None:
    images = [corpus / "images" / f"skimage_{name}.png" for name in ("astronaut", "chelsea", "coffee")]
    found = onnxviz.neuron_views(corpus / "models" / "detector" / "blazeface_front_128.onnx", images)
    (layer,) = found.layers
    assert (layer.role, len(layer.values)) == ("last hidden layer", 3)
    assert all(found.views[sample].picture is not None for sample in found.wanted)
