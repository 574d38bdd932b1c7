"""What all sessions have in common: threads, logging, optimisation."""

from __future__ import annotations

import os

import onnxruntime as ort

__all__ = ["new_options", "share_thread_pool"]

_shared = False


def share_thread_pool() -> None:
    """Give this process one thread pool for all sessions made from now on.

    The command line does. A library must not do it unasked: once there is a shared pool, onnxruntime refuses every
    session in the process, also those that other code makes, that does not set ``use_per_session_threads = False``.
    """
    global _shared
    if not _shared:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ort.set_global_thread_pool_sizes(cores, 1)
        _shared = True


def new_options(*, optimize: bool = False) -> ort.SessionOptions:
    """Return the options that every session starts from: quiet, unoptimised, sharing threads where that was asked."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the log would only repeat it
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.use_per_session_threads = not _shared
    # Threads that wait by spinning fight over the cores once there are several sessions, or other work on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
