"""Where the units of a figure stand to one another: columns from left to right, lanes above one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Lane", "Link", "Plan", "make_plan"]


@dataclass(eq=False)
class Lane:
    """Units, or a line alone, that keep to one height from column ``start`` to column ``end``."""

    units: list[int]
    start: int
    end: int
    parent: int  # the unit that it starts from, -1 where it starts by itself
    slot: int = 0


@dataclass(frozen=True)
class Link:
    """A line from one unit to another; ``lane`` is the lane that it travels in, None between neighbours."""

    source: int
    target: int
    lane: Lane | None


@dataclass
class Plan:
    """Column and lane of each unit, and all lines."""

    column: list[int]
    lane: list[Lane]
    lanes: list[Lane] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return max(self.column, default=-1) + 1

    def slot(self, unit: int) -> int:
        """Return the slot that a unit stands in: 0 is the main lane, less lies above, more below."""
        return self.lane[unit].slot


def make_plan(
    count: int, edges: Sequence[tuple[int, int]], weights: Sequence[float], frames: Sequence[int] = ()
) -> Plan:
    """Lay units out in columns and lanes.

    Args:
        count: How many units there are, sources before what reads them.
        edges: From which to which.
        weights: How much a unit counts when the main lane is chosen.
        frames: The frame that each unit lies in, -1 for none. Their lanes stand nearest to the main one, and inputs
            before them, so that a frame holds no others.

    >>> plan = make_plan(4, [(0, 1), (1, 2), (0, 3), (2, 3)], [1.0] * 4)
    >>> plan.column, [lane.slot for lane in plan.lanes], [link.lane is None for link in plan.links]
    ([0, 1, 2, 3], [0, -1], [True, True, False, True])
    """
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in dict.fromkeys(edges):
        before[target].append(source)
        after[source].append(target)
    frame_of = list(frames) or [-1] * count
    column = _columns(before, after, frame_of)
    main = _main_path(column, before, weights)
    lanes, lane_of = _unit_lanes(column, before, after, main)
    plan = Plan(column, lane_of, lanes)
    wires: dict[int, Lane] = {}
    for source, target in dict.fromkeys(edges):
        plan.links.append(Link(source, target, _travel(plan, source, target, wires)))
    _assign_slots(plan, list(wires.values()), frozenset(u for u in range(count) if frame_of[u] >= 0))
    return plan


def _columns(before: list[list[int]], after: list[list[int]], frames: list[int]) -> list[int]:
    column = [0] * len(before)
    for unit, sources in enumerate(before):
        column[unit] = max((column[s] + 1 for s in sources), default=0)
    starts: dict[int, int] = {}
    for unit, frame in enumerate(frames):
        starts[frame] = min(starts.get(frame, column[unit]), column[unit])
    for unit in range(len(before) - 1, -1, -1):  # an input stands next to what reads it
        if not before[unit] and after[unit]:
            ends = [starts[frames[t]] if frames[t] >= 0 else column[t] for t in after[unit]]
            column[unit] = max(min(ends) - 1, 0)
    return column


def _main_path(column: list[int], before: list[list[int]], weights: Sequence[float]) -> list[int]:
    """Return one of the longest paths, the one over the heavier units."""
    if not column:
        return []
    best = [0.0] * len(column)
    come = [-1] * len(column)
    for unit, sources in enumerate(before):
        near = [s for s in sources if column[s] == column[unit] - 1]
        if near:
            come[unit] = max(near, key=lambda s: (best[s], -s))
        best[unit] = weights[unit] + (best[come[unit]] if come[unit] >= 0 else 0.0)
    deepest = max(column)
    at = max((u for u in range(len(column)) if column[u] == deepest), key=lambda u: (best[u], -u))
    path = [at]
    while come[at] >= 0:
        at = come[at]
        path.append(at)
    return path[::-1]


def _unit_lanes(
    column: list[int], before: list[list[int]], after: list[list[int]], main: list[int]
) -> tuple[list[Lane], list[Lane]]:
    """Put each unit on a lane: the main one, the one of a source that ends there, or a new one."""
    first = Lane(main, column[main[0]] if main else 0, column[main[-1]] if main else 0, -1)
    lanes = [first] if main else []
    found: dict[int, Lane] = dict.fromkeys(main, first)
    for unit in range(len(column)):
        if unit in found:
            continue
        near = sorted(before[unit], key=lambda s: (-column[s], s))
        lane = next((found[s] for s in near if found[s] is not first and found[s].units[-1] == s), None)
        if lane is None:
            start = column[near[0]] + 1 if near else column[unit]
            lane = Lane([], start, column[unit], near[0] if near else -1)
            lanes.append(lane)
        lane.units.append(unit)
        found[unit] = lane
    for lane in lanes[1:] if main else ():
        tail = lane.units[-1]
        lane.end = max(min((column[t] - 1 for t in after[tail]), default=0), column[tail])
    return lanes, [found[unit] for unit in range(len(column))]


def _travel(plan: Plan, source: int, target: int, wires: dict[int, Lane]) -> Lane | None:
    """Return the lane that a line runs along, a new one beside the boxes where it passes others."""
    first, last = plan.column[source] + 1, plan.column[target] - 1
    if last < first:
        return None
    mine, other = plan.lane[source], plan.lane[target]
    if mine is other and not any(first <= plan.column[unit] <= last for unit in mine.units):
        return mine
    if other.units[0] == target and other.parent == source:
        return other
    if mine.units[-1] == source and mine.end >= last and mine is not plan.lanes[0]:
        return mine
    return _wire(source, first, last, wires)


def _wire(source: int, first: int, last: int, wires: dict[int, Lane]) -> Lane:
    lane = wires.setdefault(source, Lane([], first, last, source))
    lane.end = max(lane.end, last)
    return lane


def _assign_slots(plan: Plan, wires: list[Lane], inner: frozenset[int]) -> None:
    """Give each lane the free slot nearest to where it starts, branches that meet again in the model's order.

    What lies in frames comes first, then boxes, then lines, the shorter ones nearer.
    """
    taken: dict[int, list[Lane]] = {0: plan.lanes[:1]}
    framed = {link.lane for link in plan.links if link.target in inner}
    boxes = plan.lanes[1:]
    twins = [(lane.parent, lane.end) for lane in boxes]
    fans = {lane for lane in boxes if lane.parent >= 0 and twins.count((lane.parent, lane.end)) > 1}
    plan.lanes += wires
    reach = len(plan.lanes) + 1

    def order(lane: Lane) -> tuple[bool, bool, int, int, int]:
        long = lane.end - lane.start
        outer = inner.isdisjoint(lane.units) if lane.units else lane not in framed
        if not lane.units:
            return (outer, True, long, lane.start, 0)
        return (outer, False, lane.start, abs(_behind(plan, lane)) if lane in fans else 0, -long)

    for lane in sorted([*boxes, *wires], key=order):
        home = plan.lane[lane.parent].slot if lane.parent >= 0 else 0
        if lane.units:
            slots = sorted(range(-reach, reach + 1), key=lambda slot: (abs(slot - home), abs(slot), -slot))
            if lane in fans:
                side = -1 if _behind(plan, lane) < 0 else 1
                slots.sort(key=lambda slot: (slot - home) * side < 0)
        elif home <= 0:
            slots = sorted(range(-reach, 0), key=lambda slot: (abs(slot - min(home, 0)), -slot))
        else:
            slots = list(range(home + 1, home + 1 + reach))
        _take(lane, slots, taken)


def _behind(plan: Plan, lane: Lane) -> int:
    """Return how far in the model a branch begins behind the one that its source goes on with; negative before it."""
    if lane.parent < 0:
        return 1
    at = plan.column[lane.parent]
    main = next((unit for unit in plan.lane[lane.parent].units if plan.column[unit] > at), lane.parent)
    return lane.units[0] - main


def _take(lane: Lane, order: Sequence[int], taken: dict[int, list[Lane]]) -> None:
    for slot in order:
        others = taken.setdefault(slot, [])
        if all(lane.end < other.start or other.end < lane.start for other in others):
            lane.slot = slot
            others.append(lane)
            return
