"""What a user gets wrong: one line on standard error with the way out, exit code 2, nothing left behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli.conftest import Onnxviz, Run

LENET, DIGIT = "models/lenet5.onnx", "models/samples/digit_3.png"


def refused(run: Run, what: str, left: list[str] | None = None) -> None:
    assert run.code == 2, (run.out, run.err)
    assert what in run.err, run.err
    assert run.err.count("\n") == 1, run.err
    assert "Traceback" not in run.err
    assert run.files == (left or [])


@pytest.fixture
def bad(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no model, or one that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    data = (here / LENET).read_bytes()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "truncated.onnx").write_bytes(data[: len(data) // 2])
    (folder / "text.onnx").write_text("hello, I am no model")
    for name, change in {
        "opset.onnx": lambda m: setattr(m.opset_import[0], "version", 9999),
        "ir.onnx": lambda m: setattr(m, "ir_version", 999),
        "custom.onnx": lambda m: (setattr(m.graph.node[1], "op_type", "Frob"), setattr(m.graph.node[1], "domain", "acme"),
                                  m.opset_import.add(domain="acme", version=1)),
    }.items():  # fmt: skip
        model = onnx.load(here / LENET)
        change(model)
        (folder / name).write_bytes(model.SerializeToString())
    (folder / "broken.png").write_bytes((here / DIGIT).read_bytes()[:60])
    Image.new("RGB", (8, 8)).save(folder / "color.png")
    np.save(folder / "wrong.npy", np.zeros((1, 3, 32, 32), np.float32))
    return folder


@pytest.mark.parametrize(
    "verb", ["inspect", "expose", "capture", "graph", "features", "activations", "pooling", "weights", "report"]
)
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("missing.onnx", "there is no file"), ("empty.onnx", "is empty"), ("truncated.onnx", "truncated"),
        ("text.onnx", "not an ONNX model"), ("opset.onnx", "opset 9999, newer"), ("ir.onnx", "IR version 999, newer"),
    ],
)  # fmt: skip
def test_files_that_are_no_model(onnxviz: Onnxviz, bad: Path, verb: str, name: str, what: str) -> None:
    output = {"inspect": (), "capture": ("-o", "o.npz"), "report": ("-o", "o.html"), "expose": ("-o", "o.onnx")}
    refused(onnxviz(verb, bad / name, *output.get(verb, ("-o", "o.svg"))), what)


def test_a_custom_operator_without_a_kernel(onnxviz: Onnxviz, bad: Path) -> None:
    refused(onnxviz("capture", bad / "custom.onnx", "-o", "o.npz"), "custom operator acme:Frob")
    refused(onnxviz("report", bad / "custom.onnx", "-o", "o.html"), "--op-library")
    assert onnxviz("inspect", bad / "custom.onnx").code == 0, "it can be looked at without being run"
    assert onnxviz("graph", bad / "custom.onnx", "-o", "g.svg").code == 0


def test_pictures(onnxviz: Onnxviz, bad: Path) -> None:
    refused(onnxviz("report", LENET, "-i", bad / "broken.png", "-o", "o.html"), "cannot be decoded as a picture")
    refused(
        onnxviz("features", LENET, "-i", bad / "color.png", "--color", "rgb", "-o", "o.png"),
        "takes 1 channels, rgb has 3",
    )
    refused(onnxviz("capture", LENET, "-i", bad / "wrong.npy", "-o", "o.npz"), "not shape (1, 3, 32, 32)")
    refused(onnxviz("capture", LENET, "-i", "nowhere.png", "-o", "o.npz"), "there is no file nowhere.png")
    refused(
        onnxviz("capture", LENET, "-i", f"pixels={DIGIT}", "-o", "o.npz"), "no input 'pixels'; its inputs are image"
    )


def test_globs_that_match_nothing(onnxviz: Onnxviz) -> None:
    refused(onnxviz("expose", LENET, "-t", "conv9", "-o", "o.onnx"), "the nearest names are conv")
    refused(onnxviz("capture", LENET, "-t", "op:Gru", "-o", "o.npz"), "op types are AveragePool")
    refused(onnxviz("features", LENET, "-t", "@attention", "-o", "o.png"), "this model has @activation")
    refused(onnxviz("weights", LENET, "-l", "nothing", "-o", "o.png"), "the layers are conv1")


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (("expose", LENET), "onnx"), (("capture", LENET), "npz"), (("graph", LENET), "svg"), (("weights", LENET), "png"),
        (("features", LENET, "-i", DIGIT), "png"), (("report", LENET, "-i", DIGIT), "html"),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_written(onnxviz: Onnxviz, here: Path, arguments: tuple[str, ...], ending: str) -> None:
    refused(onnxviz(*arguments, "-o", f"no/such/folder/o.{ending}"), "does not exist")
    (here / f"models/o.{ending}").mkdir()
    refused(onnxviz(*arguments, "-o", f"models/o.{ending}"), "it is a folder")
    if ending != "onnx":
        refused(onnxviz(*arguments, "-o", "o.xyz"), "use ." if ending not in ("npz", "html") else "o.xyz")


def test_options(onnxviz: Onnxviz) -> None:
    refused(onnxviz("inspect", LENET, "--dim", "batch"), "write --dim batch=1")
    refused(onnxviz("inspect", LENET, "--dim", "n=1"), "its open dimensions are batch")
    refused(onnxviz("capture", LENET, "--mean", "a,b"), "no list of numbers")
    refused(onnxviz("capture", LENET, "--preset", "nice"), "choose unit, raw, imagenet")
    refused(onnxviz("capture", LENET, "--provider", "quantum"), "choose auto")
    refused(onnxviz("inspect"), "Missing argument 'MODEL'")
    refused(onnxviz("graph", LENET), "--output")
    refused(onnxviz("frobnicate"), "No such command")
    refused(onnxviz("report", LENET, "--labels", "none.txt", "-o", "o.html"), "cannot read the labels")


def test_an_old_file_survives_a_failure(onnxviz: Onnxviz, here: Path) -> None:
    (here / "o.npz").write_text("precious")
    refused(onnxviz("capture", LENET, "-t", "nothing", "-o", "o.npz"), "no tensor matches", ["o.npz"])
    assert (here / "o.npz").read_text() == "precious"


def test_sizes_seeds_and_numbers(onnxviz: Onnxviz) -> None:
    refused(onnxviz("capture", LENET, "--seed", "-1"), "--seed")
    refused(onnxviz("capture", LENET, "-i", DIGIT, "--dim", "nonsense=4"), "no dimension 'nonsense'")
    refused(onnxviz("capture", LENET, "-i", DIGIT, "--dim", "batch=4"), "contradicts the shape")
    refused(onnxviz("capture", LENET, "-i", DIGIT, "--scale", "1,2"), "is no number")
    refused(onnxviz("capture", LENET, "-i", DIGIT, "--mean", "nan"), "no list of numbers")
    refused(onnxviz("expose", LENET, "-o", "o.png"), "use .onnx")
    refused(onnxviz("capture", LENET, "--provider", "auto,cpu"), "cannot be combined")


def test_a_factory_that_ends_the_process(onnxviz: Onnxviz, here: Path) -> None:
    (here / "models/f.py").write_text(
        "import sys\ndef net(): sys.exit(3)\ndef other(): import torch_that_is_not_there\n"
    )
    refused(onnxviz("convert", "models/f.py:net", "--trust", "-o", "o.onnx"), "raised SystemExit")
    refused(onnxviz("convert", "models/f.py:net", "-o", "o.onnx"), "--trust")


def test_nothing_typed_shows_the_help(onnxviz: Onnxviz) -> None:
    run = onnxviz()
    assert run.code == 0
    assert "inspect" in run.out


def test_a_terminal_that_cannot_show_a_name(started: Onnxviz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert started("inspect", LENET).code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output(here: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "onnxviz", "inspect", LENET], cwd=here, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_stopped_run_leaves_nothing(here: Path) -> None:
    for wait in (0.4, 0.8, 1.2):
        process = subprocess.Popen(
            [sys.executable, "-m", "onnxviz", "report", LENET, "-o", "o.html"],
            cwd=here,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(wait)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert [p.name for p in here.iterdir() if p.name not in ("models", "o.html")] == []


def test_debug_shows_where(onnxviz: Onnxviz) -> None:
    run = onnxviz("inspect", "missing.onnx", "--debug")
    assert "Traceback" in run.err
    assert run.code == 2


def test_a_reader_that_goes_away(here: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m onnxviz inspect {LENET} | head -1", shell=True, cwd=here, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stderr == ""


def test_names_in_a_model_do_not_reach_the_terminal_raw(onnxviz: Onnxviz, here: Path) -> None:
    model = onnx.load(here / LENET)
    model.graph.node[0].name = "a\x1b[31mred\nline"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "t\x1b]0;title\x07"
    (here / "models/h.onnx").write_bytes(model.SerializeToString())
    for run in (
        onnxviz("inspect", "models/h.onnx"),
        onnxviz("capture", "models/h.onnx"),
        onnxviz("expose", "models/h.onnx", "-t", "q", "-o", "o.onnx"),
    ):
        assert "\x1b" not in run.out + run.err
        assert "\x07" not in run.out + run.err


@pytest.mark.corpus
def test_a_truncated_photograph(onnxviz: Onnxviz, corpus: Path, here: Path) -> None:
    shutil.copy(corpus / "images/bad_truncated.jpg", here / "models/p.jpg")
    refused(onnxviz("report", LENET, "-i", "models/p.jpg", "-o", "o.html"), "cannot be decoded")
