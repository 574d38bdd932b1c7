"""Calls in a process of their own: a crash of the runtime there is an error here.

The child is a fresh interpreter, never a fork (onnxruntime's threads do not survive one), and does not import the
caller's ``__main__``, so scripts, notebooks and prompts can use it alike.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Self, TypeVar

from onnxviz.errors import ExecutionError, InputError, MemoryLimitError

__all__ = ["Worker", "isolated"]

T = TypeVar("T")

_START = (
    "import sys; sys.path[:] = eval(sys.argv[3]); from onnxviz.runtime.isolated import _serve; _serve(*sys.argv[1:3])"
)
_POLL = 0.02  # seconds between two looks at the child's memory
_START_TIME = 60.0  # seconds that an interpreter may take to come up


def isolated(
    function: Callable[..., T], *args: Any, timeout: float | None = 300.0, memory: int | None = None, **kwargs: Any
) -> T:
    """Call an importable function in a fresh process and return its result.

    Args:
        function: A function of a module; its arguments and its result are pickled.
        args, kwargs: Its arguments.
        timeout: Seconds that it may take; None for any time.
        memory: Most resident memory of the child in bytes, looked at every 20 ms; None for any. It is told from
            ``/proc``, so elsewhere than on Linux there is no limit.

    Raises:
        OnnxvizError: What the function raised, with its class and hint.
        ExecutionError: It crashed, or took too long.
        MemoryLimitError: It needed more memory.

    >>> isolated(sorted, [2, 1])
    [1, 2]
    """
    with Worker(timeout=timeout, memory=memory) as worker:
        return worker.call(function, *args, **kwargs)


class Worker:
    """A process that answers many calls; after a crash the next call starts another.

    Args:
        timeout: Seconds that a call may take.
        memory: Most resident memory of the child, in bytes.

    Raises:
        InputError: The time is not above 0.
    """

    def __init__(self, *, timeout: float | None = 300.0, memory: int | None = None) -> None:
        if timeout is not None and not timeout > 0:
            raise InputError(f"a run cannot take {timeout:g} s", hint="give a --timeout above 0")
        self.timeout = timeout
        self.memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, and remove its temporary files: it is killed, and cannot do so itself."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._connection = self._folder = None

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function in the child; see :func:`isolated`."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._connection is not None
            self._connection.send_bytes(pickle.dumps((function, args, kwargs)))
            ok, result = self._answer()
        except BaseException:
            self.close()
            raise
        if not ok:
            raise result
        return result  # type: ignore[no-any-return]

    def _start(self) -> None:
        self.close()
        key = secrets.token_bytes(16)
        with Listener(authkey=key) as listener:
            address = listener.address if isinstance(listener.address, str) else repr(listener.address)
            command = [sys.executable, "-c", _START, address, key.hex(), repr(sys.path)]
            # Ctrl-C reaches the parent alone, which then ends the child.
            self._folder = tempfile.TemporaryDirectory(prefix="onnxviz-", ignore_cleanup_errors=True)
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, start_new_session=os.name == "posix",
                env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name)},
            )  # fmt: skip
            self._connection = self._accepted(listener)

    def _accepted(self, listener: Listener) -> Connection:
        """Wait for the child to call back, or to end without."""
        assert self._process is not None
        deadline = time.monotonic() + _START_TIME
        inner = listener._listener._socket if hasattr(listener._listener, "_socket") else None  # type: ignore[attr-defined]
        if inner is not None:
            inner.settimeout(0.2)
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ExecutionError(f"a process for the run did not start (exit code {self._process.returncode})")
            with contextlib.suppress(TimeoutError):
                return listener.accept()
        raise ExecutionError("a process for the run did not start in time")

    def _answer(self) -> tuple[bool, Any]:
        assert self._connection is not None
        assert self._process is not None
        start = time.monotonic()
        while not self._connection.poll(_POLL):
            if self._process.poll() is not None and not self._connection.poll(0):
                raise _crash(self._process.returncode)
            if self.timeout is not None and time.monotonic() - start > self.timeout:
                raise ExecutionError(f"the run took longer than {self.timeout:g} s", hint="give a higher --timeout")
            if self.memory is not None and (used := _resident(self._process.pid)) > self.memory:
                raise MemoryLimitError(
                    f"the run reached {used / 1e6:,.0f} MB and {self.memory / 1e6:,.0f} MB are allowed",
                    hint="give a higher --max-memory",
                )
        try:
            answer: tuple[bool, Any] = pickle.loads(self._connection.recv_bytes())
        except EOFError:
            raise _crash(self._process.wait()) from None
        return answer


def _crash(code: int) -> ExecutionError:
    name = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
    return ExecutionError(
        f"onnxruntime crashed ({name}) while running the model",
        hint="run `onnxviz inspect` on it, or ask for fewer tensors with --tensor to find the node",
    )


def _resident(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _serve(address: str, key: str) -> None:
    """Answer calls until the parent hangs up; runs in the child."""
    where: Any = eval(address) if address.startswith("(") else address
    with Client(where, authkey=bytes.fromhex(key)) as connection:
        while True:
            try:
                data = connection.recv_bytes()
            except EOFError:
                return
            connection.send_bytes(_called(data))


def _called(data: bytes) -> bytes:
    try:
        function, args, kwargs = pickle.loads(data)
        return pickle.dumps((True, function(*args, **kwargs)))
    except MemoryError:
        return pickle.dumps((False, MemoryLimitError("the run found no more memory")))
    except Exception as error:  # noqa: BLE001 - it is raised in the parent
        try:
            return pickle.dumps((False, error))
        except Exception:  # noqa: BLE001 - an error that cannot be pickled still has words
            return pickle.dumps((False, ExecutionError(f"{type(error).__name__}: {error}")))
