"""Where lines of one tensor part, and lines to one place meet: a dot tells them from lines that cross."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from onnxviz.diagram.volume_routes import Route

__all__ = ["joints"]

Point = tuple[float, float]
_NEAR = 0.5


def joints(routes: Sequence[Route], rounded: float) -> dict[int, list[Point]]:
    """Return the dots of each route, by its number; a dot that several share belongs to the first of them.

    Args:
        routes: The lines.
        rounded: How far from a corner a line leaves the straight, in px.
    """
    groups: dict[tuple[str, int], list[tuple[int, list[Point]]]] = defaultdict(list)
    for at, route in enumerate(routes):
        groups["out", route.link.source].append((at, list(route.pieces[0])))
        groups["in", route.link.target].append((at, list(route.pieces[-1])[::-1]))
    found: dict[int, list[Point]] = defaultdict(list)
    for group in groups.values():
        seen: set[Point] = set()
        for at, line in group:
            others = [other for number, other in group if number != at]
            for before, corner, behind in zip(line, line[1:], line[2:], strict=False):
                dot = _towards(corner, before, rounded)
                key = (round(dot[0]), round(dot[1]))
                if key not in seen and any(_parts(corner, behind, other) for other in others):
                    seen.add(key)
                    found[at].append(dot)
    return found


def _parts(corner: Point, behind: Point, other: Sequence[Point]) -> bool:
    """Whether another line reaches a corner and goes on another way."""
    for at, (start, end) in enumerate(pairwise(other)):
        if _close(end, corner):
            return at + 2 < len(other) and _way(end, other[at + 2]) != _way(corner, behind)
        flat = abs(start[1] - end[1]) < _NEAR and abs(corner[1] - end[1]) < _NEAR
        steep = abs(start[0] - end[0]) < _NEAR and abs(corner[0] - end[0]) < _NEAR
        axis = 0 if flat else 1
        if (flat or steep) and min(start[axis], end[axis]) < corner[axis] < max(start[axis], end[axis]):
            return True
    return False


def _close(a: Point, b: Point) -> bool:
    return abs(a[0] - b[0]) < _NEAR and abs(a[1] - b[1]) < _NEAR


def _way(start: Point, end: Point) -> tuple[int, int]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    return ((dx > _NEAR) - (dx < -_NEAR), (dy > _NEAR) - (dy < -_NEAR))


def _towards(point: Point, other: Point, distance: float) -> Point:
    dx, dy = other[0] - point[0], other[1] - point[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    part = min(distance / length, 0.5)
    return (point[0] + dx * part, point[1] + dy * part)
