from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT = 120  # seconds


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


class _Forks:
    """Starts the command in forks of one process that has imported what it needs: see ``fork_server.py``."""

    def __init__(self) -> None:
        server = Path(__file__).with_name("fork_server.py")
        root = str(server.parents[2])
        self.process = subprocess.Popen(
            [sys.executable, str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
                 "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, arguments: list[str], folder: Path, streams: Path) -> tuple[int, str, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"arguments": arguments, "folder": str(folder), "environment": dict(os.environ),
                   "streams": str(streams), "timeout": TIMEOUT}  # fmt: skip
        self.process.stdin.write(f"{json.dumps(request)}\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline()
        assert code, "the process that forks has ended"
        out, err = (Path(f"{streams}.{end}").read_text(encoding="utf-8") for end in ("out", "err"))
        return int(code), out, err

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="session")
def forks() -> Iterator[_Forks | None]:
    """None where a system cannot fork."""
    if not hasattr(os, "fork"):
        yield None
        return
    server = _Forks()
    yield server
    server.close()


def _started(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "onnxviz", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.returncode, done.stdout, done.stderr


def _run(result: tuple[int, str, str], folder: Path) -> Run:
    return Run(*result, sorted(p.name for p in folder.iterdir() if p.name != "models"))


@pytest.fixture
def onnxviz(here: Path, forks: _Forks | None, tmp_path_factory: pytest.TempPathFactory) -> Onnxviz:
    """The command in a process of its own, forked from one that has made the imports."""

    def run(*arguments: str | Path) -> Run:
        words = list(map(str, arguments))
        if forks is None:
            return _run(_started(words, here), here)
        return _run(forks.run(words, here, tmp_path_factory.mktemp("streams") / "std"), here)

    return run


@pytest.fixture
def started(here: Path) -> Onnxviz:
    """The command in a fresh interpreter, as a shell starts it."""
    return lambda *arguments: _run(_started(list(map(str, arguments)), here), here)
