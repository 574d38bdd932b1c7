"""The last hidden layer: what enters the layer that makes a model's output."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.select import FLOAT_TYPES
from onnxviz.graph.token_streams import is_fixed

__all__ = ["last_hidden", "upstream"]

_WEIGHTED = {"conv", "linear", "recurrent"}
_SAME = {"Identity", "Dropout"}
#: What changes the shape alone: the tensor before it has its channels apart from its positions.
_RESHAPES = {"Flatten", "Reshape", "Squeeze"}


def last_hidden(model: ir.Model) -> tuple[ir.Value, str]:
    """Return the tensor that enters the last layer with weights before the first output, and how it was found.

    The first output of real numbers counts, where there is one. Where a map was only flattened before that layer, it
    is the map, so that its channels are the units. A model of one layer gives its output; one without such a layer
    gives what enters its last operator.

    Args:
        model: A model, functions inlined and shapes inferred; it is not changed.

    Returns:
        The tensor, and a few words.

    Raises:
        SelectionError: The model computes nothing.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 3] p) <float[2, 2] v = {1, 2, 3, 4}, float[2, 3] w = {1, 2, 3, 4, 5, 6}>
    ...   {a = MatMul(x, v) h = Relu(a) y = MatMul(h, w) p = Softmax(y)}''')
    >>> value, how = last_hidden(model)
    >>> value.name, how
    ('h', 'last hidden layer')
    """
    outputs = [v for v in model.graph.outputs if v.producer() is not None]
    output = next((v for v in outputs if v.dtype in FLOAT_TYPES), outputs[0] if outputs else None)
    if output is None:
        raise SelectionError("the model computes nothing", hint="name a tensor with --tensor")
    fed = _fed(model)
    queue, seen = deque([output]), {output}
    while queue:
        value = queue.popleft()
        node = value.producer()
        if node is None:
            continue
        if kind_of(node) in _WEIGHTED and any(is_fixed(v) for v in node.inputs[1:] or node.inputs):
            enters = _unflattened(model, next((v for v in node.inputs if v is not None and not is_fixed(v)), None))
            if enters is None or enters.producer() is None:
                return value, "output: the model has no hidden layer"
            return enters, "last hidden layer"
        following = [v for v in node.inputs if v is not None and v in fed and v not in seen]
        seen.update(following)
        queue.extend(following)
    producer = output.producer()
    before = [v for v in (producer.inputs if producer is not None else ()) if v is not None and v in fed]
    inner = next((v for v in before if v.producer() is not None), None)
    said = "no layer has weights"
    return (output, f"output: {said}") if inner is None else (inner, f"what enters the last operator: {said}")


def _fed(model: ir.Model) -> set[ir.Value]:
    """Return what depends on a graph input by more than its shape."""
    fed = {value for value in model.graph.inputs if not value.is_initializer()}
    for node in model.graph:
        if node.op_type not in ("Shape", "Size") and any(v in fed for v in node.inputs):
            fed.update(node.outputs)
    return fed


def _unflattened(model: ir.Model, value: ir.Value | None) -> ir.Value | None:
    """Return the map that a tensor was before it was flattened, else the tensor, copies stepped over."""
    enters = flat = value
    reshaped = False
    while flat is not None and (node := flat.producer()) is not None and node.op_type in _SAME | _RESHAPES:
        before = node.inputs[0]
        if before is None or before.producer() is None:
            break
        reshaped, flat = reshaped or node.op_type in _RESHAPES, before
        if not reshaped:
            enters = flat
        elif _has_channels(model, flat):  # only a map whose channels are known keeps them as units
            return flat
    return enters


def _has_channels(model: ir.Model, value: ir.Value) -> bool:
    rank = None if value.shape is None else len(value.shape)
    return rank == 4 or (rank in (3, 5) and str(value.name) in tensor_layouts(model))


def upstream(model: ir.Model, value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes of the main graph that lead to a tensor, nearest first, each by its first input that is fed.

    An input is fed where it depends on a graph input by more than its shape.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {a = Mul(w, x) y = Relu(a)}''')
    >>> [node.op_type for node in upstream(model, model.graph.outputs[0])]
    ['Relu', 'Mul']
    """
    fed = _fed(model)
    following: ir.Value | None = value
    while following is not None and (producer := following.producer()) is not None:
        yield producer
        following = next((v for v in producer.inputs if v is not None and v in fed), None)
