"""Runs that may go wrong in any way, in a process of their own: odd sizes crash a kernel here and there."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from onnxviz.errors import ExecutionError, OnnxvizError
from onnxviz.graph.io import external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.isolated import Wording, Worker

__all__ = ["Source", "Trial", "Trials", "source_of", "trial"]

#: A model as bytes with the folder of its external weights, or as a file.
Source = tuple[bytes | str, str | None]
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_WORDING = Wording(task="a trial run", hint="")
_SHORT = 0.3  # seconds below which a run is timed again: the shortest of several is the least disturbed
_TIMED, _ENOUGH = 15, 0.04  # runs, and seconds for them together: but three runs


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
) -> list[dict[str, Any] | str]:
    """Run a model on several feeds in a fresh process, a session each, nothing fused, on the CPU.

    Args:
        source: What :func:`source_of` gives.
        feeds: Each a mapping of input name to array.
        threads: Threads of the session; 0 leaves the number to onnxruntime.
        op_library: A shared library of custom operators to register; its code is executed.
        timeout: Seconds that one feed may take.
        memory: Most resident memory of the process in bytes; None for any.

    Returns:
        For each feed the outputs by name, or in one line why there are none: an error, a crash, too long, too much.
    """
    results: list[dict[str, Any] | str] = []
    with Worker(timeout=timeout, memory=memory, wording=_WORDING) as worker:
        library = None if op_library is None else os.fspath(op_library)
        for one in feeds:
            try:
                results.append(worker.call(_run, source, dict(one), threads, library))
            except OnnxvizError as error:
                results.append(error.message)
    return results


@dataclass(frozen=True)
class Trial:
    """What one run gave.

    Attributes:
        shapes: Output -> its shape; sequences and maps are left out.
        nonfinite: Outputs that hold NaN or Inf.
        seconds: The shortest of several runs.
        bytes: Growth of the peak of resident memory during the first; None where this system does not tell.
        outputs: Output -> array, where values were asked for.
    """

    shapes: Mapping[str, tuple[int, ...]]
    nonfinite: tuple[str, ...]
    seconds: float
    bytes: int | None
    outputs: Mapping[str, Any] = field(default_factory=dict)


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
        result = self._worker.call(_measured, dict(feeds), values)
        if result is None:  # a new process
            self._worker.call(_hold, *self._order)
            result = self._worker.call(_measured, dict(feeds), values)
        assert result is not None
        return result


_held: dict[str, Any] = {}  # in the child: its session


def _hold(source: Source, threads: int, library: str | None) -> None:
    """Open the model; called in the child."""
    _held["session"] = _session(source, threads, library, arena=False)


def _measured(feeds: Mapping[str, Any], values: bool) -> Trial | None:
    """Run and measure; called in the child. None where it holds no model yet."""
    from onnxviz.runtime.memory import trim
    from onnxviz.runtime.residence import memory_growth, start_growth

    if (session := _held.get("session")) is None:
        return None
    if not _held.get("warm"):  # what a session makes in its first run is no part of what a run needs
        _outputs(session, feeds)
        _held["warm"] = True
    trim()
    before = start_growth()
    start = time.perf_counter()
    outputs = _outputs(session, feeds)
    seconds = time.perf_counter() - start
    grown = None if "peak" in before else int(memory_growth(before)["bytes"])
    spent = seconds
    for done in range(1, _TIMED if seconds < _SHORT else 1):
        if done >= 3 and spent > _ENOUGH:
            break
        start = time.perf_counter()
        _outputs(session, feeds)
        spent += (last := time.perf_counter() - start)
        seconds = min(seconds, last)
    arrays = {name: array for name, array in outputs.items() if isinstance(array, np.ndarray)}
    odd = [n for n, a in arrays.items() if a.dtype.kind in "fV" and a.size and not np.isfinite(a).all()]
    shapes = {name: array.shape for name, array in arrays.items()}
    return Trial(shapes, tuple(odd), seconds, grown, outputs if values else {})


def _run(source: Source, feeds: Mapping[str, Any], threads: int, library: str | None) -> Any:
    """Run once; called in the child."""
    return _outputs(_session(source, threads, library), feeds)


def _session(source: Source, threads: int, library: str | None, *, arena: bool = True) -> Any:
    import onnxruntime as ort

    from onnxviz.runtime.explain import explain_refusal
    from onnxviz.runtime.options import new_options

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a crash is told in one line, not by what the runtime says last
    options = new_options(op_library=library, threads=threads)
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena  # an arena keeps what earlier runs took
    data, folder = source
    if folder is not None:
        options.add_session_config_entry(_FOLDER_KEY, folder)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise explain_refusal(error) from error


def _outputs(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    from onnxviz.runtime.explain import explain_failure
    from onnxviz.runtime.values import extended_dtypes, to_array, to_value

    names = [output.name for output in session.get_outputs()]
    try:
        if any(getattr(array, "dtype", None) in extended_dtypes() for array in feeds.values()):
            values = session.run_with_ort_values(names, {name: to_value(name, array) for name, array in feeds.items()})
            results = [to_array(value) for value in values]
        else:
            results = session.run(names, feeds)
    except ExecutionError:
        raise
    except Exception as error:
        raise explain_failure(error) from error
    return dict(zip(names, results, strict=True))
