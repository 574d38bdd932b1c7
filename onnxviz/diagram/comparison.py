"""Two models in one drawing: what was added, removed and changed between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.diagram.blocks import BODY
from onnxviz.diagram.drawing import Paint
from onnxviz.diagram.elements import Element, Elements, Wire, collect_elements
from onnxviz.diagram.palette import INK, MUTED
from onnxviz.diagram.scene import Group, Item, Rect, Text
from onnxviz.diagram.text import text_width
from onnxviz.graph.diff import GraphDiff, diff_graphs
from onnxviz.graph.scopes import Scope, scopes
from onnxviz.graph.shapes import infer_shapes

__all__ = ["STATUSES", "Comparison", "compare", "legend_group", "notes_of", "status_of", "union_elements"]

#: Status -> fill and sign. They differ in lightness too, and the sign stands before the operator.
STATUSES = {
    "same": ("#f6f7f8", ""),
    "changed": ("#fde68a", "~ "),
    "added": ("#a7dca8", "+ "),
    "removed": ("#f3a78b", "− "),
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models, put together to be drawn.

    Attributes:
        model: The second model, with inferred shapes.
        found: Its elements and those that only the first has.
        hierarchy: The groups of every node of both that is shown.
        diff: What differs.
        marks: What became of each node, a key of :data:`STATUSES`.
        fresh: The terminals that only the second has.
    """

    model: ir.Model
    found: Elements
    hierarchy: dict[ir.Node, Scope]
    diff: GraphDiff
    marks: dict[ir.Node, str]
    fresh: set[ir.Value]

    def paint(self, elements: Sequence[Element]) -> Paint:
        """Return the colours, signs and notes of elements, and their legend."""
        statuses = [status_of(element, self.marks, self.fresh) for element in elements]
        return Paint(
            [STATUSES[status][0] for status in statuses],
            [notes_of(element, self.diff, self.marks) for element in elements],
            lambda x, y: legend_group(self.diff, x, y),
            [STATUSES[status][1] for status in statuses],
        )


def compare(before: ir.Model, after: ir.Model) -> Comparison:
    """Put two models together; both stay as they are."""
    old, new = infer_shapes(before), infer_shapes(after)
    diff = diff_graphs(old, new)
    union, fresh = union_elements(old, new, diff)
    hierarchy = {**scopes(old.graph), **scopes(new.graph)}
    shown = {element.node for element in union.elements if element.node is not None}
    hierarchy = {node: scope for node, scope in hierarchy.items() if node in shown}
    marks = dict.fromkeys(diff.pairs, "same")
    marks |= dict.fromkeys(diff.changes, "changed") | dict.fromkeys(diff.added, "added")
    marks |= dict.fromkeys(diff.removed, "removed")
    return Comparison(new, union, hierarchy, diff, marks, fresh)


def union_elements(before: ir.Model, after: ir.Model, diff: GraphDiff) -> tuple[Elements, set[ir.Value]]:
    """Return the elements of the second model with those that only the first has, and the terminals that are new.

    Wires of the first model are kept where they touch something that is gone.
    """
    old, new = collect_elements(before), collect_elements(after)
    partner = {was: node for node, was in diff.pairs.items()}
    places = {element.node: i for i, element in enumerate(new.elements) if element.node is not None}
    terminals = {
        (element.role, element.value.name): i
        for i, element in enumerate(new.elements)
        if element.value is not None and element.node is None
    }
    union = Elements(list(new.elements), list(new.wires))
    moved: list[int] = []
    gone: set[int] = set()
    for element in old.elements:
        if element.node is not None:
            place = places.get(partner.get(element.node))  # type: ignore[arg-type]
        else:
            place = terminals.get((element.role, element.value.name if element.value is not None else None))
        if place is None:
            place = len(union.elements)
            union.elements.append(element)
            gone.add(place)
        moved.append(place)
    ports: dict[tuple[int, str | None], int] = {(w.source, w.value.name): w.port for w in new.wires}
    for wire in old.wires:
        source, target = moved[wire.source], moved[wire.target]
        if source in gone or target in gone:
            port = wire.port if source in gone else ports.get((source, wire.value.name), 100 + wire.port)
            union.wires.append(Wire(source, target, port, wire.value, wire.outer))
    known = {(e.role, e.value.name) for e in old.elements if e.value is not None and e.node is None}
    fresh = {
        e.value for e in new.elements if e.value is not None and e.node is None and (e.role, e.value.name) not in known
    }
    return union, fresh


def status_of(element: Element, marks: Mapping[ir.Node, str], fresh: set[ir.Value]) -> str:
    """Return what became of a block: a key of :data:`STATUSES`; a group of nodes that differ in this is changed."""
    if element.members is not None:
        found = {marks[node] for node in element.members.nodes}
        return found.pop() if len(found) == 1 else "changed"
    if element.node is not None:
        return marks[element.node]
    return "added" if element.value in fresh else "same"


def notes_of(element: Element, diff: GraphDiff, marks: Mapping[ir.Node, str]) -> list[str]:
    """Return what a block says about its changes, one line each."""
    if element.members is not None:
        counts = Counter(marks[node] for node in element.members.nodes)
        return [f"{counts[status]:,} {status}" for status in STATUSES if status != "same" and counts[status]]
    return list(diff.changes.get(element.node, ())) if element.node is not None else []


def legend_group(diff: GraphDiff, x: float, y: float) -> tuple[Group, float]:
    """Return the colours with how many nodes have them, and the y below."""
    counts = {
        "same": len(diff.pairs) - len(diff.changes), "changed": len(diff.changes), "added": len(diff.added),
        "removed": len(diff.removed),
    }  # fmt: skip
    items: list[Item] = []
    left = x
    for status, (fill, sign) in STATUSES.items():
        says = f"{sign}{status} {counts[status]:,}"
        items.append(Rect(left, y, 15.0, 15.0, fill=fill, stroke=MUTED, radius=3.0))
        items.append(Text(left + 20.0, y + 11.0, says, BODY, INK))
        left += 34.0 + text_width(says, BODY)
    return Group("diagram-legend", "legend", "", tuple(items)), y + 15.0
