"""The graph that onnxruntime really runs, and which nodes of the model each of its nodes stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model, from_proto

__all__ = ["Tagged", "lineage", "read_executed", "tag_nodes"]


#: Nodes that only pass data on: where one of these stands for a node of another kind, the work was done before it.
_GLUE = frozenset({"Reshape", "Transpose", "Cast", "ReorderInput", "ReorderOutput", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True)
class Tagged:
    """A model whose nodes and tensors have names that survive in those of fused nodes, and that no profile garbles.

    onnxruntime names fused nodes after the nodes or the tensors that they replace. Inputs and weights keep their names.

    Attributes:
        model: The model, functions inlined.
        nodes: Its nodes by number, those of bodies included.
        names: The name of each in the original model; that of its first output where it has none.
        tensors: The names of each one's outputs in the original model.
        pattern: Matches the number of a node in a name, and that of its output where the name is a tensor's.
    """

    model: ir.Model
    nodes: tuple[ir.Node, ...]
    names: tuple[str, ...]
    tensors: tuple[tuple[str, ...], ...]
    pattern: re.Pattern[str]

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of the model's nodes in the name of an executed node."""
        found = (int(match[1]) for match in self.pattern.finditer(name))
        return [number for number in dict.fromkeys(found) if number < len(self.nodes)]

    def readable(self, name: str) -> str:
        """Return a name with the numbers replaced by the original names."""

        def original(match: re.Match[str]) -> str:
            number = int(match[1])
            if number >= len(self.names) or (match[2] and int(match[2]) >= len(self.tensors[number])):
                return match[0]
            return self.tensors[number][int(match[2])] if match[2] else self.names[number]

        return self.pattern.sub(original, name)


def tag_nodes(model: ir.Model) -> Tagged:
    """Return a copy whose functions are inlined and whose nodes and their outputs are numbered by name.

    Raises:
        ModelError: The graph has a cycle, or a function calls itself.
    """
    copy = copy_model(inline_functions(model))
    nodes = tuple(copy.graph.all_nodes())
    kept = {value.name for graph in copy.graphs() for value in (*graph.inputs, *graph.initializers.values())}
    mark = "zq"
    while any(mark in (name or "") for name in kept):
        mark += "q"
    names, tensors = [], []
    for number, node in enumerate(nodes):
        tensors.append(tuple(value.name or "" for value in node.outputs))
        names.append(node.name or next(filter(None, tensors[-1]), "") or node.op_type)
        node.name = f"{mark}{number}{mark}"
        for position, value in enumerate(node.outputs):
            if value.name and (node.graph is copy.graph or not value.is_graph_output()):  # some ops ask for names there
                value.name = f"{mark}{number}{mark}t{position}{mark}"
    return Tagged(copy, nodes, tuple(names), tuple(tensors), re.compile(rf"{mark}(\d+){mark}(?:t(\d+){mark})?"))


def read_executed(path: Path) -> ir.Model:
    """Read the model that a session saved; weights in a file of their own stay there and are not needed.

    Raises:
        ModelError: onnxruntime saved a graph that is not one.
    """
    proto = onnx.load(path, load_external_data=False)
    _drop_copied_constants(proto.graph)
    return from_proto(proto, "the graph that onnxruntime saved")


def _drop_copied_constants(graph: onnx.GraphProto) -> None:
    """Take out the Constant nodes that onnxruntime has turned to initializers and saved all the same."""
    weights = {tensor.name for tensor in graph.initializer}
    copied = [node for node in graph.node if node.op_type == "Constant" and node.output[0] in weights]
    for node in copied:
        graph.node.remove(node)
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _drop_copied_constants(body)


def lineage(tagged: Tagged, executed: ir.Model) -> dict[ir.Node, tuple[int, ...]]:
    """Return which of the model's nodes each executed node stands for, as numbers in ascending order.

    A node is joined by the names that survive in its own name; else by an output tensor that it has in common with a
    node of the model (if it only reshapes, and the model's node does not, the work is that of the node before). A node
    of the model that is then left over was fused into an executed node if all that read its outputs are joined to that
    one; nodes whose results were folded to constants are joined to none.
    """
    joined: dict[int, ir.Node] = {}
    executed_nodes = list(executed.graph.all_nodes())
    for node in executed_nodes:
        for number in tagged.numbers(node.name or ""):
            joined.setdefault(number, node)
    outputs = {v.name: n for n in executed_nodes for v in n.outputs if v.name}
    numbers = {node: number for number, node in enumerate(tagged.nodes)}
    for number, node in enumerate(tagged.nodes):
        owner = next((outputs[v.name] for v in node.outputs if v.name in outputs), None)
        if number not in joined and owner is not None:
            joined[number] = _worker(owner, node.op_type)
    constants = {name for graph in executed.graphs() for name in graph.initializers}
    for number in range(len(tagged.nodes) - 1, -1, -1):
        if number not in joined and (owner := _absorbed_by(tagged.nodes[number], numbers, joined, constants)):
            joined[number] = owner
    found: dict[ir.Node, list[int]] = {}
    for number in sorted(joined):
        found.setdefault(joined[number], []).append(number)
    return {node: tuple(many) for node, many in found.items()}


def _worker(owner: ir.Node, op_type: str) -> ir.Node:
    node: ir.Node | None = owner
    while node is not None and node.op_type in _GLUE and op_type not in _GLUE:
        source = node.inputs[0] if node.inputs else None
        node = source.producer() if source is not None else None
    return node or owner


def _absorbed_by(
    node: ir.Node, numbers: Mapping[ir.Node, int], joined: Mapping[int, ir.Node], constants: set[str]
) -> ir.Node | None:
    """Return the one executed node that all readers of a node went into."""
    if any(v.name in constants or constant_tensor(v) is not None or v.is_graph_output() for v in node.outputs):
        return None
    readers = {reader for value in node.outputs for reader, _ in value.uses()}
    owners = {joined.get(numbers.get(reader, -1)) for reader in readers}
    return owners.pop() if len(owners) == 1 else None
