"""Folding: many blocks become one, and the wires between them vanish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxviz.diagram.elements import Element, Elements, Members, Wire
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.learned import learned_inputs
from onnxviz.graph.scopes import Scope

__all__ = ["Part", "fold_elements", "group_element", "split_cyclic"]

Part = tuple[Scope, int]  # a group, and which of its parts
_ROUNDS = 4


def fold_elements(found: Elements, groups: Mapping[ir.Node, Scope]) -> Elements:
    """Return the elements with the nodes of each group in one block, where the first of them stood.

    Wires inside a group vanish; a tensor that leaves it keeps its wires, one a target. A group that is left and entered
    again, as that of a layer that is called twice, is taken apart into what is connected within it.

    Args:
        found: What :func:`onnxviz.diagram.elements.collect_elements` returned.
        groups: The group of every node that is folded, from :func:`onnxviz.graph.scopes.choose_groups`.
    """
    chosen: dict[int, Part] = {
        index: (groups[element.node], 0)
        for index, element in enumerate(found.elements)
        if element.node is not None and element.node in groups
    }
    if not chosen:
        return found
    chosen = split_cyclic(found.wires, chosen)
    sizes = Counter(chosen.values())
    members: dict[Part, list[Element]] = {}
    for index, part in chosen.items():
        members.setdefault(part, []).append(found.elements[index])
    places: dict[Part, int] = {}
    moved: list[int] = []
    folded = Elements()
    for index, element in enumerate(found.elements):
        around = chosen.get(index)
        if around is None or sizes[around] < 2:
            moved.append(len(folded.elements))
            folded.elements.append(element)
            continue
        if around not in places:
            places[around] = len(folded.elements)
            folded.elements.append(group_element(around[0], members[around]))
        moved.append(places[around])
    _rewire(found, moved, folded)
    return folded


def split_cyclic(wires: Sequence[Wire], chosen: Mapping[int, Part]) -> dict[int, Part]:
    """Take groups apart that are left and entered again, into what is connected within them.

    Args:
        wires: Between elements.
        chosen: The group of each element that is in one.
    """
    result = dict(chosen)
    for _ in range(_ROUNDS if result else 0):
        cyclic = _on_cycles(wires, result)
        if not cyclic:
            break
        result = _taken_apart(wires, result, cyclic)
    return result


def _on_cycles(wires: Sequence[Wire], chosen: Mapping[int, Part]) -> set[Part]:
    """Return the groups that are left and entered again."""
    import networkx as nx

    graph = nx.DiGraph()
    for wire in wires:
        ends = [chosen.get(index, index) for index in (wire.source, wire.target)]
        if ends[0] != ends[1]:
            graph.add_edge(*ends)
    return {
        part
        for component in nx.strongly_connected_components(graph)
        if len(component) > 1
        for part in component
        if isinstance(part, tuple)
    }


def _taken_apart(wires: Sequence[Wire], chosen: Mapping[int, Part], cyclic: set[Part]) -> dict[int, Part]:
    """Number the connected parts of each of some groups; what is one part already is unfolded."""
    import networkx as nx

    inner = nx.Graph()
    inner.add_nodes_from(index for index, part in chosen.items() if part in cyclic)
    for wire in wires:
        part = chosen.get(wire.source)
        if part in cyclic and part == chosen.get(wire.target):
            inner.add_edge(wire.source, wire.target)
    result = {index: part for index, part in chosen.items() if part not in cyclic}
    numbers: Counter[Scope] = Counter(part[0] for part in set(result.values()))
    parts = sorted(map(sorted, nx.connected_components(inner)))
    pieces = Counter(chosen[indices[0]] for indices in parts)
    for indices in parts:
        before = chosen[indices[0]]
        if pieces[before] > 1:
            numbers[before[0]] += 1
            result |= dict.fromkeys(indices, (before[0], numbers[before[0]]))
    return result


def group_element(group: Scope, members: Sequence[Element]) -> Element:
    """Return the block of a group."""
    nodes = tuple(element.node for element in members if element.node is not None)
    values = {node.inputs[position]: None for node in nodes for position in learned_inputs(node)}
    weights = [constant_tensor(value) for value in values]
    parameters = sum(tensor.size for tensor in weights if tensor is not None)
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
