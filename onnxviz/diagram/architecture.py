"""The architecture of a model as a block diagram, straight from the ONNX file."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxviz.diagram.blocks import Block, annotated, block_items, make_block
from onnxviz.diagram.comparison import STATUSES, notes_of, status_of, union_elements
from onnxviz.diagram.comparison import legend_group as comparison_legend
from onnxviz.diagram.elements import Element, Elements, collect_elements
from onnxviz.diagram.exchange import WRITERS, DiagramEdge, DiagramNode, Network, to_networkx
from onnxviz.diagram.groups import fold_elements
from onnxviz.diagram.header import header_groups, model_line
from onnxviz.diagram.layout import FloatArray, Layout, compute_layout
from onnxviz.diagram.overlay import Overlay, Scale, legend_group, metric_overlay, number_text, value_of
from onnxviz.diagram.ranks import Ranking, rank_nodes
from onnxviz.diagram.scene import Group, Scene
from onnxviz.diagram.svg import scene_to_svg
from onnxviz.diagram.text import text_width
from onnxviz.diagram.themes import THEMES, apply_theme
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
from onnxviz.errors import InputError, OutputError
from onnxviz.graph.cost import model_parameters, node_cost
from onnxviz.graph.diff import GraphDiff, diff_graphs
from onnxviz.graph.files import atomic_path
from onnxviz.graph.model import model_name
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.scopes import choose_groups, scope_name, scopes
from onnxviz.graph.shapes import dtype_name, infer_shapes, shape_list

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["FORMATS", "Architecture", "architecture", "architecture_diff"]

#: File endings that :meth:`Architecture.save` writes.
FORMATS = (".svg", ".png", ".pdf", *WRITERS)

_PAD = 24.0
_LEAST_WIDTH = 520.0
_PORT = 14.0
_MOST_LABELS = 6  # outputs of one node that get a label each


@dataclass(frozen=True)
class Architecture:
    """A model's block diagram.

    Attributes:
        scene: Everything that is drawn, with positions in px.
        layout: The positions of the boxes and lines alone; its origin is the corner of the graph, below the header.
        network: The boxes and lines as data, with the scene's positions.
        note: What a reader of the saved file should know, such as that a huge PNG was scaled down; empty otherwise.
    """

    scene: Scene
    layout: Layout
    network: Network
    note: str = ""

    def save(self, path: str | os.PathLike[str]) -> Architecture:
        """Write the diagram in the format that the ending of ``path`` names; return it with its ``note`` filled in.

        SVG, PNG and PDF are drawn; DOT, Mermaid (``.mmd``), GraphML and JSON hold the boxes and lines as data.

        The same diagram gives the same bytes.

        Raises:
            OutputError: The ending is none of :data:`FORMATS`, or the file cannot be written.
        """
        ending = _format_of(path)
        note = None
        with atomic_path(path) as temporary:
            if ending in WRITERS:
                temporary.write_text(WRITERS[ending](self.network), encoding="utf-8", newline="\n")
            elif ending == ".svg":
                temporary.write_text(scene_to_svg(self.scene), encoding="utf-8", newline="\n")
            else:
                from onnxviz.diagram.raster import write_pdf, write_png

                note = (write_png if ending == ".png" else write_pdf)(self.scene, temporary)
        return replace(self, note=note or "")

    def to_networkx(self) -> nx.MultiDiGraph:
        """Return the boxes and lines as a networkx graph: see :func:`onnxviz.diagram.exchange.to_networkx`."""
        return to_networkx(self.network)

    def _repr_svg_(self) -> str:
        return scene_to_svg(self.scene, standalone=False)


def architecture(
    model: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
    color_by: str | Overlay | None = None,
) -> Architecture:
    """Draw a model as blocks, one a node, with shapes, parameter counts and kinds of operators.

    Initializers and Constant nodes are shown in the blocks that use them. A node with bodies (If, Loop, Scan) and a
    call of a model-local function are one block each. Edges that would run across more than 40 ranks, or leave a tensor
    with a great many consumers, are drawn as labelled ends. Nothing is run and no weights are loaded.

    Args:
        model: The model; it is not changed. Cyclic and damaged graphs are drawn as they are.
        title: The heading; by default the model's name.
        depth: How many levels of the hierarchy stay open: 1 draws each outermost group as one block. A depth beyond
            the model's own, or None, draws everything.
        fold: Globs of groups to draw as one block, such as ``"encoder/layer*"``.
        unfold: Globs of groups to leave open in spite of ``depth``.
        theme: ``"light"``, ``"dark"``, or ``"print"`` (greyscale).
        color_by: A number that colours the blocks: ``"parameters"``, ``"macs"`` or ``"bytes"`` (written), or any other
            as an :class:`~onnxviz.diagram.overlay.Overlay`.

    Raises:
        InputError: There is no such theme or metric.
        SelectionError: A glob fits no group; the text has the nearest ones.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y) <float[1, 1, 1, 1] w = {2}> {y = Conv(x, w)}''')
    >>> [group.id for group in architecture(model).scene.groups if group.box]
    ['input-x', 'node-y', 'output-y']
    """
    if theme not in THEMES:
        raise InputError(f"there is no theme {theme!r}", hint=f"the themes are {', '.join(THEMES)}")
    inferred = infer_shapes(model)
    hierarchy = scopes(inferred.graph)
    found = fold_elements(collect_elements(inferred), choose_groups(hierarchy, depth, fold, unfold))
    overlay = metric_overlay(model, color_by) if isinstance(color_by, str) else color_by
    drawing = _Drawing(found, None if overlay is None else _numbered(found, overlay))
    kinds = [element.kind for element in found.elements if element.kind]
    line = model_line(model, model_parameters(model)[0])
    finished = drawing.finish(title or model_name(model), line, kinds)
    return replace(finished, scene=apply_theme(finished.scene, theme))


def _format_of(path: str | os.PathLike[str]) -> str:
    ending = FilePath(path).suffix.lower()
    if ending not in FORMATS:
        what = f"as {ending!r}" if ending else "to a file without an ending"
        raise OutputError(f"cannot write a diagram {what}", hint=f"use {', '.join(FORMATS)}")
    return ending


def architecture_diff(
    before: ir.Model,
    after: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
) -> tuple[Architecture, GraphDiff]:
    """Draw two models in one: what was added, removed and changed, and what is the same.

    Args:
        before: The first model.
        after: The second, which gives the drawing its shape; what only the first has is added to it.
        title: The heading; by default both names.
        depth, fold, unfold, theme: As :func:`architecture` takes them. A group in which anything differs is coloured.

    Returns:
        The drawing, and the difference as data.

    Raises:
        InputError: There is no such theme.
        SelectionError: A glob fits no group.
    """
    if theme not in THEMES:
        raise InputError(f"there is no theme {theme!r}", hint=f"the themes are {', '.join(THEMES)}")
    old, new = infer_shapes(before), infer_shapes(after)
    diff = diff_graphs(old, new)
    union, fresh = union_elements(old, new, diff)
    hierarchy = {**scopes(old.graph), **scopes(new.graph)}
    shown = {element.node for element in union.elements if element.node is not None}
    hierarchy = {node: scope for node, scope in hierarchy.items() if node in shown}
    found = fold_elements(union, choose_groups(hierarchy, depth, fold, unfold))
    marks = dict.fromkeys(diff.pairs, "same")
    marks |= dict.fromkeys(diff.changes, "changed") | dict.fromkeys(diff.added, "added")
    marks |= dict.fromkeys(diff.removed, "removed")
    statuses = [status_of(element, marks, fresh) for element in found.elements]
    paint = _Paint(
        [STATUSES[status][0] for status in statuses],
        [notes_of(element, diff, marks) for element in found.elements],
        lambda x, y: comparison_legend(diff, x, y),
        [STATUSES[status][1] for status in statuses],
    )
    drawing = _Drawing(found, paint)
    finished = drawing.finish(title or f"{model_name(before)} → {model_name(after)}", str(diff), [])
    return replace(finished, scene=apply_theme(finished.scene, theme)), diff


@dataclass(frozen=True)
class _Paint:
    """What colours blocks other than by kind, one entry an element.

    Attributes:
        fills: Colour of a node's block; None for that of its kind.
        notes: What its tooltip says further.
        legend: Draws the legend at (x, y); returns the y below it.
        signs: Put before headings; the notes are then drawn too.
        values: The numbers behind the colours.
    """

    fills: list[str | None]
    notes: list[list[str]]
    legend: Callable[[float, float], tuple[Group, float]]
    signs: list[str] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)


def _numbered(found: Elements, overlay: Overlay) -> _Paint:
    values = [value_of(overlay, element) for element in found.elements]
    scale = Scale.of([value for value in values if value is not None])
    told = [[] if value is None else [f"{overlay.title}: {number_text(value, overlay.unit)}"] for value in values]
    blocks = zip(found.elements, values, strict=True)
    unknown = any(value is None for element, value in blocks if element.role in ("node", "group"))
    return _Paint(
        [scale.colour(value) for value in values],
        told,
        lambda x, y: legend_group(overlay, scale, x, y, unknown=unknown),
        values=values,
    )


class _Drawing:
    """Collects what the layout needs to know, then turns its positions into a scene."""

    def __init__(self, found: Elements, paint: _Paint | None = None) -> None:
        self.found = found
        self.paint = paint
        self.blocks: list[Block] = [make_block(element) for element in found.elements]
        if paint is not None and paint.signs:
            self.blocks = [annotated(*entry) for entry in zip(self.blocks, paint.signs, paint.notes, strict=True)]
        self.bundles = collect_bundles(found)
        self.edges = np.array([(w.source, w.target) for w in found.wires], dtype=np.int64).reshape(-1, 2)
        self.ranking: Ranking = rank_nodes(len(self.blocks), self.edges)
        self.widths = [block.width for block in self.blocks]
        self.margins = np.zeros((len(self.blocks), 4))
        self.ports = np.zeros(len(self.edges))
        self.into: dict[int, list[str]] = defaultdict(list)
        self.out_of: dict[int, list[str]] = defaultdict(list)
        self._place_ports()
        self._reserve_stubs()
        sizes = [(width, block.height) for width, block in zip(self.widths, self.blocks, strict=True)]
        self.layout = compute_layout(sizes, self.edges, margins=self.margins, ports=self.ports, ranking=self.ranking)

    def _place_ports(self) -> None:
        """Spread the outputs of each box along its lower side, wide enough for their labels."""
        by_source: dict[int, list[Bundle]] = defaultdict(list)
        for bundle in self.bundles:
            if not all(self.ranking.stub[bundle.wires]):
                by_source[bundle.source].append(bundle)
        for source, bundles in by_source.items():
            element = self.found.elements[source]
            for bundle in bundles if len(bundles) <= _MOST_LABELS else ():
                wire = self.found.wires[bundle.wires[0]]
                bundle.label = wire_label(element, wire, self.found.elements[wire.target])
            rooms = [text_width(b.label, LABEL) + 12.0 if b.label else _PORT for b in bundles]
            span = sum(rooms[:-1])
            self.widths[source] = max(self.widths[source], min(span + 20.0, 600.0))
            scale = min(1.0, (self.widths[source] - 20.0) / span) if span else 1.0
            at = -span * scale / 2
            for bundle, room in zip(bundles, rooms, strict=True):
                bundle.offset = at
                self.ports[bundle.wires] = at
                at += room * scale
            half = self.widths[source] / 2
            reach = max(b.offset + (text_width(b.label, LABEL) + 8.0 if b.label else 0.0) for b in bundles)
            self.margins[source, 2] = max(0.0, reach - half)
            self.margins[source, 3] = LABEL_HEIGHT if any(b.label for b in bundles) else 0.0

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
        wide = max(self.layout.width, _LEAST_WIDTH)
        # In a very wide drawing the header stays where a reader looks first.
        shown = kinds if self.paint is None else ()
        header, below = header_groups(title, line, shown, _PAD, _PAD, min(wide, 1200.0))
        if self.paint is not None:
            legend, below = self.paint.legend(_PAD, below)
            header.append(legend)
        dx, dy = _PAD + (wide - self.layout.width) / 2, below + _PAD
        names = _Names()
        edges = self._edge_groups(names, dx, dy)
        nodes = self._node_groups(names, dx, dy)
        scene = Scene(wide + 2 * _PAD, dy + self.layout.height + _PAD, title, tuple(header + edges + nodes))
        return Architecture(scene, self.layout, self._network(scene, nodes, dx, dy))

    def _tooltip(self, index: int) -> str:
        notes = [] if self.paint is None or self.paint.signs else self.paint.notes[index]
        return "\n".join([self.blocks[index].tooltip, *notes])

    def _network(self, scene: Scene, groups: list[Group], dx: float, dy: float) -> Network:
        nodes = []
        values = self.paint.values if self.paint is not None and self.paint.values else [None] * len(groups)
        for element, block, group, value in zip(self.found.elements, self.blocks, groups, values, strict=True):
            node, box = element.node, group.box
            assert box is not None
            name = node.name if node is not None else element.value.name if element.value is not None else None
            name = scope_name(element.members.scope) if element.members is not None else name
            source = provenance_of(node) if node is not None else None
            nodes.append(
                DiagramNode(
                    group.id, element.role, name or "", node.op_type if node is not None else "",
                    node.domain if node is not None else "", element.kind,
                    tuple(filter(None, (block.heading, block.note, *block.lines))),
                    _parameters(element), str(source or ""), value,
                    round(box.x, 2), round(box.y, 2), round(box.width, 2), round(box.height, 2),
                )
            )  # fmt: skip
        return Network(
            scene.title, round(scene.width, 2), round(scene.height, 2), tuple(nodes), self._lines(nodes, dx, dy)
        )

    def _lines(self, nodes: list[DiagramNode], dx: float, dy: float) -> tuple[DiagramEdge, ...]:
        edges = []
        for index, wire in enumerate(self.found.wires):
            shape = shape_list(wire.value)
            corners = [(round(float(x + dx), 2), round(float(y + dy), 2)) for x, y in self.layout.path(index)]
            edges.append(
                DiagramEdge(
                    nodes[wire.source].id, nodes[wire.target].id, wire.value.name or "", dtype_name(wire.value) or "",
                    None if shape is None else tuple(shape), bool(self.layout.stub[index]), wire.outer, tuple(corners),
                )
            )  # fmt: skip
        return tuple(edges)

    def _edge_groups(self, names: _Names, dx: float, dy: float) -> list[Group]:
        groups = []
        for bundle in self.bundles:
            items = bundle_items(bundle, self.found, self.layout, dx, dy)
            if items:
                name = self.found.wires[bundle.wires[0]].value.name
                groups.append(Group(names.take("edge", name), "edge", bundle_tooltip(bundle, self.found), items))
        return groups

    def _node_groups(self, names: _Names, dx: float, dy: float) -> list[Group]:
        groups = []
        boxes: FloatArray = self.layout.boxes + np.array([dx, dy, 0.0, 0.0])
        for index, (element, block) in enumerate(zip(self.found.elements, self.blocks, strict=True)):
            x, y, width, height = (float(v) for v in boxes[index])
            fill = None if self.paint is None else self.paint.fills[index]
            box, items = block_items(element, block, x, y, width, fill)
            stubs = outgoing_stub_items(self.out_of[index], x + width, y + height / 2) if index in self.out_of else ()
            if index in self.into:
                stubs += incoming_stub_items(self.into[index], x, y + height / 2)
            identity = names.take(element.role, _element_name(element))
            groups.append(Group(identity, element.role, self._tooltip(index), items + stubs, box, element.kind))
        return groups


def _parameters(element: Element) -> int:
    if element.members is not None:
        return element.members.parameters
    return node_cost(element.node).parameters if element.node is not None else 0


def _element_name(element: Element) -> str | None:
    """Return what identifies an element across exports: its first output's name, else its own."""
    if element.members is not None:
        return scope_name(element.members.scope)
    if element.node is None:
        return element.value.name if element.value is not None else None
    return next((v.name for v in element.node.outputs if v.name), None) or element.node.name


class _Names:
    """Hands out ids that are unique, safe in XML and the same in every run."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, role: str, name: str | None) -> str:
        raw = name or "unnamed"
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", raw[:64])
        if safe != raw:
            safe = f"{safe}-{hashlib.sha256(raw.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        identity, again = f"{role}-{safe}", 1
        while identity in self._taken:
            again += 1
            identity = f"{role}-{safe}.{again}"
        self._taken.add(identity)
        return identity
