"""The lines of a layered layout: through which slots they pass, where they arrive, and their corners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxviz.diagram.coordinates import place_in_order
from onnxviz.diagram.ranks import Ranking

__all__ = ["Chains", "arrival_ports", "chain_edges", "line_corners", "segments"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chains:
    """The vertices that each line passes: flat, with the source first and the target last; none for a stub."""

    vertices: IntArray
    edge: IntArray  # the edge of each entry
    starts: IntArray  # (E + 1,)
    rank: IntArray  # of every vertex, virtual ones after the nodes


def chain_edges(count: int, edges: IntArray, ranked: Ranking) -> Chains:
    span = ranked.rank[edges[:, 1]] - ranked.rank[edges[:, 0]]
    lengths = np.where(ranked.stub, 0, span + 1)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    edge = np.repeat(np.arange(len(edges)), lengths)
    step = np.arange(starts[-1]) - starts[edge]
    inner = (step > 0) & (step < span[edge])
    vertices = np.where(step == 0, edges[edge, 0], edges[edge, 1])
    vertices[inner] = count + np.arange(int(inner.sum()))
    virtual_rank = (ranked.rank[edges[edge, 0]] + step)[inner]
    return Chains(vertices, edge, starts, np.concatenate([ranked.rank, virtual_rank]))


def segments(chains: Chains) -> tuple[IntArray, IntArray, IntArray]:
    """Return upper vertex, lower vertex and edge of every piece of line between two ranks."""
    inside = chains.edge[1:] == chains.edge[:-1] if len(chains.edge) else np.zeros(0, np.bool_)
    return chains.vertices[:-1][inside], chains.vertices[1:][inside], chains.edge[:-1][inside]


def arrival_ports(
    size: FloatArray, x: FloatArray, upper: IntArray, lower: IntArray, port: FloatArray, count: int, gap: float
) -> FloatArray:
    """Return where on its lower vertex each segment ends, right of the middle: spread, and straight where possible."""
    arrival = np.zeros(len(lower))
    arrives = np.flatnonzero(lower < count)
    if not len(arrives):
        return arrival
    begin = x[upper] + np.where(upper < count, port, 0.0)
    order = arrives[np.lexsort((begin[arrives], lower[arrives]))]
    cuts = np.flatnonzero(np.diff(lower[order])) + 1
    for group in np.split(order, cuts):
        k = len(group)
        if k == 1:
            continue
        v = int(lower[group[0]])
        half = max(min(size[v, 0] / 2 - 8.0, gap * (k - 1)), 0.0)
        step = min(gap, 2 * half / (k - 1))
        wanted = np.clip(begin[group] - x[v], -half, half)
        placed = np.asarray(place_in_order(wanted.tolist(), [1.0] * k, [step] * (k - 1)))
        lowest = step * np.arange(k) - half  # of each port, given those before it
        arrival[group] = np.clip(placed, lowest, lowest + 2 * half - step * (k - 1))
    return arrival


def line_corners(
    boxes: FloatArray,
    bands: FloatArray,
    chains: Chains,
    upper: IntArray,
    lower: IntArray,
    edge: IntArray,
    begin: FloatArray,
    end: FloatArray,
    edges: int,
    count: int,
) -> tuple[FloatArray, IntArray]:
    """Return the corners of all lines: of each segment where it starts, the two ends of the gap, where it arrives."""
    floor = boxes[:, 1] + boxes[:, 3]
    corners = np.empty((len(edge), 4, 2))
    corners[:, :2, 0], corners[:, 2:, 0] = begin[:, None], end[:, None]
    corners[:, 1, 1] = bands[chains.rank[upper], 1]
    corners[:, 2, 1] = bands[chains.rank[lower], 0]
    corners[:, 0, 1] = np.where(upper < count, floor[np.minimum(upper, count - 1)], corners[:, 1, 1])
    corners[:, 3, 1] = np.where(lower < count, boxes[np.minimum(lower, count - 1), 1], corners[:, 2, 1])
    points = corners.reshape(-1, 2)
    owner = np.repeat(edge, 4)
    if len(points):
        again = (owner[1:] == owner[:-1]) & (np.abs(np.diff(points, axis=0)).sum(axis=1) < 1e-9)
        keep = np.concatenate([[True], ~again])
        points, owner = points[keep], owner[keep]
        same, straight = owner[1:] == owner[:-1], np.abs(np.diff(points[:, 0])) < 1e-9
        middle = same[1:] & same[:-1] & straight[1:] & straight[:-1]
        keep = np.concatenate([[True], ~middle, [True]])
        points, owner = points[keep], owner[keep]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=edges))]).astype(np.int64)
    return points, offsets
