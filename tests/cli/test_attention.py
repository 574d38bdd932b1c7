"""``onnxviz attention`` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Onnxviz

VIT, DIGIT = "models/vit_digits.onnx", "models/samples/digit_3.png"
QUESTION = "models/picture_question.onnx"
ASKED = ("--input", DIGIT, "--input", "tokens=models/samples/questions/which.npy")


@pytest.fixture(autouse=True)
def transformers(here: Path, models: Path) -> None:
    for name in ("vit_digits.onnx", "picture_question.onnx", "picture_question_tokens.txt"):
        shutil.copy(models / name, here / "models" / name)


def test_a_picture_and_its_numbers(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("attention", VIT, "--input", DIGIT, "-o", "a.png", "--data", "a.npz")
    assert (run.code, run.out) == (0, "a.png\na.npz\n")
    numbers = np.load(here / "a.npz")
    np.testing.assert_allclose(numbers["layer1.weights"].sum(axis=-1), 1, atol=1e-5)
    manifest = json.loads(str(numbers["__onnxviz__"]))
    assert manifest["format"] == "onnxviz.attention/1"
    assert [row["name"] for row in manifest["layers"]] == ["blocks.0.attention", "blocks.1.attention"]
    assert numbers["layer0.key_labels"][:3].tolist() == ["CLS", "0,0", "0,1"]


def test_rollout_as_numbers_alone(onnxviz: Onnxviz, here: Path) -> None:
    assert onnxviz("attention", VIT, "--input", DIGIT, "--rollout", "--data", "r.npz").code == 0
    numbers = np.load(here / "r.npz")
    eye = np.eye(50)
    first, second = (0.5 * numbers[f"layer{i}.weights"].mean(axis=0) + 0.5 * eye for i in (0, 1))
    np.testing.assert_allclose(numbers["rollout"], second @ first, atol=1e-6)


@pytest.mark.parametrize("view", ["grid", "matrix", "blocks", "rollout", "heads"])
def test_every_view_of_two_inputs(onnxviz: Onnxviz, here: Path, view: str) -> None:
    words = ("--tokens", "models/picture_question_tokens.txt")
    run = onnxviz("attention", QUESTION, *ASKED, *words, "--view", view, "-o", f"{view}.svg")
    assert (run.code, run.err) == (0, "")
    if view == "matrix":
        assert "[CLS]" in (here / "matrix.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("models/lenet5.onnx",), "no attention in the model: it has no Softmax; onnxviz features"),
        ((VIT, "--head", "4"), "layer 0 has no head 4; it has 4, 0 to 3"),
        ((VIT, "--layer", "norm"), "there is no attention layer 'norm'; there are 2, 0 to 1"),
        (
            (VIT, "--query", "7,0"),
            "no query is named '7,0'; give an index from 0 to 49, ROW,COLUMN up to 6,6, cls, or all",
        ),
        ((VIT, "--tokens", "a,b"), "the model has no text tokens that --tokens could name; leave out --tokens"),
        ((QUESTION, "--tokens", "a,b"), "the list has 2 words and the text has 7 tokens; give a word a token"),
        ((VIT, "--rollout", "--view", "heads"), "--rollout and --view heads are two pictures; give one of them"),
        (
            (VIT, "--query", "cls", "--view", "matrix"),
            "a query is no part of the view matrix; it goes with --view grid",
        ),
        ((VIT, "--residual", "0.2"), "a residual is no part of the view auto; it goes with --view rollout"),
        ((VIT, "--window", "1"), "there is no window 1; leave out --window"),
        ((VIT, "--rollout", "--residual", "1"), "a residual of 1 is no share"),
        ((VIT, "--head", "0", "--layer", "0", "--view", "heads"), "there is one head: nothing to compare it with"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(onnxviz: Onnxviz, arguments: tuple[str, ...], line: str) -> None:
    run = onnxviz("attention", *arguments, "-o", "x.png")
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert line in run.err
    assert "x.png" not in run.files
