"""Blocks that repeat, found where no names tell: the same operators wired in the same way, one block after the other.

The graph is put into an order that follows from its structure (:mod:`onnxviz.graph.canonical`). Runs of equal labels at
a distance give the candidates (as in searches for tandem repeats in strings), a block begins where the fewest tensors
cross, and two blocks count as equal only once every node and every input in them was compared.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from onnxviz.graph.block_names import block_name
from onnxviz.graph.boundaries import Boundaries
from onnxviz.graph.canonical import IntArray, Line, canonical_line
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.tandem import (
    apart,
    consists_of_one,
    free_parts,
    is_primitive,
    is_subsequence,
    saved,
    stretches,
    tandem_periods,
)
from onnxviz.graph.wiring import rows_wired_alike, same_wiring

__all__ = ["Run", "find_runs", "repeat_scopes"]

_ROTATIONS = 3  # places for the first block to begin that are tried
_SHORT = 3  # nodes; shorter blocks are looked for last
_FEW = 6  # nodes; shorter runs of blocks that differ in sizes say nothing
_LACKING = 5  # nodes that a block must have for another to be the same but for what it lacks
_NESTED = 8  # nodes that a block must have to be searched itself
_STAGES = 8  # of few stages each is shown by itself
_EFFORT = 100  # how often each node may be looked at; a graph without any order gives candidates without end
_PLUMBING = frozenset({"shape", "embedding", "reduce", "constant", "control", "elementwise", "detection"})


@dataclass(frozen=True, eq=False)
class Run:
    """Blocks that follow one another.

    Attributes:
        bounds: Where each block starts in the line, and where the last ends.
        varied: Whether the blocks differ in sizes, or the first in a few nodes, such as a projection.
        inner: Runs within the first block, which all blocks have at the same place.
    """

    bounds: tuple[int, ...]
    varied: bool = False
    inner: tuple[Run, ...] = field(default=())

    @property
    def count(self) -> int:
        return len(self.bounds) - 1


def repeat_scopes(graph: ir.Graph, nodes: Iterable[ir.Node]) -> dict[ir.Node, tuple[str, ...]]:
    """Return for those of some nodes that lie in a repeated block which run and which of its blocks that is.

    Runs are named by what the blocks are and how many: ``("Residual block ×8", "3")``. ``(varied)`` says that the
    blocks are not all equal in size, or that the first has a projection or lacks the skip connection; all others are
    equal but for the values of their weights. Nodes that compute constants lie where they are used.

    >>> text = "x1 = Conv(x, w) x2 = Relu(x1) x3 = Conv(x2, w) x4 = Relu(x3) x5 = Conv(x4, w) x6 = Relu(x5)"
    >>> model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 4, 4] x)'
    ...     ' => (float[1, 1, 4, 4] x6) <float[1, 1, 1, 1] w = {1}> {' + text + '}')
    >>> list(repeat_scopes(model.graph, model.graph).values())[:3]
    [('Conv block ×3', '1'), ('Conv block ×3', '1'), ('Conv block ×3', '2')]
    """
    chosen = list(nodes)
    line = canonical_line(graph, chosen)
    found: dict[ir.Node, tuple[str, ...]] = {}
    _name_runs(line, find_runs(line), (), 0, found)
    placed = {node: found[node] for node in chosen if node in found}
    if placed:
        moving = set(line.nodes)
        for node in reversed([node for node in chosen if node not in moving]):
            users = [placed.get(user, ()) for value in node.outputs for user in value.consumers()]
            if users and (shared := _shared(users)):
                placed[node] = shared
    return placed


def _shared(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    low, high = min(paths), max(paths)
    length = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _name_runs(
    line: Line, runs: Iterable[Run], around: tuple[str, ...], shift: int, found: dict[ir.Node, tuple[str, ...]]
) -> None:
    taken: Counter[str] = Counter()
    for run in runs:
        # The last block is the plainest: the first may have a projection.
        name = f"{block_name(line.nodes[run.bounds[-2] + shift : run.bounds[-1] + shift])} ×{run.count}"
        taken[name] += 1
        name += f" #{taken[name]}" if taken[name] > 1 else ""
        name += " (varied)" if run.varied else ""
        for number in range(run.count):
            start, end = run.bounds[number] + shift, run.bounds[number + 1] + shift
            scope = (*around, name, str(number + 1))
            found.update(dict.fromkeys(line.nodes[start:end], scope))
            _name_runs(line, run.inner, scope, start, found)


def find_runs(line: Line) -> tuple[Run, ...]:
    """Return the runs of repeated blocks along a line, in order.

    Runs of blocks that are equal up to the values of weights come first, those that save the most nodes before others.
    With each of them goes whatever is the same in other sizes, and the block before a run, where it is the same but for
    a few nodes. In what is left, runs are looked for whose blocks are equal but for sizes. Short blocks come last.
    """
    search = _Search(line)
    for least in (_SHORT, 2):
        search.take(line.exact, least, varied=False)
        search.take(line.loose, least, varied=True)
    runs = sorted(search.runs, key=lambda run: run.bounds)
    return tuple(search.with_inner(run) for run in runs)


class _Search:
    def __init__(self, line: Line) -> None:
        self.line = line
        self.runs: list[Run] = []
        self.size = len(line.nodes)
        self.taken = np.zeros(self.size, np.bool_)
        self.effort = _EFFORT * (self.size + 1000)
        self.places = Boundaries(line)
        works = [kind_of(node) not in _PLUMBING for node in line.nodes]
        self.works = np.concatenate([[0], np.cumsum(works, dtype=np.int64)])

    def take(self, labels: IntArray, least: int, *, varied: bool) -> None:
        """Take runs of blocks of at least some nodes with equal labels, and what goes with them."""
        for run in self._repeats(labels, least, (0, self.size), varied=varied):
            self.runs += self._joined([run, *self._alike(run, least)])

    def _repeats(self, labels: IntArray, least: int, where: tuple[int, int], *, varied: bool) -> Iterator[Run]:
        """Yield runs of equal blocks as they are found, those that save the most first, and mark them as taken."""
        low, high = where
        periods = tandem_periods(apart(labels, self.taken)[low:high], least)
        heap = [
            (-saved(start, end, period), period, start, end)
            for period in periods
            for start, end in stretches(labels[low:high], period, low)
        ]
        heapq.heapify(heap)
        while heap and self.effort > 0:
            _, period, start, end = heapq.heappop(heap)
            self.effort -= end - start
            if self.taken[start:end].any():
                pieces = list(free_parts(self.taken, start, end))
            else:
                bounds = self._blocks(period, start, end) if is_primitive(labels[start : start + period]) else None
                if bounds is None or (varied and bounds[-1] - bounds[0] < _FEW):
                    continue
                if len(bounds) <= _STAGES and consists_of_one(labels[bounds[0] : bounds[1]], periods):
                    continue
                yield self._mark(Run(bounds, varied and not self._all_equal(bounds)))
                pieces = [(start, bounds[0]), (bounds[-1], end)]
            for piece in pieces:
                if piece[1] - piece[0] >= 2 * period:
                    heapq.heappush(heap, (-saved(*piece, period), period, *piece))

    def _mark(self, run: Run) -> Run:
        self.taken[run.bounds[0] : run.bounds[-1]] = True
        return run

    def _all_equal(self, bounds: tuple[int, ...]) -> bool:
        rows = [self.line.exact[a:b] for a, b in pairwise(bounds)]
        return all(np.array_equal(rows[0], row) for row in rows[1:])

    def _blocks(self, period: int, start: int, end: int) -> tuple[int, ...] | None:
        """Choose where the blocks of a stretch begin, and keep the longest row of them that are wired alike."""
        for first in self.places.rotations(period, start, end, _ROTATIONS):
            count = (end - first) // period
            works = self.works[first + period] > self.works[first]
            if not works and period * count * 10 < self.size:
                continue  # a little reshaping here and there is no block
            at, length = max(rows_wired_alike(self.line, first, period, count), key=lambda row: row[1])
            if length > 1:
                return tuple(range(first + at * period, first + (at + length) * period + 1, period))
        return None

    def _alike(self, model: Run, least: int) -> list[Run]:
        """Take blocks in other sizes, wired as those of a run, alone or one after the other."""
        loose = self.line.loose
        start, end = model.bounds[:2]
        period = end - start
        places = np.flatnonzero((loose == loose[start]) & ~self.taken).tolist()
        self.effort -= len(places)
        rows: list[tuple[int, int]] = []
        for at in places if self.effort > 0 else ():
            after = rows[-1][0] + rows[-1][1] * period if rows else 0
            if at < after or at + period > self.size or self.taken[at : at + period].any():
                continue
            if np.array_equal(loose[at : at + period], loose[start:end]) and same_wiring(self.line, start, at, period):
                if rows and at == after:
                    rows[-1] = (rows[-1][0], rows[-1][1] + 1)
                else:
                    rows.append((at, 1))
        found = []
        for begin, count in rows:
            for at, length in rows_wired_alike(self.line, begin, period, count):
                if length > 1 or period >= max(least, _SHORT):
                    bounds = tuple(range(begin + at * period, begin + (at + length) * period + 1, period))
                    found.append(self._mark(Run(bounds, not self._all_equal(bounds))))
        return found

    def _joined(self, runs: list[Run]) -> list[Run]:
        """Let the block before a run join it if it is the same but for a few nodes; give up what stays alone."""
        kept = []
        for run in sorted(runs, key=lambda run: run.bounds):
            start = self._first_of(run)
            if start is not None:
                kept.append(self._mark(Run((start, *run.bounds), True)))
            elif run.count > 1:
                kept.append(run)
            else:
                self.taken[run.bounds[0] : run.bounds[-1]] = False
        return kept

    def _first_of(self, run: Run) -> int | None:
        """Return where the block before a run begins that has a few nodes more, such as a projection, or fewer."""
        start, period = run.bounds[0], run.bounds[1] - run.bounds[0]
        if period < _SHORT:
            return None
        most = max(1, period // 3)
        low = max(0, start - period - most)
        used = np.flatnonzero(self.taken[low:start])
        low += int(used[-1]) + 1 if len(used) else 0
        block = self.line.loose[start : start + period].tolist()
        crossing, forks, _ = self.places.crossings(low, run.bounds[1], 2 * period)
        fits = []
        for at in range(low, start - period + (most + 1 if period >= _LACKING else 0)):
            before = self.line.loose[at:start].tolist()
            extra = len(before) - period
            if extra == 0 or before[0] != block[0] or crossing[at - low] > crossing[start - low]:
                continue
            if extra < 0:
                whole = is_subsequence(before, block)
            else:
                whole = before[-1] == block[-1] and is_subsequence(block, before)
                whole = whole and forks[at - low] >= min(1, forks[start - low])
            if whole:
                fits.append((abs(extra), at))
        return min(fits)[1] if fits else None

    def with_inner(self, run: Run) -> Run:
        """Look for repeats within the blocks of a run, where all are equal."""
        start, end = run.bounds[:2]
        if run.varied or end - start < _NESTED:
            return run
        self.taken[start:end] = False
        inner = sorted(found.bounds for found in self._repeats(self.line.exact, _SHORT, (start, end), varied=False))
        return Run(run.bounds, inner=tuple(Run(tuple(at - start for at in bounds)) for bounds in inner))
