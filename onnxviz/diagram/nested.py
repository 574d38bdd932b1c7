"""A drawing with its open groups framed: each is laid out by itself and stands in the level around it as one box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.diagram.blocks import HEADER_HEIGHT, HEADING, PADDING, Block, annotated, block_items, make_block
from onnxviz.diagram.drawing import PAD, Drawing, Gates, Paint, heading
from onnxviz.diagram.elements import Element, Wire
from onnxviz.diagram.exchange import DiagramEdge, DiagramFrame, Network
from onnxviz.diagram.hierarchy import Level, Tree
from onnxviz.diagram.layout import FloatArray, Layout
from onnxviz.diagram.names import Names, element_name
from onnxviz.diagram.palette import INK, LINE, kind_style
from onnxviz.diagram.ranks import rank_between
from onnxviz.diagram.result import Architecture, diagram_edge, diagram_node
from onnxviz.diagram.scene import Group, Item, Path, Rect, Scene, Text
from onnxviz.diagram.seen import Seen, ShapeKind
from onnxviz.diagram.text import text_width
from onnxviz.diagram.wires import bundle_items, bundle_tooltip, incoming_stub_items, outgoing_stub_items
from onnxviz.graph.scopes import scope_name

__all__ = ["draw_nested"]

_BORDER = Block("", "", (), "", 8.0, 0.0)
_HEAD, _SIDE, _FOOT = HEADER_HEIGHT + 6.0, 14.0, 12.0  # room around the inside of a frame, px
_FRAME = "#faf9fd"


def draw_nested(
    tree: Tree,
    closed: set[int],
    title: str,
    line: str,
    *,
    paint: Paint | None = None,
    seen: Seen | None = None,
) -> Architecture:
    """Draw the levels of a tree, those of closed groups left out.

    Args:
        tree: The elements and the levels that they lie in.
        closed: Groups that are one block.
        title: The heading.
        line: What stands below it.
        paint: Colours of all elements of the tree, where they are not those of the kinds.
        seen: What a run showed.
    """
    return _Nest(tree, closed, paint, seen or Seen()).finish(title, line)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a box that is shown ended up: its outline is in its group, its wires in its level."""

    element: int
    block: Block
    group: Group


class _Nest:
    """What all levels share."""

    def __init__(self, tree: Tree, closed: set[int], paint: Paint | None, seen: Seen) -> None:
        self.tree, self.closed, self.paint, self.seen = tree, closed, paint, seen
        self.blocks = [make_block(element, seen) for element in tree.elements]
        if paint is not None and paint.signs:
            self.blocks = [annotated(*entry) for entry in zip(self.blocks, paint.signs, paint.notes, strict=True)]
        names = Names()
        self.ids = [names.take(element.role, element_name(element)) for element in tree.elements]
        self.edge_names = Names()
        self.places: list[_Place] = []  # in the order in which they are drawn, which is the model's
        self.root = _Sheet(self, tree.levels[-1])

    def finish(self, title: str, line: str) -> Architecture:
        shapes: set[ShapeKind] = set()
        kinds: list[str] = []
        for sheet in self.root.open_sheets():
            shapes |= sheet.drawing.shape_kinds()
            kinds += [e.kind for i, e in enumerate(sheet.level.boxes.elements) if e.kind and i not in sheet.inner]
        layout = self.root.drawing.layout
        header, wide, dy = heading(title, line, kinds, shapes, layout.width, self.paint)
        self.root.place(PAD + (wide - layout.width) / 2, dy)
        groups = self.root.groups()
        scene = Scene(wide + 2 * PAD, dy + layout.height + PAD, title, tuple(header + groups))
        return Architecture(scene, self._layout(dy), lambda: self._network(scene))

    def tooltip(self, element: int) -> str:
        notes = [] if self.paint is None or self.paint.signs else self.paint.notes[element]
        return "\n".join([self.blocks[element].tooltip, *notes])

    def _network(self, scene: Scene) -> Network:
        values = self.paint.values if self.paint is not None and self.paint.values else None
        nodes = tuple(
            diagram_node(
                self.tree.elements[place.element],
                place.block,
                place.group,
                values[place.element] if values else None,
                self._frame_of(place.element),
            )
            for place in self.places
        )
        size = round(scene.width, 2), round(scene.height, 2)
        return Network(scene.title, *size, nodes, tuple(self._edges()), tuple(self._frames()))

    def _frame_of(self, element: int) -> str:
        around = self.tree.parents[element]
        return self.ids[around] if around >= 0 else ""

    def _frames(self) -> Iterator[DiagramFrame]:
        for sheet in self.root.open_sheets():
            for box, inner in sheet.inner.items():
                owner = inner.level.owner
                element = self.tree.elements[owner]
                name = scope_name(element.members.scope) if element.members is not None else element_name(element)
                x, y, width, height = (float(v) for v in sheet.drawing.layout.boxes[box])
                place = (x + sheet.left, y + sheet.top, width, height)
                yield DiagramFrame(self.ids[owner], name or "", self._frame_of(owner), *(round(v, 2) for v in place))

    def _edges(self) -> list[DiagramEdge]:
        """Return what leads from one shown box to another, through the frames between them."""
        found: list[DiagramEdge] = []
        for sheet in self.root.open_sheets():
            for index, wire in enumerate(sheet.level.boxes.wires):
                if wire.source < len(sheet.level.members) and wire.source not in sheet.inner:
                    start = self.ids[sheet.level.members[wire.source]]
                    for target, stub, points in sheet.follow(index):
                        found.append(diagram_edge(start, self.ids[target], wire, self.seen, stub, points))
        order = {self.ids[place.element]: i for i, place in enumerate(self.places)}
        return sorted(found, key=lambda edge: order[edge.target])

    def _layout(self, dy: float) -> Layout:
        """Return all shown boxes and the lines between them; ranks count within a level."""
        places = self.places
        index = {place.element: i for i, place in enumerate(places)}
        by_id = {self.ids[element]: i for element, i in index.items()}
        left = self.root.left
        outlines = [place.group.box for place in places]
        boxes = np.array([(b.x - left, b.y - dy, b.width, b.height) for b in outlines if b is not None]).reshape(-1, 4)
        rank = np.zeros(len(places), np.int64)
        for sheet in self.root.open_sheets():
            for position, element in enumerate(sheet.level.members):
                if element in index:
                    rank[index[element]] = sheet.drawing.layout.rank[position]
        edges = self._edges()
        pairs = np.array([(by_id[e.source], by_id[e.target]) for e in edges], np.int64).reshape(-1, 2)
        paths = [np.array(e.points, np.float64).reshape(-1, 2) - np.array([left, dy]) for e in edges]
        whole = self.root.drawing.layout
        return Layout(
            boxes, rank, pairs, np.array([e.stub for e in edges], np.bool_), np.zeros(len(edges), np.bool_),
            np.concatenate([np.zeros((0, 2)), *paths]), np.cumsum([0, *map(len, paths)]).astype(np.int64),
            whole.bands, whole.width, whole.height,
        )  # fmt: skip


class _Sheet:
    """One level: its drawing, and the sheets of the groups that are open in it."""

    def __init__(self, nest: _Nest, level: Level, around: _Sheet | None = None) -> None:
        self.nest, self.level, self.around = nest, level, around
        levels, closed = nest.tree.levels, nest.closed
        self.inner = {
            box: _Sheet(nest, levels[element], self)
            for box, element in enumerate(level.members)
            if element in levels and element not in closed
        }
        self.blocks = [nest.blocks[element] for element in level.members]
        for box, sheet in self.inner.items():
            self.blocks[box] = sheet.frame(self.blocks[box])
        border = len(level.boxes.elements) - len(level.members)
        edges = np.array([(w.source, w.target) for w in level.boxes.wires], dtype=np.int64).reshape(-1, 2)
        inside = level.owner >= 0
        self.drawing = Drawing(
            level.boxes,
            blocks=[*self.blocks, *[_BORDER] * border],
            ranking=rank_between(len(level.members), level.entries, border - level.entries, edges) if inside else None,
            seen=nest.seen,
            gates={box: sheet.gates() for box, sheet in self.inner.items()},
        )
        self.left = self.top = 0.0

    def open_sheets(self) -> list[_Sheet]:
        return [self, *(found for sheet in self.inner.values() for found in sheet.open_sheets())]

    def frame(self, block: Block) -> Block:
        """Return the box that this level needs in the one around it."""
        layout = self.drawing.layout
        heading_width = text_width(block.heading, HEADING, bold=True) + 2 * PADDING + 20.0
        width = max(layout.width + 2 * _SIDE, heading_width)
        return Block(block.heading, "", (), block.tooltip, width, layout.height + _HEAD + _FOOT)

    def _borders(self) -> list[tuple[ir.Value, float, str]]:
        """Return the tensors at the border, where they stand right of the middle, and whether they come or go."""
        boxes = self.drawing.layout.boxes
        middle = self.drawing.layout.width / 2
        elements = self.level.boxes.elements
        return [
            (element.value, float(boxes[i, 0] + boxes[i, 2] / 2) - middle, element.role)
            for i, element in enumerate(elements)
            if i >= len(self.level.members) and element.value is not None
        ]

    def gates(self) -> Gates:
        borders = self._borders()
        sides = [{value: x for value, x, role in borders if role == wanted} for wanted in ("entry", "exit")]
        return Gates(*sides)

    def place(self, left: float, top: float) -> None:
        """Say where the level's corner is in the drawing."""
        self.left, self.top = left, top
        boxes = self.drawing.layout.boxes
        for box, sheet in self.inner.items():
            x, y, width, _ = (float(v) for v in boxes[box])
            sheet.place(left + x + (width - sheet.drawing.layout.width) / 2, top + y + _HEAD)

    def groups(self) -> list[Group]:
        """Return the lines of the level, then its boxes and frames."""
        found = self._lines()
        boxes = self.drawing.layout.boxes + np.array([self.left, self.top, 0.0, 0.0])
        for box, element_index in enumerate(self.level.members):
            element, identity = self.nest.tree.elements[element_index], self.nest.ids[element_index]
            x, y, width, height = (float(v) for v in boxes[box])
            stubs = self._stubs(box, x, y, width, height)
            if box in self.inner:
                sheet = self.inner[box]
                items = sheet.frame_items(element, self.blocks[box], x, y, width, height)
                found.append(
                    Group(identity, "frame", self.nest.tooltip(element_index), items + stubs, None, element.kind)
                )
                found += sheet.groups()
                continue
            fill = None if self.nest.paint is None else self.nest.paint.fills[element_index]
            outline, items = block_items(element, self.blocks[box], x, y, width, fill)
            group = Group(
                identity, element.role, self.nest.tooltip(element_index), items + stubs, outline, element.kind
            )
            self.nest.places.append(_Place(element_index, self.blocks[box], group))
            found.append(group)
        return found

    def _lines(self) -> list[Group]:
        headless = {*self.inner, *range(len(self.level.members), len(self.level.boxes.elements))}
        found = []
        drawing, boxes = self.drawing, self.level.boxes
        for bundle in drawing.bundles:
            items = bundle_items(bundle, boxes, drawing.layout, self.left, self.top, headless)
            if items:
                name = self.nest.edge_names.take("edge", boxes.wires[bundle.wires[0]].value.name)
                found.append(Group(name, "edge", bundle_tooltip(bundle, boxes, self.nest.seen), items))
        return found

    def _stubs(self, box: int, x: float, y: float, width: float, height: float) -> tuple[Item, ...]:
        drawing, middle = self.drawing, y + height / 2
        found: tuple[Item, ...] = ()
        if box in drawing.out_of:
            found += outgoing_stub_items(drawing.out_of[box], x + width, middle)
        if box in drawing.into:
            found += incoming_stub_items(drawing.into[box], x, middle)
        return found

    def frame_items(
        self, element: Element, block: Block, x: float, y: float, width: float, height: float
    ) -> tuple[Item, ...]:
        """Return the frame around this level, its heading, and the lines from its border to what is inside."""
        stroke = kind_style(element.kind).stroke
        layout = self.drawing.layout
        points: list[tuple[float, float]] = []
        for _, right, role in self._borders():
            at = x + width / 2 + right
            inner = y + _HEAD + (0.0 if role == "entry" else layout.height)
            points += [(at, y), (at, inner)] if role == "entry" else [(at, inner), (at, y + height)]
        items: list[Item] = [Rect(x, y, width, height, fill=_FRAME, stroke=stroke, radius=7.0)]
        if points:
            items.append(Path(tuple(points), "ML" * (len(points) // 2), stroke=LINE, stroke_width=1.1))
        wide = text_width(block.heading, HEADING, bold=True)
        # Lines pass behind the heading.
        items.append(Rect(x + 4.0, y + 3.0, wide + PADDING, 15.0, fill=_FRAME))
        items.append(Text(x + PADDING, y + 14.0, block.heading, HEADING, INK, bold=True))
        return tuple(items)

    def follow(self, index: int) -> list[tuple[int, bool, FloatArray]]:
        """Return where a wire leads in the end: shown elements, whether any part is a stub, and the corners."""
        found: list[tuple[int, bool, FloatArray]] = []
        wire = self.level.boxes.wires[index]
        stub = bool(self.drawing.layout.stub[index])
        points = self.drawing.layout.path(index) + np.array([self.left, self.top])
        inner = self.inner.get(wire.target)
        if inner is not None:
            onward = inner.continued(lambda w: w.source >= len(inner.level.members), wire.value)
        elif wire.target >= len(self.level.members):
            outer = self.around
            assert outer is not None
            mine = next(box for box, sheet in outer.inner.items() if sheet is self)
            onward = outer.continued(lambda w: w.source == mine, wire.value)
        else:
            return [(self.level.members[wire.target], stub, points if not stub else points[:0])]
        for target, cut, rest in onward:
            broken = stub or cut
            found.append((target, broken, np.concatenate([points, rest]) if not broken else points[:0]))
        return found

    def continued(self, starts: Callable[[Wire], bool], value: ir.Value) -> list[tuple[int, bool, FloatArray]]:
        wires = self.level.boxes.wires
        return [end for i, wire in enumerate(wires) if wire.value is value and starts(wire) for end in self.follow(i)]
