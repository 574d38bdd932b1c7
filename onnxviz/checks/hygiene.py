"""Checks of what an exporter leaves behind: G03, G04, G05, G06."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator

import numpy as np
import onnx_ir as ir

from onnxviz.checks.finding import Place, Problem, node_place, place_of, tensor_place
from onnxviz.checks.reading import read_array
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import listed
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.equality import Side, equality_classes, is_copy
from onnxviz.graph.extract import bodies_of

#: Bytes of a weight from which a copy of it is worth a word.
LEAST = 1024
_PLUMBING = frozenset({"Shape", "Size", "Gather", "Unsqueeze", "Squeeze", "Concat", "Cast", "Slice", "Reshape"})
_SAMPLE = 4096  # bytes of a large weight that are looked at first


@check(
    "G03",
    "warning",
    "duplicate or empty node names",
    needs=Need.MODEL,
    what="Looks for nodes without a name and for names that several nodes have, in bodies of If, Loop and Scan too, "
    "and in each function of the model by itself.",
    why="Profiles, quantisation settings and error messages name nodes: without unique names nobody can tell which is "
    "meant. onnxruntime refuses some models with two nodes of one name.",
    remedy="Give every node its own name; `onnxviz check --fix` does.",
    false_positives="Names are not required by the specification.",
)
def node_names(subject: Subject) -> Iterator[Problem]:
    """Yield one problem for all nodes without names, and one for each name that several have."""
    model = subject.model
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    scopes = [list(graph.all_nodes()) for graph in graphs]
    nodes = [node for scope in scopes for node in scope]
    unnamed = [node.op_type for node in nodes if not node.name]
    if unnamed:
        kinds = [f"{count} {op}" for op, count in Counter(unnamed).most_common()]
        evidence = {"nodes": len(nodes), "unnamed": len(unnamed)}
        yield Problem(f"{len(unnamed)} of {len(nodes)} nodes have no name: {listed(kinds)}", (), evidence, key="empty")
    called: dict[str, int] = {}
    for scope in scopes:
        for name, count in Counter(node.name for node in scope if node.name).items():
            called[name] = max(count, called.get(name, 0))
    for name, count in called.items():
        if count > 1:
            yield Problem(f"{count} nodes are called the same", [node_place(name)], {"nodes": count})


@check(
    "G04",
    "warning",
    "dead nodes, inputs, weights and functions",
    needs=Need.MODEL,
    what="Follows the outputs back to everything that they depend on, into bodies and, for each function by itself, "
    "into functions too; what is not reached is dead.",
    why="Dead nodes cost time in runtimes that do not remove them, dead weights cost memory and download, and a "
    "caller has to feed a dead input for nothing. Often they are the trace of an export that went wrong.",
    remedy="Remove them; `onnxviz check --fix` removes dead nodes, weights and functions. An input is part of the "
    "interface: export without it.",
    false_positives="An input may be kept so that several models have the same interface. A node without outputs is "
    "taken to do something.",
)
def dead_parts(subject: Subject) -> Iterator[Problem]:
    """Yield what no output depends on."""
    model = subject.model
    live = live_nodes(model.graph)
    unused = unused_functions(model)
    called = [f for f in model.functions.values() if f"{f.domain}:{f.name}" not in unused]
    for node in [*dead_nodes(model.graph, live), *(n for f in called for n in dead_nodes(f, live_nodes(f)))]:
        yield Problem("no output depends on it", [place_of(node)], {"op_type": node.op_type})
    reached = {value for node in live for value in node.inputs if value is not None}
    for graph in (model.graph, *model.graph.subgraphs()):
        reached.update(graph.outputs)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value not in reached and not value.is_graph_input():
                size = 0 if value.const_value is None else value.const_value.nbytes
                yield Problem(
                    "nothing that counts reads this weight", [tensor_place(value.name)], {"bytes": size}, key="weight"
                )
    for value in model.graph.inputs:
        if value not in reached:
            what = "weight" if value.is_initializer() else "input"
            yield Problem(f"nothing that counts reads this {what}", [tensor_place(value.name)], key=what)
    if unused:
        message = f"{len(unused)} of {len(model.functions)} functions are never called: {listed(unused)}"
        yield Problem(message, [Place("function", unused[0])], {"unused": len(unused)}, key="functions")


def live_nodes(graph: ir.Graph | ir.Function) -> set[ir.Node]:
    """Return the nodes of a graph or function, and of the bodies in it, that its outputs depend on."""
    live: set[ir.Node] = set()
    pending: list[ir.Value | None] = list(graph.outputs)
    for node in graph:
        if not node.outputs:
            pending += _kept(node, live)
    while pending:
        value = pending.pop()
        source = None if value is None else value.producer()
        if source is not None and source not in live:
            pending += _kept(source, live)
    return live


def _kept(node: ir.Node, live: set[ir.Node]) -> list[ir.Value | None]:
    """Mark a node as live, and return what it needs, the outputs of its bodies included."""
    live.add(node)
    needs = list(node.inputs)
    for body in bodies_of(node):
        needs.extend(body.outputs)
        for inner in body:
            if not inner.outputs:
                needs.extend(_kept(inner, live))
    return needs


def dead_nodes(graph: ir.Graph | ir.Function, live: set[ir.Node]) -> Iterator[ir.Node]:
    """Yield dead nodes, not those inside the bodies of dead ones."""
    for node in graph:
        if node not in live:
            yield node
            continue
        for body in bodies_of(node):
            yield from dead_nodes(body, live)


def unused_functions(model: ir.Model) -> list[str]:
    """Return the names of the model's functions that nothing calls, directly or not."""
    called: set[ir.OperatorIdentifier] = set()
    pending: list[ir.Node] = list(model.graph.all_nodes())
    while pending:
        identifier = pending.pop().op_identifier()
        if identifier in model.functions and identifier not in called:
            called.add(identifier)
            pending.extend(model.functions[identifier].all_nodes())
    return [f"{f.domain}:{f.name}" for identifier, f in model.functions.items() if identifier not in called]


@check(
    "G05",
    "warning",
    "duplicate weights",
    needs=Need.MODEL,
    what=f"Compares weights of {LEAST} bytes or more, those of Constant nodes included, that have the same type and "
    "shape by a digest of their bytes.",
    why="Each copy costs memory, download and cache. Weights that a network shares come out twice from some exporters.",
    remedy="Keep one and let all nodes read it; `onnxviz check --fix` does.",
    false_positives="Weights that were never trained, such as biases of zeros, are equal by nature.",
)
def duplicate_weights(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield each group of equal weights."""
    graphs = (subject.model.graph, *subject.model.graph.subgraphs())
    weights = [value for graph in graphs for value in large_weights(graph)]
    for group in equal_weights(weights):
        tensor = constant_tensor(group[0])
        assert tensor is not None
        wasted = tensor.nbytes * (len(group) - 1)
        shape = list(tensor.shape.numpy())
        evidence = {"copies": len(group), "wasted_bytes": wasted, "shape": shape}
        places = [tensor_place(value.name) for value in group[:8]]
        yield Problem(f"{len(group)} weights hold the same {tensor.nbytes:,} bytes", places, evidence)
    yield {"weights": len(weights)}


def large_weights(graph: ir.Graph) -> list[ir.Value]:
    """Return the weights of a graph, initializers first, of which a copy is worth a word."""
    constants = (node.outputs[0] for node in graph if node.op_type == "Constant" and node.outputs)
    found = ((value, constant_tensor(value)) for value in (*graph.initializers.values(), *constants))
    return [v for v, t in found if t is not None and t.dtype != ir.DataType.STRING and t.nbytes >= LEAST]


def equal_weights(values: Iterable[ir.Value]) -> list[list[ir.Value]]:
    """Return the groups of two or more values that hold the same tensor: type, shape and bytes.

    Raises:
        CheckError: A weight cannot be read.
    """
    groups: list[list[ir.Value]] = [list(values)]
    for digest in (_kind, _sample_digest, _full_digest):
        split: dict[Hashable, list[ir.Value]] = defaultdict(list)
        for number, group in enumerate(groups):
            for value in group:
                split[number, digest(value)].append(value)
        groups = [group for group in split.values() if len(group) > 1]
    return groups


def _kind(value: ir.Value) -> Hashable:
    tensor = constant_tensor(value)
    assert tensor is not None
    return tensor.dtype, tuple(tensor.shape)


def _sample_digest(value: ir.Value) -> Hashable:
    data = _bytes(value)
    return data[:_SAMPLE].tobytes(), data[-_SAMPLE:].tobytes()


def _full_digest(value: ir.Value) -> Hashable:
    return hashlib.blake2b(_bytes(value).data).digest()


def _bytes(value: ir.Value) -> np.ndarray:
    tensor = constant_tensor(value)
    assert tensor is not None
    return np.ascontiguousarray(read_array(tensor)).reshape(-1).view(np.uint8)


@check(
    "G06",
    "info",
    "duplicate subgraphs",
    needs=Need.MODEL,
    what="Numbers the tensors of the main graph so that what the same operations compute from the same tensors has "
    "the same number; nodes that share one compute the same twice. Reported is the last node of each such subgraph; "
    "arithmetic on shapes is left out.",
    why="The work is done twice in runtimes that do not look for it, and the graph is harder to read.",
    remedy="Compute it once: common subexpression elimination (onnx_ir, onnxoptimizer, onnxruntime) does.",
    false_positives="onnxruntime removes most of it when it loads the model.",
)
def duplicate_subgraphs(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the ends of subgraphs that are computed more than once."""
    graph = subject.inferred.graph
    classes = equality_classes(Side(graph))
    groups: dict[Hashable, list[ir.Node]] = defaultdict(list)
    for node in graph:
        if node.inputs and not is_copy(node):
            groups[tuple(classes.get(str(v.name), -1) for v in node.outputs)].append(node)
    doubled = {node for group in groups.values() if len(group) > 1 for node in group}
    yield {"nodes": len(graph), "computed_again": len(doubled) - sum(len(g) > 1 for g in groups.values())}
    for group in groups.values():
        if len(group) < 2 or _is_plumbing(group[0]) or all(_read_by(node, doubled) for node in group):
            continue
        size = _cone(group[-1], doubled)
        work = "node" if size == 1 else f"subgraph of {size} nodes"
        evidence = {"times": len(group), "nodes": size, "op_type": group[0].op_type}
        message = f"{len(group)} times the same {group[0].op_type} {work}"
        yield Problem(message, [place_of(node) for node in group[:8]], evidence)


def _is_plumbing(node: ir.Node) -> bool:
    """Whether a node works on sizes: a few numbers, which cost nothing."""
    return node.op_type in _PLUMBING and all(
        value.dtype in (ir.DataType.INT64, ir.DataType.INT32) for value in node.outputs
    )


def _read_by(node: ir.Node, nodes: set[ir.Node]) -> bool:
    readers = [user for value in node.outputs for user in value.consumers()]
    return bool(readers) and all(user in nodes for user in readers)


def _cone(node: ir.Node, within: set[ir.Node]) -> int:
    """Count the nodes of a set that a node depends on through nodes of the set, itself included."""
    seen = {node}
    pending = [node]
    while pending:
        for value in pending.pop().inputs:
            source = None if value is None else value.producer()
            if source is not None and source in within and source not in seen:
                seen.add(source)
                pending.append(source)
    return len(seen)
