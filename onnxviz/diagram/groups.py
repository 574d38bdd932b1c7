"""Folding: many blocks become one, and the wires between them vanish."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxviz.diagram.elements import Element, Elements, Members, Wire
from onnxviz.graph.constants import constant_tensor, is_parameter
from onnxviz.graph.scopes import Scope

__all__ = ["fold_elements"]


def fold_elements(found: Elements, groups: Mapping[ir.Node, Scope]) -> Elements:
    """Return the elements with the nodes of each group in one block, where the first of them stood.

    Wires inside a group vanish; a tensor that leaves it keeps its wires, one a target.

    Args:
        found: What :func:`onnxviz.diagram.elements.collect_elements` returned.
        groups: The group of every node that is folded, from :func:`onnxviz.graph.scopes.choose_groups`.
    """
    if not groups:
        return found
    members: dict[Scope, list[Element]] = {}
    for element in found.elements:
        if element.node in groups:
            members.setdefault(groups[element.node], []).append(element)
    places: dict[Scope, int] = {}
    moved: list[int] = []
    folded = Elements()
    for element in found.elements:
        group = None if element.node is None else groups.get(element.node)
        if group is None or len(members[group]) < 2:
            moved.append(len(folded.elements))
            folded.elements.append(element)
            continue
        if group not in places:
            places[group] = len(folded.elements)
            folded.elements.append(_block_of(group, members[group]))
        moved.append(places[group])
    _rewire(found, moved, folded)
    return folded


def _block_of(group: Scope, members: list[Element]) -> Element:
    nodes = tuple(element.node for element in members if element.node is not None)
    weights = {value: constant_tensor(value) for node in nodes for value in node.inputs if value is not None}
    parameters = sum(tensor.size for tensor in weights.values() if tensor is not None and is_parameter(tensor))
    return Element("group", "group", members=Members(group, nodes, parameters))


def _rewire(found: Elements, moved: list[int], folded: Elements) -> None:
    ports: dict[int, dict[ir.Value, int]] = {}
    seen: set[tuple[int, int, ir.Value]] = set()
    for wire in found.wires:
        source, target = moved[wire.source], moved[wire.target]
        if source == target and folded.elements[source].members is not None:
            continue
        key = (source, target, wire.value)
        if key in seen:
            continue
        seen.add(key)
        port = wire.port
        if folded.elements[source].members is not None:
            known = ports.setdefault(source, {})
            port = known.setdefault(wire.value, len(known))
        folded.wires.append(Wire(source, target, port, wire.value, wire.outer))
