"""The gallery page: every view, by commands that run and make the pictures that it shows."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
VIEWS = {
    "features",
    "activations",
    "pooling",
    "neurons",
    "project",
    "weights",
    "attention",
    "flow",
    "explain",
    "maximize",
    "graph",
    "compare",
    "readiness",
    "sweep",
}


def _commands(text: str) -> list[list[str]]:
    spec = importlib.util.spec_from_file_location("make_gallery", ROOT / "docs/make_gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[list[str]] = module.commands(text)
    return found


def _written(command: list[str]) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word in ("-o", "--architecture", "--certificate")]


def test_every_view_has_a_picture_and_every_picture_a_command() -> None:
    commands = _commands(PAGE)
    assert {command[1] for command in commands if command[0] == "onnxviz"} == VIEWS
    made = [file for command in commands for file in _written(command)]
    shown = [f"docs/{link}" for link in re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)]
    assert sorted(made) == sorted(shown)
    assert len(set(shown)) == len(shown)
    for file in shown:
        assert (ROOT / file).stat().st_size > 1000, file
    assert {path.name for path in (ROOT / "docs/images/gallery").iterdir()} == {Path(file).name for file in shown}
    for link in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_a_command_is_split_as_a_shell_does() -> None:
    assert _commands("a\n```sh\nonnxviz x 'a b'\n\n```\n```\nnot this\n```\n") == [["onnxviz", "x", "a b"]]


@pytest.mark.parametrize("command", [c for c in _commands(PAGE) if c[0] == "onnxviz"], ids=" ".join)
def test_commands_name_options_that_exist(command: list[str]) -> None:
    """Whether they draw what they should is seen on the page; here that none has gone stale."""
    from typer.main import get_command

    from onnxviz.cli import app

    verb = get_command(app).commands[command[1]]  # type: ignore[attr-defined]
    context = verb.make_context(command[1], command[2:])
    model = context.params.get("reference") or context.params["model"]  # what is compared with it is written first
    assert (ROOT / model).exists()


def test_the_quantised_copy_is_written_and_is_int8(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "models/write_quantised.py"), str(tmp_path / "new" / "int8.onnx")]
    assert subprocess.run(script, check=False, capture_output=True).returncode == 0
    weights = onnx.load(tmp_path / "new" / "int8.onnx").graph.initializer
    assert sum(weight.data_type == onnx.TensorProto.INT8 and len(weight.dims) > 1 for weight in weights) == 5


def test_samples_are_written(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "models/write_samples.py"), str(tmp_path)]
    assert subprocess.run(script, check=False, capture_output=True).returncode == 0
    folders = {kind: sorted(p.name for p in (tmp_path / kind).iterdir()) for kind in ("digits", "signals")}
    assert folders == {"digits": [str(i) for i in range(10)], "signals": ["chirp", "sawtooth", "sine", "square"]}
    assert len(list(tmp_path.glob("digits/*/*.png"))) == 400
    assert len(list(tmp_path.glob("signals/*/*.npy"))) == 100
