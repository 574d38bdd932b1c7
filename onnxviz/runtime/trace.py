"""One profiled run as a trace that Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
import os
from typing import Any

from onnxviz.errors import printable
from onnxviz.graph.files import atomic_write
from onnxviz.runtime.events import EventTensor
from onnxviz.runtime.profile_result import Execution, NodeProfile, Profile

__all__ = ["chrome_trace", "save_trace"]

_PROCESS, _THREAD = 1, 1
_COUNTER = "activation bytes alive"


def chrome_trace(profile: Profile) -> dict[str, Any]:
    """Return one run, that of median length, in Chrome's trace event format (JSON object format).

    Nodes are complete events (``"ph": "X"``) on one thread, nodes in bodies inside the node that holds them, all inside
    an event for the run; times are microseconds since the run began. A counter track has the bytes of activations alive
    by liveness.

    See the "Trace Event Format" of the Chromium project; ui.perfetto.dev opens it.
    """
    run = round(1e6 * profile.run_seconds)
    events: list[dict[str, Any]] = [
        _metadata("process_name", printable(profile.model_name, 200)),
        _metadata("thread_name", f"one run, {profile.mode}, {', '.join(profile.providers)}"),
        _complete("run", "run", 0, run, {"mode": profile.mode, "seconds without the profiler": profile.seconds}),
    ]
    ends = [run]  # of the events that enclose the next one
    starts = [0]
    for execution in profile.executions:
        while len(ends) > 1 and execution.start >= ends[-1]:
            ends.pop()
            starts.pop()
        start = min(max(execution.start, starts[-1]), ends[-1])
        duration = min(execution.duration, ends[-1] - start)  # each is rounded for itself
        events.append(_node(profile.rows[execution.row], execution, start, duration))
        starts.append(start)
        ends.append(start + duration)
    return {"traceEvents": [*events, *_counters(profile, run)], "displayTimeUnit": "ms"}


def save_trace(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write :func:`chrome_trace` as JSON.

    Raises:
        OutputError: The file cannot be written.
    """
    atomic_write(path, json.dumps(chrome_trace(profile), ensure_ascii=True, allow_nan=False) + "\n")


def _metadata(what: str, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": _THREAD, "args": {"name": name}}


def _complete(name: str, category: str, start: int, duration: int, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "ph": "X", "name": name, "cat": category, "pid": _PROCESS, "tid": _THREAD, "ts": start, "dur": duration,
        "args": args,
    }  # fmt: skip


def _node(row: NodeProfile, execution: Execution, start: int, duration: int) -> dict[str, Any]:
    args = {
        "op": row.operator, "provider": row.provider, "inputs": [_tensor(t) for t in execution.inputs],
        "outputs": [_tensor(t) for t in execution.outputs], "MACs a run": row.macs, "bytes a run": row.bytes,
        "median own seconds a run": row.seconds, "calls a run": row.calls,
        "nodes of the model": [printable(name, 200) for name in row.originals],
    }  # fmt: skip
    return _complete(printable(row.name, 200) or row.op_type, row.operator, start, duration, args)


def _tensor(tensor: EventTensor) -> str:
    return f"{tensor[0]}[{', '.join(map(str, tensor[1]))}]"


def _counters(profile: Profile, run: int) -> list[dict[str, Any]]:
    begun: dict[int, int] = {}
    for execution in profile.executions:
        begun.setdefault(execution.row, execution.start)
    points = [(begun[row], size) for row, size in zip(profile.memory.rows, profile.memory.bytes, strict=True)]
    points.append((run, 0))
    return [
        {"ph": "C", "name": _COUNTER, "pid": _PROCESS, "tid": _THREAD, "ts": min(ts, run), "args": {"bytes": size}}
        for ts, size in points
    ]
