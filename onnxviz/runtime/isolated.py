"""Calls in a process of their own: a crash of the runtime there is an error here.

The child is a fresh interpreter, never a fork (onnxruntime's threads do not survive one), and does not import the
caller's ``__main__``, so scripts, notebooks and prompts can use it alike.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Self, TypeVar

from onnxviz.errors import ExecutionError, InputError, MemoryLimitError, OnnxvizError

__all__ = ["Wording", "Worker", "isolated"]

T = TypeVar("T")

_START = (
    "import sys; sys.path[:] = eval(sys.argv[3]); from onnxviz.runtime.isolated import _serve; _serve(*sys.argv[1:3])"
)
_POLL = 0.02  # seconds between two looks at the child's memory
_START_TIME = 60.0  # seconds that an interpreter may take to come up
_LONGEST_PATH = 100  # characters; that of a socket has at most 107
_LARGEST_ANSWER = 1 << 28  # bytes, of a child that is not trusted


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


@dataclass(frozen=True)
class Wording:
    """How errors speak of what the child does.

    Attributes:
        task: What took too long or too much memory.
        crashed: What a crash is called; ``{code}`` stands for the signal or exit code.
        hint: The way out of a crash.
        error: The class of errors other than too much memory.
    """

    task: str = "the run"
    crashed: str = "onnxruntime crashed ({code}) while running the model"
    hint: str = "run `onnxviz inspect` on it, or ask for fewer tensors with --tensor to find the node"
    error: type[OnnxvizError] = ExecutionError


class Worker:
    """A process that answers many calls; after a crash the next call starts another.

    Args:
        timeout: Seconds that a call may take.
        memory: Most memory of the child, resident or swapped out, in bytes.
        wording: How errors speak of what it does.
        allowed: The only classes that an answer may hold beside numbers, text and containers, for a child that runs
            code which is not onnxviz's: an answer is unpickled here, and a pickle can run anything. None for any.

    Raises:
        InputError: The time is not above 0.
    """

    def __init__(
        self,
        *,
        timeout: float | None = 300.0,
        memory: int | None = None,
        wording: Wording | None = None,
        allowed: Collection[type] | None = None,
    ) -> None:
        self.wording = wording or Wording()
        if timeout is not None and not timeout > 0:
            raise InputError(f"{self.wording.task} cannot take {timeout:g} s", hint="give a --timeout above 0")
        self.timeout = timeout
        self.memory = memory
        self.allowed = None if allowed is None else frozenset((c.__module__, c.__qualname__) for c in allowed)
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
            _kill(self._process)
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
            data = pickle.dumps((function, args, kwargs))
            try:
                self._connection.send_bytes(data)
            except OSError:
                raise self._crash() from None
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
        self._folder = tempfile.TemporaryDirectory(prefix="onnxviz-", ignore_cleanup_errors=True)
        path = os.path.join(self._folder.name, "socket")  # noqa: PTH118 - an address
        with Listener(path if os.name == "posix" and len(path) < _LONGEST_PATH else None, authkey=key) as listener:
            address = listener.address if isinstance(listener.address, str) else repr(listener.address)
            command = [sys.executable, "-c", _START, address, key.hex(), repr(sys.path)]
            # Ctrl-C reaches the parent alone, which then ends the child.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
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
                code = self._process.returncode
                raise self.wording.error(f"a process for {self.wording.task} did not start (exit code {code})")
            with contextlib.suppress(TimeoutError):
                return listener.accept()
        raise self.wording.error(f"a process for {self.wording.task} did not start in time")

    def _answer(self) -> tuple[bool, Any]:
        assert self._connection is not None
        assert self._process is not None
        start = time.monotonic()
        while not self._connection.poll(_POLL):
            if self._process.poll() is not None and not self._connection.poll(0):
                raise self._crash()
            if self.timeout is not None and time.monotonic() - start > self.timeout:
                raise self._late()
            if self.memory is not None and (used := _resident(self._process.pid)) > self.memory:
                raise MemoryLimitError(
                    f"{self.wording.task} reached {used / 1e6:,.0f} MB and {self.memory / 1e6:,.0f} MB are allowed",
                    hint="give a higher --max-memory",
                )
        return self._received(None if self.timeout is None else start + self.timeout)

    def _received(self, deadline: float | None) -> tuple[bool, Any]:
        """Read an answer that has begun to come, and end a child that stops halfway."""
        assert self._connection is not None
        assert self._process is not None
        left = 1e6 if deadline is None else max(deadline - time.monotonic(), 1.0)
        timer = threading.Timer(left, _kill, (self._process,))
        timer.daemon = True
        timer.start()
        try:
            data = self._connection.recv_bytes(None if self.allowed is None else _LARGEST_ANSWER)
        except (EOFError, OSError):
            late = deadline is not None and time.monotonic() > deadline
            raise self._late() if late else self._crash() from None
        finally:
            timer.cancel()
        if self.allowed is None:
            answer: tuple[bool, Any] = pickle.loads(data)
            return answer
        try:
            ok, result = _Guarded(data, self.allowed).load()
            if ok is True or isinstance(result, OnnxvizError):
                return ok is True, result
        except Exception as error:
            raise self.wording.error(f"the answer of {self.wording.task} cannot be read: {error}") from error
        raise self.wording.error(f"the answer of {self.wording.task} cannot be read")

    def _late(self) -> OnnxvizError:
        return self.wording.error(
            f"{self.wording.task} took longer than {self.timeout:g} s", hint="give a higher --timeout"
        )

    def _crash(self) -> OnnxvizError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hung up, but may go on
            self._process.wait(1.0)
        code = self._process.returncode
        name = f"exit code {code}" if code is not None else "it hung up"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-code).name
        return self.wording.error(self.wording.crashed.replace("{code}", name), hint=self.wording.hint)


class _Guarded(pickle.Unpickler):
    """An unpickler that knows a few classes and nothing else."""

    def __init__(self, data: bytes, allowed: Collection[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a child, with the processes that it started in its group."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _resident(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "VmSwap:")))


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
