"""Which layer's units are looked at when none is named, and how quantised codes become numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import onnx_ir as ir

from onnxviz.analysis.activation_curves import dequantizer
from onnxviz.analysis.neuron_answers import Decode
from onnxviz.errors import SelectionError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.token_streams import is_fixed

__all__ = ["decoders", "last_hidden"]

_WEIGHTED = {"conv", "linear", "recurrent"}
_RESHAPES = {"Flatten", "Reshape", "Squeeze", "Identity", "Dropout"}
_QUANTIZED = {  # operator -> which input is the scale of what leaves it
    "QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QLinearAdd": 6, "QLinearMul": 6,
    "QLinearAveragePool": 3, "QLinearGlobalAveragePool": 3, "QLinearSigmoid": 3, "QLinearLeakyRelu": 3,
    "QLinearSoftmax": 3, "QLinearConcat": 0, "QGemm": 7,
}  # fmt: skip
_CARRIES = _RESHAPES | {"MaxPool", "Transpose", "Unsqueeze", "Slice", "Gather", "Split", "Pad"}


def last_hidden(model: ir.Model) -> tuple[str, str]:
    """Return the tensor that enters the last layer with weights before the model's first output, and how it was found.

    Where a map was only flattened before that layer, it is the map, so that its channels are the units. A model of one
    layer gives its output.

    Args:
        model: A model, functions inlined; it is not changed.

    Returns:
        The tensor's name, and a few words.

    Raises:
        SelectionError: The model computes nothing, or no layer with weights leads to its output.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] a = {1, 2, 3, 4}, float[2, 2] b = {1, 2, 3, 4}>
    ...   {h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)}''')
    >>> last_hidden(model)
    ('r', 'last hidden layer')
    """
    queue = deque(model.graph.outputs[:1])
    seen: set[ir.Value] = set(queue)
    while queue:
        value = queue.popleft()
        node = value.producer()
        if node is None:
            continue
        if kind_of(node) in _WEIGHTED and any(is_fixed(v) for v in node.inputs[1:] or node.inputs):
            return _entering(node, value)
        for read in node.inputs:
            if read is not None and read not in seen:
                seen.add(read)
                queue.append(read)
    raise SelectionError(
        "no layer with weights leads to the model's output", hint="name the layer with --tensor (see onnxviz inspect)"
    )


def _entering(node: ir.Node, value: ir.Value) -> tuple[str, str]:
    enters = next((v for v in node.inputs if v is not None and not is_fixed(v)), None)
    flat = enters
    while flat is not None and (before := flat.producer()) is not None and before.op_type in _RESHAPES:
        flat = before.inputs[0]
        # Only a map whose channels are known to be second keeps them as units.
        if flat is not None and flat.producer() is not None and flat.shape is not None and len(flat.shape) == 4:
            enters = flat
            break
    if enters is None or enters.producer() is None:
        return str(value.name), "output: the model has no hidden layer"
    return str(enters.name), "last hidden layer"


def decoders(values: Iterable[ir.Value]) -> dict[str, Decode]:
    """Return what turns quantised codes into numbers, for the tensors whose scale the graph tells.

    Followed backwards are operators that only move codes. A scale a channel is not taken.

    Args:
        values: Tensors.
    """
    found = {}
    for value in values:
        node = value.producer()
        while node is not None and node.op_type in _CARRIES and node.inputs and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is None or node.op_type not in _QUANTIZED or node.outputs[0] is None:
            continue
        at = _QUANTIZED[node.op_type]
        scale = constant_tensor(node.inputs[at]) if at < len(node.inputs) else None
        if scale is not None and scale.size == 1:
            found[str(value.name)] = dequantizer(node, at)
    return found
