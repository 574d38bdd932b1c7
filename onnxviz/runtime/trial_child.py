"""The other side of :mod:`onnxviz.runtime.trial`: what the process of its own does.

It imports little, since many such processes are started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxviz.errors import ExecutionError
from onnxviz.runtime.explain import explain_failure, explain_refusal
from onnxviz.runtime.growth import memory_growth, start_growth
from onnxviz.runtime.memory import trim
from onnxviz.runtime.options import new_options

__all__ = ["Source", "Trial", "hold", "measured", "run_once"]

#: A model as bytes with the folder of its external weights, or as a file.
Source = tuple[bytes | str, str | None]
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_SHORT = 0.3  # seconds below which a run is timed again: the shortest of several is the least disturbed
_TIMED, _ENOUGH = 15, 0.04  # runs, and seconds for them together: but three runs


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


_held: dict[str, Any] = {}  # in the child: its session


def hold(source: Source, threads: int, library: str | None) -> None:
    """Open the model."""
    _held["session"] = _session(source, threads, library, arena=False)


def measured(feeds: Mapping[str, Any], values: bool) -> Trial | None:
    """Run and measure. None where it holds no model yet."""
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


def run_once(source: Source, feeds: Mapping[str, Any], threads: int, library: str | None, optimize: bool) -> Any:
    """Run once."""
    return _outputs(_session(source, threads, library, optimize=optimize), feeds)


def _session(source: Source, threads: int, library: str | None, *, arena: bool = True, optimize: bool = False) -> Any:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a crash is told in one line, not by what the runtime says last
    options = new_options(op_library=library, threads=threads, optimize=optimize)
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena  # an arena keeps what earlier runs took
    data, folder = source
    if folder is not None:
        options.add_session_config_entry(_FOLDER_KEY, folder)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise explain_refusal(error) from error


def _outputs(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    try:
        if any(isinstance(array, np.ndarray) and array.dtype.isbuiltin == 2 for array in feeds.values()):
            from onnxviz.runtime.values import to_array, to_value  # types of ml_dtypes, such as bfloat16

            values = session.run_with_ort_values(names, {name: to_value(name, array) for name, array in feeds.items()})
            results = [to_array(value) for value in values]
        else:
            results = session.run(names, feeds)
    except ExecutionError:
        raise
    except Exception as error:
        raise explain_failure(error) from error
    return dict(zip(names, results, strict=True))
