"""Runs that may go wrong in any way, in a process of their own: odd sizes crash a kernel here and there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import onnx_ir as ir

from onnxviz.errors import OnnxvizError
from onnxviz.graph.io import external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.isolated import Wording, Worker
from onnxviz.runtime.trial_child import Source, Trial, hold, measured, run_once

__all__ = ["Source", "Trial", "Trials", "source_of", "trial"]

_WORDING = Wording(task="a trial run", hint="")


@contextmanager
def source_of(model: ir.Model) -> Iterator[Source]:
    """Give a model as another process can read it; a file that had to be written is gone afterwards."""
    folders = {os.path.realpath(os.fspath(tensor.base_dir)) for _, tensor in external_tensors(model)}
    data = model_bytes(model) if len(folders) < 2 else None
    if data is not None:
        yield data, folders.pop() if folders else None
        return
    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        save_model(model, Path(folder) / "model.onnx", external_data=True)
        yield str(Path(folder) / "model.onnx"), None


def trial(
    source: Source,
    feeds: Sequence[Mapping[str, Any]],
    *,
    threads: int = 0,
    op_library: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
    memory: int | None = None,
    optimize: bool = False,
) -> list[dict[str, Any] | str]:
    """Run a model on several feeds in a fresh process, a session each, nothing fused unless told to, on the CPU.

    Args:
        source: What :func:`source_of` gives.
        feeds: Each a mapping of input name to array.
        threads: Threads of the session; 0 leaves the number to onnxruntime.
        op_library: A shared library of custom operators to register; its code is executed.
        timeout: Seconds that one feed may take.
        memory: Most resident memory of the process in bytes; None for any.
        optimize: Use all of onnxruntime's optimisations.

    Returns:
        For each feed the outputs by name, or in one line why there are none: an error, a crash, too long, too much.
    """
    results: list[dict[str, Any] | str] = []
    with Worker(timeout=timeout, memory=memory, wording=_WORDING) as worker:
        library = None if op_library is None else os.fspath(op_library)
        for one in feeds:
            try:
                results.append(worker.call(run_once, source, dict(one), threads, library, optimize))
            except OnnxvizError as error:
                results.append(error.message)
    return results


class Trials:
    """A model that runs in a process of its own on one feed after the other; after a crash a new process goes on.

    Args:
        source: What :func:`source_of` gives.
        threads, op_library, timeout, memory: As :func:`trial` takes them.
    """

    def __init__(
        self,
        source: Source,
        *,
        threads: int = 0,
        op_library: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
        memory: int | None = None,
    ) -> None:
        self._order = (source, threads, None if op_library is None else os.fspath(op_library))
        self._worker = Worker(timeout=timeout, memory=memory, wording=_WORDING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def run(self, feeds: Mapping[str, Any], *, values: bool = False) -> Trial:
        """Run once.

        Args:
            feeds: Input name -> array.
            values: Return the outputs too.

        Raises:
            ExecutionError, InputError: onnxruntime refuses the model or the feeds, fails, crashes or takes too long.
            MemoryLimitError: It needs more memory.
        """
        result = self._worker.call(measured, dict(feeds), values)
        if result is None:  # a new process
            self._worker.call(hold, *self._order)
            result = self._worker.call(measured, dict(feeds), values)
        assert result is not None
        return result
