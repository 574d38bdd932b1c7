"""Checks of a figure of volumes: what overlaps, what lies outside."""

from __future__ import annotations

from itertools import pairwise

from onnxviz.diagram.exchange import Network
from onnxviz.diagram.scene import Group, Path, Rect, Scene, Text
from tests.diagram.scene_geometry import overlaps, text_box

NamedRect = tuple[str, Rect]
LEAST_FONT = 8.0


def labels(scene: Scene) -> list[tuple[str, Text]]:
    return [(group.id, item) for group in scene.groups for item in group.items if isinstance(item, Text)]


def outline(group: Group) -> Rect:
    """The rectangle around everything that a volume paints, its depth included."""
    assert group.box is not None
    points = [(group.box.x, group.box.y), (group.box.x + group.box.width, group.box.y + group.box.height)]
    points += [point for item in group.items if isinstance(item, Path) for point in item.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Rect(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def volumes_of(scene: Scene) -> list[Group]:
    return [group for group in scene.groups if group.box is not None]


def outside(scene: Scene) -> list[str]:
    found = []
    for group in scene.groups:
        for item in group.items:
            if isinstance(item, Text):
                rect = text_box(item)
            elif isinstance(item, Rect):
                rect = item
            else:
                xs, ys = [x for x, _ in item.points], [y for _, y in item.points]
                rect = Rect(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
            inside = rect.x >= 0 and rect.y >= 0
            if not inside or rect.x + rect.width > scene.width or rect.y + rect.height > scene.height:
                found.append(f"{group.id} at {rect}")
    return found


def crossed(scene: Scene) -> list[str]:
    """Name the volumes that a line runs through, other than those that it leaves or enters."""
    boxes = [(group.id, outline(group)) for group in volumes_of(scene)]
    found = []
    for group in scene.groups:
        lines = [item for item in group.items if isinstance(item, Path) and item.fill is None]
        if group.role != "edge" or len(lines) > 2:  # a window's lines go from one neighbour to the next
            continue
        for line in lines:
            ends = [line.points[0], line.points[-1]]
            for start, end in pairwise(line.points):
                segment = Rect(
                    min(start[0], end[0]),
                    min(start[1], end[1]),
                    abs(end[0] - start[0]) or 1e-3,
                    abs(end[1] - start[1]) or 1e-3,
                )
                for name, box in boxes:
                    around = Rect(box.x - 8, box.y - 8, box.width + 16, box.height + 16)
                    joined = any(
                        around.x <= x <= around.x + around.width and around.y <= y <= around.y + around.height
                        for x, y in ends
                    )
                    if not joined and segment.overlaps(box):
                        found.append(f"{group.id} through {name}")
    return found


def jogs(network: Network) -> list[str]:
    """Name the lines that miss the straight by a hair."""
    return [
        f"{edge.source} to {edge.target}"
        for edge in network.edges
        for (ax, ay), (bx, by) in pairwise(edge.points)
        if abs(ax - bx) < 0.05 and 0.05 < abs(ay - by) < 2.0
    ]


def faults(scene: Scene) -> list[str]:
    """Everything that is wrong with a figure."""
    fronts = list(scene.boxes())
    texts = labels(scene)
    rects = [(f"{name}:{text.text}", text_box(text)) for name, text in texts]
    foreign = [(f"{name}:{text.text}", text_box(text)) for name, text in texts if dict(fronts).get(name) is None]
    found = [f"fronts: {what}" for what in overlaps(fronts)]
    found += [f"labels: {what}" for what in overlaps(rects)]
    found += [f"label on volume: {what}" for what in overlaps(foreign, [(g.id, outline(g)) for g in volumes_of(scene)])]
    found += [f"outside: {what}" for what in outside(scene)]
    found += [f"line: {what}" for what in crossed(scene)]
    found += [f"small: {text.text}" for _, text in texts if text.size < LEAST_FONT]
    ids = [group.id for group in scene.groups]
    return found + [f"twice: {identity}" for identity in sorted({i for i in ids if ids.count(i) > 1})]
