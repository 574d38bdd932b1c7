"""Checks of a finished scene: what overlaps, what does not fit, which lines run through boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxviz.diagram.scene import Path, Rect, Scene, Text

NamedRect = tuple[str, Rect]


def overlaps(boxes: Sequence[NamedRect], others: Sequence[NamedRect] | None = None) -> list[str]:
    """Name the pairs of rectangles that share any inside: within ``boxes``, or between it and ``others``."""
    if not boxes or others == []:
        return []
    a, b = _array(boxes), _array(boxes if others is None else others)
    names = [name for name, _ in (boxes if others is None else others)]
    axis = 0 if np.ptp(b[:, 0]) > np.ptp(b[:, 1]) else 1  # search along the longer side of the drawing
    order = np.argsort(b[:, axis], kind="stable")
    starts, longest = b[order, axis], float((b[:, axis + 2] - b[:, axis]).max())
    found = []
    for i, (name, _) in enumerate(boxes):
        near = order[np.searchsorted(starts, a[i, axis] - longest) : np.searchsorted(starts, a[i, axis + 2])]
        c = b[near]
        hit = (a[i, 0] < c[:, 2] - 1e-6) & (c[:, 0] < a[i, 2] - 1e-6)
        hit &= (a[i, 1] < c[:, 3] - 1e-6) & (c[:, 1] < a[i, 3] - 1e-6)
        found += [f"{name} and {names[j]}" for j in near[hit].tolist() if others is not None or j > i]
    return found


def _array(boxes: Sequence[NamedRect]) -> np.ndarray:
    return np.array([(r.x, r.y, r.x + r.width, r.y + r.height) for _, r in boxes])


def text_box(text: Text) -> Rect:
    """The rectangle that a line of text covers: from the height of a capital to the baseline."""
    left, right = text.extent
    return Rect(left, text.y - 0.73 * text.size, right - left, 0.73 * text.size)


def _side_labels(scene: Scene) -> Iterator[tuple[str, Text, bool]]:
    """Yield every text with its group and whether it stands inside a box (else beside one, or on a line)."""
    for group in scene.groups:
        for item in group.items:
            if isinstance(item, Text):
                beside = group.box is None or item.x < group.box.x or item.x > group.box.x + group.box.width
                yield group.id, item, not beside


def misfits(scene: Scene) -> list[str]:
    """Name the texts that stick out of their box or of the drawing."""
    boxes = dict(scene.boxes())
    found = []
    for name, text, inside in _side_labels(scene):
        rect = text_box(text)
        frame = boxes[name] if inside else Rect(0, 0, scene.width, scene.height)
        fits = frame.x - 1e-6 <= rect.x and rect.x + rect.width <= frame.x + frame.width + 1e-6
        if not (fits and frame.y <= rect.y and rect.y + rect.height <= frame.y + frame.height):
            found.append(f"{name}: {text.text}")
    return found


def covered_labels(scene: Scene) -> list[str]:
    """Name the labels beside boxes and on lines that lie on a box or on one another."""
    labels = [(f"{name}: {t.text}", text_box(t)) for name, t, inside in _side_labels(scene) if not inside]
    return overlaps(labels, list(scene.boxes())) + overlaps(labels)


def sample(path: Path, steps: int = 12) -> np.ndarray:
    """Points along a path, shape (k, 2)."""
    points = np.asarray(path.points)
    found, at = [], 0
    t = np.linspace(0.0, 1.0, steps)[:, None]
    while at < len(path.codes):
        code = path.codes[at]
        if code == "C":
            p0, p1, p2, p3 = points[at - 1 : at + 3]
            found.append((1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3)
            at += 3
            continue
        if code == "L":
            found.append(points[at - 1] + t * (points[at] - points[at - 1]))
        at += 1
    return np.concatenate(found) if found else np.zeros((0, 2))


def crossed_boxes(scene: Scene) -> list[str]:
    """Name the lines that run through the inside of a box (more than 0.5 px from its border)."""
    boxes = list(scene.boxes())
    if not boxes:
        return []
    frames = _array(boxes)
    order = np.argsort(frames[:, 1], kind="stable")
    tops, tallest = frames[order, 1], float((frames[:, 3] - frames[:, 1]).max())
    found = []
    for group in scene.groups:
        if group.role != "edge":
            continue
        for path in (item for item in group.items if isinstance(item, Path) and item.stroke):
            points = sample(path)
            low, high = points[:, 1].min(), points[:, 1].max()
            near = order[np.searchsorted(tops, low - tallest) : np.searchsorted(tops, high)]
            for j in near.tolist():
                left, top, right, bottom = frames[j]
                x, y = points.T
                if ((x > left + 0.5) & (x < right - 0.5) & (y > top + 0.5) & (y < bottom - 0.5)).any():
                    found.append(f"{group.id} through {boxes[j][0]}")
    return found


def faults(scene: Scene) -> list[str]:
    """Everything that is wrong with a scene."""
    named = list(scene.boxes())
    head = [item for g in scene.groups if g.role in ("header", "legend") for item in g.items if isinstance(item, Text)]
    header = [(t.text, text_box(t)) for t in head]
    return overlaps(named) + misfits(scene) + covered_labels(scene) + crossed_boxes(scene) + overlaps(header, named)
