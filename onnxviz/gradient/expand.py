"""Nodes without a rule of their own, replaced by what they are made of before the walk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient import multihead as _multihead  # noqa: F401 - enters its expansions
from onnxviz.gradient import old as _old  # noqa: F401
from onnxviz.gradient import sequences as _sequences  # noqa: F401
from onnxviz.gradient.build import operator_version
from onnxviz.gradient.fused import EXPANSIONS, Refused, Site
from onnxviz.gradient.ops import Ops, label
from onnxviz.gradient.registry import Table, key
from onnxviz.graph.extract import bodies_of, reads
from onnxviz.graph.inference import infer_in_place
from onnxviz.graph.model import summary_line
from onnxviz.graph.select import all_tensors
from onnxviz.graph.tidy import fresh_name

__all__ = ["expand"]

_DOMAIN = "onnxviz.expanded"


def expand(model: ir.Model, table: Table, of: str, wrt: Iterable[str]) -> ir.Model:
    """Replace the nodes on the paths from some tensors to another that have no rule, in place where that goes.

    Operators whose ONNX schema has a function body become that body; the fused operators of com.microsoft become
    standard ones. What has neither stays, and the walk names it. Tensors keep their names.

    Args:
        model: Its tensors have types and shapes, as far as they are known.
        table: The rules.
        of: The tensor that is differentiated.
        wrt: The tensors whose gradients are asked for.

    Raises:
        GradientError: A fused operator has a form that is not expanded.

    >>> from onnxviz.gradient.registry import standard_table
    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>
    ...   g (float[2] x) => (float[2] y) { y = com.microsoft.QuickGelu(x) }''')
    >>> [node.op_type for node in expand(model, standard_table(), "y", ["x"]).graph]
    ['Mul', 'Sigmoid', 'Mul']
    """
    names = list(wrt)
    while True:
        ready: list[ir.Node] = []
        waiting: list[ir.Node] = []
        for node in _without_rule(_on_path(model, of, names), table):
            typed = all(value.dtype is not None for value in node.inputs if value is not None)
            (ready if typed else waiting).append(node)
        if not (nodes := ready or waiting):
            return model
        taken = _names(model)
        for node in [node for node in nodes if key(node) in EXPANSIONS]:
            _replace(model, node, taken)
        if bodies := [node for node in nodes if key(node) not in EXPANSIONS]:
            _inline(model, bodies, taken)
        infer_in_place(model)


def _on_path(model: ir.Model, of: str, names: Sequence[str]) -> list[ir.Node]:
    """Return the nodes between the named tensors and the one that is differentiated."""
    moved = {value for value in _values(model) if value.name in set(names)}
    behind = []
    for node in model.graph:
        if any(value in moved for value in reads(node)):
            moved.update(node.outputs)
            behind.append(node)
    needed, path = {value for value in moved if value.name == of}, []
    for node in reversed(behind):
        if any(output in needed for output in node.outputs):
            needed.update(reads(node))
            path.append(node)
    return path[::-1]


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs


def _without_rule(nodes: Iterable[ir.Node], table: Table) -> Iterator[ir.Node]:
    """Yield what can be expanded, bodies included."""
    for node in nodes:
        opsets = node.graph.opset_imports if isinstance(node.graph, ir.Graph) else {}
        known = table.find(node, operator_version(node, opsets)) is not None or table.reason(node) is not None
        if not known and (key(node) in EXPANSIONS or _has_body(node, opsets)):
            yield node
            continue
        for body in bodies_of(node):
            yield from _without_rule(body, table)


def _schema(node: ir.Node, opsets: dict[str, int]) -> Any:
    domain = key(node)[0]
    if domain not in opsets:
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except onnx.defs.SchemaError:
        return None


def _has_body(node: ir.Node, opsets: dict[str, int]) -> bool:
    schema = _schema(node, opsets)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _replace(model: ir.Model, node: ir.Node, taken: set[str]) -> None:
    """Put standard nodes in place of a fused one; ``taken`` grows by their names."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    site = Site(Ops(graph, taken, label(node), node), node, model.opset_imports[""])
    try:
        made = EXPANSIONS[key(node)](site)
    except Refused as why:
        raise GradientError(
            f"{node.domain}::{node.op_type} at {label(node)!r} cannot be taken apart: {why}",
            hint="differentiate the model from before its optimisation",
        ) from None
    for place, output in enumerate(node.outputs):
        value = made[place] if place < len(made) else None
        if value is None:
            if output.uses() or output in graph.outputs:
                raise GradientError(
                    f"{node.domain}::{node.op_type} at {label(node)!r} cannot be taken apart: "
                    f"its output {place} is in use",
                    hint="differentiate the model from before its optimisation",
                )
            continue
        own = value if not value.uses() and value.producer() is not None else site.ops.Identity(value)
        name, own.type, own.shape = output.name, output.type or own.type, output.shape
        ir.convenience.replace_all_uses_with(output, own, replace_graph_outputs=True)
        output.name, own.name = site.ops.name("replaced"), name
    graph.remove(node, safe=True)


def _names(model: ir.Model) -> set[str]:
    names = {str(value.name) for value in all_tensors(model)} | {str(value.name) for value in _values(model)}
    return names | {str(node.name) for node in model.graph.all_nodes()}


def _inline(model: ir.Model, nodes: Sequence[ir.Node], taken: set[str]) -> None:
    """Turn nodes into calls of functions that hold their bodies, and inline those, in place."""
    from onnx_ir.passes.common import InlinePass

    for count, node in enumerate(nodes):
        named = label(node)
        for output in node.outputs:
            if not output.name:
                output.name = fresh_name(f"{named}.unused", taken)
        body = _body(node, model.opset_imports)
        del body.output[len(node.outputs) :]
        body.domain, body.name = _DOMAIN, f"{node.op_type}_{count}"
        function = ir.serde.deserialize_function(body)
        function.opset_imports.update(model.opset_imports)
        _unmask(function)
        for inner in function:
            inner.name = f"{named}.{inner.name or inner.op_type}"
            for value in inner.outputs:
                value.name = f"{named}.{value.name}"
        node.domain, node.op_type = _DOMAIN, body.name
        model.functions[function.identifier()] = function
    InlinePass(criteria=lambda function: function.domain == _DOMAIN)(model)
    model.opset_imports.pop(_DOMAIN, None)


def _unmask(function: ir.Function) -> None:
    """Swap Softmax and a Where that zeroes some of its rows.

    Attention hides what a row gives that is masked as a whole, NaN; going back, NaN times zero would be met.
    """
    for node in [node for node in function if node.op_type == "Where"]:
        behind = node.inputs[2]
        while (maker := behind.producer() if behind is not None else None) is not None and maker.op_type == "Cast":
            behind = maker.inputs[0]
        if maker is None or maker.op_type != "Softmax":
            continue
        like = ir.node("CastLike", [_zero(function), maker.inputs[0]])
        scores = ir.node("Where", [node.inputs[0], like.outputs[0], maker.inputs[0]])
        for made in (like, scores):
            made.outputs[0].name = f"{maker.outputs[0].name}.{made.op_type}"
        function.insert_before(node, [like, scores])
        maker.replace_input_with(0, scores.outputs[0])
        function.sort()
        return


def _zero(function: ir.Function) -> ir.Value:
    zero = ir.node("Constant", [], {"value": ir.tensor([0.0], dtype=ir.DataType.FLOAT)})
    zero.outputs[0].name = "masked.Constant"
    function.insert_before(function[0], [zero])
    return zero.outputs[0]


def _body(node: ir.Node, opsets: dict[str, int]) -> onnx.FunctionProto:
    """Return the function body of a node as its schema has it for these inputs, with the attributes' defaults set."""
    schema = _schema(node, opsets)
    assert schema is not None
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)
    body, opset = onnx.FunctionProto(), opsets[key(node)[0]]
    try:
        if schema.has_function:
            version = max(v for v in schema.function_opset_versions if v <= opset)
            written = schema.get_function_with_opset_version(version)
        else:
            version = max(v for v in schema.context_dependent_function_opset_versions if v <= opset)
            types = [b"" if value is None else _type(value) for value in node.inputs]
            proto = ir.to_proto(node).SerializeToString()
            written = schema.get_context_dependent_function_with_opset_version(version, proto, types)
    except Exception as error:
        raise _no_body(node, summary_line(error)) from error
    if isinstance(written, bytes):
        body.ParseFromString(written)
    elif written is not None:
        body.CopyFrom(written)
    if not body.node:
        raise _no_body(node, "its schema has none for its types and attributes")
    return body


def _type(value: ir.Value) -> bytes:
    return bytes(ir.serde.serialize_value(value).type.SerializeToString())


def _no_body(node: ir.Node, why: str) -> GradientError:
    return GradientError(
        f"{node.op_type} at {label(node)!r} has no rule, and no function body to differentiate: {why}",
        hint="give its inputs types and shapes, or differentiate another part of the model",
    )
