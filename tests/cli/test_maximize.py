"""The verb ``maximize``, as a user types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.cli.conftest import Onnxviz

CNN = "models/digits_cnn.onnx"


def data(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    with np.load(path) as archive:
        found = {name: archive[name] for name in archive.files}
    return found, json.loads(str(found.pop("__onnxviz__")))


def test_classes_are_what_is_made_without_more_words(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("maximize", CNN, "--steps", "8", "-o", "m.png", "--data", "m.npz")
    assert (run.code, run.out) == (0, "m.png\nm.npz\n")
    arrays, told = data(here / "m.npz")
    assert arrays["values"].shape == (10, 1, 28, 28)
    assert arrays["history"].shape == (10, 8)
    assert told["labels"] == [f"class {k}" for k in range(10)]
    assert told["layer"] == "output/Add"  # before the softmax
    assert (arrays["score"] > arrays["start"]).all()


def test_channels_neurons_directions_and_terms(onnxviz: Onnxviz, here: Path) -> None:
    np.save(here / "d.npy", np.eye(32, dtype=np.float32)[:2])
    few = ("--steps", "3", "-o", "m.svg", "--data", "m.npz")
    for words, labels in (
        (("-c", "3", "-c", "0"), ["channel 3", "channel 0"]),
        (("--top", "2"), ["channel 0", "channel 1"]),
        (("--neuron", "4", "--neuron", "4,0,1"), ["neuron 4 at 5,5", "neuron 4 at 0,1"]),
        (("--direction", "d.npy", "--cosine", "2"), ["direction 0", "direction 1"]),
        (("-c", "1", "--also", "output/Add:3*0.5"), ["channel 1"]),
        (("--dream", "models/samples/digit_3.png", "--octaves", "2"), ["dream"]),
        (("--caricature", "models/samples/digit_3.png"), ["caricature"]),
    ):
        run = onnxviz("maximize", CNN, "-l", "conv2/Relu", *words, *few)
        assert (run.code, run.out) == (0, "m.svg\nm.npz\n"), run.err
        assert data(here / "m.npz")[1]["labels"] == labels
    run = onnxviz(
        "maximize", CNN, "--class", "7", "--count", "2", "--no-transform", *few, "--input", "models/samples/digit_3.png"
    )
    assert run.code == 0
    arrays, told = data(here / "m.npz")
    assert told["labels"] == ["class 7"] * 2
    assert arrays["copy"].tolist() == [0, 1]


def test_classes_have_names(onnxviz: Onnxviz, here: Path) -> None:
    (here / "names.txt").write_text(
        "\n".join(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    )
    run = onnxviz("maximize", CNN, "--labels", "names.txt", "--class", "seven", "--steps", "1", "-o", "m.svg")
    assert run.code == 0
    assert "class 7: seven" in (here / "m.svg").read_text()
    run = onnxviz("maximize", CNN, "--labels", "names.txt", "--class", "ten", "--steps", "1")
    assert run.code == 2
    assert "no class is named 'ten'" in run.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-l", "conv9/Relu"), "no tensor matches 'conv9/Relu'; the nearest names are"),
        (("-l", "conv*"), "tensors; name one of"),
        (("-l", "conv2/Relu", "-c", "99"), "conv2/Relu has no channel 99; it has 32, counted from 0"),
        (("-l", "conv2/Relu", "--neuron", "1,90,0"), "has no position 90,0; it has"),
        (("-l", "conv2/Relu", "--neuron", "x"), "'x' is no neuron; write a channel, or C,Y,X"),
        (("--class", "10"), "there is no class 10; output/Add has 10, counted from 0"),
        (("-c", "1"), "--channel is of a layer; name it with --layer"),
        (("-l", "conv2/Relu", "-c", "1", "--neuron", "2"), "different things; ask for one of them"),
        (("-l", "conv2/Relu", "-c", "1", "--also", "conv1/Relu"), "is no term; write LAYER:CHANNEL"),
        (("-l", "conv2/Relu", "--direction", "none.npy"), "there is no file none.npy"),
        (("-l", "conv2/Relu", "--dream", "none.png"), "there is no file none.png"),
        (("-l", "conv2/Relu", "-c", "1", "--octaves", "2"), "octaves are of --dream"),
        (("--rate", "0"), "the step size cannot be 0"),
        (("--range", "1"), "--range '1' is no pair of numbers"),
        (("--wrt", "pixels"), "the model has no input 'pixels'; its inputs are image float32"),
        (("--max-memory", "1KB"), "raise --max-memory"),
        (("--resume", "c.txt"), "its ending names no format; use .npz"),
        (("-o", "m.gif"), "its ending names no format"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(onnxviz: Onnxviz, words: tuple[str, ...], said: str) -> None:
    run = onnxviz("maximize", CNN, "--steps", "1", *words)
    assert (run.code, run.out) == (2, "")
    assert said in run.err
    assert len(run.err.splitlines()) == 1


def test_models_of_whole_numbers_are_refused(onnxviz: Onnxviz, here: Path) -> None:
    texts = {
        "ids": "g (int64[n, 4] ids) => (float[n, 4] y) {y = Cast<to = 1>(ids)}",
        "int8": """g (float[n, 2] x) => (float[n, 2] y) <float s = {0.1}, uint8 z = {128}>
          {q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)}""",
    }
    for name, text in texts.items():
        ir.save(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 18]> {text}'), here / f"{name}.onnx")
    run = onnxviz("maximize", "ids.onnx")
    assert run.code == 2
    assert "no input is of floating point" in run.err
    run = onnxviz("maximize", "int8.onnx")
    assert run.code == 2
    assert "--straight-through passes it" in run.err
    assert onnxviz("maximize", "int8.onnx", "--straight-through", "--steps", "2", "-o", "m.png").code == 0


def test_ctrl_c_writes_what_there_is_and_resume_goes_on(here: Path) -> None:
    words = [sys.executable, "-m", "onnxviz", "maximize", CNN, "--steps", "1000", "--resume", "c.npz", "-o", "m.png",
             "--data", "m.npz", "--batch", "5"]  # fmt: skip
    process = subprocess.Popen(words, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (here / "c.npz").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "m.png\nm.npz\n"), err
    assert "interrupted: " in err
    arrays, told = data(here / "m.npz")
    assert told["interrupted"]
    assert len(arrays["values"]) in (5, 10)
    assert not [path.name for path in here.iterdir() if path.name.startswith(".onnxviz")]
