"""Horizontal coordinates: sweeps that solve an order-preserving least-squares problem exactly in each rank.

In one rank the problem is: minimise ``Σ wᵢ (xᵢ - dᵢ)²`` subject to ``xᵢ₊₁ - xᵢ ≥ sᵢ``, where ``dᵢ`` is the weighted
mean of the neighbours' positions and ``sᵢ`` the room that the two slots need. Subtracting the running sum of ``s``
turns it into isotonic regression, which pool-adjacent-violators solves in linear time (Barlow et al. 1972).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Link", "Slots", "place_in_order", "place_slots"]

Link = tuple[int, float, float]  # other vertex, its port minus this one's port, weight

FloatArray = npt.NDArray[np.float64]
_Links = list[list[Link]]

_WINDOW = 40  # ranks over which a sideways trend is measured
_FREE = 1e-3  # weight of a vertex with no neighbour on the side that a sweep looks at


@dataclass(frozen=True, slots=True)
class Slots:
    """What the coordinates depend on: per rank its vertices in order, per vertex its half widths and its links.

    Links lead to the rank above or below. Ties lead from end to end of a long edge: they pull, but align nothing.
    """

    ranks: list[list[int]]
    left: list[float]
    right: list[float]
    up: list[list[Link]]
    down: list[list[Link]]
    up_ties: dict[int, list[Link]]
    down_ties: dict[int, list[Link]]


def place_in_order(wanted: Sequence[float], weights: Sequence[float], room: Sequence[float]) -> list[float]:
    """Return the positions nearest to ``wanted`` whose gaps are at least ``room`` (one shorter than the others).

    >>> place_in_order([0.0, 0.0, 9.0], [1.0, 1.0, 1.0], [4.0, 4.0])
    [-2.0, 2.0, 9.0]
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    shift = 0.0
    for i, want in enumerate(wanted):
        if i:
            shift += room[i - 1]
        mean, weight, members = want - shift, weights[i], 1
        while blocks and blocks[-1][0] > mean:
            other, heavy, more = blocks.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, members = weight + heavy, members + more
        blocks.append((mean, weight, members))
    result: list[float] = []
    shift = 0.0
    for mean, _, members in blocks:
        for _ in range(members):
            if result:
                shift += room[len(result) - 1]
            result.append(mean + shift)
    return result


def place_slots(slots: Slots, *, sweeps: int = 8) -> list[float]:
    """Return the centre of every vertex so that slots of a rank don't overlap and edges are short.

    :func:`onnxviz.diagram.runs.straighten` then makes what is nearly straight exactly so.
    """
    x = [0.0] * len(slots.left)
    room = {}
    for r, row in enumerate(slots.ranks):
        room[r] = [slots.right[a] + slots.left[b] for a, b in pairwise(row)]
        at = -sum(room[r]) / 2
        for v, gap in zip(row, [*room[r], 0.0], strict=True):
            x[v] = at
            at += gap
    up, down = _with_ties(slots.up, slots.up_ties), _with_ties(slots.down, slots.down_ties)
    downwards = list(enumerate(slots.ranks))
    upwards = downwards[::-1]
    for sweep in range(sweeps):
        sides = [up, down] if sweep >= sweeps - 4 else [up] if sweep % 2 == 0 else [down]
        if sweep == sweeps - 4:
            _remove_drift(slots, x)
        for r, row in downwards if sweep % 2 == 0 else upwards:
            _place_row(row, room[r], sides, x)
    return x


def _remove_drift(slots: Slots, x: list[float]) -> None:
    """Shift whole ranks back to the middle where a long graph wanders off sideways: sweeps are too local to see it."""
    if len(slots.ranks) < 4 * _WINDOW:
        return
    middle, widest = _middles(slots, x)
    if np.ptp(middle) < 2 * widest:
        return
    half = _WINDOW // 2
    sums = np.concatenate([[0.0], np.cumsum(np.pad(middle, (half, half), mode="edge"))])
    _shift_ranks(slots, x, (sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1))


def _middles(slots: Slots, x: list[float]) -> tuple[FloatArray, float]:
    """Return the mean position in each rank and the widest extent of one, of vertices with lines alone."""
    at, means, widest = [], [], 0.0
    for r, row in enumerate(slots.ranks):
        places = [x[v] for v in row if slots.up[v] or slots.down[v]]
        if places:
            at.append(r)
            means.append(sum(places) / len(places))
            widest = max(widest, max(places) - min(places))
    if not at:
        return np.zeros(len(slots.ranks)), widest
    return np.interp(np.arange(len(slots.ranks)), at, means), widest


def _shift_ranks(slots: Slots, x: list[float], offsets: FloatArray) -> None:
    for row, offset in zip(slots.ranks, offsets.tolist(), strict=True):
        for v in row:
            x[v] -= offset


def _place_row(row: list[int], room: list[float], sides: list[_Links], x: list[float]) -> None:
    """Move the vertices of a rank towards what they are linked to, as near as their room allows."""
    wanted, weights = [], []
    for v in row:
        total = weighted = 0.0
        for links in sides:
            for u, shift, weight in links[v]:
                total += weight
                weighted += weight * (x[u] + shift)
        wanted.append(weighted / total if total else x[v])
        weights.append(total or _FREE)
    if len(row) == 1:
        x[row[0]] = wanted[0]
        return
    for v, position in zip(row, place_in_order(wanted, weights, room), strict=True):
        x[v] = position


def _with_ties(links: list[list[Link]], ties: dict[int, list[Link]]) -> _Links:
    joined = list(links)
    for v, more in ties.items():
        joined[v] = [*links[v], *more]
    return joined
