"""Straight runs: long edges, chains and trunks become exactly vertical, where a sweep leaves them slightly bent.

As in Brandes and Köpf (2002) every vertex is aligned with at most one vertex above and one below; a run of aligned
vertices is then placed as one piece. The order within the ranks says which runs stand left of which.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise

from onnxviz.diagram.coordinates import Link, Slots

__all__ = ["straighten"]


@dataclass(slots=True)
class _Runs:
    """Runs as pieces that move sideways: vertex ``v`` stands at ``x[of[v]] + shift[v]``."""

    of: list[int]
    shift: list[float]
    members: list[list[int]]


def straighten(slots: Slots, x: list[float], *, rounds: int = 8) -> list[float]:
    """Return positions near ``x`` in which every run is vertical and no two slots overlap."""
    loose: set[int] = set()
    runs = _find_runs(slots, x, loose)
    after = _neighbours(slots, runs)
    for find in (_crossed, _tangled):  # runs that cross one another cannot all be vertical
        bent = find(runs, after)
        if bent:
            loose |= {v for run in bent for v in runs.members[run]}
            runs = _find_runs(slots, x, loose)
            after = _neighbours(slots, runs)
    order, before = _sorted_runs(after)
    wanted = [sum(x[v] - runs.shift[v] for v in members) / len(members) for members in runs.members]
    place = _legal(wanted, order, after, before)
    for turn in range(rounds):
        _settle(place, runs, slots, after, before, order if turn % 2 else order[::-1])
    return [place[run] + shift for run, shift in zip(runs.of, runs.shift, strict=True)]


def _find_runs(slots: Slots, x: list[float], loose: set[int]) -> _Runs:
    runs = _Runs([-1] * len(x), [0.0] * len(x), [])
    for row in slots.ranks:
        for v in row:
            link = None if v in loose else _partner(slots.up[v], x)
            if link is not None and link[0] not in loose:
                back = _partner(slots.down[link[0]], x)
                if back is not None and back[0] == v:
                    runs.of[v] = runs.of[link[0]]
                    runs.shift[v] = runs.shift[link[0]] + link[1]
                    runs.members[runs.of[v]].append(v)
                    continue
            runs.of[v] = len(runs.members)
            runs.members.append([v])
    return runs


def _partner(links: list[Link], x: list[float]) -> Link | None:
    """Return the strongest link, the middle one of an odd number of equals."""
    if len(links) <= 1:
        return links[0] if links else None
    most = max(link[2] for link in links)
    best = [link for link in links if link[2] == most]
    if len(best) % 2 == 0:
        return None
    return sorted(best, key=lambda link: x[link[0]] + link[1])[len(best) // 2]


def _neighbours(slots: Slots, runs: _Runs) -> list[dict[int, float]]:
    """Return for each run those right of it, with the least distance between their positions."""
    after: list[dict[int, float]] = [{} for _ in runs.members]
    for row in slots.ranks:
        for a, b in pairwise(row):
            room = slots.right[a] + slots.left[b] + runs.shift[a] - runs.shift[b]
            known = after[runs.of[a]]
            known[runs.of[b]] = max(known.get(runs.of[b], room), room)
    return after


def _reverse(after: list[dict[int, float]]) -> list[dict[int, float]]:
    before: list[dict[int, float]] = [{} for _ in after]
    for run, others in enumerate(after):
        for other, room in others.items():
            before[other][run] = room
    return before


def _peel(after: list[dict[int, float]], before: list[dict[int, float]]) -> list[int]:
    """Return the runs in an order from left to right."""
    waiting = [len(others) for others in before]
    order = [run for run, count in enumerate(waiting) if not count]
    for run in order:  # grows while it is read
        for other in after[run]:
            waiting[other] -= 1
            if not waiting[other]:
                order.append(other)
    return order


def _crossed(runs: _Runs, after: list[dict[int, float]]) -> set[int]:
    """Return the shorter run of each pair that stands left of one another in turn."""
    return {
        min(run, other, key=lambda r: (len(runs.members[r]), -r))
        for run, others in enumerate(after)
        for other in others
        if run in after[other]
    }


def _tangled(_: _Runs, after: list[dict[int, float]]) -> set[int]:
    """Return the runs on cycles of "stands left of": the strong components of more than one run (Tarjan 1972)."""
    number, low, found = [0] * len(after), [0] * len(after), set[int]()
    stack: list[int] = []
    count = 0
    for start in range(len(after)):
        if number[start]:
            continue
        trail = [(start, iter(after[start]))]
        count += 1
        number[start] = low[start] = count
        stack.append(start)
        while trail:
            run, others = trail[-1]
            other = next(others, None)
            if other is None:
                trail.pop()
                if trail:
                    low[trail[-1][0]] = min(low[trail[-1][0]], low[run])
                if low[run] == number[run]:
                    cut = stack.index(run) if stack[-1] != run else len(stack) - 1
                    component, stack = stack[cut:], stack[:cut]
                    found.update(component if len(component) > 1 else ())
                    for member in component:
                        low[member] = len(after) + 1  # finished: no longer on the stack
            elif not number[other]:
                count += 1
                number[other] = low[other] = count
                stack.append(other)
                trail.append((other, iter(after[other])))
            elif low[other] <= len(after):
                low[run] = min(low[run], number[other])
    return found


def _sorted_runs(after: list[dict[int, float]]) -> tuple[list[int], list[dict[int, float]]]:
    before = _reverse(after)
    return _peel(after, before), before


def _legal(
    wanted: list[float], order: list[int], after: list[dict[int, float]], before: list[dict[int, float]]
) -> list[float]:
    """Return the mean of pushing everything right and everything left: both keep the distances, so their mean does."""
    right = list(wanted)
    for run in order:
        right[run] = max([wanted[run], *(right[other] + room for other, room in before[run].items())])
    left = list(wanted)
    for run in reversed(order):
        left[run] = min([wanted[run], *(left[other] - room for other, room in after[run].items())])
    return [(a + b) / 2 for a, b in zip(left, right, strict=True)]


def _settle(
    place: list[float],
    runs: _Runs,
    slots: Slots,
    after: list[dict[int, float]],
    before: list[dict[int, float]],
    order: list[int],
) -> None:
    """Move each run to the weighted mean of what it is linked to, as far as its neighbours let it."""
    for run in order:
        total = weighted = 0.0
        for v in runs.members[run]:
            for u, shift, weight in chain(
                slots.up[v], slots.down[v], slots.up_ties.get(v, ()), slots.down_ties.get(v, ())
            ):
                if runs.of[u] != run:
                    total += weight
                    weighted += weight * (place[runs.of[u]] + runs.shift[u] + shift - runs.shift[v])
        if not total:
            continue
        low = max((place[other] + room for other, room in before[run].items()), default=float("-inf"))
        high = min((place[other] - room for other, room in after[run].items()), default=float("inf"))
        if low <= high:
            place[run] = min(max(weighted / total, low), high)
