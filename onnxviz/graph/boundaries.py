"""Where blocks of a line would begin: which tensors cross a place, what comes before and after it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxviz.graph.canonical import IntArray, Line
from onnxviz.graph.kinds import kind_of

__all__ = ["Boundaries"]

_JOINS = frozenset({"Add", "Sum", "Concat", "QLinearAdd", "QLinearConcat", "AddRelu", "SkipLayerNormalization"})
_HEAVY = frozenset({"conv", "linear", "attention", "recurrent"})
_TAIL = 12  # nodes between the parts of what comes after a join, such as a LayerNormalization in pieces
_STARTS = {"conv": 0, "linear": 0, "attention": 0, "recurrent": 0, "norm": 1}

BoolArray = npt.NDArray[np.bool_]


class Boundaries:
    """The places between the nodes of a line, one more than there are nodes."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.size = len(line.nodes)
        kinds = [kind_of(node) for node in line.nodes]
        self._starts = np.array([_STARTS.get(kind, 2) for kind in kinds], np.int64)
        self._joined = self._joins(kinds)
        self._tensors()

    def _joins(self, kinds: list[str]) -> BoolArray:
        """Tell for each place whether what comes before it is a join, with nothing that has weights after that."""
        joined = [False] * (self.size + 1)
        first, source = self.line.first.tolist(), self.line.source.tolist()
        for at, (node, kind) in enumerate(zip(self.line.nodes, kinds, strict=True)):
            sources = source[first[at] : first[at + 1]]
            if len(sources) > 1 and node.op_type in _JOINS:
                joined[at + 1] = True
            elif kind not in _HEAVY:
                before = max(sources)
                joined[at + 1] = before >= 0 and joined[before + 1] and at - before <= _TAIL
        return np.array(joined, np.bool_)

    def _tensors(self) -> None:
        """Note where each tensor is made, and where it is read for the last and the last but one time."""
        line = self.line
        reader = np.repeat(np.arange(self.size), np.diff(line.first))
        inner = line.source >= 0
        width = int(line.port.max(initial=0)) + 1
        key = line.source[inner] * width + line.port[inner]
        order = np.lexsort((reader[inner], key))
        key, reader = key[order], reader[inner][order]
        last = np.flatnonzero(np.append(key[1:] != key[:-1], True)) if len(key) else np.zeros(0, np.int64)
        self._made = key[last] // width
        self._last = reader[last]
        before = np.maximum(last - 1, 0)
        again = (last > 0) & (key[before] == key[last])
        self._previous = np.where(again, reader[before], -1)

    def rotations(self, period: int, start: int, end: int, most: int) -> list[int]:
        """Return the best places in a stretch of the line for the first block of some length to begin, best first.

        Few tensors cross; a join lies before, perhaps with an activation or a norm after it; there are as many blocks
        as can be; a fork lies behind; weights come first; what comes in is read as far on as can be.
        """
        crossing, forks, reach = self.crossings(start, end, 2 * period)
        turns = np.arange(min(period, end - start - 2 * period + 1))
        counts = (end - start - turns) // period
        means = [_means(row, period, counts) for row in (crossing, forks > 0, reach)]
        keys = (
            start + turns,
            -means[2].round(),
            self._starts[start + turns],
            -means[1].round(),
            -counts,
            ~self._joined[start + turns + period],
            means[0].round(2),
        )
        return [start + int(turn) for turn in np.lexsort(keys)[:most]]

    def crossings(self, start: int, end: int, span: int) -> tuple[IntArray, IntArray, IntArray]:
        """Count for each place how many tensors cross it that are read near, how many of them more than once after it.

        Args:
            start, end: The stretch of the line.
            span: What is read farther from where it is made is left out: it crosses every place alike.

        Returns:
            Both counts for places ``start`` to ``end``, and how much farther the tensors are read, summed.
        """
        low, high = np.searchsorted(self._made, (start - span, end)).tolist()
        made, last, previous = (tensors[low:high] for tensors in (self._made, self._last, self._previous))
        near = (last >= start) & (last - made <= span)
        made, last, previous = (np.clip(tensors[near] - start, -1, None) for tensors in (made, last, previous))
        length = end - start + 1
        crossing = _spread(made + 1, last + 1, length)
        forks = _spread(made + 1, previous + 1, length)
        reach = _spread(made + 1, last + 1, length, last) - crossing * np.arange(length)
        return crossing, forks, reach


def _means(row: IntArray | BoolArray, period: int, counts: IntArray) -> npt.NDArray[np.float64]:
    """Return the mean over the places between blocks, for each place that the first block may begin at."""
    rows = int(counts[0])
    padded = np.zeros((rows + 1) * period)
    padded[: min(len(row), len(padded))] = row[: len(padded)]
    table = padded.reshape(rows + 1, period)[:, : len(counts)]
    sums = np.cumsum(table, axis=0)
    result: npt.NDArray[np.float64] = (sums[counts - 1, np.arange(len(counts))] - table[0]) / (counts - 1)
    return result


def _spread(begin: IntArray, end: IntArray, length: int, weights: IntArray | None = None) -> IntArray:
    """Count at each place how many of some stretches ``[begin, end)`` cover it, or sum their weights."""
    keep = begin < np.minimum(end, length)
    change = np.zeros(length + 1, np.int64)
    amount = np.ones(len(begin), np.int64) if weights is None else weights
    np.add.at(change, begin[keep], amount[keep])
    np.add.at(change, np.minimum(end[keep], length), -amount[keep])
    return np.cumsum(change)[:-1]
