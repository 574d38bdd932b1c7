"""Memory of the process, and the arena that the pieces of a model share."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

__all__ = ["peak_rss", "release", "resident", "share_arena", "trim"]


@cache
def share_arena() -> bool:
    """Make one allocator for all sessions that ask for it (``session.use_env_allocators``); False where that fails.

    With an arena a session, each of a hundred small sessions keeps what it once used. The arena grows by what is asked
    for rather than by powers of two. Sessions that do not ask for it, such as those of other code, are not concerned.
    """
    configuration = ort.OrtArenaCfg({"arena_extend_strategy": 1, "initial_chunk_size_bytes": 1 << 20})
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    try:
        ort.create_and_register_allocator(memory, configuration)
    except Exception:  # noqa: BLE001 - other code has registered one already: that one is shared then
        return True
    return True


def _status(field: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def resident() -> int:
    """Return the resident memory of this process in bytes; its peak where the system does not tell the present one."""
    return _status("VmRSS:") or peak_rss()


def peak_rss() -> int:
    """Return the most resident memory that this process had, in bytes; 0 where the system does not tell."""
    if (peak := _status("VmHWM:")) is not None:
        return peak
    try:
        import resource
    except ImportError:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def release(array: np.ndarray) -> None:
    """Give the pages of an array that maps a file back to the system; they are read again when needed."""
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        if isinstance(base, memoryview):
            base = base.obj
        else:
            base = getattr(base, "mapped", None) or getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def trim() -> None:
    """Give freed memory back to the system, where the C library keeps it (glibc)."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
