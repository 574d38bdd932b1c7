"""The hierarchy as a tree: every group, every node with bodies, and what lies inside each, with its own wires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.diagram.elements import Element, Elements, Use, Wire, collect_body
from onnxviz.diagram.groups import Part, group_element, split_cyclic
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.scopes import Scope, choose_groups, fold_patterns, match_groups, scope_name

__all__ = ["Level", "Tree", "build_tree", "closed_groups", "shown_tree"]

_DEEPEST = 24  # levels; what lies deeper is shown flat
_MOST_BODIES = 20_000  # blocks inside bodies


@dataclass(frozen=True, eq=False)
class Level:
    """The inside of a group, of a node with bodies, or (the outermost) of the whole model.

    A wire leads between its boxes: first its members, then an entry for each tensor that comes from outside, then an
    exit for each that is used there.

    Attributes:
        owner: The element whose inside it is, as an index into :attr:`Tree.elements`; -1 for the whole model.
        members: The elements in it, as indices into :attr:`Tree.elements`.
        boxes: Its boxes and wires; elements of the roles ``entry`` and ``exit`` stand for tensors at its border.
    """

    owner: int
    members: list[int]
    boxes: Elements

    @property
    def entries(self) -> int:
        return sum(element.role == "entry" for element in self.boxes.elements)


@dataclass(frozen=True, eq=False)
class Tree:
    """All elements of a model and the levels they lie in.

    Attributes:
        elements: Blocks and terminals as they were found, then groups and what lies inside bodies.
        parents: The element that each lies in; -1 on the outermost level.
        levels: The inside of each element that has one, by its index; -1 is the whole model.
        names: The paths that each group stands for: more than one where groups hold nothing but one other group.
        depths: How many groups each element of ``levels`` lies in, those counted that were taken apart.
        flow: From which element that is no group a tensor goes to which, through the borders of groups and bodies.
    """

    elements: list[Element]
    parents: list[int]
    levels: dict[int, Level]
    names: dict[int, list[Scope]]
    depths: dict[int, int]
    flow: list[tuple[int, int]]

    @property
    def deepest(self) -> int:
        """How many levels lie in one another, the outermost not counted."""
        return max(self.depths.values(), default=-1) + 1


def closed_groups(
    tree: Tree,
    hierarchy: dict[ir.Node, Scope],
    depth: int | None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
) -> set[int]:
    """Return the groups, and the nodes with bodies, that are one block.

    Args:
        tree: The elements.
        hierarchy: The groups of every node, from :func:`onnxviz.graph.scopes.scopes`.
        depth: How many levels stay open, as :func:`onnxviz.graph.scopes.choose_groups` counts them; None for all.
        fold: Globs of groups to close as well; patterns of operators are closed wherever they are groups.
        unfold: Globs of groups to leave open: their parts are closed instead.

    Raises:
        SelectionError: A glob fits no group; the text has the nearest ones.
    """
    folded, opened = match_groups(hierarchy, fold), match_groups(hierarchy, unfold)
    closed = set()
    for index in tree.levels:
        if index < 0:
            continue
        names = tree.names.get(index, [])
        chain = any(len(name) > 1 and " > " in name[-2] for name in names)
        deep = depth is not None and tree.depths[index] >= depth - 1 and not opened.intersection(names)
        if chain or deep or folded.intersection(names):
            closed.add(index)
    return closed


def shown_tree(
    model: ir.Model,
    found: Elements,
    hierarchy: dict[ir.Node, Scope],
    depth: int | None,
    fold: Sequence[str] = (),
    unfold: Sequence[str] = (),
    *,
    inside_nodes: bool = True,
) -> tuple[Tree, set[int]]:
    """Return the tree that a drawing shows, and what of it is closed: see :func:`closed_groups`.

    A depth beyond the model's own leaves nothing of the hierarchy but what is folded.

    Raises:
        SelectionError: A glob fits no group, or a pattern no chain.
    """
    patterned = fold_patterns(hierarchy, fold)
    tree = build_tree(model, found, patterned, inside_nodes=inside_nodes)
    closed = closed_groups(tree, patterned, depth, fold, unfold)
    if depth is None or depth <= tree.deepest:
        return tree, closed
    folded = _without_outer(choose_groups(hierarchy, None, fold))
    tree = build_tree(model, found, folded, inside_nodes=inside_nodes)
    return tree, closed_groups(tree, folded, None, fold)


def _without_outer(chosen: Mapping[ir.Node, Scope]) -> dict[ir.Node, Scope]:
    """Return groups without those around them, for a drawing in which only these are shown.

    Args:
        chosen: From :func:`onnxviz.graph.scopes.choose_groups`.
    """
    return {
        node: (scope[-2], scope_name((*scope[:-2], scope[-1])))
        if len(scope) > 1 and " > " in scope[-2]
        else (scope_name(scope),)
        for node, scope in chosen.items()
    }


@dataclass
class _Inside:
    """What is known of a level before it is built."""

    owner: int
    depth: int
    members: list[int] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)  # of tensors from outside
    made: list[tuple[int, int, ir.Value]] = field(default_factory=list)  # element, port, a tensor used outside


def build_tree(
    model: ir.Model, found: Elements, hierarchy: Mapping[ir.Node, Scope], *, inside_nodes: bool = True
) -> Tree:
    """Arrange elements by the groups that their nodes lie in.

    A group of one element is no group, and groups that hold nothing but one other group are one with it. A group that
    is left and entered again is taken apart into what is connected within it.

    Args:
        model: The model.
        found: What :func:`onnxviz.diagram.elements.collect_elements` returned.
        hierarchy: The groups of every node, the outermost first, from :func:`onnxviz.graph.scopes.scopes`.
        inside_nodes: Whether bodies of If, Loop and Scan are levels too.
    """
    return _Builder(model, found, hierarchy, inside_nodes).build()


class _Builder:
    def __init__(
        self, model: ir.Model, found: Elements, hierarchy: Mapping[ir.Node, Scope], inside_nodes: bool
    ) -> None:
        self.model = model
        self.inside_nodes = inside_nodes
        self.found = found
        self.elements = list(found.elements)
        self.paths: list[Scope] = [hierarchy.get(e.node, ()) if e.node is not None else () for e in found.elements]
        self.parents = [-1] * len(self.elements)
        self.levels: dict[int, Level] = {}
        self.names: dict[int, list[Scope]] = {}
        self.depths: dict[int, int] = {}
        self.flow = [(wire.source, wire.target) for wire in found.wires]
        self.made = {wire.value: wire.source for wire in found.wires}
        self.bodies = 0

    def build(self) -> Tree:
        whole = _Inside(-1, 0, list(range(len(self.elements))), list(self.found.wires))
        # What all nodes share tells nothing.
        paths = [path for path, element in zip(self.paths, self.elements, strict=True) if element.node is not None]
        whole.depth = _shared(paths, 0)
        pending = [whole]
        while pending:
            inside = pending.pop()
            pending += reversed(self._level(inside))
        return Tree(self.elements, self.parents, self.levels, self.names, self.depths, self.flow)

    def _level(self, inside: _Inside) -> list[_Inside]:
        """Build one level and return what lies in it."""
        units = self._units(inside)
        places: dict[int, int] = {}  # unit -> box
        groups: dict[int, _Inside] = {}
        for member in inside.members:
            unit = units[member]
            places.setdefault(unit, len(places))
            if unit != member:
                groups.setdefault(unit, self._inside_group(unit)).members.append(member)
        for unit, group in groups.items():
            path, first = self.paths[group.members[0]], group.depth
            group.depth = _shared([self.paths[member] for member in group.members], first)
            self.names[unit] = [path[:end] for end in range(first, group.depth + 1)]
        shown = list(places)
        boxes = _Boxes([self.elements[unit] for unit in shown])
        self._lead(inside, units, groups, places, boxes)
        self.levels[inside.owner] = Level(inside.owner, shown, boxes.settled())
        for unit in shown:
            self.parents[unit] = inside.owner
        return [*groups.values(), *(found for unit in shown for found in self._inside_node(unit))]

    def _inside_group(self, unit: int) -> _Inside:
        folded = self.elements[unit].members
        assert folded is not None
        return _Inside(unit, len(folded.scope))

    def _lead(
        self,
        inside: _Inside,
        units: dict[int, int],
        groups: dict[int, _Inside],
        places: dict[int, int],
        boxes: _Boxes,
    ) -> None:
        """Lead wires from box to box, and hand on to groups what goes on inside them."""
        ports = _Ports()
        for wire in inside.wires:
            source, target = units[wire.source], units[wire.target]
            if source == target and source in groups:
                groups[source].wires.append(wire)
                continue
            port = wire.port
            if source in groups:
                groups[source].made.append((wire.source, wire.port, wire.value))
                port = ports.of(source, wire.value)
            if target in groups:
                groups[target].uses.append(Use(wire.value, wire.target, wire.outer))
            boxes.join(places[source], places[target], port, wire.value, wire.outer)
        for use in inside.uses:
            target = units[use.target]
            if target in groups:
                groups[target].uses.append(use)
            boxes.join(boxes.entry(use.value), places[target], 0, use.value, use.outer)
        for element, port, value in inside.made:
            source = units[element]
            if source in groups:
                groups[source].made.append((element, port, value))
                port = ports.of(source, value)
            boxes.join(places[source], boxes.exit(value), port, value, False)

    def _units(self, inside: _Inside) -> dict[int, int]:
        """Return for each member the group that it belongs to on this level, or itself."""
        ends = {m: _end(self.paths[m], inside.depth) for m in inside.members if len(self.paths[m]) > inside.depth}
        chosen: dict[int, Part] = {}
        skipped: Counter[int] = Counter()
        while ends and inside.depth < _DEEPEST:
            chosen = split_cyclic(inside.wires, {member: (self.paths[member][:end], 0) for member, end in ends.items()})
            # What is no group because it is left and entered again may hold groups.
            lost = [member for member in ends if member not in chosen]
            if not lost:
                break
            skipped.update(lost)
            for member in lost:
                end = ends.pop(member)
                if len(self.paths[member]) > end:
                    ends[member] = _end(self.paths[member], end)
        sizes = Counter(chosen.values())
        parts: dict[Part, list[int]] = {}
        units = {member: member for member in inside.members}
        for member, part in chosen.items():
            if sizes[part] > 1:
                parts.setdefault(part, []).append(member)
        for part, members in parts.items():
            unit = self._add(group_element(part[0], [self.elements[member] for member in members]))
            self.depths[unit] = self.depths.get(inside.owner, -1) + 1 + skipped[members[0]]
            units |= dict.fromkeys(members, unit)
        return units

    def _add(self, element: Element, path: Scope = ()) -> int:
        self.elements.append(element)
        self.paths.append(path)
        self.parents.append(-1)
        return len(self.elements) - 1

    def _inside_node(self, index: int) -> list[_Inside]:
        """Return the insides of a node with bodies: of the node itself where it has one, else of a group a body."""
        node = self.elements[index].node
        graphs = list(bodies_of(node)) if node is not None and self.inside_nodes else []
        self.bodies += sum(graph.num_nodes() for graph in graphs)
        if node is None or not graphs or self.bodies > _MOST_BODIES or self._nesting(index) > _DEEPEST:
            return []
        self.depths[index] = self.depths.get(self.parents[index], -1) + 1
        return [self._inside_bodies(index, graphs)]

    def _nesting(self, index: int) -> int:
        around = 0
        while index >= 0 and around <= _DEEPEST:
            index, around = self.parents[index], around + 1
        return around

    def _inside_bodies(self, index: int, graphs: Sequence[ir.Graph]) -> _Inside:
        inside = _Inside(index, 0)
        node = self.elements[index].node
        assert node is not None
        kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        names = [name for name, attribute in node.attributes.items() if attribute.type in kinds]
        for position, graph in enumerate(graphs):
            name = names[position] if len(names) == len(graphs) else f"body {position + 1}"
            path = ({"then_branch": "then", "else_branch": "else"}.get(name, name),) if len(graphs) > 1 else ()
            found, uses = collect_body(self.model, graph)
            first = len(self.elements)
            for element in found.elements:
                inside.members.append(self._add(element, path))
            inside.wires += [Wire(w.source + first, w.target + first, w.port, w.value, w.outer) for w in found.wires]
            inside.uses += [Use(use.value, use.target + first, use.outer) for use in uses]
            self._flow_through(index, first, found, uses)
        return inside

    def _flow_through(self, index: int, first: int, found: Elements, uses: Sequence[Use]) -> None:
        """Note how tensors go into a body that starts at ``first``, through it, and out of the node around it."""
        self.flow += [(wire.source + first, wire.target + first) for wire in found.wires]
        self.flow += [(self.made[use.value], use.target + first) for use in uses if use.value in self.made]
        self.made |= {wire.value: wire.source + first for wire in found.wires}
        for position, element in enumerate(found.elements):
            if element.role == "input":
                self.flow.append((index, first + position))
            elif element.role == "output":
                self.flow.append((first + position, index))


def _end(path: Scope, depth: int) -> int:
    """Return where the step that begins at ``depth`` ends: a pattern and the number of its chain are one step."""
    return depth + 2 if " > " in path[depth] and len(path) > depth + 1 else depth + 1


def _shared(paths: Sequence[Scope], depth: int) -> int:
    """Return the depth down to which all paths are the same, at least ``depth``."""
    if not paths:
        return depth
    first = paths[0]
    while depth < len(first) and all(len(path) > depth and path[depth] == first[depth] for path in paths):
        depth += 1
    return depth


class _Ports:
    """Numbers the tensors that leave a group."""

    def __init__(self) -> None:
        self._known: dict[int, dict[ir.Value, int]] = {}

    def of(self, group: int, value: ir.Value) -> int:
        known = self._known.setdefault(group, {})
        return known.setdefault(value, len(known))


class _Boxes:
    """Collects the wires of a level, and its entries and exits, which come after all boxes and after all entries."""

    def __init__(self, elements: list[Element]) -> None:
        self.found = Elements(elements)
        self._first = len(elements)
        self._entries: dict[ir.Value, int] = {}
        self._exits: dict[ir.Value, int] = {}
        self._seen: set[tuple[int, int, ir.Value]] = set()

    def entry(self, value: ir.Value) -> int:
        return self._entries.setdefault(value, self._first + len(self._entries))

    def exit(self, value: ir.Value) -> int:
        """Return where a tensor leaves: counted below zero until all entries are known."""
        return -1 - self._exits.setdefault(value, len(self._exits))

    def join(self, source: int, target: int, port: int, value: ir.Value, outer: bool) -> None:
        if (source, target, value) not in self._seen:
            self._seen.add((source, target, value))
            self.found.wires.append(Wire(source, target, port, value, outer))

    def settled(self) -> Elements:
        elements = [*self.found.elements, *(Element("entry", value=value) for value in self._entries)]
        after = len(elements)
        elements += [Element("exit", value=value) for value in self._exits]
        wires = [
            wire if wire.target >= 0 else Wire(wire.source, after - 1 - wire.target, wire.port, wire.value, wire.outer)
            for wire in self.found.wires
        ]
        return Elements(elements, wires)
