"""Calls in another process: crashes, limits, errors and large results."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from onnxviz.errors import ExecutionError, InputError, MemoryLimitError, SelectionError
from onnxviz.runtime.isolated import Worker, isolated


def segfault() -> None:
    ctypes.string_at(0)


def hog() -> int:
    held = []
    while True:
        held.append(np.ones(5_000_000))
        time.sleep(0.01)


def refuse() -> None:
    raise SelectionError("no such tensor", hint="try another")


def test_results_come_back_however_large() -> None:
    array = isolated(np.ones, (4000, 1000))
    assert array.shape == (4000, 1000)
    assert isolated(os.getpid) != os.getpid()


@pytest.mark.parametrize(("function", "name"), [(segfault, "SIGSEGV"), (os.abort, "SIGABRT")])
def test_a_crash_is_an_error_in_a_line(function: object, name: str) -> None:
    with pytest.raises(ExecutionError, match=rf"crashed \({name}\)"):
        isolated(function)  # type: ignore[arg-type]


def test_time_and_memory_are_limited() -> None:
    start = time.monotonic()
    with pytest.raises(ExecutionError, match="longer than 0.5 s; give a higher --timeout"):
        isolated(time.sleep, 60, timeout=0.5)
    assert time.monotonic() - start < 30
    if sys.platform == "linux":
        with pytest.raises(MemoryLimitError, match="500 MB are allowed"):
            isolated(hog, memory=500 * 10**6)


def test_errors_keep_their_class_and_hint() -> None:
    with pytest.raises(SelectionError) as caught:
        isolated(refuse)
    assert str(caught.value) == "no such tensor; try another"
    with pytest.raises(ZeroDivisionError):
        isolated(divmod, 1, 0)


def test_a_worker_goes_on_after_a_crash() -> None:
    with Worker(timeout=60) as worker:
        first = worker.call(os.getpid)
        assert worker.call(os.getpid) == first, "one process for many calls"
        with pytest.raises(ExecutionError, match="SIGSEGV"):
            worker.call(segfault)
        assert worker.call(os.getpid) not in (first, os.getpid())


def test_scripts_without_a_main_guard_can_use_it() -> None:
    script = "import math\nfrom onnxviz.runtime.isolated import isolated\nprint(isolated(math.sqrt, 4.0))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("2.0\n", "")


def leave_a_folder() -> str:
    return tempfile.mkdtemp(prefix="onnxviz-")


def test_temporary_files_of_a_killed_child_go_with_it() -> None:
    with Worker() as worker:
        folder = Path(worker.call(leave_a_folder))
        assert folder.is_dir()
    assert not folder.exists()
    assert not folder.parent.exists()


def test_no_time_is_refused() -> None:
    with pytest.raises(InputError, match="cannot take 0 s"):
        isolated(os.getpid, timeout=0)
