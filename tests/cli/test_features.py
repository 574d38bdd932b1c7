"""``onnxviz features`` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxviz.cli.features import numbers_of
from onnxviz.errors import InputError
from tests.cli.conftest import Onnxviz

LENET, CNN, DIGIT = "models/lenet5.onnx", "models/digits_cnn.onnx", "models/samples/digit_3.png"


def test_overlay_of_all_layers_and_its_numbers(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("features", LENET, "-i", DIGIT, "--overlay", "mean", "-o", "o.png", "--data", "o.npz")
    assert (run.code, run.files) == (0, ["o.npz", "o.png"]), run.err
    with np.load(here / "o.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        assert data["0/heat"].shape == (28, 28)
    assert manifest["tensors"][0]["centres"] == [[2.0, 1.0], [2.0, 1.0]]
    assert "output" in manifest["without_positions"]


def test_one_line_for_what_has_no_positions(onnxviz: Onnxviz) -> None:
    run = onnxviz("features", LENET, "-i", DIGIT, "--overlay", "max", "-t", "fc6", "-t", "conv1", "-o", "o.png")
    assert (run.code, run.files) == (0, ["o.png"])
    assert run.err.splitlines() == ["not drawn: fc6: of shape (1, 84) has no spatial axes"]


def test_a_sample_of_a_folder(onnxviz: Onnxviz, here: Path) -> None:
    for place in (5, 6):
        (here / f"{place}").mkdir()
        names = sorted(p.name for p in (here / "models" / "samples").glob("*.png"))
        shutil.copy(here / "models" / "samples" / names[place], here / f"{place}" / names[place])
    found = {}
    for key, arguments in {"sample": ("models/samples", "--sample", "5"), "own": ("5",), "next": ("6",)}.items():
        run = onnxviz(
            "features", LENET, "-i", *arguments, "-t", "conv1", "--by", "index", "-o", "a.svg", "--data", "a.npz"
        )
        assert run.code == 0, run.err
        with np.load(here / "a.npz") as data:
            found[key] = data["0/maps"]
    np.testing.assert_array_equal(found["sample"], found["own"])
    assert not np.array_equal(found["sample"], found["next"])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("-t", "fc6", "--overlay", "mean"), "those that have are conv1, tanh1, pool2"),
        (("-t", "conv1", "--channel", "9"), "conv1 has no channel 9; it has 6, 0 to 5"),
        (("-t", "conv1", "--axes", "NTC"), "does not fit conv1"),
        (("--sample", "3"), "no sample 3"),
    ],
)
def test_bad_input(onnxviz: Onnxviz, arguments: tuple[str, ...], what: str) -> None:
    run = onnxviz("features", LENET, "-i", DIGIT, "-o", "a.png", *arguments)
    assert (run.code, run.files) == (2, [])
    assert what in run.err
    assert run.err.count("\n") == 1


def test_lists_of_numbers() -> None:
    assert numbers_of("--channel", "3, 7,12-14") == [3, 7, 12, 13, 14]
    for wrong in ("", "a", "1,,2", "5-3", "-1", "0-2000000"):
        with pytest.raises(InputError):
            numbers_of("--channel", wrong)


def test_the_numbers_say_which_of_all_samples_is_shown(onnxviz: Onnxviz, here: Path) -> None:
    """One picture a batch: the sample is counted over all that was given, not within its batch."""
    run = onnxviz("features", LENET, "-i", "models/samples", "--sample", "5", "--data", "s.npz", "-o", "s.svg")
    assert run.code == 0, run.err
    with np.load(here / "s.npz") as data:
        assert {row["sample"] for row in json.loads(str(data["__onnxviz__"]))["tensors"]} == {5}
    assert "sample 5 of 12" in (here / "s.svg").read_text()
    run = onnxviz("features", LENET, "-i", "models/samples", "--sample", "5", "--overlay", "max", "--data", "o.npz")
    assert run.code == 0, run.err
    with np.load(here / "o.npz") as data:
        assert json.loads(str(data["__onnxviz__"]))["sample"] == 5
