"""Products with a matrix that were exported as products of matrices only, with reshapes around them."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.affine import constant_array
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.inference import infer_in_place
from onnxviz.graph.tidy import drop_unread

__all__ = ["drop_flattening"]


def drop_flattening(model: ir.Model) -> int:
    """Let a MatMul work on a tensor of any rank instead of on its rows, in place.

    TensorFlow multiplies matrices only, so a Dense layer on sequences comes out as a Reshape to rows, a MatMul and a
    Reshape back, whose shape is computed from the input's: all axes but the last of the input, then the columns of the
    matrix. ONNX's MatMul does all that by itself (numpy's rules). What computed the shape goes where nothing else
    reads it.

    Needs: ranks that shape inference can tell; tensors whose rank it cannot are left alone. Leaves true: values, and
    names, order and types of inputs and outputs.

    Returns:
        How many products were changed.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[n, t, 2] x) => (float[n, t, 3] y)
    ...   <float[2, 3] w = {1, 2, 3, 4, 5, 6}, int64[2] r = {-1, 2}, int64[2] i = {0, 1}, int64[1] c = {3}> {
    ...     s = Shape(x) d = Gather(s, i) t = Concat<axis = 0>(d, c)
    ...     f = Reshape(x, r) p = MatMul(f, w) y = Reshape(p, t) }''')
    >>> drop_flattening(model), [node.op_type for node in model.graph]
    (1, ['MatMul'])
    """
    products = [node for node in model.graph if node.op_type == "MatMul" and node.domain in ("", "ai.onnx")]
    if any(_flattened(node) for node in products):
        infer_in_place(model)
    return sum(_drop(model.graph, node) for node in products)


def _flattened(node: ir.Node) -> ir.Node | None:
    """Return the Reshape to rows before a product with a constant matrix."""
    weight, value = constant_array(node, 1), node.inputs[0]
    before = value.producer() if value is not None else None
    if weight is None or weight.ndim != 2 or before is None or before.op_type != "Reshape":
        return None
    shape = constant_tensor(before.inputs[1])
    rows = [] if shape is None else [int(n) for n in shape.numpy().reshape(-1)]
    return before if rows == [-1, weight.shape[0]] else None


def _drop(graph: ir.Graph, node: ir.Node) -> bool:
    before, out = _flattened(node), node.outputs[0]
    uses = list(out.uses())
    if before is None or out.is_graph_output() or len(uses) != 1:
        return False
    after, index = uses[0]
    data, columns = before.inputs[0], _columns(node)
    if after.op_type != "Reshape" or index or after.graph is not graph or data is None or data.shape is None:
        return False
    if not _restores(after.inputs[1], data, columns):
        return False
    rows = node.inputs[0]
    node.replace_input_with(0, data)
    last = after.outputs[0]
    name, out.type, out.shape = last.name, last.type, last.shape
    ir.convenience.replace_all_uses_with(last, out, replace_graph_outputs=True)
    shape = after.inputs[1]
    graph.remove(after, safe=True)
    out.name = name
    drop_unread(graph, rows)
    drop_unread(graph, shape)
    return True


def _columns(node: ir.Node) -> int:
    weight = constant_array(node, 1)
    return 0 if weight is None else int(weight.shape[1])


def _restores(shape: ir.Value | None, data: ir.Value, columns: int) -> bool:
    """Say whether a shape is that of ``data`` with the last size replaced by ``columns``."""
    assert data.shape is not None
    rank = len(data.shape)
    concat = _producer(shape, "Concat")
    if concat is None or len(concat.inputs) != 2:
        return False
    sizes = constant_tensor(concat.inputs[1])
    gather = _producer(concat.inputs[0], "Gather")
    if sizes is None or gather is None or [int(n) for n in sizes.numpy().reshape(-1)] != [columns]:
        return False
    indices, source = constant_tensor(gather.inputs[1]), _producer(gather.inputs[0], "Shape")
    if indices is None or source is None or source.attributes or source.inputs[0] is not data:
        return False
    return [int(i) % rank for i in indices.numpy().reshape(-1)] == list(range(rank - 1))


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node of a type that makes a tensor, seen through casts of integers."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type == "Cast":
        value = node.inputs[0]
        node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None
