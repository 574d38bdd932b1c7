from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Run:
    """One run of the command, in a folder of its own, as a user starts it."""

    code: int
    out: str
    err: str
    files: list[str]


Onnxviz = Callable[..., Run]


@pytest.fixture
def here(tmp_path: Path, models: Path) -> Path:
    """An empty folder with the models that the README's commands name."""
    (tmp_path / "models").mkdir()
    for name in ("lenet5.onnx", "digits_cnn.onnx"):
        shutil.copy(models / name, tmp_path / "models" / name)
    shutil.copytree(models / "samples", tmp_path / "models" / "samples")
    return tmp_path


@pytest.fixture
def onnxviz(here: Path) -> Onnxviz:
    def run(*arguments: str | Path) -> Run:
        command = [sys.executable, "-m", "onnxviz", *map(str, arguments)]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=300, check=False)
        return Run(
            done.returncode, done.stdout, done.stderr, sorted(p.name for p in here.iterdir() if p.name != "models")
        )

    return run
