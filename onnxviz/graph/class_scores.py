"""Where a classifier's scores are, before they become probabilities or an answer."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.select import FLOAT_TYPES

__all__ = ["class_scores"]

_PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid"}
_ANSWERS = {"ArgMax", "TopK", "ZipMap", "ArrayFeatureExtractor"}
_SAME = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Transpose", "ReduceMax"}


def class_scores(model: ir.Model) -> ir.Value:
    """Return the tensor of a classifier's scores: the first output, or what enters its softmax, sigmoid or argmax.

    Args:
        model: The model; it is not changed.

    Raises:
        SelectionError: No output comes of a tensor of floating point.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 3] x) => (float[1, 3, 1] p) <int64[1] axis = {2}> {
    ...     s = Relu(x) q = Softmax(s) p = Unsqueeze(q, axis)}''')
    >>> class_scores(model).name
    's'
    """
    for output in model.graph.outputs:
        found = _before(output)
        if found is not None and found.producer() is not None and found.dtype in FLOAT_TYPES | {None}:
            return found
    raise SelectionError("no output of the model is of class scores", hint="name a layer and its channels")


def _before(output: ir.Value) -> ir.Value | None:
    """Return what enters the nearest softmax or argmax that only changes of shape part from an output; else that."""
    value: ir.Value | None = output
    found: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _PROBABILITIES:
            return node.inputs[0]
        if node.op_type in _ANSWERS:
            found = node.inputs[0]
        elif node.op_type not in _SAME:
            break
        value = node.inputs[0]
    return found
