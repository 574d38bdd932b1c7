"""Rewrites that take out what checks find, in place; each says what it did. They leave what is computed as it is.

Needs: nodes in topological order. Leaves true: values bit by bit, and names, order and types of inputs and outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from onnxviz.checks.clutter import FAR, cast_target, is_lossless, layout_blind_input, transpose_perm
from onnxviz.checks.external import machine_paths_in
from onnxviz.checks.hygiene import dead_nodes, equal_weights, large_weights, live_nodes, unused_functions
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.shapes import infer_shapes

__all__ = ["COMPUTING", "HARMLESS", "Repair"]

#: What a rewrite in place returns: what it changed, a line each.
Repair = Callable[[ir.Model], list[str]]
Types = Mapping[str, ir.DataType | None]


def drop_dead(model: ir.Model) -> list[str]:
    """Remove nodes, weights and functions that no output depends on."""
    live = live_nodes(model.graph)
    done: list[str] = []
    dead = list(dead_nodes(model.graph, live))
    dead += [node for f in model.functions.values() for node in dead_nodes(f, live_nodes(f))]
    done += [f"node {_called(node)}" for node in dead]
    for node in reversed(dead):
        _detach(node)
    reached = {value for node in live for value in node.inputs if value is not None}
    graphs = [model.graph, *model.graph.subgraphs()]
    for graph in graphs:
        reached.update(graph.outputs)
    for graph in graphs:
        for name, value in list(graph.initializers.items()):
            if value not in reached and not value.is_graph_input():
                graph.initializers.pop(name)
                done.append(f"weight {name!r}")
    unused = set(unused_functions(model))
    for identifier, function in list(model.functions.items()):
        if f"{function.domain}:{function.name}" in unused:
            del model.functions[identifier]
            done.append(f"function {function.domain}:{function.name}")
    return done


def _called(node: ir.Node) -> str:
    return repr(node.name) if node.name else f"{node.op_type} of {next((v.name for v in node.outputs), '')!r}"


def _detach(node: ir.Node) -> None:
    """Remove a node; what its bodies read of other graphs is read no more."""
    for body in bodies_of(node):
        for inner in body.all_nodes():
            for index, _ in enumerate(inner.inputs):
                inner.replace_input_with(index, None)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def share_weights(model: ir.Model) -> list[str]:
    """Let all that read one of several equal weights of the main graph read the first."""
    graph = model.graph
    done: list[str] = []
    large = [v for v in large_weights(graph) if not v.is_graph_input() and not v.is_graph_output()]
    for kept, *copies in equal_weights(large):
        done += [f"weight {value.name!r}, equal to {kept.name!r}" for value in copies]
        for value in copies:
            ir.convenience.replace_all_uses_with(value, kept)
            node = value.producer()
            if node is None:
                graph.initializers.pop(str(value.name))
            else:
                graph.remove(node, safe=True)
    return done


def drop_copies(model: ir.Model) -> list[str]:
    """Remove identities, and casts and transposes that change nothing."""
    types, nodes = _types(model), list(model.graph.all_nodes())
    return [f"node {_called(node)}" for node in nodes if _is_copy(node, types) and _bypass(node)]


def _types(model: ir.Model) -> Types:
    inferred = infer_shapes(model)
    values = itertools.chain(inferred.graph.inputs, *(node.outputs for node in inferred.graph.all_nodes()))
    types: dict[str, ir.DataType | None] = {str(value.name): value.dtype for value in values}
    for graph in (inferred.graph, *inferred.graph.subgraphs()):
        types.update(
            {str(v.name): v.const_value.dtype for v in graph.initializers.values() if v.const_value is not None}
        )
    return types


def _type_of(value: ir.Value | None, types: Types) -> ir.DataType | None:
    return None if value is None else types.get(str(value.name))


def _is_copy(node: ir.Node, types: Types) -> bool:
    if node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Identity":
        return True
    perm = transpose_perm(node)
    if perm is not None:
        return perm == sorted(perm)
    target = cast_target(node)
    return target is not None and target == _type_of(node.inputs[0], types)


def _bypass(node: ir.Node, source: ir.Value | None = None) -> bool:
    """Let what reads the first output of a node read a value instead, its first input; False where that cannot be."""
    source = node.inputs[0] if source is None else source
    result = node.outputs[0]
    assert source is not None
    if result.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not node.graph or source.is_graph_output():
            return False
        name, kind, shape = result.name, result.type, result.shape
        ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
        result.name = f"{name}_bypassed"
        source.name, source.type, source.shape = name, kind, shape
    else:
        ir.convenience.replace_all_uses_with(result, source)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def join_casts(model: ir.Model) -> list[str]:
    """Cast once where a cast follows one that loses nothing."""
    types, done = _types(model), []
    for node in list(model.graph.all_nodes()):
        target = cast_target(node)
        first = node.inputs[0].producer() if target is not None and node.inputs[0] is not None else None
        middle = None if first is None else cast_target(first)
        if target is None or first is None or middle is None or first.inputs[0] is None:
            continue
        origin = _type_of(first.inputs[0], types)
        if not is_lossless(origin, middle):
            continue
        if origin == target and _bypass(node, first.inputs[0]):
            done.append(f"cast {_called(node)}")
        else:
            node.replace_input_with(0, first.inputs[0])
            done.append(f"cast before {_called(node)}")
        _drop_if_unread(first)
    return done


def cancel_transposes(model: ir.Model) -> list[str]:
    """Remove pairs of transposes that undo each other, around elementwise operators too, and join neighbours."""
    _write_perms(model)
    done = []
    for node in list(model.graph.all_nodes()):
        if node.graph is None or transpose_perm(node) is None:
            continue
        chain = _chain_before(node)
        first = None if not chain else chain[0]
        before, after = None if first is None else transpose_perm(first), transpose_perm(node)
        if first is None or before is None or after is None or len(before) != len(after) or first.inputs[0] is None:
            continue
        together = [before[axis] for axis in after]
        cancels, between = together == sorted(together), chain[1:]
        if not cancels and between:
            continue
        if not cancels:
            node.attributes["perm"] = ir.AttrInt64s("perm", together)
            node.replace_input_with(0, first.inputs[0])
        elif between:
            index = layout_blind_input(between[0]) or 0
            between[0].replace_input_with(index, first.inputs[0])
            if not _bypass(node, between[-1].outputs[0]):
                between[0].replace_input_with(index, first.outputs[0])
                continue
            for inner in between[:-1]:
                inner.outputs[0].shape = None
            if not between[-1].outputs[0].is_graph_output():
                between[-1].outputs[0].shape = None
        elif not _bypass(node, first.inputs[0]):
            continue
        done.append(f"transposes {_called(first)} and {_called(node)}")
        _drop_if_unread(first)
    return done


def _write_perms(model: ir.Model) -> None:
    """Write down the permutations that follow from the rank alone."""
    nodes = [node for node in model.graph.all_nodes() if node.op_type == "Transpose" and "perm" not in node.attributes]
    if nodes:
        inferred = {tuple(v.name for v in node.outputs): node for node in infer_shapes(model).graph.all_nodes()}
        for node in nodes:
            perm = transpose_perm(inferred.get(tuple(v.name for v in node.outputs), node))
            if perm is not None:
                node.attributes["perm"] = ir.AttrInt64s("perm", perm)


def _chain_before(node: ir.Node) -> list[ir.Node]:
    """Return a Transpose and the elementwise nodes between it and a node, which nothing else reads; else nothing."""
    chain: list[ir.Node] = []
    value = node.inputs[0]
    while value is not None and len(chain) < FAR:
        source = value.producer()
        if source is None or source.domain not in ("", "ai.onnx") or source.graph is not node.graph:
            return []
        if source.op_type == "Transpose":
            return [source, *chain[::-1]]
        alone = len(list(value.uses())) == 1 and not value.is_graph_output()
        index = layout_blind_input(source)
        if index is None or not alone:
            return []
        chain.append(source)
        value = source.inputs[index]
    return []


def _drop_if_unread(node: ir.Node) -> None:
    result = node.outputs[0]
    if node.graph is not None and not list(result.uses()) and not result.is_graph_output():
        node.graph.remove(node, safe=True)


def name_nodes(model: ir.Model) -> list[str]:
    """Give every node a name of its own; the first of several keeps theirs."""
    scopes: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    return [line for scope in scopes for line in _named(list(scope.all_nodes()))]


def _named(nodes: list[ir.Node]) -> list[str]:
    taken = {node.name for node in nodes if node.name}
    seen: set[str] = set()
    counters: dict[str, Iterator[int]] = {}
    done: list[str] = []
    for node in nodes:
        if not node.name or node.name in seen:
            was, stem = _called(node), node.name or node.op_type
            counter = counters.setdefault(stem, itertools.count(1))
            node.name = next(name for number in counter if (name := f"{stem}_{number}") not in taken)
            taken.add(node.name)
            done.append(f"{was} is now {node.name!r}")
        seen.add(node.name)
    return done


def drop_machine_paths(model: ir.Model) -> list[str]:
    """Remove metadata entries and documentation strings that hold paths of a machine."""
    done: dict[str, int] = {}
    for what, holder in _documented(model):
        for key, text in list(holder.metadata_props.items()):
            if machine_paths_in(text):
                del holder.metadata_props[key]
                done[f"{key} of {what}"] = done.get(f"{key} of {what}", 0) + 1
        if getattr(holder, "doc_string", None) and machine_paths_in(holder.doc_string or ""):
            holder.doc_string = None
            done[f"doc_string of {what}"] = done.get(f"doc_string of {what}", 0) + 1
    return [f"{count} entries {what}" if count > 1 else f"entry {what}" for what, count in done.items()]


Documented = ir.Model | ir.Graph | ir.Function | ir.Node | ir.Value


def _documented(model: ir.Model) -> Iterator[tuple[str, Documented]]:
    yield "the model", model
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        graphs += [function, *function.subgraphs()]
    for graph in graphs:
        yield "a graph", graph
        yield from (("a tensor", value) for value in graph.inputs)
        if isinstance(graph, ir.Graph):
            yield from (("a weight", value) for value in graph.initializers.values())
        for node in graph:
            yield "nodes", node
            yield from (("a tensor", value) for value in node.outputs)


#: Rewrites that touch what is computed: each is proven by a run.
COMPUTING: dict[str, Repair] = {
    "removed": drop_dead,
    "shared": share_weights,
    "removed, as it changes nothing,": drop_copies,
    "joined": join_casts,
    "cancelled": cancel_transposes,
    "removed, as nothing reads it any more,": drop_dead,
}
#: Rewrites of what is said about the model.
HARMLESS: dict[str, Repair] = {"named": name_nodes, "removed the machine's paths:": drop_machine_paths}
