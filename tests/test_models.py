"""The bundled models are what their manifest says."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxviz.graph.io import open_model
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.session import run_model

MODELS = Path(__file__).resolve().parent.parent / "models"
MANIFEST: dict[str, Any] = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))
FILES = [entry["file"] for entry in MANIFEST["models"]]


def wrong_hashes(folder: Path, manifest: dict[str, Any]) -> list[str]:
    entries = [*manifest["models"], *manifest["samples"]]
    return [e["file"] for e in entries if hashlib.sha256((folder / e["file"]).read_bytes()).hexdigest() != e["sha256"]]


def wrong_classes(manifest: dict[str, Any], file: str) -> list[str]:
    model = open_model(MODELS / file)
    output = model.graph.outputs[0].name
    wrong = []
    for sample in manifest["samples"]:
        feeds = load_inputs(model, [MODELS / sample["file"]]).feeds
        if int(run_model(model, feeds)[output].argmax()) != sample["class"]:
            wrong.append(sample["file"])
    return wrong


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Any:
    if find_spec("sklearn") is None:
        pytest.skip("scikit-learn, which brings the digits, is not installed")
    monkeypatch.syspath_prepend(str(MODELS))
    import digits

    return digits


def test_every_file_is_listed_and_has_its_hash():
    listed = {entry["file"] for entry in (*MANIFEST["models"], *MANIFEST["samples"])}
    found = {path.relative_to(MODELS).as_posix() for kind in ("*.onnx", "samples/*.png") for path in MODELS.glob(kind)}
    assert listed == found
    assert wrong_hashes(MODELS, MANIFEST) == []
    assert {sample["class"] for sample in MANIFEST["samples"]} == set(range(10))


def test_a_flipped_byte_is_caught(tmp_path):
    shutil.copytree(MODELS, tmp_path / "models")
    path = tmp_path / "models" / FILES[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert wrong_hashes(tmp_path / "models", MANIFEST) == [FILES[0]]


@pytest.mark.parametrize("entry", MANIFEST["models"], ids=FILES)
def test_the_manifest_describes_the_file(entry):
    model = open_model(MODELS / entry["file"])
    image = model.graph.inputs[0]
    assert image.name == entry["input"]["name"]
    assert [n if isinstance(n, int) else str(n) for n in image.shape] == entry["input"]["shape"]
    assert model.opset_imports[""] == entry["opset"]
    assert model.metadata_props["onnxviz.source"] == entry["source"]
    assert model.metadata_props["onnxviz.exporter"] == entry["exporter"]
    weights = [v.const_value for v in model.graph.initializers.values() if v.dtype.is_floating_point()]
    assert sum(w.size for w in weights) == entry["parameters"]
    assert (MODELS / entry["source"].split(":")[0]).exists()


@pytest.mark.parametrize("file", FILES)
def test_nothing_in_the_file_tells_of_a_machine(file):
    data = (MODELS / file).read_bytes()
    for root in (b"/home/", b"/root/", b"/tmp/", b"/Users/", b"site-packages", b"C:\\Users"):
        assert root not in data


@pytest.mark.parametrize("file", FILES)
def test_every_sample_picture_is_read_as_its_class(file):
    assert wrong_classes(MANIFEST, file) == []


def test_a_swapped_class_is_caught():
    swapped = json.loads(json.dumps(MANIFEST))
    first, second = swapped["samples"][:2]
    first["class"], second["class"] = second["class"], first["class"]
    assert wrong_classes(swapped, FILES[0]) == [first["file"], second["file"]]


@pytest.mark.parametrize("entry", MANIFEST["models"], ids=FILES)
def test_the_accuracy_is_the_one_that_is_claimed(entry, digits):
    test = digits.load().test
    images = digits.network_input(
        test.pictures, entry["input"]["shape"][1 if entry["input"]["layout"] == "NHWC" else 2]
    )
    feed = images[:, None] if entry["input"]["layout"] == "NCHW" else images[..., None]
    model = open_model(MODELS / entry["file"])
    found = run_model(model, {"image": feed})[entry["output"]["name"]].argmax(1)
    correct = int(np.sum(found == test.classes))
    assert (correct, len(found)) == (entry["correct"], entry["held_out"])
    assert entry["accuracy"] == round(correct / len(found), 4)
    assert entry["accuracy"] >= 0.985
    assert int(np.sum(found == np.roll(test.classes, 1))) < correct / 2, "labels that are shifted by one do not pass"


def test_the_accuracy_in_the_readme_is_the_manifests():
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    for entry in MANIFEST["models"]:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{entry['file']}`"))
        assert f"{entry['accuracy']:.2%}".replace("%", " %") in row
        assert f"{entry['correct']} of {entry['held_out']}" in row
        assert f"{entry['parameters']:,}" in row


def test_samples_are_the_held_out_digits(digits):
    from PIL import Image

    test = digits.load().test
    held_out = dict(zip(test.indices.tolist(), test.pictures, strict=True))
    for sample in MANIFEST["samples"]:
        with Image.open(MODELS / sample["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), held_out[sample["index"]])


@pytest.mark.parametrize("file", FILES)
def test_a_picture_takes_the_way_of_the_training_data(file, digits):
    entry = next(e for e in MANIFEST["models"] if e["file"] == file)
    size = entry["input"]["shape"][2]
    test = digits.load().test
    model = open_model(MODELS / file)
    for sample in MANIFEST["samples"]:
        fed = load_inputs(model, [MODELS / sample["file"]]).feeds["image"]
        trained = digits.network_input(test.pictures[test.indices == sample["index"]], size)
        np.testing.assert_array_equal(fed.reshape(1, size, size), trained)
