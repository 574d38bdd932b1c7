"""The forward model as the rules take it: functions inlined, opset 18 or later, shapes inferred."""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model, from_proto, summary_line, to_proto
from onnxviz.graph.shapes import infer_shapes

__all__ = ["OPSET", "prepare"]

#: The lowest version of the standard operators that backward nodes are written in.
OPSET = 18
_IR = 8  # the version of the file format that this opset came with; before 4, every initializer was an input
_SCAN = 9  # the version of Scan that all later ones keep to
_SMALL = 1024  # bytes of a constant that a conversion may have to look into


def prepare(model: ir.Model) -> ir.Model:
    """Return a copy without functions, of opset 18 or later, whose tensors have their types and shapes.

    Raises:
        GradientError: The model's opset cannot be raised.
    """
    flat = inline_functions(model)
    opset = flat.opset_imports.get("", flat.opset_imports.get("ai.onnx", OPSET))
    if opset < OPSET:
        flat = _raised(flat, opset)
    made = infer_shapes(copy_model(flat) if flat is model else flat)
    made.ir_version = max(made.ir_version or 0, _IR)
    return made


def _raised(model: ir.Model, opset: int) -> ir.Model:
    """Convert a skeleton, in which weights are inputs, and put the weights back."""
    if opset < _SCAN and any(
        node.op_type == "Scan" and node.domain in ("", "ai.onnx") for node in model.graph.all_nodes()
    ):
        raise GradientError(
            f"the model is of opset {opset}, and Scan of version 8 takes batches, which no later version does",
            hint="export it with opset 9 or later",
        )
    skeleton = copy_model(model)
    graph, declared = skeleton.graph, {value.name for value in model.graph.inputs}
    for node in graph.all_nodes():
        if node.op_type == "Dropout":  # whose mask was of the input's type, and became boolean
            for mask in node.outputs[1:]:
                mask.type = None
    weights = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or (tensor.nbytes <= _SMALL and not isinstance(tensor, ir.ExternalTensor)):
            continue
        weights[name] = tensor
        graph.initializers.pop(name)
        value.const_value, value.type, value.shape = None, ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        if name not in declared:
            graph.inputs.append(value)
    try:
        proto = onnx.version_converter.convert_version(to_proto(skeleton), OPSET)
    except Exception as error:
        raise GradientError(
            f"the model is of opset {opset}, and raising it to {OPSET} fails: {summary_line(error)}",
            hint="convert it with the tool that made it, then try again",
        ) from error
    raised = from_proto(proto)
    for name, tensor in weights.items():
        value = next(v for v in raised.graph.inputs if v.name == name)
        value.const_value = tensor
        if name not in declared:
            raised.graph.inputs.remove(value)
        raised.graph.register_initializer(value)
    raised.meta.update(model.meta)
    return raised
