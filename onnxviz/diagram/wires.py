"""The lines of the diagram: curves with arrowheads, labels of tensors, and the labelled ends of lines not drawn."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from onnxviz.diagram.elements import Element, Elements, Wire
from onnxviz.diagram.layout import FloatArray, Layout
from onnxviz.diagram.palette import INK, LINE
from onnxviz.diagram.scene import Item, Path, Text
from onnxviz.diagram.seen import Seen, ShapeKind, ShapeLabel, label_items
from onnxviz.diagram.text import fit_text, text_width
from onnxviz.errors import printable
from onnxviz.graph.constants import constant_tensor

__all__ = [
    "Bundle",
    "bundle_items",
    "bundle_tooltip",
    "collect_bundles",
    "incoming_stub_items",
    "strong_items",
    "wire_label",
]

LABEL = 9.0
LABEL_HEIGHT = 13.0
STUB_ROW = 12.0
STUB_WIDTH = 110.0  # widest name of a stub, px
STUB_LENGTH = 14.0
MOST_STUBS = 3  # rows of stubs beside a box; the rest is counted
_ARROW, _ARROW_HALF = 6.0, 3.0


@dataclass(eq=False)
class Bundle:
    """All wires of one tensor: they leave through one port and share one label."""

    source: int
    port: int
    wires: list[int] = field(default_factory=list)
    label: str = ""
    offset: float = 0.0  # of the port, px right of the box's middle
    kind: ShapeKind = "known"  # of the shape that the label says

    @property
    def label_width(self) -> float:
        """How wide the label is drawn, in px."""
        return ShapeLabel(self.label, self.kind).width(LABEL)


def collect_bundles(found: Elements) -> list[Bundle]:
    """Group wires by the tensor that they carry, in the order of the sources."""
    bundles: dict[tuple[int, int], Bundle] = {}
    for index, wire in enumerate(found.wires):
        key = (wire.source, wire.port)
        if key not in bundles:
            bundles[key] = Bundle(*key)
        bundles[key].wires.append(index)
    return [bundles[key] for key in sorted(bundles)]


def wire_label(element: Element, wire: Wire, target: Element, seen: Seen | None = None) -> ShapeLabel:
    """Return the shape to write on a tensor's line; empty where it is said right beside it already."""
    node, seen = element.node, seen or Seen()
    if target.role == "output" or (node is None and element.members is None):
        return ShapeLabel("")
    label = seen.label(wire.value)
    if node is not None and element.kind in ("activation", "norm", "elementwise") and len(node.outputs) == 1:
        data = [v for v in node.inputs if v is not None and constant_tensor(v) is None]
        if len(data) == 1 and seen.label(data[0]).text == label.text:
            return ShapeLabel("")
    return ShapeLabel(fit_text(label.text, LABEL, 210.0 if label.kind == "symbolic" else 150.0), label.kind)


def bundle_tooltip(bundle: Bundle, found: Elements, seen: Seen | None = None) -> str:
    """Return name, type and shape of a tensor and how many use it."""
    value = found.wires[bundle.wires[0]].value
    uses = len(bundle.wires)
    name = printable(value.name or "(unnamed)")
    shape = (seen or Seen()).in_words(value) or "type unknown"
    return f"{name}\n{shape}\n{uses} use{'s' if uses != 1 else ''}"


def bundle_items(
    bundle: Bundle, found: Elements, layout: Layout, dx: float, dy: float, headless: Container[int] = ()
) -> tuple[Item, ...]:
    """Return the lines, arrowheads, label and outgoing stub of one tensor, moved by (dx, dy).

    A line to an element in ``headless`` goes on from there and has no arrowhead.
    """
    lines, dashes, heads = _Pen(), _Pen(), _Pen()
    stubs = 0
    for wire in bundle.wires:
        if layout.stub[wire]:
            stubs += 1
            continue
        points = layout.path(wire) + np.array([dx, dy])
        ends = found.wires[wire].target not in headless
        (dashes if found.wires[wire].outer else lines).curve(points, ends=ends)
        if ends:
            heads.arrow(points[-1])
    items: list[Item] = [lines.path(stroke=LINE, stroke_width=1.1)] if lines.codes else []
    items += [dashes.path(stroke=LINE, stroke_width=1.1, dashed=True)] if dashes.codes else []
    items += [heads.path(fill=LINE)] if heads.codes else []
    box = layout.boxes[bundle.source]
    if bundle.label:
        x, y = box[0] + box[2] / 2 + bundle.offset + dx + 4.0, box[1] + box[3] + dy + 10.5
        items += label_items(ShapeLabel(bundle.label, bundle.kind), float(x), float(y), LABEL)
    return tuple(items)


def strong_items(courses: Sequence[FloatArray], color: str) -> tuple[Item, ...]:
    """Return lines with arrowheads along some courses, over those that are there, so that a way through stands out."""
    lines, heads = _Pen(), _Pen()
    for corners in courses:
        lines.curve(corners)
        heads.arrow(corners[-1])
    return (lines.path(stroke=color, stroke_width=3.0), heads.path(fill=color, stroke=color, stroke_width=1.5))


class _Pen:
    """Collects the figures of one path."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self.codes: list[str] = []

    def curve(self, corners: FloatArray, *, ends: bool = True) -> None:
        """Draw straight where the line is vertical and an S-curve where it changes its column."""
        points = [(float(x), float(y)) for x, y in corners]
        if ends:  # below the arrowhead
            points[-1] = (points[-1][0], points[-1][1] - _ARROW + 1.0)
        self.points.append(points[0])
        self.codes.append("M")
        for (x0, y0), (x1, y1) in pairwise(points):
            if abs(x1 - x0) < 1e-6:
                self.points.append((x1, y1))
                self.codes.append("L")
            else:
                middle = (y0 + y1) / 2
                self.points += [(x0, middle), (x1, middle), (x1, y1)]
                self.codes.append("CCC")

    def arrow(self, tip: FloatArray) -> None:
        """Draw an arrowhead that points down."""
        x, y = float(tip[0]), float(tip[1])
        self.points += [(x - _ARROW_HALF, y - _ARROW), (x + _ARROW_HALF, y - _ARROW), (x, y), (x, y)]
        self.codes.append("MLLZ")

    def path(
        self, *, fill: str | None = None, stroke: str | None = None, stroke_width: float = 1.0, dashed: bool = False
    ) -> Path:
        return Path(tuple(self.points), "".join(self.codes), fill, stroke, stroke_width, dashed)


def stub_name(wire: Wire, *, uses: int = 0) -> str:
    """Return the text of a stub: the tensor's name and, at its source, how many lines are not drawn."""
    suffix = f" ×{uses}" if uses > 1 else ""
    return fit_text(wire.value.name or "(unnamed)", LABEL, STUB_WIDTH - text_width(suffix, LABEL)) + suffix


def stub_rows(names: list[str]) -> list[str]:
    """Return the rows written beside a box: the first names, and how many more there are."""
    if len(names) <= MOST_STUBS:
        return names
    return [*names[: MOST_STUBS - 1], f"and {len(names) - MOST_STUBS + 1:,} more"]


def incoming_stub_items(rows: list[str], left: float, middle: float) -> tuple[Item, ...]:
    """Return the stubs that enter a box at its left side."""
    pen, heads, items = _Pen(), _Pen(), []
    for y, row in _row_heights(rows, middle):
        pen.points += [(left - STUB_LENGTH, y), (left - 5.0, y)]
        pen.codes.append("ML")
        heads.points += [(left - _ARROW, y - _ARROW_HALF), (left - _ARROW, y + _ARROW_HALF), (left, y), (left, y)]
        heads.codes.append("MLLZ")
        items.append(Text(left - STUB_LENGTH - 3.0, y + 3.2, row, LABEL, INK, anchor="end"))
    return (pen.path(stroke=LINE, stroke_width=1.1), heads.path(fill=LINE), *items)


def outgoing_stub_items(rows: list[str], right: float, middle: float) -> tuple[Item, ...]:
    """Return the stubs that leave a box at its right side."""
    pen, items = _Pen(), []
    for y, row in _row_heights(rows, middle):
        tip = right + STUB_LENGTH
        pen.points += [(right, y), (tip, y), (tip - 4.0, y - 3.0), (tip, y), (tip - 4.0, y + 3.0)]
        pen.codes.append("MLMLL")
        items.append(Text(tip + 3.0, y + 3.2, row, LABEL, INK))
    return (pen.path(stroke=LINE, stroke_width=1.1), *items)


def _row_heights(rows: list[str], middle: float) -> list[tuple[float, str]]:
    first = middle - STUB_ROW * (len(rows) - 1) / 2
    return [(first + STUB_ROW * i, row) for i, row in enumerate(rows)]
