"""The lines of a figure of volumes: out of a box, along a lane, into the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxviz.diagram.volume_lanes import Link, Plan
from onnxviz.diagram.volume_layout import Placement

__all__ = ["Route", "Tracks", "route_links"]

Point = tuple[float, float]
_AROUND = 14.0
_JOG = 2.5  # px that a line may miss the middle of a box by
_MARK = 16.0  # px from a row's end to the mark of a line that goes on in another row


@dataclass(frozen=True)
class Route:
    """A line as drawn.

    Attributes:
        pieces: Its corners; two pieces where it goes on in another row.
        mark: The letter at both ends of the gap.
        link: What it joins.
    """

    pieces: tuple[tuple[Point, ...], ...]
    mark: str
    link: Link


class Tracks:
    """Which lines run down behind which column: those out of one unit, or into one, share a track."""

    def __init__(self, plan: Plan, signs: frozenset[int]) -> None:
        self.plan = plan
        self.signs = signs
        self._of: list[dict[tuple[str, int], int]] = [{} for _ in range(plan.columns)]
        slots = [(plan.column[unit], plan.slot(unit)) for unit in range(len(plan.column))]
        self._standing = set(slots)
        fans = [0] * len(plan.column)
        for link in plan.links:
            fans[link.source] += 1
        self._fans = fans
        for link in plan.links:
            for column, key in self.turns(link):
                self._of[column].setdefault(key, len(self._of[column]))
        for keys in self._of:  # out of a box first, into one last: fewer crossings
            for at, key in enumerate(sorted(keys, key=lambda key: (key[0] == "in", keys[key]))):
                keys[key] = at

    def counts(self) -> list[int]:
        """Return how many tracks there are behind each column."""
        return [len(keys) for keys in self._of]

    def turns(self, link: Link) -> list[tuple[int, tuple[str, int]]]:
        """Return the columns behind which a line changes its height, each with its track."""
        plan = self.plan
        first, last = plan.column[link.source], plan.column[link.target] - 1
        slots = plan.slot(link.source), plan.slot(link.target)
        if link.lane is None:
            if slots[0] == slots[1]:
                return []  # in a U they may still stand at two heights: the line then turns in the middle
            return [(first, ("out", link.source) if self._fans[link.source] > 1 else ("in", link.target))]
        found = []
        if link.lane.slot != slots[0]:
            found.append((first, ("out", link.source)))
        if link.lane.slot != slots[1] and not self.drops(link):
            found.append((last, ("in", link.target)))
        return found

    def drops(self, link: Link) -> bool:
        """Whether a line comes down on a sign from above, or up from below: nothing stands between."""
        if link.target not in self.signs or link.lane is None:
            return False
        here, there, column = link.lane.slot, self.plan.slot(link.target), self.plan.column[link.target]
        between = range(min(here, there) + 1, max(here, there))
        return here != there and not any((column, slot) in self._standing for slot in (*between, here))

    def x(self, column: int, key: tuple[str, int], gutter: tuple[float, float]) -> float:
        """Return where a track runs."""
        keys = self._of[column]
        if key not in keys:
            return (gutter[0] + gutter[1]) / 2
        step = (gutter[1] - gutter[0] - 12.0) / (len(keys) + 1)
        return gutter[0] + step * (keys[key] + 1)


def route_links(plan: Plan, placement: Placement, tracks: Tracks, ports: Sequence[tuple[Point, Point]]) -> list[Route]:
    """Return the corners of every line.

    Args:
        plan: Columns, lanes and links.
        placement: Where the units stand.
        tracks: From the same plan.
        ports: Where lines enter and leave each unit.
    """
    marks: dict[int, str] = {}
    routes = []
    for link in plan.links:
        rows = placement.row[link.source], placement.row[link.target]
        start, end = ports[link.source][1], ports[link.target][0]
        if rows[0] == rows[1]:
            routes.append(Route((_inside(plan, placement, tracks, link, start, end),), "", link))
        elif _alone(plan, placement, link):
            routes.append(Route((_around(plan, placement, tracks, link, start, end),), "", link))
        else:
            mark = marks.setdefault(link.source, _letters(len(marks)))
            routes.append(Route(_broken(plan, placement, tracks, link, start, end), mark, link))
    return routes


def _letters(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else _letters(number // 26 - 1) + _letters(number % 26)


def _height(placement: Placement, link: Link, row: int) -> float | None:
    if link.lane is None:
        return None
    return placement.axes[row] + placement.lane_y.get(link.lane, 0.0)


def _inside(
    plan: Plan, placement: Placement, tracks: Tracks, link: Link, start: Point, end: Point
) -> tuple[Point, ...]:
    row = placement.row[link.source]
    turns = tracks.turns(link)
    height = _height(placement, link, row)
    if placement.u_shaped and link.lane is not None:
        return (start, end)
    if height is None:
        if not turns:
            if abs(start[1] - end[1]) < _JOG:
                return (start, (end[0], start[1]))
            turns = [(plan.column[link.source], ("out", link.source))]
        x = tracks.x(*turns[0], placement.gutters[turns[0][0]])
        return (start, (x, start[1]), (x, end[1]), end)
    points = [start]
    for column, key in turns:
        x = tracks.x(column, key, placement.gutters[column])
        leaving = key[0] == "out"
        points += [(x, start[1]), (x, height)] if leaving else [(x, height), (x, end[1])]
    if tracks.drops(link):
        x = placement.x[link.target]
        half = end[0] - x  # the port is at the left of the sign
        side = half if height < end[1] else -half
        return (*points, (x, height), (x, end[1] + side))
    return (*points, end)


def _alone(plan: Plan, placement: Placement, link: Link) -> bool:
    """Whether a line is the only one that leads from one row to the next."""
    row = placement.row[link.source]
    if placement.row[link.target] != row + 1:
        return False
    if any(placement.row[u] == row and plan.column[u] > plan.column[link.source] for u in range(len(plan.column))):
        return False
    others = {k.source for k in plan.links if placement.row[k.source] <= row < placement.row[k.target]}
    return others == {link.source}


def _around(
    plan: Plan, placement: Placement, tracks: Tracks, link: Link, start: Point, end: Point
) -> tuple[Point, ...]:
    """Lead a line back to the beginning of the next row, where it goes on along its lane."""
    row = placement.row[link.source]
    right = placement.ends[row][1] + _AROUND
    between = placement.bottoms[row] + _AROUND
    arrival = _arrival(plan, placement, tracks, link, end)[::-1]
    return (start, (right, start[1]), (right, between), (-_AROUND, between), (-_AROUND, arrival[0][1]), *arrival)


def _arrival(plan: Plan, placement: Placement, tracks: Tracks, link: Link, end: Point) -> list[Point]:
    """Return the corners of a line's last part, from its end back to its lane."""
    row = placement.row[link.target]
    height = _height(placement, link, row)
    if height is None:
        return [end]
    if tracks.drops(link):
        x = placement.x[link.target]
        half = end[0] - x  # the port is at the left of the sign
        return [(x, end[1] + (half if height < end[1] else -half)), (x, height)]
    for column, key in tracks.turns(link):
        if key[0] == "in" and _same_row(plan, placement, column, row):
            x = tracks.x(column, key, placement.gutters[column])
            return [end, (x, end[1]), (x, height)]
    return [end]


def _broken(
    plan: Plan, placement: Placement, tracks: Tracks, link: Link, start: Point, end: Point
) -> tuple[tuple[Point, ...], ...]:
    rows = placement.row[link.source], placement.row[link.target]
    before = _height(placement, link, rows[0])
    right, left = placement.ends[rows[0]][1] + _MARK, -_MARK
    turns = {key[0]: (column, key) for column, key in tracks.turns(link)}
    first: list[Point] = [start]
    if before is not None and "out" in turns:
        column, key = turns["out"]
        x = min(tracks.x(column, key, placement.gutters[column]), right)
        first += [(x, start[1]), (x, before)]
    first.append((right, first[-1][1]))
    second = _arrival(plan, placement, tracks, link, end)
    second.append((left, second[-1][1]))
    return tuple(first), tuple(second[::-1])


def _same_row(plan: Plan, placement: Placement, column: int, row: int) -> bool:
    return any(placement.row[u] == row for u in range(len(plan.column)) if plan.column[u] == column)
