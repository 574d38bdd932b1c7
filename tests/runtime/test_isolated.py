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

from onnxviz.errors import ConversionError, ExecutionError, InputError, MemoryLimitError, SelectionError
from onnxviz.runtime.isolated import Wording, Worker, isolated


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


def start_another() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_the_child_started_ends_with_it() -> None:
    with Worker() as worker:
        other = worker.call(start_another)
        assert Path(f"/proc/{other}").exists()
    for _ in range(100):
        state = Path(f"/proc/{other}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it goes on")


def test_errors_speak_of_what_is_done() -> None:
    wording = Wording("the baking", "the oven broke ({code})", "buy another", ConversionError)
    with Worker(timeout=0.3, wording=wording) as worker:
        with pytest.raises(ConversionError, match=r"the oven broke \(SIGABRT\); buy another"):
            worker.call(os.abort)
        with pytest.raises(ConversionError, match="the baking took longer than 0.3 s"):
            worker.call(time.sleep, 60)


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


def answer_evil(path: str) -> Evil:
    return Evil(path)


def fail_evil(path: str) -> None:
    error = SelectionError("no")
    error.more = Evil(path)  # type: ignore[attr-defined]
    raise error


def test_an_answer_of_a_child_that_is_not_trusted_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with Worker(allowed=(SelectionError,)) as worker:
        assert worker.call(sorted, [2, 1]) == [1, 2]
        with pytest.raises(SelectionError, match="no such tensor; try another"):
            worker.call(refuse)
        for function in (answer_evil, fail_evil):
            with pytest.raises(ExecutionError, match=r"cannot be read: it holds (pathlib|posix|builtins)"):
                worker.call(function, str(marker))
        with pytest.raises(ExecutionError, match="cannot be read: it holds onnxviz.errors.InputError"):
            worker.call(give_another_error)
    assert not marker.exists()
    with Worker() as worker:
        worker.call(answer_evil, str(marker))
    assert marker.exists(), "the planted answer does run where every class is allowed"


def give_another_error() -> None:
    raise InputError("no")


def stop_halfway() -> None:
    """Begin an answer that never ends, as a hostile child could."""
    import gc
    from multiprocessing.connection import Connection

    connection = next(c for c in gc.get_objects() if isinstance(c, Connection))
    os.write(connection.fileno(), (1000).to_bytes(4, "big") + b"x")
    time.sleep(60)


@pytest.mark.skipif(os.name != "posix", reason="writes to the socket itself")
def test_a_child_that_stops_in_the_middle_of_its_answer_is_ended() -> None:
    with pytest.raises(ExecutionError, match="longer than 0.5 s"):
        isolated(stop_halfway, timeout=0.5)
