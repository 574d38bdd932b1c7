"""Convolutions of one-dimensional data that were exported as two-dimensional ones of height 1."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.affine import constant_array
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.tidy import add_initializer, drop_unread, free_name

__all__ = ["drop_unit_axes"]

_PER_AXIS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0}  # name -> what the unit axis has


def drop_unit_axes(model: ir.Model) -> int:
    """Let a Conv between Unsqueeze and Squeeze of one axis work without that axis, in place.

    TensorFlow has no one-dimensional convolution, so a Conv1D layer comes out as Unsqueeze, Conv, Squeeze. A Transpose
    may stand behind the Unsqueeze.

    Leaves true: values, and names, order and types of inputs and outputs.

    Returns:
        How many convolutions were changed.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 5] x) => (float[1, 1, 4] y) <int64[1] a = {2}, float[1, 1, 1, 2] w = {1, 2}> {
    ...     u = Unsqueeze(x, a) c = Conv(u, w) y = Squeeze(c, a) }''')
    >>> drop_unit_axes(model), [node.op_type for node in model.graph]
    (1, ['Conv'])
    """
    nodes = [node for node in model.graph if node.op_type == "Conv" and node.domain in ("", "ai.onnx")]
    return sum(_drop(model.graph, node) for node in nodes)


def _drop(graph: ir.Graph, node: ir.Node) -> bool:
    weight = constant_array(node, 1)
    out = node.outputs[0]
    readers = list(out.uses())
    if weight is None or weight.ndim != 4 or out.is_graph_output() or len(readers) != 1:
        return False
    squeeze = readers[0][0]
    axis = _only_axis(squeeze, "Squeeze", 4)
    if axis is None or axis < 2 or weight.shape[axis] != 1 or squeeze.graph is not graph:
        return False
    place = axis - 2
    for name, unit in _PER_AXIS.items():
        sizes = list(node.attributes[name].as_ints())[place::2] if name in node.attributes else []
        if any(size != unit for size in sizes) and name != "dilations":
            return False
    before = _before_unsqueeze(graph, node, axis)
    if before is None:
        return False
    for name in _PER_AXIS:
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, list(node.attributes[name].as_ints())[1 - place :: 2])
    data, old = node.inputs[0], node.inputs[1]
    assert old is not None
    value = add_initializer(graph, weight.squeeze(axis), f"{old.name}_1d")
    node.replace_input_with(0, before)
    node.replace_input_with(1, value)
    last = squeeze.outputs[0]
    final = last.name
    out.type, out.shape = last.type, last.shape
    ir.convenience.replace_all_uses_with(last, out, replace_graph_outputs=True)
    graph.remove(squeeze, safe=True)
    out.name = final
    drop_unread(graph, data)
    drop_unread(graph, old)
    return True


def _only_axis(node: ir.Node | None, op_type: str, rank: int) -> int | None:
    """Return the one axis that a Squeeze or Unsqueeze removes or adds, counted in the larger rank."""
    if node is None or node.op_type != op_type or node.domain not in ("", "ai.onnx"):
        return None
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        tensor = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = [] if tensor is None else [int(axis) for axis in tensor.numpy().reshape(-1)]
    return axes[0] % rank if len(axes) == 1 else None


def _before_unsqueeze(graph: ir.Graph, node: ir.Node, axis: int) -> ir.Value | None:
    """Return what feeds a Conv without its unit axis; a Transpose in between is made anew."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "Transpose":
        return producer.inputs[0] if producer is not None and _only_axis(producer, "Unsqueeze", 4) == axis else None
    perm = list(producer.attributes["perm"].as_ints()) if "perm" in producer.attributes else []
    added = producer.inputs[0].producer() if producer.inputs[0] is not None else None
    if len(perm) != 4 or added is None or _only_axis(added, "Unsqueeze", 4) != perm[axis]:
        return None
    left = [old - (old > perm[axis]) for place, old in enumerate(perm) if place != axis]
    if left == sorted(left):
        return added.inputs[0]
    assert value is not None
    turned = ir.node("Transpose", [added.inputs[0]], {"perm": left}, name=f"{producer.name}_1d")
    turned.metadata_props.update(producer.metadata_props)
    turned.outputs[0].name, turned.outputs[0].type = (
        free_name(graph, f"{producer.outputs[0].name}_1d"),
        value.type,
    )
    graph.insert_before(node, turned)
    return turned.outputs[0]
