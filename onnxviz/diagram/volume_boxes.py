"""How a volume is painted: a cuboid with its faces, bands and window, a sign, an arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from onnxviz.diagram.palette import INK, LINE, kind_style
from onnxviz.diagram.scene import Item, Path, Rect, Text
from onnxviz.diagram.volume_scale import Cuboid
from onnxviz.diagram.volume_stages import Stage
from onnxviz.graph.kinds import kind_of

__all__ = ["ROUNDED", "Box", "arrow_items", "dot_item", "mix", "sign_items", "volume_items", "window_items"]

Point = tuple[float, float]
_PLANE = ("#dde2e9", "#6b727b")
#: How far from a corner a line leaves the straight, in px.
ROUNDED = 5.0
_HEAD = 6.0
_MOST_SHEETS = 16
_LEAST_SHEET = 2.6
_LEAST_WINDOW = 6.0


@dataclass(frozen=True)
class Box:
    """A cuboid at its place: the top left corner of the front face, and its sides."""

    x: float
    y: float
    size: Cuboid

    @property
    def front(self) -> Rect:
        """The front face."""
        return Rect(self.x, self.y, self.size.thick, self.size.height)

    @property
    def axis(self) -> float:
        """Halfway up and halfway in."""
        return self.y + (self.size.height - self.size.up) / 2

    @property
    def entry(self) -> Point:
        """Where a line at the axis meets the box from the left."""
        over = self.y - self.axis
        return (self.x + (over / self.size.up * self.size.right if over > 0 and self.size.up else 0.0), self.axis)

    @property
    def exit(self) -> Point:
        """Where a line at the axis leaves the box to the right."""
        below = self.axis - (self.y + self.size.height - self.size.up)
        back = self.x + self.size.thick + self.size.right
        return (back - (below / self.size.up * self.size.right if below > 0 and self.size.up else 0.0), self.axis)


def mix(colour: str, other: str, part: float) -> str:
    """Return a colour with a part of another in it.

    >>> mix("#000000", "#ffffff", 0.5)
    '#808080'
    """
    pairs = zip(_rgb(colour), _rgb(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def _rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def volume_items(stage: Stage, box: Box, *, guessed: bool = False) -> list[Item]:
    """Return the faces of a volume, and a band at its end for activation and normalisation.

    Its outline is dashed where a size is ``guessed``.
    """
    fill, stroke = _PLANE
    if stage.role == "node":
        style = kind_style(stage.kind)
        fill, stroke = style.fill, style.stroke
    edge = mix(stroke, "#000000", 0.25)
    dashed = guessed or not stage.extent.known
    # The side has the kind's own colour and the other faces lighter ones: darker, the dark theme took it for a line's.
    items: list[Item] = [_side(box, fill, edge, dashed)]
    items += _slab(box, 0.0, box.size.thick, mix(fill, "#ffffff", 0.25), mix(fill, "#ffffff", 0.6), None)
    items += _sheets(stage, box, edge)
    items += _bands(stage, box)
    items += _outline(box, edge, dashed)
    return items


def _side(box: Box, fill: str, stroke: str, dashed: bool) -> Path:
    x, y, size = box.x + box.size.thick, box.y, box.size
    corners = ((x, y), (x + size.right, y - size.up), (x + size.right, y - size.up + size.height), (x, y + size.height))
    return Path((*corners, corners[0]), "MLLLZ", fill, stroke, 0.7, dashed)


def _slab(box: Box, start: float, end: float, front: str, top: str, stroke: str | None) -> list[Item]:
    """Return the front and the top of a part of a box, between two distances from its left."""
    left, right, y, size = box.x + start, box.x + end, box.y, box.size
    items: list[Item] = [Rect(left, y, right - left, size.height, front, stroke, 0.7)]
    if size.up:
        corners = ((left, y), (left + size.right, y - size.up), (right + size.right, y - size.up), (right, y))
        items.append(Path((*corners, corners[0]), "MLLLZ", top, stroke, 0.7))
    return items


def _bands(stage: Stage, box: Box) -> list[Item]:
    kinds = [kind for kind in ("norm", "activation") if any(kind_of(node) == kind for node in stage.folded)]
    if stage.role == "input" or not stage.extent.known:
        return []
    wide = min(max(0.2 * box.size.thick, 1.8), 6.0)
    items: list[Item] = []
    for at, kind in enumerate(reversed(kinds)):
        end = box.size.thick - at * wide
        fill = mix(kind_style(kind).fill, kind_style(kind).stroke, 0.08)
        items += _slab(box, end - wide, end, fill, mix(fill, "#ffffff", 0.3), mix(kind_style(kind).stroke, fill, 0.3))
    return items


def _sheets(stage: Stage, box: Box, stroke: str) -> list[Item]:
    """Return the lines between the maps of a volume with few channels, as in LeNet's figure."""
    count = stage.extent.channels
    if not isinstance(count, int) or not 1 < count <= _MOST_SHEETS or stage.extent.is_vector:
        return []
    if box.size.thick / count < _LEAST_SHEET:
        return []
    step, size = box.size.thick / count, box.size
    light = mix(stroke, "#ffffff", 0.45)
    items: list[Item] = []
    for at in range(1, count):
        x = box.x + at * step
        points = ((x, box.y + size.height), (x, box.y), (x + size.right, box.y - size.up))
        items.append(Path(points, "MLL", None, light, 0.5))
    return items


def _outline(box: Box, stroke: str, dashed: bool) -> list[Item]:
    x, y, size = box.x, box.y, box.size
    back = ((x, y), (x + size.right, y - size.up), (x + size.thick + size.right, y - size.up))
    edge = (*back, (x + size.thick, y))
    return [
        Rect(x, y, size.thick, size.height, None, stroke, 0.7, dashed=dashed),
        Path(edge, "MLLL", None, stroke, 0.7, dashed),
    ]


def sign_items(stage: Stage, box: Box) -> list[Item]:
    """Return a circle with the sign of what joins here, in the colour of an activation that follows."""
    fill = next((kind_style(k).fill for k in map(kind_of, stage.folded) if k in ("activation", "norm")), "#ffffff")
    radius = box.size.thick / 2
    x, y = box.x + radius, box.y + radius
    items: list[Item] = [_circle(x, y, radius, fill, INK)]
    arm = 0.5 * radius
    if stage.sign in "+−":
        items.append(Path(((x - arm, y), (x + arm, y)), "ML", None, INK, 1.3))
    if stage.sign == "+":
        items.append(Path(((x, y - arm), (x, y + arm)), "ML", None, INK, 1.3))
    if stage.sign == "×":
        arm *= 0.75
        items.append(Path(((x - arm, y - arm), (x + arm, y + arm)), "ML", None, INK, 1.3))
        items.append(Path(((x - arm, y + arm), (x + arm, y - arm)), "ML", None, INK, 1.3))
    if stage.sign in "÷•":
        items.append(Text(x, y + 4.0, stage.sign, 11.0, INK, anchor="middle"))
    return items


def dot_item(point: Point) -> Item:
    """Return the dot where lines part or meet."""
    return _circle(*point, 2.4, LINE, None)


def _circle(x: float, y: float, radius: float, fill: str, stroke: str | None) -> Path:
    k = 0.5523 * radius
    arcs = [
        ((x + a * radius, y + b * radius), (x + a * radius - b * k, y + b * radius + a * k))
        for a, b in ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 0))
    ]
    points: list[Point] = [arcs[0][0]]
    for (_, leave), (end, arrive) in pairwise(arcs):
        points += [leave, (2 * end[0] - arrive[0], 2 * end[1] - arrive[1]), end]
    return Path(tuple(points), "M" + "C" * 12, fill, stroke, 1.1)


def window_items(source: Box, target: Point, shares: tuple[float, float]) -> list[Item]:
    """Return the window on the side of a volume and the lines from it to a point of the next; empty where too small.

    Args:
        source: The volume that is read.
        target: Where the lines meet.
        shares: Height and depth of the window, in parts of the map's.
    """
    size = source.size
    tall, deep = (min(share, 1.0) for share in shares)
    if size.height * tall < _LEAST_WINDOW or size.right * deep < 2.0:
        return []
    x, y = (
        source.x + size.thick + size.right * (1 - deep) / 2,
        source.axis + size.up * deep / 2 - size.height * tall / 2,
    )
    right, up, high = size.right * deep, size.up * deep, size.height * tall
    corners = ((x, y), (x + right, y - up), (x + right, y - up + high), (x, y + high))
    items: list[Item] = [Path((*corners, corners[0]), "MLLLZ", "#ffffff", INK, 0.8)]
    items += [Path((corner, target), "ML", None, LINE, 0.6) for corner in corners]
    return items


def arrow_items(points: Sequence[Point], *, head: bool = True, rounded: float = ROUNDED) -> list[Item]:
    """Return a line with rounded corners, and an arrowhead at its end."""
    corners = [
        points[0],
        *(b for a, b in pairwise(points) if abs(a[0] - b[0]) + abs(a[1] - b[1]) > 0.01),
    ]
    if len(corners) < 2:
        return []
    drawn, codes = [corners[0]], "M"
    for before, at, behind in zip(corners, corners[1:], corners[2:], strict=False):
        first, second = _towards(at, before, rounded), _towards(at, behind, rounded)
        drawn += [first, at, at, second]
        codes += "LCCC"
    end = corners[-1]
    drawn.append(_towards(end, corners[-2], _HEAD * 0.8) if head else end)
    items: list[Item] = [Path(tuple(drawn), codes + "L", None, LINE, 1.2)]
    if head:
        items.append(_head(end, corners[-2]))
    return items


def _towards(point: Point, other: Point, distance: float) -> Point:
    dx, dy = other[0] - point[0], other[1] - point[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    part = min(distance / length, 0.5)
    return (point[0] + dx * part, point[1] + dy * part)


def _head(end: Point, before: Point) -> Path:
    dx, dy = end[0] - before[0], end[1] - before[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    dx, dy = dx / length * _HEAD, dy / length * _HEAD
    points = (
        end,
        (end[0] - dx - dy * 0.45, end[1] - dy + dx * 0.45),
        (end[0] - dx + dy * 0.45, end[1] - dy - dx * 0.45),
    )
    return Path((*points, end), "MLLZ", LINE)
