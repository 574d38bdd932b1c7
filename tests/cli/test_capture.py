"""``onnxviz capture``: plans, limits, batches, the first NaN, isolation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from tests.cli.conftest import Onnxviz

LENET = "models/lenet5.onnx"
SAMPLES = "models/samples"

LOGARITHM = (
    '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] z) <float[4] w = {1, 2, 3, 0}> '
    "{ a = Neg(x) b = Log(a) c = Sub(b, w) z = Relu(c) }"
)


@pytest.fixture
def logarithm(here: Path) -> str:
    onnx.save(parser.parse_model(LOGARITHM), here / "models" / "log.onnx")
    return "models/log.onnx"


def test_a_folder_gives_statistics_of_all_samples(onnxviz: Onnxviz, here: Path) -> None:
    done = onnxviz("capture", LENET, "--input", SAMPLES, "--stats", "s.json", "--batch", "5", "--per-channel")
    assert (done.code, done.files) == (0, ["s.json"]), done.err
    assert done.out == "s.json: 12 tensors, 12 samples\n"
    rows = {row["name"]: row for row in json.loads((here / "s.json").read_text())}
    assert rows["conv1"]["shape"] == [12, 6, 28, 28]
    assert len(rows["conv1"]["channels"]["mean"]) == 6
    keys = ["name", "shape", "dtype", "min", "max", "mean", "std", "nan", "inf", "zero"]
    assert list(rows["conv1"])[:10] == keys
    assert {"l2", "subnormal", "quantiles", "histogram"} <= set(rows["conv1"])


def test_any_batch_gives_the_same_counts_and_arrays(onnxviz: Onnxviz, here: Path) -> None:
    for batch in ("1", "12"):
        done = onnxviz("capture", LENET, "-i", SAMPLES, "-o", f"{batch}.npz", "--batch", batch)
        assert done.code == 0, done.err
    with np.load(here / "1.npz") as one, np.load(here / "12.npz") as twelve:
        for name in ("conv1", "pool2", "output"):
            assert one[name].shape[0] == 12
            np.testing.assert_allclose(one[name], twelve[name], rtol=1e-4, atol=1e-5)


def test_a_dry_run_tells_and_runs_nothing(onnxviz: Onnxviz) -> None:
    done = onnxviz("capture", LENET, "--input", SAMPLES, "--dry-run", "-o", "t.npz")
    assert (done.code, done.files) == (0, [])
    assert "predicted peak memory" in done.out
    assert "conv1" in done.out
    plan = json.loads(onnxviz("capture", LENET, "--dry-run", "--json").out)
    assert plan["peak"] >= plan["present"] + plan["activations"]
    assert [t["name"] for t in plan["tensors"]][:2] == ["conv1", "tanh1"]


def test_a_limit_that_cannot_be_met_says_what_would_do(onnxviz: Onnxviz) -> None:
    done = onnxviz("capture", LENET, "-o", "t.npz", "--max-memory", "20MB")
    assert (done.code, done.files, done.err.count("\n")) == (2, [], 1)
    assert "give --max-memory " in done.err
    enough = done.err.split("--max-memory ")[1].split(",")[0]
    assert onnxviz("capture", LENET, "-o", "t.npz", "--max-memory", enough).code == 0
    wrong = onnxviz("capture", LENET, "--max-memory", "two apples")
    assert (wrong.code, "is no size in bytes" in wrong.err) == (2, True)


def test_the_first_nan_ends_with_1_and_a_repro(onnxviz: Onnxviz, here: Path, logarithm: str) -> None:
    done = onnxviz("capture", logarithm, "-i", "x=[[-1,-2,5,-3]]", "--repro", "r.onnx")
    assert (done.code, done.files) == (1, ["r.npz", "r.onnx"]), done.err
    assert "Log node 'Log' gives 1 NaN among 4 values of 'b', the first at (0, 2)" in done.out
    assert "it read a float32 (1, 4): -5 … 3" in done.out
    with np.load(here / "r.npz") as feeds:
        result = ort.InferenceSession(here / "r.onnx", providers=["CPUExecutionProvider"]).run(None, dict(feeds))
    assert np.isnan(result[0]).any()
    fine = onnxviz("capture", logarithm, "-i", "x=[[-1,-2,-5,-3]]", "--repro", "none.onnx", "--stop-on", "nan")
    assert (fine.code, fine.files) == (0, ["r.npz", "r.onnx"]), "without a finding there is no repro"
    assert onnxviz("capture", logarithm, "--stop-on", "never").code == 2


def test_a_repro_overwrites_nothing_that_is_read_or_written(onnxviz: Onnxviz, here: Path, logarithm: str) -> None:
    np.savez(here / "in.npz", x=np.ones((1, 4), np.float32))
    kept = (here / logarithm).read_bytes()
    for repro, more in ((logarithm, ()), ("in.onnx", ("-i", "in.npz")), ("c.onnx", ("-o", "c.npz"))):
        done = onnxviz("capture", logarithm, "--repro", repro, *more)
        assert (done.code, done.out) == (2, "")
        assert "would overwrite" in done.err
    assert (here / logarithm).read_bytes() == kept


def test_options_that_would_do_nothing_are_refused(onnxviz: Onnxviz) -> None:
    assert "give --isolated too" in onnxviz("capture", LENET, "--timeout", "9").err
    assert "cannot take 0 s" in onnxviz("capture", LENET, "--timeout", "0", "--isolated").err
    assert "give --dry-run too" in onnxviz("capture", LENET, "--json").err


def test_production_mode_lists_what_was_fused_away(onnxviz: Onnxviz, here: Path) -> None:
    onnx.save(
        parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) '
            "<float[1, 1, 1, 1] w = {2}> { c = Conv(x, w) r = Relu(c) y = Exp(r) }"
        ),
        here / "models" / "fused.onnx",
    )
    done = onnxviz("capture", "models/fused.onnx", "--mode", "production", "-o", "t.npz")
    assert done.code == 0, done.err
    assert "not captured: c: " in done.err
    assert onnxviz("capture", LENET, "--mode", "guess").code == 2


def test_isolated_gives_the_same(onnxviz: Onnxviz, here: Path) -> None:
    for name, more in (("a.npz", ()), ("b.npz", ("--isolated",))):
        done = onnxviz("capture", LENET, "-i", f"{SAMPLES}/digit_3.png", "-o", name, *more)
        assert done.code == 0, done.err
    with np.load(here / "a.npz") as a, np.load(here / "b.npz") as b:
        np.testing.assert_array_equal(a["conv3"], b["conv3"])
    late = onnxviz("capture", LENET, "--isolated", "--timeout", "0.01", "-o", "c.npz")
    assert (late.code, late.err.count("\n"), late.files) == (2, 1, ["a.npz", "b.npz"])
    assert "timeout" in late.err


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_writes_what_is_complete(here: Path) -> None:
    np.save(here / "many.npy", np.zeros((20_000, 1, 32, 32), np.float32))
    command = [sys.executable, "-m", "onnxviz", "capture", LENET, "-i", "many.npy", "--batch", "1", "--stats", "s.json"]
    process = subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "what is complete was kept" in err
    rows = json.loads((here / "s.json").read_text())
    assert 0 < rows[0]["shape"][0] < 20_000
