"""``onnxviz sweep``."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from onnxviz.api import sweep as onnxviz_sweep
from onnxviz.cli.sizes import sizes
from onnxviz.errors import InputError
from tests.cli.conftest import Onnxviz

HEAD = '<ir_version: 8, opset_import: ["": 17]> g '


def written(folder: Path, text: str) -> str:
    path = folder / "net.onnx"
    onnx.save(onnx.parser.parse_model(HEAD + text), path)
    return str(path)


OPEN = "(float[batch, w] x) => (float[batch, w] y) { y = Relu(x) }"


def test_what_works_is_told_and_written(onnxviz: Onnxviz, here: Path) -> None:
    model = written(here, OPEN)
    run = onnxviz("sweep", model, "--dim", "batch=1,2,4", "--dim", "w=8", "-o", "sizes.svg")
    assert run.code == 0, run.err
    assert "net" not in run.err
    assert "batch (counts samples; usually 1): works at all 3 sizes from 1 to 4" in run.out
    assert "output y: [batch, w]" in run.out
    assert b"<svg" in (here / "sizes.svg").read_bytes()


def test_numbers_are_written_as_json(tmp_path: Path) -> None:
    onnxviz_sweep(written(tmp_path, OPEN), None, tmp_path / "sizes.json", sizes={"w": range(8, 25, 8)})
    data = json.loads((tmp_path / "sizes.json").read_text())
    assert [run["size"] for run in data["dimensions"][0]["runs"]] == [1, 8, 16, 24]


def test_what_fails_or_changes_ends_with_1(onnxviz: Onnxviz, here: Path) -> None:
    mixed = written(here, "(float[batch, 2] x) => (float[batch, 2] y) {m = ReduceMean<axes = [0]>(x) y = Sub(x, m)}")
    run = onnxviz("sweep", mixed, "--dim", "batch=1,2,3", "--format", "json")
    assert run.code == 1
    assert json.loads(run.out)["changes"][0]["node"] == "ReduceMean that writes 'm'"


def test_a_static_model_ends_with_3_and_frees_an_axis(onnxviz: Onnxviz, here: Path) -> None:
    static = written(here, "(float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    run = onnxviz("sweep", static)
    assert run.code == 3
    assert "no open dimension: x [1, 4]; free an axis with --free" in run.err
    freed = onnxviz("sweep", static, "--free", "x:0=batch", "--dim", "batch=1,2,5")
    assert freed.code == 0, freed.err
    assert "batch (counts samples; usually 1)" in freed.out


def test_what_is_wrong_with_the_command_ends_with_2(onnxviz: Onnxviz, here: Path) -> None:
    model = written(here, OPEN)
    for bad in (("--dim", "batch=1,x"), ("--dim", "k=1,2"), ("-o", "x.txt"), ("--free", "x:9")):
        run = onnxviz("sweep", model, *bad)
        assert run.code == 2, bad
        assert len(run.err.splitlines()) == 1


def test_a_limit_that_is_too_low_is_said_to_be_one(onnxviz: Onnxviz, here: Path) -> None:
    run = onnxviz("sweep", written(here, OPEN), "--max-memory", "1MB")
    assert run.code == 3
    assert "allow more with --max-memory" in run.err


def test_sizes_are_lists_and_ranges_whose_end_counts() -> None:
    assert sizes(["n=4"]) == ({"n": 4}, {})
    assert sizes(["a:0=2:6:2", "b=1,8,3:5"]) == ({}, {"a:0": [2, 4, 6], "b": [1, 3, 4, 5, 8]})
    assert sizes(None) == ({}, {})
    for bad in ("n=8:2", "n=0:100000", "n=1:2:0", "n=1:2:3:4", "n=1,x", "n=", "=1,2", "n=-1,2"):
        with pytest.raises(InputError, match="--dim"):
            sizes([bad])
    with pytest.raises(InputError, match="step of 0"):
        sizes(["n=1:5:0"])


def test_axes_that_are_freed_keep_their_size_as_the_usual_one(models: Path) -> None:
    result = onnxviz_sweep(models / "lenet5.onnx", free=["image:2=height", "image:3"], sizes={"height": [32, 36]})
    assert [(d.name, d.usual) for d in result.dimensions] == [("height", 32)]
    assert "kept at their usual sizes: batch, image:3" in result.notes
    assert result.changes[0].node == "Reshape node 'flatten'"
    for bad in ("image", "image:2="):
        with pytest.raises(InputError, match="names no axis"):
            onnxviz_sweep(models / "lenet5.onnx", free=[bad])
    with pytest.raises(InputError, match="'image:2=b' and 'a' are one axis"):
        onnxviz_sweep(models / "lenet5.onnx", free=["image:2=a", "image:2=b"])
