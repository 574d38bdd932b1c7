"""The drawing as data for the interactive page: every level laid out with its groups closed, and what blocks say.

The page opens a group by stretching the level around it, which keeps boxes apart and lines in order (see
``graph_layout.js``); so no layout is computed in the browser.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.diagram.blocks import Block, annotated, make_block
from onnxviz.diagram.details import attribute_text, dims_text, input_name
from onnxviz.diagram.drawing import Drawing, Paint
from onnxviz.diagram.elements import Element, Wire
from onnxviz.diagram.hierarchy import Level, Tree
from onnxviz.diagram.layout import Layout
from onnxviz.diagram.names import Names, element_name, element_parameters
from onnxviz.diagram.palette import INK, KEY, KIND_TITLES, LINE, MUTED, WARNING, glyph, kind_style
from onnxviz.diagram.ranks import rank_between
from onnxviz.diagram.scene import Image
from onnxviz.diagram.seen import OBSERVED, SYMBOLIC, Seen
from onnxviz.diagram.svg import path_data, png_address
from onnxviz.diagram.themes import THEMES
from onnxviz.errors import printable
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.scopes import scope_name
from onnxviz.graph.shapes import dtype_name

__all__ = ["packed", "page_data"]

_NAME = 400  # characters of a name
_ATTRIBUTES, _WEIGHTS = 40, 64  # most shown of one node
_BORDER = Block("", "", (), "", 8.0, 0.0)
_SHAPES = ("known", "symbolic", "observed", "unknown")
_ROLES = ("node", "group", "input", "output", "constant", "missing")
#: Colours that the page draws with beside those of the kinds.
_PAPER = {
    "paper": "#ffffff", "ink": INK, "muted": MUTED, "line": LINE, "warning": WARNING, "terminal": "#eef1f4",
    "terminalLine": "#3c4043", "missing": "#fdecea", "constant": "#fbfbfb", "lower": "#ffffff", "frame": "#f7f6fb",
    "frameLine": "#8a84ad", "mark": "#d9480f", "trace": "#1864ab", "key": KEY, "symbolic": SYMBOLIC,
    "observed": OBSERVED,
}  # fmt: skip


def packed(data: object) -> str:
    """Return data as JSON, deflated, in base64: what the page unpacks with the browser's own means."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # A lone surrogate, which a damaged name may hold, has no UTF-8.
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 6)).decode("ascii")


def page_data(
    tree: Tree,
    paint: Paint | None,
    closed: set[int],
    weights: Mapping[str, str] | None = None,
    seen: Seen | None = None,
) -> tuple[dict[str, Any], list[Any]]:
    """Return what the page needs to draw, and what it shows of each block that is clicked.

    Args:
        tree: The elements and levels.
        paint: Colours of all elements of the tree, where they are not those of the kinds.
        closed: Groups that are closed at first.
        weights: Name of an initializer -> how its values are spread, in words.
        seen: What a run showed.
    """
    return _Data(tree, paint, closed, weights or {}, seen or Seen()).collect()


class _Data:
    def __init__(
        self, tree: Tree, paint: Paint | None, closed: set[int], weights: Mapping[str, str], seen: Seen
    ) -> None:
        self.tree, self.paint, self.closed, self.weights, self.seen = tree, paint, closed, weights, seen
        self.blocks = [make_block(element, seen) for element in tree.elements]
        if paint is not None and paint.signs:
            self.blocks = [annotated(*entry) for entry in zip(self.blocks, paint.signs, paint.notes, strict=True)]
        self.colours: dict[str, int] = {}
        self.layouts: dict[bytes, Layout] = {}
        self.tensors: dict[ir.Value, int] = {}
        self.nexts: dict[str, set[str]] = {}  # tensor -> the next ones on the ways that are drawn strong
        for way in paint.paths if paint is not None else ():
            for tensor, after in zip(way, (*way[1:], ""), strict=True):
                self.nexts.setdefault(tensor, set()).add(after)

    def collect(self) -> tuple[dict[str, Any], list[Any]]:
        levels = [self._level(level) for level in self.tree.levels.values()]
        details = [self._details(element, position) for position, element in enumerate(self.tree.elements)]
        kinds = list(KIND_TITLES)
        names = Names()
        elements = self.tree.elements
        boxes = {
            "id": [names.take(element.role, element_name(element)) for element in elements],
            "role": [_ROLES.index(element.role) for element in elements],
            "kind": [kinds.index(e.kind) if e.kind in KIND_TITLES else kinds.index("other") for e in elements],
            "parent": self.tree.parents,
            "head": [block.heading for block in self.blocks],
            "note": [block.note for block in self.blocks],
            "lines": [block.lines for block in self.blocks],
            "w": [_round(block.width) for block in self.blocks],
            "h": [_round(block.height) for block in self.blocks],
            "name": [_shown(element_label(element)) for element in elements],
            "shape": {i: _SHAPES.index(b.shape) for i, b in enumerate(self.blocks) if b.shape != "known"},
            "strip": {i: _strip(b) for i, b in enumerate(self.blocks) if b.strip is not None},
            "fill": [] if self.paint is None else [-1 if c is None else self._colour(c) for c in self.paint.fills],
        }
        used = {kind for element in elements if (kind := element.kind)}
        styles = [
            [title, self._colour(kind_style(kind).fill), self._colour(kind_style(kind).stroke),
             path_data(glyph(kind, 0.0, 0.0, 1.0)), int(kind in used)]
            for kind, title in KIND_TITLES.items()
        ]  # fmt: skip
        paper = {name: self._colour(colour) for name, colour in _PAPER.items()}
        themed = {name: [change(c) if change else c for c in self.colours] for name, change in THEMES.items()}
        tensors = {
            "name": [_shown(value.name or "(unnamed)") for value in self.tensors],
            "text": [self.seen.in_words(value) for value in self.tensors],
        }
        flow = [[source for source, _ in self.tree.flow], [target for _, target in self.tree.flow]]
        data = {
            "boxes": boxes, "kinds": styles, "paper": paper, "colours": themed, "levels": levels, "tensors": tensors,
            "flow": flow, "closed": sorted(self.closed),
        }  # fmt: skip
        return data, details

    def _colour(self, colour: str) -> int:
        return self.colours.setdefault(colour, len(self.colours))

    def _tensor(self, value: ir.Value) -> int:
        return self.tensors.setdefault(value, len(self.tensors))

    def _level(self, level: Level) -> dict[str, Any]:
        inner = len(level.members)
        border = len(level.boxes.elements) - inner
        blocks = [*(self.blocks[member] for member in level.members), *[_BORDER] * border]
        edges = np.array([(w.source, w.target) for w in level.boxes.wires], dtype=np.int64).reshape(-1, 2)
        ranking = rank_between(inner, level.entries, border - level.entries, edges) if level.owner >= 0 else None
        drawing = Drawing(level.boxes, blocks=blocks, ranking=ranking, seen=self.seen, layouts=self.layouts)
        layout = drawing.layout
        boxes, bands, rank = layout.boxes, layout.bands, layout.rank
        middle = boxes[:, 1] + boxes[:, 3] / 2 - bands[rank].mean(axis=1) if len(boxes) else np.zeros(0)
        return {
            "owner": level.owner,
            "members": level.members,
            "rank": rank.tolist(),
            "x": _rounded(boxes[:, 0] + boxes[:, 2] / 2),
            "y": _rounded(middle),
            "w": _rounded(boxes[:, 2]),
            "bands": _rounded(bands.ravel()),
            "size": [_round(layout.width), _round(layout.height)],
            "border": [self._tensor(e.value) for e in level.boxes.elements[inner:] if e.value is not None],
            "entries": level.entries,
            **self._edges(level, drawing),
            "labels": [[b.wires[0], [b.label, _SHAPES.index(b.kind)]] for b in drawing.bundles if b.label],
            "into": list(drawing.into.items()),
            "out": list(drawing.out_of.items()),
        }

    def _edges(self, level: Level, drawing: Drawing) -> dict[str, list[Any]]:
        """Return source, target, tensor, flags and course of each wire.

        A course is where it starts and arrives, right of the middles of its boxes, and its x in every rank between.
        """
        layout = drawing.layout
        boxes, wires = layout.boxes, level.boxes.wires
        centre = boxes[:, 0] + boxes[:, 2] / 2
        middle = layout.bands.mean(axis=1)
        begin, end, between = [0.0] * len(wires), [0.0] * len(wires), []
        for index, wire in enumerate(wires):
            path = layout.path(index)
            if not len(path):
                continue
            begin[index] = float(path[0, 0] - centre[wire.source])
            end[index] = float(path[-1, 0] - centre[wire.target])
            first, last = int(layout.rank[wire.source]), int(layout.rank[wire.target])
            if last - first > 1:
                between += np.interp(middle[first + 1 : last], path[:, 1], path[:, 0]).round(1).tolist()
        flags = layout.stub * 1 + layout.back * 2 + np.array([w.outer for w in wires], dtype=np.int64) * 4
        if self.paint is not None and self.paint.paths:
            flags += 8 * np.array([self._strong(level, wire) for wire in wires], dtype=np.int64)
        return {
            "s": [wire.source for wire in wires],
            "t": [wire.target for wire in wires],
            "v": [self._tensor(wire.value) for wire in wires],
            "f": flags.tolist(),
            "b": _rounded(np.array(begin)),
            "e": _rounded(np.array(end)),
            "m": between,
        }

    def _strong(self, level: Level, wire: Wire) -> bool:
        """Whether a wire lies on a way that is drawn as a strong line."""
        nexts = self.nexts.get(wire.value.name or "", set())
        target, boxes = level.boxes.elements[wire.target], level.boxes.elements
        if not nexts or target.role == "output":
            return "" in nexts
        if wire.target >= len(level.members):  # it leaves the group: for what is not made in here
            return not any(_makes(element, nexts) for element in boxes)
        return _makes(target, nexts)

    def _details(self, element: Element, position: int) -> list[Any]:
        """Return what is shown of an element: see ``describe`` in ``graph_viewer.js``."""
        node = element.node
        notes = [] if self.paint is None else self.paint.notes[position]
        if node is None:
            tooltip = self.blocks[position].tooltip.split("\n")[1:]
            values = [self._tensor(element.value)] if element.value is not None else []
            return ["", "", element_parameters(element), "", [], [], values, [], [*tooltip[:16], *notes], []]
        attributes = [
            [_shown(name), attribute_text(a)]
            for name, a in list(node.attributes.items())[:_ATTRIBUTES]
            if not a.is_ref() and attribute_text(a)
        ]
        inputs = [v for v in node.inputs if v is not None]
        given = [(i, v) for i, v in enumerate(node.inputs) if v is not None and constant_tensor(v) is None]
        return [
            _shown(node.op_type),
            _shown(node.domain),
            element_parameters(element),
            printable(str(provenance_of(node) or ""), _NAME),
            attributes,
            [self._tensor(v) for _, v in given],
            [self._tensor(v) for v in node.outputs],
            list(self._weight_rows(inputs[:_WEIGHTS])),
            notes,
            [input_name(node, i) for i, _ in given[:_WEIGHTS]] if len(given) > 1 else [],
        ]

    def _weight_rows(self, inputs: Sequence[ir.Value]) -> Iterator[list[str]]:
        for value in inputs:
            tensor = constant_tensor(value)
            if tensor is not None:
                shape = dims_text(list(tensor.shape))
                said = self.weights.get(value.name or "", "")
                yield [_shown(value.name or "(constant)"), f"{dtype_name(value) or ''} {shape}".strip(), said]


def _makes(element: Element, tensors: set[str]) -> bool:
    """Whether one of some tensors comes out of an element."""
    nodes = element.members.nodes if element.members is not None else (element.node,) if element.node else ()
    return any(value.name in tensors for node in nodes for value in node.outputs)


def _strip(block: Block) -> list[Any]:
    """Return the pictures of a block: each as x from the middle, y from the lower end, width, height and address."""
    assert block.strip is not None
    items = block.strip.items(0.0, -block.strip.height)
    pictures = [
        [_round(item.x), _round(item.y), _round(item.width), _round(item.height), png_address(item)]
        for item in items
        if isinstance(item, Image)
    ]
    return [pictures, block.strip.caption, _round(block.strip.height)]


def element_label(element: Element) -> str:
    """Return the name that a reader searches an element by."""
    if element.members is not None:
        return scope_name(element.members.scope)
    if element.node is not None:
        return element.node.name or ""
    return (element.value.name if element.value is not None else None) or ""


def _shown(name: str) -> str:
    return printable(name, _NAME)


def _round(value: float) -> float:
    rounded = round(float(value), 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _rounded(values: Any) -> list[float]:
    return [_round(value) for value in values.tolist()]
