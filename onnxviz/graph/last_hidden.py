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


def upstream(model: ir.Model, value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes of the main graph that lead to a tensor, nearest first, each by its first input that is fed.

    An input is fed where it depends on a graph input by more than its shape.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {a = Mul(w, x) y = Relu(a)}''')
    >>> [node.op_type for node in upstream(model, model.graph.outputs[0])]
    ['Relu', 'Mul']
    """
    fed = {value for value in model.graph.inputs if not value.is_initializer()}
    for node in model.graph:
        if node.op_type not in ("Shape", "Size") and any(v in fed for v in node.inputs):
            fed.update(node.outputs)
    following: ir.Value | None = value
    while following is not None and (producer := following.producer()) is not None:
        yield producer
        following = next((v for v in producer.inputs if v is not None and v in fed), None)


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
        nodes = list(upstream(model, output))
        layer = next((i for i, node in enumerate(nodes) if node.op_type in _LAYERS), 0)
        before = nodes[layer + 1 :]
        while len(before) > 1 and before[0].op_type in _SAME_VALUES:
            before = before[1:]
        if before:
            return before[0].outputs[0]
        return output
    raise SelectionError("the model computes nothing that could be projected", hint="name a tensor with --tensor")
