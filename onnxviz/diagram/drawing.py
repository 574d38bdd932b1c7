"""From boxes and wires to a finished drawing: sizes, layout, scene, and the same as data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxviz.diagram.blocks import Block, annotated, block_items, make_block
from onnxviz.diagram.elements import Elements
from onnxviz.diagram.exchange import Network
from onnxviz.diagram.header import header_groups
from onnxviz.diagram.layout import FloatArray, Layout, compute_layout
from onnxviz.diagram.names import Names, element_name
from onnxviz.diagram.ranks import Ranking, rank_nodes
from onnxviz.diagram.result import Architecture, diagram_edge, diagram_node
from onnxviz.diagram.scene import Group, Scene, Text
from onnxviz.diagram.seen import Seen, ShapeKind, shapes_legend
from onnxviz.diagram.text import text_width
from onnxviz.diagram.wires import (
    LABEL,
    LABEL_HEIGHT,
    STUB_LENGTH,
    STUB_ROW,
    Bundle,
    bundle_items,
    bundle_tooltip,
    collect_bundles,
    incoming_stub_items,
    outgoing_stub_items,
    stub_name,
    stub_rows,
    wire_label,
)

__all__ = ["PAD", "Drawing", "Gates", "Paint", "heading"]

#: Margin of a drawing, px.
PAD = 24.0
_LEAST_WIDTH = 520.0
_PORT = 14.0
_MOST_LABELS = 6  # outputs of one node that get a label each


@dataclass(frozen=True)
class Paint:
    """What colours blocks other than by kind, one entry an element.

    Attributes:
        fills: Colour of a node's block; None for that of its kind.
        notes: What its tooltip says further.
        legend: Draws the legend at (x, y); returns the y below it.
        signs: Put before headings; the notes are then drawn too.
        values: The numbers behind the colours.
        paths: Ways that are drawn as strong lines, by their tensors.
    """

    fills: list[str | None]
    notes: list[list[str]]
    legend: Callable[[float, float], tuple[Group, float]]
    signs: list[str] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    paths: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Gates:
    """Where tensors enter and leave a box that is drawn open, in px right of its middle."""

    entries: Mapping[ir.Value, float]
    exits: Mapping[ir.Value, float]


class Drawing:
    """Collects what the layout needs to know, then turns its positions into a scene."""

    def __init__(
        self,
        found: Elements,
        paint: Paint | None = None,
        *,
        blocks: list[Block] | None = None,
        ranking: Ranking | None = None,
        seen: Seen | None = None,
        gates: Mapping[int, Gates] | None = None,
        layouts: dict[bytes, Layout] | None = None,
    ) -> None:
        self.found = found
        self.gates = gates or {}
        self.paint = paint
        self.seen = seen or Seen()
        self.blocks: list[Block] = blocks or [make_block(element, self.seen) for element in found.elements]
        if paint is not None and paint.signs:
            self.blocks = [annotated(*entry) for entry in zip(self.blocks, paint.signs, paint.notes, strict=True)]
        self.bundles = collect_bundles(found)
        self.edges = np.array([(w.source, w.target) for w in found.wires], dtype=np.int64).reshape(-1, 2)
        self.ranking = ranking or rank_nodes(len(self.blocks), self.edges)
        self.widths = [block.width for block in self.blocks]
        self.margins = np.zeros((len(self.blocks), 4))
        self.ports = np.zeros(len(self.edges))
        self.into: dict[int, list[str]] = defaultdict(list)
        self.out_of: dict[int, list[str]] = defaultdict(list)
        self._place_ports()
        self._reserve_stubs()
        sizes = [(width, block.height) for width, block in zip(self.widths, self.blocks, strict=True)]
        self.layout = self._laid_out(sizes, {} if layouts is None else layouts)

    def _place_ports(self) -> None:
        """Spread the outputs of each box along its lower side, wide enough for their labels."""
        by_source: dict[int, list[Bundle]] = defaultdict(list)
        for bundle in self.bundles:
            if not all(self.ranking.stub[bundle.wires]):
                by_source[bundle.source].append(bundle)
        for source, bundles in by_source.items():
            if source in self.gates:
                for bundle in bundles:
                    value = self.found.wires[bundle.wires[0]].value
                    bundle.offset = self.gates[source].exits.get(value, 0.0)
                    self.ports[bundle.wires] = bundle.offset
                continue
            element = self.found.elements[source]
            for bundle in bundles if len(bundles) <= _MOST_LABELS else ():
                wire = self.found.wires[bundle.wires[0]]
                label = wire_label(element, wire, self.found.elements[wire.target], self.seen)
                bundle.label, bundle.kind = label.text, label.kind
            rooms = [b.label_width + 12.0 if b.label else _PORT for b in bundles]
            span = sum(rooms[:-1])
            self.widths[source] = max(self.widths[source], min(span + 20.0, 600.0))
            scale = min(1.0, (self.widths[source] - 20.0) / span) if span else 1.0
            at = -span * scale / 2
            for bundle, room in zip(bundles, rooms, strict=True):
                bundle.offset = at
                self.ports[bundle.wires] = at
                at += room * scale
            half = self.widths[source] / 2
            reach = max(b.offset + (b.label_width + 8.0 if b.label else 0.0) for b in bundles)
            self.margins[source, 2] = max(0.0, reach - half)
            self.margins[source, 3] = LABEL_HEIGHT if any(b.label for b in bundles) else 0.0

    def _laid_out(self, sizes: list[tuple[float, float]], known: dict[bytes, Layout]) -> Layout:
        """Lay out the boxes, or look up what came of equal ones: a transformer's layers are all alike."""
        arrivals = self._arrivals() if self.gates else np.zeros(0)
        parts = (
            np.array(sizes),
            self.edges,
            self.margins,
            self.ports,
            arrivals,
            self.ranking.rank,
            self.ranking.stub,
            self.ranking.back,
        )
        key = b"".join(np.int64(part.size).tobytes() + part.tobytes() for part in parts)
        if key not in known:
            known[key] = compute_layout(
                sizes,
                self.edges,
                margins=self.margins,
                ports=self.ports,
                arrivals=arrivals if self.gates else None,
                ranking=self.ranking,
            )
        return known[key]

    def _arrivals(self) -> FloatArray:
        """Return where wires arrive at boxes that are open."""
        wires = self.found.wires
        return np.array(
            [self.gates[w.target].entries.get(w.value, 0.0) if w.target in self.gates else np.nan for w in wires]
        )

    def _reserve_stubs(self) -> None:
        """Keep room for the labelled ends beside the boxes: incoming at the left, outgoing at the right."""
        for bundle in self.bundles:
            stubs = [w for w in bundle.wires if self.ranking.stub[w]]
            if stubs:
                self.out_of[bundle.source].append(stub_name(self.found.wires[stubs[0]], uses=len(stubs)))
            for wire in stubs:
                self.into[self.found.wires[wire].target].append(stub_name(self.found.wires[wire]))
        for side, stubs_of in ((0, self.into), (2, self.out_of)):
            for index, names in stubs_of.items():
                rows = stubs_of[index] = stub_rows(names)
                wide = STUB_LENGTH + 6.0 + max(text_width(row, LABEL) for row in rows)
                over = max(0.0, (STUB_ROW * len(rows) - self.blocks[index].height) / 2)
                margin = self.margins[index]
                margin[side], margin[1], margin[3] = max(margin[side], wide), max(margin[1], over), max(margin[3], over)

    def finish(self, title: str, line: str, kinds: list[str]) -> Architecture:
        """Return the scene: header and legend above, lines below boxes."""
        header, wide, dy = heading(title, line, kinds, self.shape_kinds(), self.layout.width, self.paint)
        dx = PAD + (wide - self.layout.width) / 2
        names = Names()
        edges = self._edge_groups(names, dx, dy)
        nodes = self._node_groups(names, dx, dy)
        scene = Scene(wide + 2 * PAD, dy + self.layout.height + PAD, title, tuple(header + edges + nodes))
        return Architecture(scene, self.layout, lambda: self._network(scene, nodes, dx, dy))

    def shape_kinds(self) -> set[ShapeKind]:
        """Return the kinds of shapes that are written."""
        return {b.kind for b in self.bundles if b.label} | {block.shape for block in self.blocks}

    def _tooltip(self, index: int) -> str:
        notes = [] if self.paint is None or self.paint.signs else self.paint.notes[index]
        return "\n".join([self.blocks[index].tooltip, *notes])

    def _network(self, scene: Scene, groups: list[Group], dx: float, dy: float) -> Network:
        values = self.paint.values if self.paint is not None and self.paint.values else [None] * len(groups)
        boxes = zip(self.found.elements, self.blocks, groups, values, strict=True)
        nodes = tuple(diagram_node(*box) for box in boxes)
        edges = []
        for index, wire in enumerate(self.found.wires):
            corners = self.layout.path(index) + np.array([dx, dy])
            edges.append(
                diagram_edge(
                    nodes[wire.source].id,
                    nodes[wire.target].id,
                    wire,
                    self.seen,
                    bool(self.layout.stub[index]),
                    corners,
                )
            )
        return Network(scene.title, round(scene.width, 2), round(scene.height, 2), nodes, tuple(edges))

    def _edge_groups(self, names: Names, dx: float, dy: float) -> list[Group]:
        groups = []
        for bundle in self.bundles:
            items = bundle_items(bundle, self.found, self.layout, dx, dy)
            if items:
                name = self.found.wires[bundle.wires[0]].value.name
                groups.append(
                    Group(names.take("edge", name), "edge", bundle_tooltip(bundle, self.found, self.seen), items)
                )
        return groups

    def _node_groups(self, names: Names, dx: float, dy: float) -> list[Group]:
        groups = []
        boxes: FloatArray = self.layout.boxes + np.array([dx, dy, 0.0, 0.0])
        for index, (element, block) in enumerate(zip(self.found.elements, self.blocks, strict=True)):
            x, y, width, height = (float(v) for v in boxes[index])
            fill = None if self.paint is None else self.paint.fills[index]
            box, items = block_items(element, block, x, y, width, fill)
            stubs = outgoing_stub_items(self.out_of[index], x + width, y + height / 2) if index in self.out_of else ()
            if index in self.into:
                stubs += incoming_stub_items(self.into[index], x, y + height / 2)
            identity = names.take(element.role, element_name(element))
            groups.append(Group(identity, element.role, self._tooltip(index), items + stubs, box, element.kind))
        return groups


def heading(
    title: str, line: str, kinds: list[str], shapes: set[ShapeKind], width: float, paint: Paint | None
) -> tuple[list[Group], float, float]:
    """Return title and legends, how wide the drawing is inside its margins, and where the graph begins."""
    wide = max(width, _LEAST_WIDTH)
    # In a very wide drawing the header stays where a reader looks first.
    groups, below = header_groups(title, line, kinds if paint is None else (), PAD, PAD, min(wide, 1200.0))
    if paint is not None:
        legend, below = paint.legend(PAD, below)
        groups.append(legend)
        texts = [item for item in legend.items if isinstance(item, Text) and item.anchor == "start"]
        wide = max(wide, *(item.x + item.width - PAD for item in texts), 0.0)
    if (told := shapes_legend(shapes, PAD, below + 5.0)) is not None:
        groups.append(told[0])
        below = told[1]
    return groups, wide, below + PAD
