"""What all sessions have in common: threads, logging, optimisation."""

from __future__ import annotations

import os

import onnxruntime as ort

from onnxviz.errors import ExecutionError
from onnxviz.runtime.explain import message

__all__ = ["cores", "new_options", "share_thread_pool"]

_shared = False


def share_thread_pool() -> None:
    """Give this process one thread pool for all sessions made from now on.

    The command line does. A library must not do it unasked: once there is a shared pool, onnxruntime refuses every
    session in the process, also those that other code makes, that does not set ``use_per_session_threads = False``.
    """
    global _shared
    if not _shared:
        ort.set_global_thread_pool_sizes(cores(), 1)
        _shared = True


def new_options(
    *, optimize: bool = False, op_library: str | os.PathLike[str] | None = None, threads: int = 0
) -> ort.SessionOptions:
    """Return the options that every session starts from: quiet, unoptimised, sharing threads where that was asked.

    Args:
        optimize: Let onnxruntime fuse and rewrite the graph.
        op_library: A shared library of custom operators to register; its code is executed.
        threads: Threads of a session that shares none; 0 leaves the number to onnxruntime.

    Raises:
        ExecutionError: The library cannot be loaded.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the log would only repeat it
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.use_per_session_threads = not _shared
    if not _shared:
        options.intra_op_num_threads = threads
    # Threads that wait by spinning fight over the cores once there are several sessions, or other work on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if op_library is not None:
        try:
            options.register_custom_ops_library(os.fspath(op_library))
        except Exception as error:
            raise ExecutionError(f"cannot register the operators of {op_library}: {message(error)}") from error
    return options


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
