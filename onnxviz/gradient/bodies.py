"""Going backward through the body of a node: it is written again into the body of the backward node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from onnxviz.gradient.build import holders, pull_back
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.step import Step
from onnxviz.graph.extract import reads

__all__ = ["close", "entry", "pull_body", "reach_forward"]


def pull_body(
    step: Step,
    ops: Ops,
    body: ir.Graph,
    given: Mapping[ir.Value, ir.Value],
    seeds: Iterable[tuple[ir.Value, ir.Value]],
    wrt: Sequence[ir.Value],
) -> dict[ir.Value, ir.Value]:
    """Write a forward body again, and its backward pass after it.

    Args:
        step: The forward node.
        ops: Writes the backward body.
        body: The forward body; it is not changed.
        given: Its inputs -> what they are in the backward body.
        seeds: Its outputs with the gradients that enter them.
        wrt: Its inputs, tensors in it, and tensors around it, whose gradients are asked for.

    Returns:
        The gradient of each of ``wrt`` that a path leads to.
    """
    mapped, nodes = _replay(ops, body, given)
    entering: dict[ir.Value, list[ir.Value]] = {}
    for value, grad in seeds:
        entering.setdefault(mapped.get(value, value), []).append(grad)
    asked = {mapped.get(value, value): value for value in wrt}
    sums = {value: ops.add(grads) for value, grads in entering.items()}
    found = pull_back(ops, nodes, sums, list(asked), step.walk)
    return {asked[value]: grad for value, grad in found.items()}


def _replay(
    ops: Ops, body: ir.Graph, given: Mapping[ir.Value, ir.Value]
) -> tuple[dict[ir.Value, ir.Value], list[ir.Node]]:
    """Append a copy of a body's nodes, under new names; return what its values became, and the nodes."""
    copy = body.clone(allow_outer_scope_values=True)
    mapped = dict(given)
    for old, new in zip(body.all_nodes(), copy.all_nodes(), strict=True):
        mapped.update(zip(old.outputs, new.outputs, strict=True))
    _rename(ops, copy)
    copy.outputs.clear()
    for entered, twin in zip(body.inputs, copy.inputs, strict=True):
        ir.convenience.replace_all_uses_with(twin, given[entered])
    for name, value in list(copy.initializers.items()):
        mapped[next(v for v in body.initializers.values() if v.const_value is value.const_value)] = value
        del copy.initializers[name]
        value.name = ops.name("constant")
        ops.graph.register_initializer(value)
    nodes = list(copy)
    copy.remove(nodes)
    ops.graph.extend(nodes)
    return mapped, nodes


def _rename(ops: Ops, graph: ir.Graph) -> None:
    for inner in (graph, *graph.subgraphs()):
        for value in inner.inputs:
            value.name = ops.name("input")
        if inner is not graph:
            for value in list(inner.initializers.values()):
                value.name = ops.name("constant")
    for node in graph.all_nodes():
        node.name = ops.name(node.op_type)
        for value in node.outputs:
            if value.name:
                value.name = ops.name(node.op_type)


def entry(ops: Ops, stem: str, like: ir.Value, *, stacked: bool = False) -> ir.Value:
    """Return a new value of the type and shape of another; ``stacked`` has one more axis in front."""
    shape = like.shape
    if stacked and shape is not None:
        shape = ir.Shape([None, *shape])
    return ir.Value(name=ops.name(stem), type=like.type, shape=shape)


def close(ops: Ops, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Graph:
    """Finish a body: give it its inputs and outputs, and drop the nodes that lead nowhere."""
    graph = ops.graph
    for value in outputs:
        made = ops.Identity(value)
        made.type, made.shape = value.type, value.shape
        graph.outputs.append(made)
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
    graph.inputs.extend(inputs)
    return graph


def reach_forward(body: ir.Graph, start: Iterable[ir.Value]) -> set[ir.Value]:
    """Return what depends on some values of a body or of bodies inside it, those included."""
    reached = set(start)
    for node in holders(reached, body):
        reached.update(node.outputs)
    for node in body:
        if any(value in reached for value in reads(node)):
            reached.update(node.outputs)
    return reached
