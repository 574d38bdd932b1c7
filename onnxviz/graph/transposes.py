"""Transposes that exporters leave where a network ends in another layout than it was computed in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.tidy import add_initializer, drop_unread

__all__ = ["move_transposes"]

_UNARY = frozenset({
    "Abs", "Cast", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Log", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
})  # fmt: skip
_BINARY = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"})
_REDUCE = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})


def move_transposes(model: ir.Model) -> int:
    """Move transposes down through elementwise operators into reductions, and up over padding, in place.

    onnxruntime's optimiser moves a transpose only towards another one; here one vanishes in a reduction over the axes
    that it moved, and one behind a Pad changes places with it, so that the Pad meets the convolution. A transpose with
    one reader only is moved; constant operands are transposed with it.

    Needs: nodes in topological order. Leaves true: values, and names, order and types of inputs and outputs.

    Returns:
        How many moves were made.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 3, 4, 4] x) => (float[1, 3] y) {
    ...     t = Transpose<perm = [0, 2, 3, 1]>(x) r = Relu(t) y = ReduceMean<axes = [1, 2], keepdims = 0>(r) }''')
    >>> move_transposes(model), [node.op_type for node in model.graph], model.graph[-1].attributes["axes"].value
    (2, ['Relu', 'ReduceMean'], (2, 3))
    """
    moves = 0
    for node in list(model.graph):
        if node.op_type == "Transpose" and node.domain in ("", "ai.onnx") and node.graph is model.graph:
            moves += _raise_over_pad(model.graph, node)
            while node.graph is model.graph and _sink(model.graph, node):
                moves += 1
    return moves


def _perm(node: ir.Node) -> list[int] | None:
    return list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None


def _lone_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return None if value.is_graph_output() or len(uses) != 1 else uses[0][0]


def _sink(graph: ir.Graph, node: ir.Node) -> bool:
    """Move a transpose behind its reader, or into it."""
    perm, reader = _perm(node), _lone_reader(node.outputs[0])
    source = node.inputs[0]
    if perm is None or reader is None or source is None or reader.graph is not graph:
        return False
    if reader.domain not in ("", "ai.onnx") or len(reader.outputs) != 1:
        return False
    if reader.op_type in _REDUCE:
        return _into_reduction(graph, node, reader, source, perm)
    if reader.op_type in _UNARY and reader.inputs[0] is node.outputs[0]:
        _swap(graph, node, reader, {0: source})
        return True
    if reader.op_type in _BINARY and len(reader.inputs) == 2:
        operands = _operands(graph, node, reader, perm)
        if operands is not None:
            _swap(graph, node, reader, operands)
            return True
    return False


def _operands(graph: ir.Graph, node: ir.Node, reader: ir.Node, perm: Sequence[int]) -> dict[int, ir.Value] | None:
    """Return both operands of an operator as they were before the transpose; None where one cannot be had."""
    found: dict[int, ir.Value] = {}
    for index, value in enumerate(reader.inputs):
        assert value is not None
        producer = value.producer()
        if producer is not None and producer.op_type == "Transpose" and _perm(producer) == list(perm):
            before = producer.inputs[0]
            assert before is not None
            found[index] = before
            continue
        tensor = constant_tensor(value)
        if tensor is None or value.is_graph_input() or len(tensor.shape) > len(perm):
            return None
        found[index] = value if tensor.size == 1 and len(tensor.shape) == 0 else _turned(graph, value, tensor, perm)
    return found


def _turned(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol, perm: Sequence[int]) -> ir.Value:
    array = tensor.numpy()
    full = array.reshape([1] * (len(perm) - array.ndim) + list(array.shape))
    return add_initializer(graph, full.transpose(np.argsort(perm)), f"{value.name}_turned")


def _swap(graph: ir.Graph, node: ir.Node, reader: ir.Node, operands: dict[int, ir.Value]) -> None:
    """Let the reader work on what was before the transpose, and transpose what it gives."""
    others = [value for value in reader.inputs if value is not None and value is not node.outputs[0]]
    old = reader.outputs[0]
    for index, value in operands.items():
        reader.replace_input_with(index, value)
    graph.remove(node)
    graph.insert_after(reader, node)
    name = old.name
    fresh = node.outputs[0]
    fresh.type, fresh.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, fresh, replace_graph_outputs=True)
    node.replace_input_with(0, old)
    old.name, fresh.name = f"{name}_before", name
    old.shape = None
    for value in others:
        drop_unread(graph, value)


def _into_reduction(graph: ir.Graph, node: ir.Node, reader: ir.Node, source: ir.Value, perm: Sequence[int]) -> bool:
    keep = reader.attributes["keepdims"].as_int() if "keepdims" in reader.attributes else 1
    axes = _axes(reader, len(perm))
    if keep or axes is None:
        return False
    before = sorted(perm[axis] for axis in axes)
    left = [axis for axis in perm if axis not in before]
    if left != sorted(left):
        return False
    if "axes" in reader.attributes:
        reader.attributes["axes"] = ir.AttrInt64s("axes", before)
    else:
        reader.replace_input_with(
            1, add_initializer(graph, np.array(before, np.int64), f"{reader.name or 'reduce'}/axes")
        )
    reader.replace_input_with(0, source)
    graph.remove(node, safe=True)
    return True


def _axes(reader: ir.Node, rank: int) -> list[int] | None:
    if "axes" in reader.attributes:
        found = list(reader.attributes["axes"].as_ints())
    else:
        tensor = constant_tensor(reader.inputs[1]) if len(reader.inputs) > 1 else None
        if tensor is None:
            return None
        found = [int(axis) for axis in tensor.numpy()]
    return [axis % rank for axis in found] or None


def _raise_over_pad(graph: ir.Graph, node: ir.Node) -> int:
    """Put a transpose before the Pad that feeds it alone."""
    perm, value = _perm(node), node.inputs[0]
    pad = value.producer() if value is not None else None
    if perm is None or value is None or pad is None or pad.op_type != "Pad" or _lone_reader(value) is not node:
        return 0
    if pad.domain not in ("", "ai.onnx") or len(pad.inputs) < 2 or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return 0
    amounts, source = constant_tensor(pad.inputs[1]), pad.inputs[0]
    if amounts is None or source is None:
        return 0
    begins, ends = amounts.numpy().reshape(2, -1)
    turned = np.concatenate([begins[list(perm)], ends[list(perm)]])
    last = node.outputs[0]
    pad.replace_input_with(1, add_initializer(graph, turned, f"{pad.name or 'pad'}/pads"))
    ir.convenience.replace_all_uses_with(last, value, replace_graph_outputs=True)
    value.type, value.shape = last.type, last.shape
    name = last.name
    node.replace_input_with(0, source)
    graph.remove(node)
    graph.insert_before(pad, node)
    pad.replace_input_with(0, last)
    last.shape = None
    last.name, value.name = f"{name}_before", name
    return 1
