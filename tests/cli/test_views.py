"""The verbs of the views, as a user types them."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import onnxviz.api as onnxviz_api
from tests.cli.conftest import Onnxviz

LENET, CNN, VIT = "models/lenet5.onnx", "models/digits_cnn.onnx", "models/vit_digits.onnx"
DIGIT = "models/samples/digit_3.png"


def test_activations_over_a_folder(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("activations", CNN, "--input", "models/samples", "-o", "a.svg", "--data", "a.npz")
    assert (run.code, run.files, run.out) == (0, ["a.npz", "a.svg"], "a.svg\na.npz\n"), run.err
    with np.load(here / "a.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
    assert manifest["samples"] == len(list((here / "models" / "samples").glob("*.png")))
    assert [row["function"] for row in manifest["views"]] == ["Relu"] * 4
    assert "dead over" in (here / "a.svg").read_text()


def test_pooling(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("pooling", CNN, "--input", DIGIT, "-o", "p.png", "--data", "p.npz", "--top", "3")
    assert (run.code, run.files) == (0, ["p.npz", "p.png"]), run.err
    with np.load(here / "p.npz") as data:
        assert data["0/before"].shape == (3, 26, 26)
        at = data["0/survivors"]
        channel = np.arange(3)[:, None, None]
        np.testing.assert_array_equal(data["0/before"][channel, at[..., 0], at[..., 1]], data["0/after"])


def test_one_line_for_what_is_not_drawn_and_the_rest_is(onnxviz: Onnxviz) -> None:
    run = onnxviz("activations", LENET, "-t", "tanh1", "-t", "conv1", "-o", "a.png")
    assert (run.code, run.files) == (0, ["a.png"])
    assert run.err.splitlines() == ["not drawn: conv1: it leaves Conv, which is no activation function"]


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ((), ["lenet5_pooling.png"]),
        (("--format", "svg"), ["lenet5_pooling.svg"]),
        (("--format", "pdf", "-o", "maps.v2"), ["maps.v2.pdf"]),
        (("--format", "png", "-o", "maps.PNG"), ["maps.PNG"]),
        (("--data", "d.npz"), ["d.npz"]),
        (("--data", "d.npz", "--format", "png"), ["d.npz", "lenet5_pooling.png"]),
    ],
)
def test_files_and_formats(onnxviz: Onnxviz, here: Path, arguments: tuple[str, ...], files: list[str]) -> None:
    run = onnxviz("pooling", LENET, "--input", DIGIT, *arguments)
    assert (run.code, run.files, sorted(run.out.split())) == (0, files, files), run.err
    heads = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".npz": b"PK"}
    for file in files:
        assert (here / file).read_bytes().startswith(heads[Path(file).suffix.lower()])


SAMPLES = ("--input", "models/samples")
VERBS = {
    "features": (LENET, "--input", DIGIT),
    "activations": (LENET, "--input", DIGIT),
    "pooling": (LENET, "--input", DIGIT),
    "attention": (VIT, "--input", DIGIT),
    "flow": (LENET, "--input", DIGIT),
    "neurons": (LENET, *SAMPLES),
    "weights": (LENET,),
    "project": (LENET, *SAMPLES),
}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_takes_output_format_and_data_alike(onnxviz: Onnxviz, here: Path, models: Path, verb: str) -> None:
    shutil.copy(models / "vit_digits.onnx", here / VIT)
    model, *rest = VERBS[verb]
    name = f"{Path(model).stem}_{verb}"
    run = onnxviz(verb, model, *rest, "--format", "svg", "--data", "d.npz")
    assert (run.code, run.files, run.out) == (0, ["d.npz", f"{name}.svg"], f"{name}.svg\nd.npz\n"), run.err
    with np.load(here / "d.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
    assert (manifest["format"][:8], manifest["model"]) == ("onnxviz.", Path(model).stem)
    first = (here / f"{name}.svg").read_bytes()
    assert onnxviz(verb, model, *rest, "-o", "again.svg").out == "again.svg\n"
    assert (here / "again.svg").read_bytes() == first
    run = onnxviz(verb, model, *rest, "--format", "svg", "-o", "p.png")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "--format asks for" in run.err


def test_other_files_alone_make_no_picture(onnxviz: Onnxviz) -> None:
    assert onnxviz("weights", LENET, "--table", "-").files == []
    assert onnxviz("neurons", LENET, *SAMPLES, "--table", "n.csv").files == ["n.csv"]
    run = onnxviz("flow", LENET, "--input", DIGIT, "--architecture", "keys.svg")
    assert (run.out, run.files) == ("keys.svg\n", ["keys.svg", "n.csv"])
    assert onnxviz("weights", LENET).out == "lenet5_weights.png\n"


@pytest.mark.parametrize("verb", [*VERBS, "attention_weights", "flow_numbers", "neuron_views", "weight_table"])
def test_python_functions_take_their_arguments_in_one_order(verb: str) -> None:
    order = ["model", "inputs", "tensors", "tensor", "layers", "layer", "output"]
    found = inspect.signature(getattr(onnxviz_api, verb)).parameters.values()
    positional = [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [name for name in order if name in positional]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("pooling", LENET, "--format", "svg", "-o", "p.png"), "not named as the svg that --format asks for"),
        (("pooling", LENET, "-o", "p"), "its ending names no format"),
        (("activations", LENET, "-t", "conv1", "-o", "a.png"), "no activation function; leave --tensor out"),
        (("activations", LENET, "-o", "a.gif"), ".png"),
        (("activations", LENET, "-o", "a.png", "--data", "a.csv"), ".npz"),
        (("activations", LENET, "--sample", "7", "-o", "a.png"), "no sample 7"),
        (("pooling", LENET, "-t", "tanh1", "-o", "p.png"), "which is no pooling"),
        (("pooling", LENET, "-t", "nothing", "-o", "p.png"), "nothing"),
        (("pooling", "models/missing.onnx", "-o", "p.png"), "there is no file"),
    ],
)
def test_bad_input(onnxviz: Onnxviz, arguments: tuple[str, ...], what: str) -> None:
    run = onnxviz(*arguments)
    assert (run.code, run.files) == (2, [])
    assert what in run.err
    assert run.err.count("\n") == 1
    assert "Traceback" not in run.err
