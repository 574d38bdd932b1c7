"""Repeats in a sequence of labels: at which distances, from where to where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxviz.graph.canonical import IntArray

__all__ = [
    "apart",
    "consists_of_one",
    "free_parts",
    "is_primitive",
    "is_subsequence",
    "saved",
    "stretches",
    "tandem_periods",
]

_WINDOW = 64  # longest stretch of labels whose next occurrence tells a period
_PERIODS = 16  # candidates for the period that each length of stretch gives

BoolArray = npt.NDArray[np.bool_]


def saved(start: int, end: int, period: int) -> int:
    """Return how many nodes fewer there are when a stretch is told by its first block."""
    return ((end - start) // period - 1) * period


def consists_of_one(labels: IntArray, periods: Sequence[int]) -> bool:
    """Whether a block is little else than a row of equal smaller ones, as a stage of a network is."""
    return any(
        5 * _whole(start, end, period) >= 4 * len(labels)
        for period in periods
        if 2 * period <= len(labels)
        for start, end in stretches(labels, period, 0)
    )


def _whole(start: int, end: int, period: int) -> int:
    return (end - start) // period * period


def is_primitive(labels: IntArray) -> bool:
    """Whether a block is not itself a repetition."""
    length = len(labels)
    return not any(
        length % period == 0 and np.array_equal(labels[period:], labels[:-period])
        for period in range(1, length // 2 + 1)
    )


def is_subsequence(short: Sequence[int], long: Sequence[int]) -> bool:
    """Whether a sequence is left over when some of a longer one is taken out."""
    rest = iter(long)
    return all(label in rest for label in short)


def apart(labels: IntArray, taken: BoolArray) -> IntArray:
    """Give what is taken labels that nothing shares."""
    if not taken.any():
        return labels
    top = int(labels.max(initial=0)) + 1
    return np.where(taken, top + np.arange(len(labels)), labels)


def tandem_periods(labels: IntArray, least: int) -> list[int]:
    """Return the most frequent distances at which stretches of 1, 2, 4, … labels come again."""
    found: set[int] = set()
    window, ids = 1, np.unique(labels, return_inverse=True)[1].astype(np.int64)
    while window <= _WINDOW:
        order = np.argsort(ids, kind="stable")
        gaps = np.diff(order)[ids[order[1:]] == ids[order[:-1]]]
        counts = np.bincount(gaps[gaps >= least])
        if not len(counts):
            break
        often = np.argsort(-counts * np.minimum(np.arange(len(counts)), 64), kind="stable")[:_PERIODS]
        found.update(int(gap) for gap in often if counts[gap])
        if len(ids) <= window:
            break
        ids = np.unique(ids[:-window] * (len(ids) + 1) + ids[window:], return_inverse=True)[1]
        window *= 2
    return sorted(found)


def stretches(labels: IntArray, period: int, shift: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches in which every label comes again after a period, at least two periods long."""
    if len(labels) < 2 * period:
        return
    same = np.concatenate([[False], labels[:-period] == labels[period:], [False]])
    edges = np.flatnonzero(same[1:] != same[:-1])
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - start >= period:
            yield start + shift, end + period + shift


def free_parts(taken: BoolArray, start: int, end: int) -> Iterator[tuple[int, int]]:
    free = np.concatenate([[False], ~taken[start:end], [False]])
    edges = np.flatnonzero(free[1:] != free[:-1])
    for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield start + a, start + b
