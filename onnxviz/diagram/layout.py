"""Layered layout: boxes of given sizes and the edges between them, to positions. Pure data, nothing is drawn.

The steps are Sugiyama's (Sugiyama, Tagawa and Toda 1981): ranks, slots for long edges, order, coordinates. Long edges
and the edges of hubs become stubs, as they, not the number of nodes, make layered layouts slow and unreadable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxviz.diagram.coordinates import Link, Slots, place_slots
from onnxviz.diagram.ordering import Segment, order_ranks
from onnxviz.diagram.ranks import Ranking, rank_nodes
from onnxviz.diagram.routes import Chains, arrival_ports, chain_edges, line_corners, segments
from onnxviz.diagram.runs import straighten

__all__ = ["Layout", "Spacing", "compute_layout"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


_END_TIE = 1.0  # weight
#: Vertices below which a drawing is worth so many sweeps and rounds; in a large one nobody sees the last of them.
_EFFORT = ((5_000, 12, 12), (20_000, 6, 4), (float("inf"), 4, 2))


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distances in px: between slots of a rank, between ranks (least and most), between long edges, between ports."""

    slots: float = 18.0
    rank: float = 18.0
    rank_most: float = 90.0
    lines: float = 12.0
    ports: float = 14.0
    component: float = 30.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands, in px, y downwards, the drawing's top left corner at (0, 0).

    Attributes:
        boxes: x, y (top left), width and height of each node, shape ``(N, 4)``.
        rank: The row of each node, shape ``(N,)``.
        edges: Source and target of each edge, shape ``(E, 2)``.
        stub: Whether the edge has no line but a labelled end at its source and at its target, shape ``(E,)``.
        back: Whether the edge closes a cycle, shape ``(E,)``.
        points: The corners of all lines, shape ``(P, 2)``; a line is vertical within ranks and oblique between them.
        offsets: Edge ``i`` has the points ``offsets[i]:offsets[i + 1]``, none where it is a stub; shape ``(E + 1,)``.
        bands: Top and bottom of each rank, shape ``(R, 2)``.
        width: Of the whole drawing.
        height: Of the whole drawing.
    """

    boxes: FloatArray
    rank: IntArray
    edges: IntArray
    stub: BoolArray
    back: BoolArray
    points: FloatArray
    offsets: IntArray
    bands: FloatArray
    width: float
    height: float

    def path(self, edge: int) -> FloatArray:
        """Return the corners of one edge's line, shape ``(k, 2)``; ``k = 0`` for a stub."""
        return self.points[self.offsets[edge] : self.offsets[edge + 1]]


def compute_layout(
    sizes: npt.ArrayLike,
    edges: npt.ArrayLike,
    *,
    margins: npt.ArrayLike | None = None,
    ports: npt.ArrayLike | None = None,
    arrivals: npt.ArrayLike | None = None,
    ranking: Ranking | None = None,
    spacing: Spacing | None = None,
) -> Layout:
    """Lay out boxes in ranks from top to bottom, sources first.

    The result is deterministic. No two boxes overlap, and no line crosses a box: lines are oblique only between ranks.
    Cycles are allowed; their closing edges become stubs.

    Args:
        sizes: Width and height of each of the N nodes, shape ``(N, 2)``.
        edges: Source and target index of each edge, shape ``(E, 2)``.
        margins: Room to keep free left of, above, right of and below each box, for labels; shape ``(N, 4)``.
        ports: Where on its source each edge starts, in px right of the middle; shape ``(E,)``.
        arrivals: Where on its target each edge ends, likewise; NaN where the layout may choose, as by default.
        ranking: The result of ``rank_nodes`` where it is known already.
        spacing: Distances between things.

    >>> layout = compute_layout([(80, 20), (80, 20)], [(0, 1)])
    >>> layout.boxes.tolist()
    [[0.0, 0.0, 80.0, 20.0], [0.0, 38.0, 80.0, 20.0]]
    >>> layout.path(0).tolist()
    [[40.0, 20.0], [40.0, 38.0]]
    """
    size = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    count = len(size)
    margin = np.zeros((count, 4)) if margins is None else np.asarray(margins, dtype=np.float64).reshape(-1, 4)
    port = np.zeros(len(pairs)) if ports is None else np.asarray(ports, dtype=np.float64)
    space = spacing or Spacing()
    ranked = ranking or rank_nodes(count, pairs)
    if not count:
        empty = np.zeros((0, 2))
        return _freeze(np.zeros((0, 4)), ranked, pairs, empty, np.zeros(len(pairs) + 1, np.int64), empty)
    chains = chain_edges(count, pairs, ranked)
    rows, component = _ordered_rows(size, pairs, port, ranked, chains)
    x = _centres(size, margin, pairs, port, chains, rows, component, space)
    asked = np.full(len(pairs), np.nan) if arrivals is None else np.asarray(arrivals, dtype=np.float64)
    return _assemble(size, margin, pairs, port, asked, ranked, chains, rows, x, space)


def _ordered_rows(
    size: FloatArray, edges: IntArray, port: FloatArray, ranked: Ranking, chains: Chains
) -> tuple[list[list[int]], list[int]]:
    """Return the vertices of each rank from left to right, and the connected component of every vertex."""
    count, total = len(size), len(chains.rank)
    upper, lower, edge = segments(chains)
    share = np.where(upper < count, port[edge] / np.maximum(size[np.minimum(upper, count - 1), 0], 1.0), 0.0)
    up: list[list[Segment]] = [[] for _ in range(total)]
    down: list[list[Segment]] = [[] for _ in range(total)]
    for u, v, part in zip(upper.tolist(), lower.tolist(), np.clip(share, -0.49, 0.49).tolist(), strict=True):
        up[v].append((u, part))
        down[u].append((v, -part))
    rows: list[list[int]] = [[] for _ in range(int(chains.rank.max()) + 1)]
    component = _components(total, upper, lower)
    # A virtual vertex starts beside its edge's target, whose index is the better guess of where the line belongs.
    key = np.concatenate([np.arange(count), np.zeros(total - count)])
    inner = chains.vertices >= count
    key[chains.vertices[inner]] = edges[chains.edge[inner], 1]
    for v in np.lexsort((np.arange(total), key, np.asarray(component))).tolist():
        rows[chains.rank[v]].append(v)
    order_ranks(rows, up, down, sweeps=12 if total < 20_000 else 4)
    for row in rows:
        row.sort(key=lambda v: component[v])
    return rows, component


def _components(total: int, upper: IntArray, lower: IntArray) -> list[int]:
    """Return the smallest vertex of the connected component of each vertex."""
    parent = list(range(total))

    def find(v: int) -> int:
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for a, b in zip(upper.tolist(), lower.tolist(), strict=True):
        a, b = find(a), find(b)
        if a != b:
            parent[max(a, b)] = min(a, b)
    return [find(v) for v in range(total)]


def _centres(
    size: FloatArray,
    margin: FloatArray,
    edges: IntArray,
    port: FloatArray,
    chains: Chains,
    rows: list[list[int]],
    component: list[int],
    space: Spacing,
) -> FloatArray:
    """Return the middle x of every vertex."""
    count, total = len(size), len(chains.rank)
    left, right = np.full(total, space.lines / 2), np.full(total, space.lines / 2)
    left[:count] = size[:, 0] / 2 + margin[:, 0] + space.slots / 2
    right[:count] = size[:, 0] / 2 + margin[:, 2] + space.slots / 2
    upper, lower, edge = segments(chains)
    shift = np.where(upper < count, port[edge], 0.0)
    out_degree, in_degree = np.bincount(upper, minlength=total), np.bincount(lower, minlength=total)
    chain = (out_degree[upper] == 1) & (in_degree[lower] == 1)
    weight = np.where(chain, 4.0, 2.0)
    virtual = (upper >= count).astype(np.int64) + (lower >= count)
    weight = np.where(virtual == 2, 8.0, np.where(virtual == 1, 0.3, weight))
    up: list[list[Link]] = [[] for _ in range(total)]
    down: list[list[Link]] = [[] for _ in range(total)]
    for u, v, s, w in zip(upper.tolist(), lower.tolist(), shift.tolist(), weight.tolist(), strict=True):
        up[v].append((u, s, w))
        down[u].append((v, -s, w))
    slots = Slots(rows, left.tolist(), right.tolist(), up, down, *_end_ties(edges, port, chains))
    sweeps, rounds = next(effort for limit, *effort in _EFFORT if total < limit)
    x = np.asarray(straighten(slots, place_slots(slots, sweeps=sweeps), rounds=rounds))
    x += _component_shifts(x, left, right, chains.rank, component)
    corner: float = (x[:count] - left[:count] + space.slots / 2).min()
    return np.asarray(x - corner)


def _component_shifts(
    x: FloatArray, left: FloatArray, right: FloatArray, rank: IntArray, component: list[int]
) -> FloatArray:
    """Return the sideways shift of every vertex that sets connected components side by side without gaps."""
    names, member = np.unique(component, return_inverse=True)
    shift = np.zeros(len(names))
    if len(names) == 1:
        return shift[member]
    order = np.argsort(member, kind="stable")
    contour = np.full(int(rank.max()) + 1, -np.inf)
    for k, vertices in enumerate(np.split(order, np.flatnonzero(np.diff(member[order])) + 1)):
        reach = contour[rank[vertices]] - (x[vertices] - left[vertices])
        nearest = float(reach.max())
        # What shares no rank with anything placed so far starts at the left border.
        shift[k] = nearest if np.isfinite(nearest) else -float((x[vertices] - left[vertices]).min())
        np.maximum.at(contour, rank[vertices], x[vertices] + right[vertices] + shift[k])
    return shift[member]


def _end_ties(edges: IntArray, port: FloatArray, chains: Chains) -> tuple[dict[int, list[Link]], dict[int, list[Link]]]:
    """Link the two nodes of each long edge directly, so that a trunk stays in line across its skip connections."""
    up: dict[int, list[Link]] = {}
    down: dict[int, list[Link]] = {}
    for edge in np.flatnonzero(np.diff(chains.starts) > 2).tolist():
        source, target, shift = int(edges[edge, 0]), int(edges[edge, 1]), float(port[edge])
        up.setdefault(target, []).append((source, shift, _END_TIE))
        down.setdefault(source, []).append((target, -shift, _END_TIE))
    return up, down


def _assemble(
    size: FloatArray,
    margin: FloatArray,
    edges: IntArray,
    port: FloatArray,
    asked: FloatArray,
    ranked: Ranking,
    chains: Chains,
    rows: list[list[int]],
    x: FloatArray,
    space: Spacing,
) -> Layout:
    count, ranks = len(size), len(rows)
    upper, lower, edge = segments(chains)
    arrival = arrival_ports(size, x, upper, lower, port[edge], count, space.ports)
    arrival = np.where((lower < count) & ~np.isnan(asked[edge]), asked[edge], arrival)
    begin = x[upper] + np.where(upper < count, port[edge], 0.0)
    end = x[lower] + arrival
    run = np.zeros(ranks)
    np.maximum.at(run, chains.rank[upper], np.abs(end - begin))
    gaps = space.rank + np.clip(0.13 * (run - 30.0), 0.0, space.rank_most - space.rank)
    tall = np.zeros(ranks)
    np.maximum.at(tall, ranked.rank, size[:, 1] + margin[:, 1] + margin[:, 3])
    top = np.concatenate([[0.0], np.cumsum(tall + gaps)[:-1]])
    bands = np.stack([top, top + tall], axis=1)
    slack = tall[ranked.rank] - size[:, 1] - margin[:, 1] - margin[:, 3]
    y = top[ranked.rank] + slack / 2 + margin[:, 1]
    boxes = np.column_stack([x[:count] - size[:, 0] / 2, y, size])
    points, offsets = line_corners(boxes, bands, chains, upper, lower, edge, begin, end, len(edges), count)
    least = min(0.0, float(points[:, 0].min())) if len(points) else 0.0
    boxes[:, 0] -= least
    points[:, 0] -= least
    return _freeze(boxes, ranked, edges, points, offsets, bands, margin)


def _freeze(
    boxes: FloatArray,
    ranked: Ranking,
    edges: IntArray,
    points: FloatArray,
    offsets: IntArray,
    bands: FloatArray,
    margin: FloatArray | None = None,
) -> Layout:
    width = height = 0.0
    if margin is not None:
        width = float((boxes[:, 0] + boxes[:, 2] + margin[:, 2]).max())
        width = max(width, float(points[:, 0].max())) if len(points) else width
        height = float(bands[-1, 1])
    for array in (boxes, edges, points, offsets, bands):
        array.setflags(write=False)
    return Layout(boxes, ranked.rank, edges, ranked.stub, ranked.back, points, offsets, bands, width, height)
