"""Positions of the units of a figure: rows of a page, heights of lanes, the U of an encoder with its decoder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from onnxviz.diagram.volume_lanes import Lane, Link, Plan

__all__ = ["Cell", "Placement", "place_units"]

ROW_WIDTH = 1180.0  # px that a row of boxes may be wide
_SLACK = 1.15
_GUTTER = 26.0
_TRACK = 8.0  # between lines that run side by side
_LANE_GAP = 16.0
_WIRE = 5.0
_ROW_GAP = 34.0
_LEVEL_GAP = 26.0
_FRAME = 9.0


@dataclass(frozen=True)
class Cell:
    """The room that a unit takes: left and right of the middle of its front, above and below its axis.

    Attributes:
        left, right: With its label.
        above: Up to the top of the box.
        box_below: Down to the bottom of the box.
        below: Down to the end of its label.
        level: Rows of the map, for the U; 0 for vectors, signs and terminals.
        block: Number of its repeated block, -1 where it has none.
    """

    left: float
    right: float
    above: float
    box_below: float
    below: float
    level: float = 0.0
    block: int = -1


@dataclass
class Placement:
    """Where everything stands, the origin at the top left of the boxes.

    Attributes:
        x: Middle of the front of each unit.
        y: Its axis, halfway up and halfway in.
        row: The row of the page that it is in.
        gutters: Left and right end of the room behind each column.
        lane_y: Height of a lane's line, measured from the axis of the main lane.
        axes: Height of the main lane of each row.
        ends: Left and right end of each row.
        bottoms: Lower end of each row.
        u_shaped: Whether the levels of an encoder and its decoder form a U.
    """

    x: list[float]
    y: list[float]
    row: list[int]
    gutters: list[tuple[float, float]]
    lane_y: dict[Lane, float]
    axes: list[float] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)
    bottoms: list[float] = field(default_factory=list)
    u_shaped: bool = False
    width: float = 0.0
    height: float = 0.0


def place_units(cells: Sequence[Cell], plan: Plan, tracks: Sequence[int], wide: frozenset[int]) -> Placement:
    """Place units whose columns and lanes are known.

    Args:
        cells: The room that each unit takes.
        plan: Their columns and lanes.
        tracks: How many lines run side by side behind each column.
        wide: Columns behind which the lines of a window are drawn, which need room.
    """
    levels = _levels(cells, plan)
    left, right = _column_sides(cells, plan)
    gaps = [_GUTTER + _TRACK * max(count - 1, 0) + (14.0 if at in wide else 0.0) for at, count in enumerate(tracks)]
    changes = _block_changes(cells, plan)
    gaps = [gap + (_FRAME if at in changes else 0.0) for at, gap in enumerate(gaps)]
    widths = [a + b + gap for a, b, gap in zip(left, right, gaps, strict=True)]
    cuts = [0, plan.columns] if levels else _cuts(widths, plan, changes)
    placement = Placement([0.0] * len(cells), [0.0] * len(cells), [0] * len(cells), [], {})
    centres, row_of = [0.0] * plan.columns, [0] * plan.columns
    for row, (start, end) in enumerate(pairwise(cuts)):
        at = 0.0
        for column in range(start, end):
            centres[column], row_of[column] = at + left[column], row
            edge = at + left[column] + right[column]
            placement.gutters.append((edge, edge + gaps[column]))
            at = edge + gaps[column]
        placement.ends.append((0.0, at - gaps[end - 1]))
    for unit, column in enumerate(plan.column):
        placement.x[unit], placement.row[unit] = centres[column], row_of[column]
    if levels:
        _place_u(cells, plan, levels, placement)
    else:
        _place_rows(cells, plan, placement)
    placement.width = max((end for _, end in placement.ends), default=0.0)
    return placement


def _column_sides(cells: Sequence[Cell], plan: Plan) -> tuple[list[float], list[float]]:
    left, right = [0.0] * plan.columns, [0.0] * plan.columns
    for unit, cell in enumerate(cells):
        column = plan.column[unit]
        left[column], right[column] = max(left[column], cell.left), max(right[column], cell.right)
    return left, right


def _block_changes(cells: Sequence[Cell], plan: Plan) -> set[int]:
    """Return the columns behind which a frame begins or ends."""
    of_column: dict[int, set[int]] = defaultdict(set)
    for unit, cell in enumerate(cells):
        of_column[plan.column[unit]].add(cell.block)
    return {at for at in range(plan.columns - 1) if of_column[at] != of_column[at + 1]}


def _cuts(widths: list[float], plan: Plan, changes: set[int]) -> list[int]:
    """Return where rows begin: few lines cut, rows filled alike, frames left whole."""
    total = sum(widths)
    count = len(widths)
    if total <= ROW_WIDTH * _SLACK:
        return [0, count]
    crossing = [
        len({k.source for k in plan.links if plan.column[k.source] < at <= plan.column[k.target]})
        for at in range(count)
    ]
    goal = total / -(-total // ROW_WIDTH)
    best = [0.0] + [float("inf")] * count
    come = [0] * (count + 1)
    for end in range(1, count + 1):
        width = 0.0
        for start in range(end - 1, -1, -1):
            width += widths[start]
            if width > ROW_WIDTH * _SLACK and start < end - 1:
                break
            cost = best[start] + ((width - goal) / goal) ** 2 * (1.0 if end < count or width > goal else 0.5)
            if end < count:
                cost += 0.6 * (crossing[end] - 1) + (0.0 if end - 1 in changes or not changes else 0.7)
            if cost < best[end]:
                best[end], come[end] = cost, start
    cuts = [count]
    while cuts[-1]:
        cuts.append(come[cuts[-1]])
    return cuts[::-1]


def _place_rows(cells: Sequence[Cell], plan: Plan, placement: Placement) -> None:
    offsets = _lane_heights(cells, plan)
    top = 0.0
    row_of_column: dict[int, int] = {plan.column[unit]: placement.row[unit] for unit in range(len(cells))}
    for row in range(len(placement.ends)):
        columns = [column for column, at in row_of_column.items() if at == row]
        first, last = min(columns, default=0), max(columns, default=0)
        inside = [lane for lane in plan.lanes if lane.start <= last and lane.end >= first]
        above = [_WIRE - offsets[lane] for lane in inside]
        below = [_WIRE + offsets[lane] for lane in inside]
        for unit, cell in enumerate(cells):
            if placement.row[unit] == row:
                offset = offsets[plan.lane[unit]]
                framed = _FRAME * 2 if cell.block >= 0 else 0.0
                above.append(cell.above - offset + framed)
                below.append(cell.below + offset + framed / 2)
        axis = top + max(above, default=0.0)
        placement.axes.append(axis)
        for unit in range(len(cells)):
            if placement.row[unit] == row:
                placement.y[unit] = axis + offsets[plan.lane[unit]]
        placement.bottoms.append(axis + max(below, default=0.0))
        top = placement.bottoms[-1] + _ROW_GAP
    placement.lane_y = offsets
    placement.height = placement.bottoms[-1] if placement.bottoms else 0.0


def _lane_heights(cells: Sequence[Cell], plan: Plan) -> dict[Lane, float]:
    """Return how far each lane's axis lies below that of the main lane: as near as what lies between allows."""
    heights: dict[Lane, float] = dict.fromkeys(plan.lanes, 0.0)
    sky = [[0.0] * (plan.columns + 1) for _ in range(2)]  # how far up and down each column is taken
    for lane in sorted(plan.lanes, key=lambda lane: (abs(lane.slot), lane.start)):
        spans = _spans(lane, cells, plan)
        if not lane.slot:
            for column, (above, below) in spans.items():
                sky[0][column], sky[1][column] = above, below
            continue
        side = 0 if lane.slot < 0 else 1
        inner, outer = (1, 0) if side == 0 else (0, 1)
        reach = max(sky[side][column] + span[inner] for column, span in spans.items()) + _LANE_GAP
        for column, span in spans.items():
            sky[side][column] = reach + span[outer]
        heights[lane] = -reach if side == 0 else reach
    return heights


def _spans(lane: Lane, cells: Sequence[Cell], plan: Plan) -> dict[int, tuple[float, float]]:
    """Return how far a lane reaches up and down from its axis in each of its columns."""
    found = dict.fromkeys(range(lane.start, lane.end + 1), (_WIRE, _WIRE))
    for unit in lane.units:
        cell = cells[unit]
        found[plan.column[unit]] = (cell.above, cell.below)
    return found


def _levels(cells: Sequence[Cell], plan: Plan) -> list[float]:
    """Return the map sizes of a U from the largest on; empty where the model is none.

    In a U everything stands on the main lane, sizes fall and rise again, and at least two lines lead straight across,
    from a size to the same size, with smaller ones between.
    """
    if any(lane.units for lane in plan.lanes[1:]):
        return []
    wires = [k for k in plan.links if k.lane is not None]
    line = sorted((u for u in range(len(cells)) if cells[u].level), key=lambda u: plan.column[u])
    if len(wires) < 2 or not line or len(line) < 0.8 * len(cells):
        return []
    sizes = [cells[u].level for u in line]
    low = sizes.index(min(sizes))
    if sorted(sizes[: low + 1], reverse=True) != sizes[: low + 1] or sorted(sizes[low:]) != sizes[low:]:
        return []
    level = _level_of(cells, plan)
    for link in wires:
        across = level[link.source]
        between = [u for u in line if plan.column[link.source] < plan.column[u] < plan.column[link.target]]
        sunk = _rising(link, plan, level)
        if across != level[link.target] or any(level[u] >= across for u in between if u not in sunk):
            return []
    return sorted(set(sizes), reverse=True)


def _rising(link: Link, plan: Plan, level: list[float]) -> set[int]:
    """Return the units right before the end of a line across, of its size already: they stand a step lower."""
    column = {plan.column[unit]: unit for unit in range(len(level))}
    found: set[int] = set()
    at = plan.column[link.target] - 1
    while at > plan.column[link.source] and level[column[at]] == level[link.source]:
        found.add(column[at])
        at -= 1
    return found if at > plan.column[link.source] else set()


def _level_of(cells: Sequence[Cell], plan: Plan) -> list[float]:
    """Return the size of each unit: a sign has that of the one before it, the first that of the one behind."""
    level = [cell.level for cell in cells]
    order = sorted(range(len(cells)), key=lambda u: plan.column[u])
    for sequence in (order, order[::-1]):
        last = 0.0
        for unit in sequence:
            last = level[unit] = level[unit] or last
    return level


def _place_u(cells: Sequence[Cell], plan: Plan, levels: list[float], placement: Placement) -> None:
    level = _level_of(cells, plan)
    axes: dict[float, float] = {}
    below = 0.0
    for size in levels:
        units = [u for u in range(len(cells)) if level[u] == size]
        above = max(cells[u].above for u in units)
        axes[size] = max(above, below + above + _LEVEL_GAP)
        below = axes[size] + 6.0
    for unit in range(len(cells)):
        placement.y[unit] = axes[level[unit]]
    for link in plan.links:
        for unit in _rising(link, plan, level) if link.lane is not None else ():
            placement.y[unit] = axes[level[unit]] + cells[unit].above + _LANE_GAP
    placement.axes = [0.0]
    placement.u_shaped = True
    for link in plan.links:
        if link.lane is not None:
            placement.lane_y[link.lane] = axes[level[link.source]]
    placement.height = max(placement.y[u] + cells[u].below for u in range(len(cells)))
    placement.bottoms = [placement.height]
