"""The bundled models are what their manifest says."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.io import open_model
from onnxviz.graph.provenance import NO_MODULE
from onnxviz.runtime.capture import capture
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.session import run_model

MODELS = Path(__file__).resolve().parent.parent / "models"
MANIFEST: dict[str, Any] = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))
ENTRIES = {entry["file"]: entry for entry in MANIFEST["models"]}
FILES = list(ENTRIES)
DIGIT_FILES = [file for file in FILES if ENTRIES[file]["data"] == "digits"]
TORCH_FILES = [file for file in FILES if "torch.py" in ENTRIES[file]["source"]]
VIT, SIGNAL, QUESTION = "vit_digits.onnx", "signal_cnn_lstm.onnx", "picture_question.onnx"
#: What at least must be right, of what a model was never shown.
AT_LEAST = {"digits": 0.985, "signals": 0.98, "questions": 0.98}
#: Attention of one sample, layer by layer: heads, queries, keys.
ATTENTION = {
    VIT: {f"blocks.{n}.attention.softmax": (4, 50, 50) for n in range(2)},
    QUESTION: {
        f"blocks.{n}.{kind}_attention.softmax": (4, 7, keys) for n in range(2) for kind, keys in (("self", 7), ("cross", 49))
    },
}  # fmt: skip


def samples(data: str) -> list[dict[str, Any]]:
    return [sample for sample in MANIFEST["samples"] if sample["data"] == data]


def wrong_hashes(folder: Path, manifest: dict[str, Any]) -> list[str]:
    vocabularies = [i["vocabulary"] for m in manifest["models"] for i in m["inputs"] if "vocabulary" in i]
    entries = [*manifest["models"], *manifest["samples"], *vocabularies]
    return [e["file"] for e in entries if hashlib.sha256((folder / e["file"]).read_bytes()).hexdigest() != e["sha256"]]


def wrong_classes(entries: list[dict[str, Any]], file: str) -> list[str]:
    model = open_model(MODELS / file)
    output = model.graph.outputs[0].name
    wrong = []
    for sample in entries:
        feeds = load_inputs(model, [MODELS / sample["file"]]).feeds
        if int(run_model(model, feeds)[output].argmax()) != sample["class"]:
            wrong.append(sample["file"])
    return wrong


def correct(model: ir.Model, feeds: dict[str, np.ndarray], classes: np.ndarray) -> int:
    return int(np.sum(run_model(model, feeds)["output"].argmax(1) == classes))


def shuffled(model: ir.Model, seed: int = 0) -> ir.Model:
    """Plant an error: every weight stays, but somewhere else in its tensor."""
    rng = np.random.default_rng(seed)
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if value.dtype.is_floating_point() and value.const_value.size > 1:
            array = value.const_value.numpy()
            value.const_value = ir.Tensor(rng.permutation(array.ravel()).reshape(array.shape), name=value.name)
    return copy


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What was held out, as the scripts beside the models make it: ``data.of(file)``."""
    if find_spec("sklearn") is None:
        pytest.skip("scikit-learn, which brings the digits, is not installed")
    monkeypatch.syspath_prepend(str(MODELS))
    import held_out

    return held_out


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(MODELS))
    import questions

    return questions


@cache
def bundled(file: str) -> ir.Model:
    return open_model(MODELS / file)


def test_every_file_is_listed_and_has_its_hash():
    listed = {entry["file"] for entry in (*MANIFEST["models"], *MANIFEST["samples"])}
    found = {path.relative_to(MODELS).as_posix() for kind in ("*.onnx", "samples/**/*.*") for path in MODELS.glob(kind)}
    assert listed == found
    assert wrong_hashes(MODELS, MANIFEST) == []
    assert {sample["class"] for sample in samples("digits")} == set(range(10))
    assert {sample["class"] for sample in samples("signals")} == set(range(4))


@pytest.mark.parametrize("file", [FILES[0], "picture_question_tokens.txt", "samples/signals/sine.npy"])
def test_a_flipped_byte_is_caught(file, tmp_path):
    shutil.copytree(MODELS, tmp_path / "models")
    path = tmp_path / "models" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert wrong_hashes(tmp_path / "models", MANIFEST) == [file]


@pytest.mark.parametrize("entry", MANIFEST["models"], ids=FILES)
def test_the_manifest_describes_the_file(entry):
    model = bundled(entry["file"])
    assert [value.name for value in model.graph.inputs] == [described["name"] for described in entry["inputs"]]
    for value, described in zip(model.graph.inputs, entry["inputs"], strict=True):
        assert [n if isinstance(n, int) else str(n) for n in value.shape] == described["shape"]
        assert described["shape"][0] == "batch"
        assert value.dtype.numpy() == np.dtype(described["dtype"])
    assert model.graph.outputs[0].name == entry["output"]["name"]
    assert model.graph.outputs[0].shape[-1] == len(entry["output"]["classes"])
    assert model.opset_imports[""] == entry["opset"]
    assert model.metadata_props["onnxviz.source"] == entry["source"]
    assert model.metadata_props["onnxviz.exporter"] == entry["exporter"]
    assert (MODELS / entry["source"].split(":")[0]).exists()


@pytest.mark.parametrize("file", TORCH_FILES)
def test_the_parameters_are_those_of_the_network(file, monkeypatch):
    pytest.importorskip("torch")
    from importlib import import_module

    monkeypatch.syspath_prepend(str(MODELS))
    script, factory = ENTRIES[file]["source"].split(":")
    network = getattr(import_module(script.removesuffix(".py")), factory)()
    network = network[0] if isinstance(network, tuple) else network
    assert sum(p.numel() for p in network.parameters()) == ENTRIES[file]["parameters"]


@pytest.mark.parametrize("file", FILES)
def test_nothing_in_the_file_tells_of_a_machine(file):
    data = (MODELS / file).read_bytes()
    for root in (b"/home/", b"/root/", b"/tmp/", b"/Users/", b"site-packages", b"C:\\Users"):
        assert root not in data
    assert NO_MODULE.encode() not in data


@pytest.mark.parametrize("file", DIGIT_FILES)
def test_every_sample_picture_is_read_as_its_class(file):
    assert wrong_classes(samples("digits"), file) == []


def test_every_sample_signal_is_read_as_its_class():
    assert wrong_classes(samples("signals"), SIGNAL) == []


@pytest.mark.parametrize(("data", "file"), [("digits", FILES[0]), ("digits", VIT), ("signals", SIGNAL)])
def test_a_swapped_class_is_caught(data, file):
    swapped = json.loads(json.dumps(samples(data)))
    first, second = swapped[:2]
    first["class"], second["class"] = second["class"], first["class"]
    assert wrong_classes(swapped, file) == [first["file"], second["file"]]


def test_every_sample_question_is_answered_about_every_clear_digit(questions):
    clear = [sample for sample in samples("digits") if "hard" not in sample["file"]]
    for digit in clear:
        found = {}
        for asked in samples("questions"):
            feeds = load_inputs(bundled(QUESTION), [MODELS / digit["file"], MODELS / asked["file"]]).feeds
            found[asked["text"]] = int(run_model(bundled(QUESTION), feeds)["output"].argmax())
        assert found == {text: questions.answer(text, digit["class"]) for text in found}
        assert found["is it even ?"] != found["is it odd ?"]


def test_sample_questions_are_what_the_token_list_says(questions):
    tokens = (MODELS / "picture_question_tokens.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(tokens)) == len(tokens) == bundled(QUESTION).graph.initializers["embedding.token.weight"].shape[0]
    for asked in samples("questions"):
        ids = np.load(MODELS / asked["file"])
        words = [tokens[n] for n in ids]
        assert ids.dtype == np.int64
        assert words[0] == "[CLS]"
        assert " ".join(word for word in words[1:] if word != "[PAD]") == asked["text"]
        assert asked["text"] in MANIFEST["data"]["questions"]["questions"]
    assert MANIFEST["data"]["questions"]["questions"] == list(questions.QUESTIONS)
    with pytest.raises(ValueError, match="nobody taught"):
        questions.answer("is it prime ?", 3)


def test_every_question_is_asked_in_training_about_every_digit(questions):
    pairs = questions.random_pairs(np.arange(10), np.random.default_rng(0), 2000)
    asked = {tuple(row) for row in np.column_stack((pairs.tokens, pairs.pictures)).tolist()}
    assert len(asked) == 10 * len(questions.QUESTIONS)
    for tokens, picture, right in zip(pairs.tokens[:200], pairs.pictures[:200], pairs.answers[:200], strict=True):
        text = " ".join(questions.VOCABULARY[n] for n in tokens[1:] if n != questions.PAD)
        assert right == questions.answer(text, int(picture))


@pytest.mark.parametrize("entry", MANIFEST["models"], ids=FILES)
def test_the_accuracy_is_the_one_that_is_claimed(entry, data):
    feeds, classes = data.of(entry["file"])
    found = run_model(bundled(entry["file"]), feeds)[entry["output"]["name"]].argmax(1)
    right = int(np.sum(found == classes))
    assert (right, len(found)) == (entry["correct"], entry["held_out"])
    assert entry["accuracy"] == round(right / len(found), 4)
    assert entry["accuracy"] >= AT_LEAST[entry["data"]]
    assert int(np.sum(found == np.roll(classes, len(classes) // 2 + 1))) < right / 1.5, "moved labels do not pass"


@pytest.mark.parametrize("file", FILES)
def test_shuffled_weights_are_caught(file, data):
    feeds, classes = data.of(file)
    few = {name: feed[::7] for name, feed in feeds.items()}
    output = ENTRIES[file]["output"]["name"]
    found = run_model(shuffled(bundled(file)), few)[output].argmax(1)
    assert np.mean(found == classes[::7]) < AT_LEAST[ENTRIES[file]["data"]] / 1.5


@pytest.mark.parametrize("name", ["image", "tokens"])
def test_an_answer_needs_both_the_picture_and_the_question(name, data):
    feeds, classes = data.of(QUESTION)
    mixed = {**feeds, name: np.random.default_rng(0).permutation(feeds[name])}
    assert correct(bundled(QUESTION), mixed, classes) < 0.7 * ENTRIES[QUESTION]["correct"]


@pytest.mark.parametrize("file", list(ATTENTION))
def test_attention_lies_between_two_matrix_products(file, data):
    model = bundled(file)
    found = {node.name: node for node in model.graph if node.op_type == "Softmax"}
    assert set(found) == set(ATTENTION[file])
    feeds = {name: feed[:23] for name, feed in data.of(file)[0].items()}
    captured = capture(model, feeds, [str(node.outputs[0].name) for node in found.values()], providers="cpu")
    for name, node in found.items():
        (reader,) = node.outputs[0].consumers()
        scores = node.inputs[0].producer()
        while scores.op_type in ("Where", "Div"):
            scores = scores.inputs[2 if scores.op_type == "Where" else 0].producer()
        assert (scores.op_type, reader.op_type) == ("MatMul", "MatMul")
        weights = captured[str(node.outputs[0].name)].array
        assert weights.shape == (23, *ATTENTION[file][name])
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=0, atol=1e-5)
        if "self_attention" in name:
            padding = np.broadcast_to((feeds["tokens"] == 0)[:, None, None], weights.shape)
            assert np.all(weights[padding] == 0)
            assert np.all(weights[~padding] > 0)


def test_the_lstm_runs_over_time():
    (node,) = (node for node in bundled(SIGNAL).graph if node.op_type == "LSTM")
    captured = capture(
        bundled(SIGNAL), [MODELS / "samples" / "signals" / "chirp.npy"], node.outputs[0].name, providers="cpu"
    )
    assert captured[str(node.outputs[0].name)].array.shape == (32, 1, 1, 24)


def test_the_accuracy_in_the_readme_is_the_manifests():
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    for entry in MANIFEST["models"]:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{entry['file']}`"))
        assert f"{entry['accuracy']:.2%}".replace("%", " %") in row
        assert f"{entry['correct']:,} of {entry['held_out']:,}" in row
        assert f"{entry['parameters']:,}" in row


def test_samples_are_the_held_out_digits(data):
    import digits
    from PIL import Image

    test = digits.load().test
    held_out = dict(zip(test.indices.tolist(), test.pictures, strict=True))
    for sample in samples("digits"):
        with Image.open(MODELS / sample["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), held_out[sample["index"]])


def test_sample_signals_are_held_out_ones(data):
    feeds, classes = data.of(SIGNAL)
    for sample in samples("signals"):
        signal = np.load(MODELS / sample["file"])
        assert (signal.shape, signal.dtype) == ((1, 256), np.float32)
        np.testing.assert_allclose(signal, feeds["signal"][sample["index"]], rtol=0, atol=1e-5)
        assert classes[sample["index"]] == sample["class"]
    assert np.bincount(classes).tolist() == [200] * 4


@pytest.mark.parametrize("file", DIGIT_FILES)
def test_a_picture_takes_the_way_of_the_training_data(file, data):
    import digits

    size = ENTRIES[file]["inputs"][0]["shape"][2]
    test = digits.load().test
    for sample in samples("digits"):
        fed = load_inputs(bundled(file), [MODELS / sample["file"]]).feeds["image"]
        trained = digits.network_input(test.pictures[test.indices == sample["index"]], size)
        np.testing.assert_array_equal(fed.reshape(1, size, size), trained)
