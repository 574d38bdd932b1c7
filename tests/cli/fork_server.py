"""Runs the command in processes of their own, forked from one that has imported already what takes long to import.

Nothing has been run in that process, and it has one thread (a fork takes no other along, nor what they hold locked), so
each child is as a new one, less the time that Python needs for numpy, onnx and matplotlib. onnxruntime, which starts a
thread when it is imported, is left to the children. Requests are lines of JSON on standard input, answers on standard
output.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

#: None of these starts a thread.
WARM = (
    "jinja2", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg",
    "PIL.Image", "rich.table", "onnxviz.api", "onnxviz.cli", "onnxviz.diagram.architecture", "onnxviz.graph.shapes",
    "onnxviz.plots.save",
)  # fmt: skip


def serve() -> None:
    requests, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up()
    tasks = Path("/proc/self/task")
    assert not tasks.exists() or len(list(tasks.iterdir())) == 1, (
        "a second thread may hold a lock that a child waits for"
    )
    for line in requests:
        request = json.loads(line)
        timeout = request.pop("timeout")
        if not (child := os.fork()):
            from onnxviz.cli import main

            become(**request)
            main()  # ends in SystemExit, and so the process as any other does
        answers.write(f"{wait(child, timeout)}\n")
        answers.flush()


def warm_up() -> None:
    for name in WARM:
        import_module(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        import_module("onnxviz.cli").app(["--help"])  # typer imports what it needs when it is first called
    gc.freeze()  # or each child, as it ends, writes to and so copies every page of this process


def wait(child: int, timeout: float) -> int:
    """Return the exit code of a child, negative where a signal ended it; it is killed when its time is over."""
    end = time.monotonic() + timeout
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            done = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(done[1])


def become(arguments: list[str], folder: str, environment: dict[str, str], streams: str) -> None:
    """Turn this process into one in which the command was just started."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((0, os.devnull), (1, f"{streams}.out"), (2, f"{streams}.err")):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.argv = ["onnxviz", *arguments]


if __name__ == "__main__":
    serve()
