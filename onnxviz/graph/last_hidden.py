"""The last hidden layer: what the layer that makes a model's output reads."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.select import FLOAT_TYPES

__all__ = ["last_hidden", "upstream"]

_LAYERS = KINDS["conv"] | KINDS["linear"]
#: What changes the shape alone: the tensor before it has its channels apart from its positions.
_SAME_VALUES = {"Flatten", "Reshape", "Identity", "Dropout"}


def upstream(value: ir.Value | None) -> Iterator[ir.Node]:
    """Yield the nodes that lead to a tensor, the nearest first, each by the first input that is no constant.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {a = Mul(w, x) y = Relu(a)}''')
    >>> [node.op_type for node in upstream(model.graph.outputs[0])]
    ['Relu', 'Mul']
    """
    while value is not None and (node := value.producer()) is not None:
        yield node
        value = _dynamic(node)


def _dynamic(node: ir.Node) -> ir.Value | None:
    """Return the first input of a node that depends on what the model is fed."""
    for value in node.inputs:
        if value is None or value.is_initializer() or value.const_value is not None:
            continue
        source = value.producer()
        if source is not None and (source.op_type in ("Constant", "Shape") or not any(source.inputs)):
            continue
        if source is not None and _dynamic(source) is None:
            continue
        return value
    return None


def last_hidden(model: ir.Model) -> ir.Value:
    """Return the tensor that the last convolution or linear layer before the first output reads.

    Reshapes and flattenings between are stepped over, so that a tensor with channels is found where there is one. In a
    model without such a layer it is what enters the last node.

    Raises:
        SelectionError: Nothing is computed before the output.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 3] p) <float[2, 2] v, float[2, 3] w>
    ...   {a = MatMul(x, v) h = Relu(a) y = MatMul(h, w) p = Softmax(y)}''')
    >>> last_hidden(model).name
    'h'
    """
    outputs = [v for v in model.graph.outputs if v.producer() is not None]
    floats = [v for v in outputs if v.dtype in FLOAT_TYPES] or outputs
    for output in floats[:1]:
        nodes = list(upstream(output))
        layer = next((i for i, node in enumerate(nodes) if node.op_type in _LAYERS), 0)
        before = nodes[layer + 1 :]
        while len(before) > 1 and before[0].op_type in _SAME_VALUES:
            before = before[1:]
        if before:
            return before[0].outputs[0]
        return output
    raise SelectionError("the model computes nothing that could be projected", hint="name a tensor with --tensor")
