"""Exported attributions: one file, run by onnxruntime alone, gives what attribute() gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.analysis.attribution.deploy import DEPLOYABLE
from onnxviz.analysis.attribution.deploy_maps import CAM_FORMULAS
from onnxviz.analysis.attribution.methods import known_methods
from onnxviz.api import attribute, attribution_model, explain, open_model, preprocessing
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.model import to_proto
from onnxviz.runtime.session import run_model
from tests.conftest import make_small_cnn

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
X = np.random.default_rng(2).standard_normal((3, 1, 8, 8)).astype(np.float32)
ALONE = """
import sys
import numpy as np
import onnxruntime
assert not any(name.split(".")[0] in ("onnxviz", "onnx", "onnx_ir") for name in sys.modules)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as archive:
    feeds = {name: archive[name] for name in archive.files}
names = [value.name for value in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(names, feeds))))
"""


def alone(path: Path, feeds: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Run a file in a process that imports numpy and onnxruntime alone."""
    np.savez(folder / "in.npz", **feeds)  # type: ignore[arg-type]
    command = [sys.executable, "-I", "-c", ALONE, str(path), str(folder / "in.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as archive:
        return {name: archive[name] for name in archive.files}


def close(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, atol=1e-5 * max(float(np.abs(other).max()), 1e-30), rtol=0)


METHODS_HERE = [name for name in DEPLOYABLE if name in known_methods()]


@pytest.mark.parametrize("name", METHODS_HERE)
def test_the_file_gives_what_attribute_gives(name: str) -> None:
    model = make_small_cnn()
    found = attribute(model, {"x": X}, method=name, providers="cpu")
    made = attribution_model(model, {"x": X}, method=name, providers="cpu")
    onnx.checker.check_model(to_proto(made), full_check=True)
    given = run_model(made, {"x": X})
    close(given["attribution"], found.values)
    np.testing.assert_allclose(given["y"], run_model(model, {"x": X})["y"], rtol=1e-6)
    assert given["heatmap"].shape == (3, 8, 8)
    five = run_model(made, {"x": np.concatenate([X, X[:2]])})  # the batch stays open
    close(five["attribution"][3:], found.values[:2])
    wrong = attribute(model, {"x": X}, method=name, target=int(found.classes[0] + 1) % 3, providers="cpu")  # type: ignore[index]
    assert not np.allclose(wrong.values, given["attribution"], atol=1e-4)


@pytest.mark.parametrize("name", ["grad-cam", "saliency"])
def test_a_process_with_onnxruntime_alone(name: str, models: Path, tmp_path: Path) -> None:
    fed = [str(models / "samples" / f"digit_{i}.png") for i in (3, 8)]
    path = tmp_path / "explained.onnx"
    explain(models / "lenet5.onnx", fed, name, tmp_path / "a.png", export=path, providers="cpu")
    onnx.checker.check_model(path, full_check=True)
    found = attribute(models / "lenet5.onnx", fed, method=name, providers="cpu")
    given = alone(path, dict(found.inputs), tmp_path)
    close(given["attribution"], found.values)
    assert given["heatmap"].shape == (2, 32, 32)
    assert onnx.load(path).metadata_props[0].key.startswith("onnxviz.") or len(onnx.load(path).metadata_props) >= 2


def test_a_class_that_is_fed_and_one_that_is_fixed() -> None:
    model = make_small_cnn()
    made = attribution_model(model, {"x": X}, export_target="input", providers="cpu")
    assert [value.name for value in made.graph.inputs] == ["x", "class"]
    fixed = attribution_model(model, {"x": X}, target=2, providers="cpu")
    assert [value.name for value in fixed.graph.inputs] == ["x"]
    for cls in range(3):
        found = attribute(model, {"x": X}, target=cls, providers="cpu").values
        close(run_model(made, {"x": X, "class": np.full(3, cls, np.int64)})["attribution"], found)
        if cls == 2:
            close(run_model(fixed, {"x": X})["attribution"], found)
    mixed = run_model(made, {"x": X, "class": np.int64([2, 0, 1])})["attribution"]
    close(mixed[0], attribute(model, {"x": X[:1]}, target=2, providers="cpu").values[0])


def test_names_that_are_taken_get_a_number() -> None:
    text = HEAD + "g (float[N, 2] class) => (float[N, 2] attribution) {attribution = Mul(class, class)}"
    model = ir.from_onnx_text(text)
    made = attribution_model(model, {"class": np.ones((1, 2), np.float32)}, method="saliency", export_target="input",
                             providers="cpu")  # fmt: skip
    assert [v.name for v in made.graph.inputs] == ["class", "class_2"]
    assert [v.name for v in made.graph.outputs] == ["attribution", "attribution_2"]
    given = run_model(made, {"class": np.float32([[1, 4]]), "class_2": np.int64([1])})
    assert given["attribution_2"].tolist() == [[0, 8]]


def test_the_heat_map_is_the_map_as_it_is_drawn(models: Path) -> None:
    from onnxviz.analysis.attribution.views import attribution_view

    for file in ("lenet5.onnx", "vit_digits.onnx", "digits_cnn.onnx"):
        fed = [str(models / "samples" / "digit_3.png")]
        found = attribute(models / file, fed, providers="cpu")
        made = attribution_model(models / file, fed, providers="cpu")
        given = run_model(made, dict(found.inputs))["heatmap"][0]
        view = attribution_view(found, found.tensor, 0).spatial
        assert view is not None
        drawn = view.at(*(np.arange(float(n)) for n in given.shape))
        inside = np.isfinite(drawn)
        np.testing.assert_allclose(given[inside], drawn[inside], atol=1e-5 * float(drawn[inside].max()))


def test_open_sizes_are_resized_at_run_time() -> None:
    text = (
        HEAD
        + """g (float[N, 1, H, W] x) => (float[N, 2] y) <float[4, 1, 2, 2] w = {0}, float[4, 2] v = {0}> {
        c = Conv<strides = [2, 2]>(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, v)}"""
    )
    model = ir.from_onnx_text(text)
    for name in ("w", "v"):
        value = model.graph.initializers[name]
        shape = value.shape.numpy() if value.shape is not None else ()
        value.const_value = ir.Tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32), name=name)
    made = attribution_model(model, {"x": np.ones((1, 1, 8, 8), np.float32)}, providers="cpu", target=0)
    for size in ((8, 8), (12, 6)):
        x = np.random.default_rng(0).random((2, 1, *size)).astype(np.float32)
        given = run_model(made, {"x": x})
        assert given["heatmap"].shape == (2, *size)
        close(given["attribution"], attribute(model, {"x": x}, target=0, providers="cpu").values)


def test_what_cannot_be_exported_names_what_can() -> None:
    model = make_small_cnn()
    for name in ("integrated-gradients", "eigen-cam", "smoothgrad"):
        with pytest.raises(InputError, match=r"cannot be exported.*grad-cam.*saliency"):
            attribution_model(model, {"x": X}, method=name, providers="cpu")
    with pytest.raises(InputError, match="one file holds one map"):
        explain(model, {"x": X}, ["grad-cam", "saliency"], export="a.onnx")
    other = 3 * np.random.default_rng(5).standard_normal((5, 1, 8, 8)).astype(np.float32)
    with pytest.raises(InputError, match="different targets"):
        attribution_model(make_small_cnn(1), {"x": other}, export_target="fixed", providers="cpu")
    with pytest.raises(InputError, match="no class"):
        attribution_model(model, {"x": X}, target="y:1", export_target="input", providers="cpu")
    tokens = ir.from_onnx_text(
        HEAD
        + """g (int64[N, 4] ids) => (float[N, 2] y) <float[9, 3] t = {0}, float[12, 2] v = {0}> {
        e = Gather(t, ids) f = Flatten(e) y = MatMul(f, v)}"""
    )
    for name, shape in {"t": (9, 3), "v": (12, 2)}.items():
        tokens.graph.initializers[name].const_value = ir.Tensor(np.ones(shape, np.float32), name=name)
    with pytest.raises(SelectionError, match="inside the model"):
        attribution_model(tokens, {"ids": np.zeros((1, 4), np.int64)}, method="saliency", providers="cpu")


def test_a_neuron_is_fixed_in_the_file() -> None:
    model = make_small_cnn()
    found = attribute(model, {"x": X}, method="saliency", target="r:1,2,3", providers="cpu")
    made = attribution_model(model, {"x": X}, method="saliency", target="r:1,2,3", providers="cpu")
    close(run_model(made, {"x": X})["attribution"], found.values)


def test_half_precision_keeps_a_map_of_single(tmp_path: Path) -> None:
    text = (
        HEAD
        + "g (float16[N, 4] x) => (float16[N, 2] y) <float16[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> {y = MatMul(x, w)}"
    )
    model = ir.from_onnx_text(text)
    x = np.float16([[1, 2, 3, 4]])
    given = run_model(attribution_model(model, {"x": x}, method="input-x-gradient", providers="cpu"), {"x": x})
    assert given["attribution"].dtype == np.float32
    close(given["attribution"], attribute(model, {"x": x}, method="input-x-gradient", providers="cpu").values)


def test_a_formula_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_small_cnn()
    found = attribute(model, {"x": X}, method="layer-cam", providers="cpu").values
    monkeypatch.setitem(CAM_FORMULAS, "layer-cam", CAM_FORMULAS["hires-cam"])
    given = run_model(attribution_model(model, {"x": X}, method="layer-cam", providers="cpu"), {"x": X})["attribution"]
    with pytest.raises(AssertionError):
        close(given, found)


@pytest.mark.corpus
def test_a_real_classifier(corpus: Path, tmp_path: Path) -> None:
    path = corpus / "models" / "classifier" / "SqueezeNet_fp32.onnx"
    options: dict[str, Any] = {"preprocessing": preprocessing("keras-caffe"), "providers": "cpu"}
    fed = [str(corpus / "images" / "gradcam_dog_cat.png")]
    attribution_model(path, fed, tmp_path / "a.onnx", **options)
    found = attribute(path, fed, **options)
    given = alone(tmp_path / "a.onnx", dict(found.inputs), tmp_path)
    close(given["attribution"], found.values)
    assert given["heatmap"].shape == (1, 224, 224)
    assert set(given) == {"softmaxout_1", "attribution", "heatmap"}
    assert len(open_model(tmp_path / "a.onnx").graph.inputs) == 1


def test_a_place_that_ties_the_file_to_a_size_is_said() -> None:
    weights = ", ".join(map(str, [1, 2, -3, 4, -5, 6, 7, -8, 9, 9, 8, 7, -6, 5, 4, 3, -2, 1]))
    text = (
        HEAD + "g (float[N, 1, {0}, {0}] x) => (float[N, 2, {0}, {0}] y) <float[2, 1, 3, 3] w = {{" + weights + "}}> "
    )
    text += "{{y = Conv<pads = [1, 1, 1, 1]>(x, w)}}"
    x = {"x": np.random.default_rng(0).random((1, 1, 8, 8)).astype(np.float32)}
    said: list[str] = []
    for size in ("H", "8"):
        model = ir.from_onnx_text(text.format(size))
        attribution_model(model, x, method="saliency", target="y:1,2,2", providers="cpu", tell=said.append)
    assert said == [
        "exported: attribution and heatmap",
        "the target is a place in y of 2 × 8 × 8: the file takes inputs of that size alone",
        "exported: attribution and heatmap",
    ]


@pytest.mark.corpus
def test_a_box_is_that_of_the_sample(corpus: Path) -> None:
    said: list[str] = []
    attribution_model(
        corpus / "models" / "detector" / "blazeface_front_128.onnx", [str(corpus / "images" / "ultraface_1.jpg")],
        method="grad-cam", target="box:0", providers="cpu", tell=said.append,
    )  # fmt: skip
    assert any(line.startswith("whatever is fed, the map is that of the place in ") for line in said)
