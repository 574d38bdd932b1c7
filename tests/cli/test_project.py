"""``onnxviz project``, and the functions behind it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.offsetbox import AnnotationBbox
from PIL import Image

from onnxviz import api
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.last_hidden import last_hidden
from onnxviz.graph.shapes import infer_shapes
from tests.cli.conftest import Onnxviz

RNG = np.random.default_rng(5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of 32×32 in two folders: bars across and bars down."""
    for i in range(12):
        picture = np.zeros((32, 32), np.uint8)
        picture[np.s_[4 + i : 9 + i] if i % 2 else np.s_[:, 4 + i : 9 + i]] = 255
        kind = tmp_path / "set" / ("across" if i % 2 else "down")
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(kind / f"{i:02}.png")
    return tmp_path / "set"


def test_samples_of_the_last_hidden_layer(folder: Path, models: Path, tmp_path: Path, onnxviz: Onnxviz) -> None:
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for file in files:
        options = ["-m", "tsne", "--data", str(tmp_path / "x.npz"), "--perplexity", "3", "--perplexity", "9"]
        run = onnxviz("project", models / "lenet5.onnx", "-i", folder, "-o", file, *options)
        assert run.code == 0, run.err
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "t-SNE, perplexity 9: a perplexity of 9 does not fit 12 points" in run.err
    with np.load(tmp_path / "x.npz") as stored:
        manifest = json.loads(str(stored["__onnxviz__"]))
        assert stored["map/1"].shape == (12, 2)
        assert len(manifest["maps"]) == 2
    assert manifest["layer"] == "tanh6"
    assert manifest["names"][0] == "across/01.png"
    assert manifest["classes"]["labels"] == ["across"] * 6 + ["down"] * 6


def test_numbers_are_those_of_the_tensor(folder: Path, models: Path) -> None:
    from sklearn.decomposition import PCA

    captured = api.capture(models / "lenet5.onnx", folder, "pool2")
    array = captured["pool2"].array
    found = api.projection(models / "lenet5.onnx", folder, "pool2")
    theirs = PCA(2).fit_transform(array.reshape(12, -1).astype(np.float64))
    np.testing.assert_allclose(np.abs(found.maps[0].points), np.abs(theirs), atol=1e-4)
    assert found.classes is not None
    channels = api.projection(models / "lenet5.onnx", folder, "pool2", of="channels")
    theirs = PCA(2).fit_transform(array.mean(axis=(2, 3)).T.astype(np.float64))
    np.testing.assert_allclose(np.abs(channels.maps[0].points), np.abs(theirs), atol=1e-5)
    one = api.projection(models / "lenet5.onnx", folder, "pool2", of="channels", sample=3)
    theirs = PCA(2).fit_transform(array[3].reshape(6, -1).astype(np.float64))
    np.testing.assert_allclose(np.abs(one.maps[0].points), np.abs(theirs), atol=1e-5)
    assert one.what == "a channel, as its 196 positions for sample 3"
    other = PCA(2).fit_transform(array[8].reshape(6, -1).astype(np.float64))  # planted: another sample
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(np.abs(one.maps[0].points), np.abs(other), atol=1e-3)
    neurons = api.projection(models / "lenet5.onnx", folder, "pool2", of="neurons")
    assert neurons.total == 1176
    assert neurons.names[0].startswith("channel 0, position ")


def test_filters_need_no_input(models: Path, tmp_path: Path) -> None:
    weights = next(
        v for v in ir.load(models / "lenet5.onnx").graph.initializers.values() if list(v.shape or []) == [16, 6, 5, 5]
    )
    rows = weights.const_value.numpy().reshape(16, -1).astype(np.float64)  # type: ignore[union-attr]
    found = api.projection(models / "lenet5.onnx", tensor="conv3", of="filters")
    assert found.pca.total == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=1e-5)
    by_default = api.projection(models / "lenet5.onnx", of="filters")
    assert (len(by_default.numbers), by_default.columns) == (84, 120)
    figure = api.project(models / "lenet5.onnx", None, "conv1", tmp_path / "a.svg", of="filters", markers="thumbnails")
    assert any("kernels red above 0" in text.get_text() for text in figure.texts)


def test_pictures_and_signals_as_markers(folder: Path, models: Path) -> None:
    figure = api.project(models / "lenet5.onnx", folder, markers="thumbnails")
    shown = [a for a in figure.axes[0].artists if isinstance(a, AnnotationBbox)]
    assert any(
        text.get_text().startswith(f"pictures, where they do not overlap: {len(shown)} of 12") for text in figure.texts
    )
    signals = RNG.normal(size=(8, 1, 256)).astype(np.float32)
    figure = api.project(models / "signal_cnn_lstm.onnx", {"signal": signals}, markers="thumbnails")
    assert any("signals, each over its own range" in text.get_text() for text in figure.texts)
    told: list[str] = []
    api.project(models / "lenet5.onnx", folder, markers="thumbnails", of="neurons", tell=told.append)
    assert told == ["not drawn: thumbnails: a neuron has no picture; --of channels or filters has"]


def test_one_picture_and_many_questions_are_told_apart_by_the_questions(models: Path) -> None:
    questions = [np.load(file) for file in sorted((models / "samples/questions").glob("*.npy"))]
    fed = {"image": np.zeros((5, 1, 28, 28), np.float32), "tokens": np.stack(questions)}
    words = models / "picture_question_tokens.txt"
    figure = api.project(models / "picture_question.onnx", fed, markers="thumbnails", tokens=words)
    assert any(text.get_text().startswith("words, where they do not overlap: ") for text in figure.texts)
    boxes = [a for a in figure.axes[0].artists if isinstance(a, AnnotationBbox)]
    shown = {box.offsetbox.get_text() for box in boxes}
    assert shown
    assert shown <= {
        "which digit is it ?",
        "is it even ?",
        "is it odd ?",
        "is it larger than 5 ?",
        "is it smaller than 3 ?",
    }


def test_labels_that_do_not_match_are_told_and_the_rest_is_drawn(folder: Path, models: Path, tmp_path: Path) -> None:
    table = tmp_path / "wrong.csv"
    table.write_text("file,label\nother.png,1\n")
    told: list[str] = []
    figure = api.project(models / "lenet5.onnx", folder, labels=str(table), tell=told.append)
    assert told[0].startswith("not drawn: labels: ")
    assert any("not drawn: labels" in text.get_text() for text in figure.texts)
    with pytest.raises(InputError, match="cannot be read"):
        api.project(models / "lenet5.onnx", folder, labels=str(tmp_path / "none.csv"))
    with pytest.raises(SelectionError, match="no labels to colour by"):
        api.project(models / "lenet5.onnx", folder, labels=str(table), color_by="labels")


def test_what_cannot_be_placed_is_refused(folder: Path, models: Path, tmp_path: Path) -> None:
    lenet = models / "lenet5.onnx"
    with pytest.raises(InputError, match="needs at least 2 samples, and tanh6 gives 1"):
        api.project(lenet, models / "samples/digit_3.png")
    with pytest.raises(SelectionError, match="names 2 layers: pool2, pool4|names 2 layers"):
        api.project(lenet, folder, "pool*")
    with pytest.raises(SelectionError, match="one value a channel"):
        api.project(lenet, folder, of="channels", sample=0)
    with pytest.raises(SelectionError, match="no sample 40"):
        api.project(lenet, folder, "pool2", of="channels", sample=40)
    for options in ({"of": "layers"}, {"markers": "faces"}, {"method": "lda"}):
        with pytest.raises(SelectionError, match="there (is|are) no"):
            api.project(lenet, folder, **options)
    rows = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4, 3] x) => (float[3, 2] y) <float[4, 2] w = {1,2,3,4,5,6,7,8}>
        {t = Transpose<perm = [1, 0]>(x) h = Relu(t) y = MatMul(h, w)}"""
    )
    with pytest.raises(SelectionError, match="gives 6 rows for 8 samples"):
        api.project(rows, {"x": RNG.normal(size=(8, 3)).astype(np.float32)})


def test_names_of_a_model_are_escaped(tmp_path: Path) -> None:
    name = "</text><script>" + "x" * 10_000
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[n, 3] x) => (float[n, 2] y) <float[3, 2] w = {1,2,3,4,5,6}>
        {h = Relu(x) y = MatMul(h, w)}"""
    )
    model.graph[0].outputs[0].name = name
    api.project(model, {"x": RNG.normal(size=(9, 3)).astype(np.float32)}, output=tmp_path / "a.svg")
    assert "<script" not in (tmp_path / "a.svg").read_text()


def test_the_last_hidden_layer() -> None:
    def of(text: str) -> str | None:
        return last_hidden(infer_shapes(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> g {text}')))[0].name

    assert of("(float[1, 4] x) => (float[1, 4] y) {a = Relu(x) y = Neg(a)}") == "a"
    assert of("(float[1, 4] x) => (float[1, 4] y) {y = Neg(x)}") == "y"
    conv = "(float[1, 1, 1, 2] x) => (float[1, 1] p) <float[1, 1, 1, 1] k = {1}, float[2, 1] w = {1, 2}, float[1] b = {1}> "
    nodes = "{c = Conv(x, k) r = Relu(c) f = Flatten(r) m = MatMul(f, w) s = Add(b, m) p = Softmax(s)}"
    assert of(conv + nodes) == "r"
    with pytest.raises(SelectionError):
        last_hidden(ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] x) {}'))
    chain = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(20_000))  # deeper than Python may recurse
    assert of(f"(float[1] v0) => (float[1] v20000) {{{chain}}}") == "v19999"


@pytest.mark.corpus
def test_quantised_filters_of_the_corpus(corpus: Path) -> None:
    found = api.projection(corpus / "models/generated/ort_resnet18_int8_qoperator.onnx", of="filters")
    assert (found.op_type, len(found.numbers), found.columns) == ("QLinearConv", 512, 4608)
    assert any("dequantised from int8" in note for note in found.notes)
