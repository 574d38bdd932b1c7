"""The first two steps of a layered layout: which row every node stands in, and which edges are not drawn as lines.

Everything here is iterative and linear in nodes and edges, so that chains of 100,000 nodes are as safe as small ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Ranking", "rank_between", "rank_nodes"]

#: An edge longer than this many ranks becomes a stub at both ends.
MAX_SPAN = 40
#: A node with more consumers than this keeps lines only to the next rank.
MANY_CONSUMERS = 48
#: A node with more edges than this on one side is drawn with stubs only.
HUB = 256
#: Long edges may pass through at most this many slots a node before the longest become stubs.
SLOTS_PER_NODE = 12

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows and stubs of a graph.

    Attributes:
        rank: The row of each node, shape ``(N,)``; an edge that is no back edge leads to a higher rank.
        stub: Whether an edge is drawn as two labelled ends, shape ``(E,)``.
        back: Whether an edge closes a cycle, shape ``(E,)``; back edges are always stubs.
    """

    rank: IntArray
    stub: BoolArray
    back: BoolArray


def rank_nodes(count: int, edges: IntArray, *, max_span: int = MAX_SPAN) -> Ranking:
    """Give ``count`` nodes longest-path ranks and choose the edges that become stubs.

    Sources and branches that hang on a later consumer are pulled down to it, which shortens edges. Cycles are
    broken at a deterministic edge.

    Args:
        count: The number of nodes N.
        edges: ``(E, 2)`` integers, source and target index of each edge.
        max_span: Edges that span more ranks than this become stubs.

    >>> import numpy as np
    >>> rank_nodes(4, np.array([[0, 1], [1, 2], [0, 2], [3, 2]])).rank.tolist()
    [0, 1, 2, 1]
    """
    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    order, rank, back = _longest_paths(count, edges)
    _pull_down(order, rank, edges[~back])
    ranks = np.asarray(rank, dtype=np.int64)
    stub = _choose_stubs(count, edges, ranks, back, max_span)
    if (stub & ~back).any():  # what hangs on stubs alone need not stay near their source
        _pull_down(order, rank, edges[~stub], edges[stub & ~back])
        ranks = np.asarray(rank, dtype=np.int64)
        stub |= _choose_stubs(count, edges, ranks, back, max_span)
    if count:
        ranks -= ranks.min()
    return Ranking(ranks, stub, back)


def rank_between(count: int, entries: int, exits: int, edges: IntArray, *, max_span: int = MAX_SPAN) -> Ranking:
    """Rank the inside of a group: what enters it stands above all its nodes, what leaves it below them.

    Args:
        count: The number of nodes N; they come first, then the entries, then the exits.
        entries: How many points at the upper border there are.
        exits: How many at the lower.
        edges: ``(E, 2)`` integers, source and target index of each edge.
        max_span: Edges that span more ranks than this become stubs.

    >>> import numpy as np
    >>> rank_between(2, 1, 1, np.array([[2, 0], [0, 1], [2, 1], [1, 3]])).rank.tolist()
    [1, 2, 0, 3]
    """
    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    inner = (edges < count).all(axis=1)
    nodes = rank_nodes(count, edges[inner], max_span=max_span)
    total = count + entries + exits
    rank = np.zeros(total, dtype=np.int64)
    first = int(entries > 0)
    rank[:count] = nodes.rank + first
    rank[count + entries :] = first + (int(nodes.rank.max()) + 1 if count else 0)
    back = np.zeros(len(edges), np.bool_)
    back[inner] = nodes.back
    stub = _choose_stubs(total, edges, rank, back, max_span)
    stub[inner] |= nodes.stub
    return Ranking(rank, stub, back)


def _neighbours(count: int, keys: IntArray, values: IntArray) -> list[list[int]]:
    order = np.argsort(keys, kind="stable")
    bounds = np.searchsorted(keys[order], np.arange(count + 1)).tolist()
    flat = values[order].tolist()
    return [flat[bounds[i] : bounds[i + 1]] for i in range(count)]


def _longest_paths(count: int, edges: IntArray) -> tuple[list[int], list[int], BoolArray]:
    """Return a topological order, the rank of each node and the mask of edges that had to be cut."""
    loops = edges[:, 0] == edges[:, 1]
    ids = np.arange(len(edges))
    out_edges = _neighbours(count, edges[~loops, 0], ids[~loops])
    in_edges = _neighbours(count, edges[~loops, 1], ids[~loops])
    source, target = edges[:, 0].tolist(), edges[:, 1].tolist()
    missing = [len(e) for e in in_edges]
    rank, done = [0] * count, [False] * count
    back = loops.copy()
    queue = [v for v in range(count) if not missing[v]]
    order: list[int] = []
    lowest = 0
    while True:
        for v in queue:  # grows while it is read
            done[v] = True
            order.append(v)
            for e in out_edges[v]:
                if back[e]:
                    continue
                w = target[e]
                rank[w] = max(rank[w], rank[v] + 1)
                missing[w] -= 1
                if not missing[w]:
                    queue.append(w)
        if len(order) == count:
            return order, rank, back
        while done[lowest]:
            lowest += 1
        v = _node_on_cycle(lowest, source, in_edges, done)
        for e in in_edges[v]:
            back[e] = back[e] or not done[source[e]]
        missing[v] = 0
        queue = [v]


def _node_on_cycle(start: int, source: list[int], in_edges: list[list[int]], done: list[bool]) -> int:
    """Walk upwards through unfinished nodes until one comes twice; return the first-defined node of that cycle."""
    seen: dict[int, int] = {}
    trail: list[int] = []
    v = start
    while v not in seen:
        seen[v] = len(trail)
        trail.append(v)
        v = next(source[e] for e in in_edges[v] if not done[source[e]])
    return min(trail[seen[v] :])


def _pull_down(order: list[int], rank: list[int], edges: IntArray, stubs: IntArray | None = None) -> None:
    """Move nodes that have more (or only private) edges downwards next to their first consumer.

    A node with as many edges above as below moves only if that closes a gap too long for a line. The targets of
    ``stubs`` stay below their sources but pull nothing.
    """
    count = len(rank)
    down = _neighbours(count, edges[:, 0], edges[:, 1])
    up = _neighbours(count, edges[:, 1], edges[:, 0])
    limit = [1 << 62] * count
    if stubs is not None:
        # Sources of stubs keep above their targets' present ranks, which only grow.
        np_rank = np.asarray(rank, dtype=np.int64)
        lowest = np.full(count, 1 << 62, dtype=np.int64)
        np.minimum.at(lowest, stubs[:, 0], np_rank[stubs[:, 1]] - 1)
        limit = lowest.tolist()
    private = [False] * count  # everything above such a node exists for it alone and moves with it
    for v in order:
        private[v] = all(private[u] and len(down[u]) == 1 for u in up[v])
    for v in reversed(order):
        if down[v]:
            anchored = sum(not (private[u] and len(down[u]) == 1) for u in up[v])
            lowest_rank = min(min(rank[w] for w in down[v]) - 1, limit[v])
            slack = lowest_rank - rank[v]
            if len(down[v]) > anchored or (len(down[v]) == anchored and slack > MAX_SPAN // 2):
                rank[v] = lowest_rank


def _choose_stubs(count: int, edges: IntArray, rank: IntArray, back: BoolArray, max_span: int) -> BoolArray:
    if not len(edges):
        return np.zeros(0, dtype=np.bool_)
    span = rank[edges[:, 1]] - rank[edges[:, 0]]
    fan_out = np.bincount(edges[:, 0], minlength=count)[edges[:, 0]]
    fan_in = np.bincount(edges[:, 1], minlength=count)[edges[:, 1]]
    stub: BoolArray = back | (span > max_span) | ((fan_out > MANY_CONSUMERS) & (span > 1))
    stub |= (fan_out > HUB) | (fan_in > HUB)
    slots = np.bincount(np.where(stub, 0, np.maximum(span - 1, 0)), minlength=2)
    total = np.cumsum(slots * np.arange(len(slots)))
    allowed = int(np.searchsorted(total, SLOTS_PER_NODE * count + 1000, side="right"))  # spans below this stay lines
    return stub | (span - 1 >= max(allowed, 1))
