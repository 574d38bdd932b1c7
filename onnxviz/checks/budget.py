"""Checks of memory: P04."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxviz.checks.finding import Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.running import observe
from onnxviz.checks.subject import Subject
from onnxviz.graph.liveness import activation_timeline


@check(
    "P04",
    "error",
    "activation memory over the budget",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION | Need.MEMORY,
    what="Adds up the tensors that are alive during each node, at the sizes of the run, and measures by how much the "
    "resident memory of a fresh process grows in one run of the optimised model. The measured number is compared with "
    "`--max-memory`; the sum, where nothing could be measured.",
    why="What does not fit is killed, swapped or refused: on the device, not at the desk.",
    remedy="Run smaller batches or inputs; split what is alive at the peak (the places say what that is); compute in "
    "float16.",
    false_positives="The measured number holds for the CPU and for the inputs of the run. Weights are not counted.",
)
def memory(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield a problem where the peak is over the budget."""
    from onnxviz.runtime.plan import bytes_text
    from onnxviz.runtime.residence import measure_run

    budget = subject.max_memory or 0
    captured = observe(subject.model, subject)
    sizes = {
        r.name: r.statistics.count * _bytes(r.dtype) // len(subject.batches) for r in captured.values() if r.statistics
    }
    feeds = subject.inputs.feeds
    sizes |= {name: array.nbytes for name, array in feeds.items() if isinstance(array, np.ndarray)}
    timeline = activation_timeline(subject.inferred, sizes)
    measured = measure_run(
        subject.model, feeds, ["CPUExecutionProvider"], optimize=True, op_library=subject.options.op_library
    )
    evidence = {
        "budget": budget, "measured": measured.bytes, "method": measured.method, "by_liveness": timeline.peak,
        "alive_at_peak": list(timeline.alive[:16]), "unknown": len(timeline.unknown),
    }  # fmt: skip
    peak = timeline.peak if measured.bytes is None else measured.bytes
    if peak > budget:
        how = "by liveness" if measured.bytes is None else "measured"
        largest = sorted(timeline.alive, key=lambda name: -sizes.get(name, 0))[:3]
        alive = bytes_text(timeline.peak)
        message = f"a run needs {bytes_text(peak)} ({how}; {alive} by liveness), and {bytes_text(budget)} are allowed"
        yield Problem(message, [tensor_place(name) for name in largest], evidence, key="budget")
    yield evidence


def _bytes(dtype: str) -> int:
    from onnxviz.runtime.storage import numpy_type

    try:
        return numpy_type(dtype).itemsize
    except TypeError:
        return 0
