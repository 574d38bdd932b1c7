"""Checks of whether a model gives the same twice: N07."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.checks.finding import Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import shrunk_repro
from onnxviz.checks.running import Arrays, differences, flat, in_words, new_session
from onnxviz.checks.subject import Subject

_REPEATS = 2


@check(
    "N07",
    "warning",
    "runs differ",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Runs the model three times on the same input and compares the outputs bit by bit; then with one thread and "
    "with two, and compares them within rounding.",
    why="What differs from run to run cannot be tested, compared or audited.",
    remedy="Give random operators a seed or feed the noise; see G15. Where threads make the difference, a sum loses "
    "digits: compute it in a wider type.",
    false_positives="Generative models sample on purpose. On GPUs, sums by atomic additions differ in their last bits.",
)
def runs_differ(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the outputs that differ."""
    feeds = subject.inputs.feeds
    session = new_session(subject)
    first = flat(session.run(feeds))
    told: set[str] = set()
    for _ in range(_REPEATS):
        again = flat(session.run(feeds))
        for name in first:
            if name not in told and not _same_bits(first[name], again.get(name)):
                told.add(name)
                problem = _worst(subject, first, again, name)
                repro = shrunk_repro(subject, name, partial(_repeat_differs, subject))
                yield Problem(
                    "two runs on the same input differ", [tensor_place(name)], problem, key="repeat", repro=repro
                )
    threads = {n: _with_threads(subject, n) for n in (1, 2)} if not told else {}
    for parity in differences(threads[1], threads[2], model=subject.model) if threads else ():
        if parity.problem and first[parity.name].dtype.kind == "f":
            message = f"with 1 and 2 threads it {parity.problem}"
            repro = shrunk_repro(subject, parity.name, partial(_threads_differ, subject))
            yield Problem(message, [tensor_place(parity.name)], in_words(parity), key="threads", repro=repro)
    yield {"runs": 1 + _REPEATS, "threads": [1, 2], "outputs": len(first), "bits_with_threads": _bits(threads)}


def _repeat_differs(subject: Subject, piece: ir.Model, feeds: Mapping[str, Any], tensor: str) -> bool:
    session = new_session(subject, piece)
    first, again = (flat(session.run(dict(feeds))) for _ in range(2))
    return not _same_bits(first[tensor], again[tensor])


def _threads_differ(subject: Subject, piece: ir.Model, feeds: Mapping[str, Any], tensor: str) -> bool:
    one, other = (_with_threads(subject, threads, piece, feeds) for threads in (1, 2))
    return tensor in one and any(p.problem for p in differences({tensor: one[tensor]}, other, model=subject.model))


def _same_bits(one: np.ndarray, other: np.ndarray | None) -> bool:
    if other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other)) if one.dtype.kind in "OUS" else one.tobytes() == other.tobytes()


def _worst(subject: Subject, first: Arrays, again: Arrays, name: str) -> dict[str, object]:
    parity = differences({name: first[name]}, again, model=subject.model)[0]
    return {**in_words(parity), "problem": parity.problem or "in the last bits"}


def _with_threads(
    subject: Subject, threads: int, model: ir.Model | None = None, feeds: Mapping[str, Any] | None = None
) -> Arrays:
    """Run with so many threads: in a process of its own, since this one may share one pool among all sessions."""
    from onnxviz.runtime.trial import source_of, trial

    with source_of(model or subject.model) as source:
        result = trial(source, [feeds or subject.inputs.feeds], threads=threads, op_library=subject.options.op_library)[
            0
        ]
    return {} if isinstance(result, str) else flat(result)


def _bits(threads: dict[int, Arrays]) -> str:
    if not threads:
        return "not compared"
    return "the same" if all(_same_bits(a, threads[2].get(n)) for n, a in threads[1].items()) else "other"
