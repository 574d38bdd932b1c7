"""The order of work for running a graph piece by piece: what runs together, what is dropped after which step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.graph.extract import Constant, Piece, bodies_of, cut, reads
from onnxviz.graph.kinds import CONTROL_FLOW

__all__ = ["Program", "Step", "make_program"]

#: Bytes of outputs that one piece may make: small nodes share a session, large ones get their own.
GROUP_BYTES = 1 << 20
#: Bytes of weights that one piece may read, so that a model of any size can be loaded piece by piece.
GROUP_WEIGHTS = 16 << 20
_MOST_NODES = 32


@dataclass
class Step:
    """One piece of a program.

    Attributes:
        piece: What runs; for a node of control flow, that node alone.
        control: The programs of the node's bodies, by attribute; empty where the piece runs in onnxruntime as it is.
        dies: Values of this graph that nothing reads after this step.
    """

    piece: Piece
    control: dict[str, Program] = field(default_factory=dict)
    dies: tuple[ir.Value, ...] = ()


@dataclass
class Program:
    """How one graph, the main one or a body, is run.

    Attributes:
        graph: The graph.
        steps: In order.
        constants: Wanted values that always hold the same tensor and are produced by no step.
    """

    graph: ir.Graph
    steps: list[Step]
    constants: tuple[ir.Value, ...]

    def pieces(self) -> list[Piece]:
        """Return the pieces that onnxruntime runs, those of bodies included."""
        found = []
        for step in self.steps:
            if step.control:
                for body in step.control.values():
                    found.extend(body.pieces())
            else:
                found.append(step.piece)
        return found


def make_program(
    graph: ir.Graph,
    wanted: Collection[ir.Value],
    constant: Constant,
    sizes: Callable[[ir.Value], int | None],
    *,
    outputs: bool = False,
    group_bytes: int = GROUP_BYTES,
) -> Program:
    """Return the program that computes the wanted values of a graph, and nothing that they do not need.

    Args:
        graph: The main graph or a body, its nodes in topological order.
        wanted: The values to be computed, of this graph and of the bodies inside it.
        constant: What tells which tensor a value always holds.
        sizes: What tells the bytes of a value, or None.
        outputs: Compute the graph's outputs too, as bodies must.
        group_bytes: Bytes of outputs that one piece may make, unless it is a single node.
    """
    nodes = _needed(graph, wanted, constant, outputs)
    read_by = _readers(nodes)
    ends = set(graph.outputs) if outputs else set()
    steps: list[Step] = []
    for group in _groups(nodes, wanted, sizes, constant, group_bytes):
        inside = set(group)
        keep = {
            value
            for node in group
            for value in node.outputs
            if value in wanted or value in ends or any(reader not in inside for reader in read_by.get(value, ()))
        }
        if not keep and len(group) == 1 and _recursed(group[0], wanted):
            keep = {value for value in group[0].outputs if value.name}
        step = Step(cut(group, keep, constant))
        if _recursed(group[0], wanted):
            step.control = {
                name: make_program(body, wanted, constant, sizes, outputs=True, group_bytes=group_bytes)
                for name, body in _named_bodies(group[0])
            }
        steps.append(step)
    own = {*graph.inputs, *(value for node in graph for value in node.outputs)}
    _mark_deaths(steps, own - ends)
    produced = {value for step in steps for node in step.piece.nodes for value in node.outputs}
    constants = tuple(
        v for node in graph for v in node.outputs if v in wanted and v not in produced and constant(v) is not None
    )
    return Program(graph, steps, constants)


def _named_bodies(node: ir.Node) -> list[tuple[str, ir.Graph]]:
    return [
        (name, attribute.as_graph())
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref()
    ]


def _recursed(node: ir.Node, wanted: Collection[ir.Value]) -> bool:
    """Whether a node's bodies are run one by one: it is control flow, and something inside is wanted."""
    if node.op_type not in CONTROL_FLOW or node.domain not in ("", "ai.onnx"):
        return False
    return any(value in wanted for body in _all_bodies(node) for inner in body for value in inner.outputs)


def _all_bodies(node: ir.Node) -> list[ir.Graph]:
    found = list(bodies_of(node))
    for body in list(found):
        found.extend(body.subgraphs())
    return found


def _needed(graph: ir.Graph, wanted: Collection[ir.Value], constant: Constant, outputs: bool) -> list[ir.Node]:
    """Return the nodes that the wanted values depend on, in the graph's order; constants are no work."""
    needed: set[ir.Value] = set(graph.outputs) if outputs else set()
    chosen = []
    for node in reversed(list(graph)):
        mine = [value for value in node.outputs if value.name]
        if all(constant(value) is not None for value in mine) and mine and not any(bodies_of(node)):
            continue
        if not (any(v in needed or v in wanted for v in mine) or _recursed(node, wanted)):
            continue
        chosen.append(node)
        needed.update(reads(node))
    return chosen[::-1]


def _readers(nodes: list[ir.Node]) -> Mapping[ir.Value, list[ir.Node]]:
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        for value in reads(node):
            readers.setdefault(value, []).append(node)
    return readers


def _groups(
    nodes: list[ir.Node], wanted: Collection[ir.Value], sizes: Callable[[ir.Value], int | None],
    constant: Constant, limit: int,
) -> list[list[ir.Node]]:  # fmt: skip
    groups: list[list[ir.Node]] = []
    filled, loaded = limit, 0
    glued: set[ir.Value] = set()  # optionals, which cannot cross from one session to another
    for node in nodes:
        known = [sizes(value) for value in node.outputs if value.name]
        weight = sum(limit // 8 if size is None else size for size in known)
        weights = sum(0 if tensor is None else tensor.nbytes for tensor in map(constant, reads(node)))
        alone = _recursed(node, wanted)
        tied = any(value in glued for value in node.inputs)
        if (
            groups
            and not alone
            and (
                tied
                or (filled + weight <= limit and loaded + weights <= GROUP_WEIGHTS and len(groups[-1]) < _MOST_NODES)
            )
        ):
            groups[-1].append(node)
            filled, loaded = filled + weight, loaded + weights
        else:
            groups.append([node])
            filled, loaded = limit if alone else weight, weights
        glued.update(v for v in node.outputs if isinstance(v.type, ir.OptionalType) or node.op_type == "Optional")
    return groups


def _mark_deaths(steps: list[Step], mortal: Collection[ir.Value]) -> None:
    last: dict[ir.Value, int] = {}
    for index, step in enumerate(steps):
        reads = step.piece.inputs
        for value in (*reads, *step.piece.outputs):
            if value in mortal:
                last[value] = index
    for value, index in last.items():
        steps[index].dies += (value,)
