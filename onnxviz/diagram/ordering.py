"""The order of the slots within each rank: barycentre sweeps that keep the order with the fewest crossings."""

from __future__ import annotations

from bisect import bisect_right, insort
from itertools import pairwise

__all__ = ["count_crossings", "order_ranks"]

Segment = tuple[int, float]  # the vertex at the other end, and where on that vertex the edge starts (-0.5 … 0.5)


def order_ranks(
    ranks: list[list[int]], up: list[list[Segment]], down: list[list[Segment]], *, sweeps: int = 12
) -> None:
    """Reorder the vertices of each rank in place so that few edges cross.

    Args:
        ranks: The vertices of each rank, in their starting order.
        up: For each vertex, its segments to the rank above.
        down: For each vertex, its segments to the rank below.
        sweeps: The most pairs of sweeps, downwards and upwards, that are tried.

    >>> ranks = [[0, 1], [2, 3]]
    >>> up, down = [[], [], [(1, 0.0)], [(0, 0.0)]], [[(3, 0.0)], [(2, 0.0)], [], []]
    >>> order_ranks(ranks, up, down)
    >>> ranks
    [[0, 1], [3, 2]]
    """
    place = [0.0] * len(up)
    for row in ranks:
        _number(row, place)
    best = [list(row) for row in ranks]
    fewest, idle = count_crossings(ranks, up, place), 0
    for _ in range(sweeps):
        if fewest == 0 or idle == 3:
            break
        idle += 1
        for rows, links in ((ranks, up), (ranks[::-1], down)):
            for row in rows:
                if len(row) > 1:
                    _sort_row(row, links, place)
            crossings = count_crossings(ranks, up, place)
            if crossings < fewest:
                fewest, idle, best = crossings, 0, [list(row) for row in ranks]
    for row, kept in zip(ranks, best, strict=True):
        row[:] = kept


def _number(row: list[int], place: list[float]) -> None:
    for i, v in enumerate(row):
        place[v] = float(i)


def _sort_row(row: list[int], links: list[list[Segment]], place: list[float]) -> None:
    """Sort one rank by the mean place of its neighbours; vertices without any keep their place."""
    keys = []
    for i, v in enumerate(row):
        ends = links[v]
        keys.append((sum(place[u] + shift for u, shift in ends) / len(ends) if ends else place[v], i, v))
    keys.sort()
    row[:] = [v for _, _, v in keys]
    _number(row, place)


def count_crossings(ranks: list[list[int]], up: list[list[Segment]], place: list[float]) -> int:
    """Return how many pairs of segments between neighbouring ranks cross, given each vertex's ``place``."""
    total = 0
    for above, row in pairwise(ranks):
        if len(row) < 2 or len(above) < 2:
            continue
        seen: list[float] = []
        for v in row:
            ends = sorted(place[u] + shift for u, shift in up[v])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total
