"""By how much the peak of this process's resident memory grows between two moments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxviz.runtime.memory import peak_rss

__all__ = ["memory_growth", "start_growth"]


def start_growth() -> dict[str, int]:
    """Set the peak back to what is resident now, where the system can, and return the state."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status()
    except OSError:
        return {"peak": peak_rss()}


def memory_growth(before: Mapping[str, int]) -> dict[str, Any]:
    """Return by how many bytes the peak of resident memory grew since :func:`start_growth`, and how that was told."""
    if "peak" in before:
        method = "growth of the process's peak resident set; too low where making the session needed more than the run"
        return {"bytes": peak_rss() - before["peak"], "method": method}
    after = _status()
    mapped = max(after["RssFile"] - before["RssFile"], 0)
    grown = after["VmHWM"] - before["VmRSS"] - mapped
    return {"bytes": max(grown, 0), "method": "growth of the peak resident set of a fresh process, files left out"}


def _status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
