"""A graph by names, and which of its tensors are always equal."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of, outer_values

__all__ = ["Side", "equal_constants", "equality_classes", "ints", "is_copy", "label", "reads"]

_SMALL = 4096  # elements up to which constants are compared
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_LISTS = frozenset({"Concat", "Sum", "Max", "Min", "Mean"})


def label(node: ir.Node) -> str:
    """Return what to call a node: its name, else its op type and what it writes."""
    return node.name or f"{node.op_type} of {next((v.name for v in node.outputs if v.name), 'nothing')}"


def reads(node: ir.Node) -> list[str]:
    """Return the names of what a node and its bodies read, in order."""
    return [str(v.name) for v in (*node.inputs, *outer_values(node)) if v is not None and v.name]


class Side:
    """One of the two graphs, by names.

    Attributes:
        producer: Tensor of the main graph -> the node that writes it.
        readers: Tensor -> the nodes that read it.
        constants: Names of tensors that depend on nothing that is fed.
        initializers: Names of weights.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.producer = {str(value.name): node for node in graph for value in node.outputs if value.name}
        self.initializers = set(graph.initializers)
        self.outputs = {str(value.name) for value in graph.outputs}
        self.readers: dict[str, list[ir.Node]] = {}
        self.constants = set(self.initializers)
        for node in graph:
            sources = reads(node)
            for name in dict.fromkeys(sources):
                self.readers.setdefault(name, []).append(node)
            fixed = (bool(sources) or node.op_type == "Constant") and node.op_type not in _RANDOM
            if fixed and all(name in self.constants for name in sources) and not any(bodies_of(node)):
                self.constants.update(str(value.name) for value in node.outputs if value.name)

    def inputs(self, node: ir.Node) -> list[str]:
        """Return the inputs of a node that depend on what is fed, in order."""
        return [str(v.name) for v in node.inputs if v is not None and v.name and v.name not in self.constants]


def ints(node: ir.Node, name: str) -> list[int] | None:
    """Return an integer attribute as a list; None where the node has none."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        return None
    return list(attribute.as_ints()) if attribute.type == ir.AttributeType.INTS else [attribute.as_int()]


def is_copy(node: ir.Node) -> bool:
    """Whether the first output of a node always equals its first input."""
    if node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None:
        return False
    source, result = node.inputs[0], node.outputs[0]
    kind = node.op_type
    if kind == "Identity":
        return True
    if kind == "Dropout":
        mode = node.inputs[2] if len(node.inputs) > 2 else None
        training = constant_tensor(mode)
        return mode is None or (training is not None and not training.numpy().any())
    if kind == "Cast":
        return source.dtype is not None and [int(source.dtype)] == ints(node, "to")
    if kind == "Transpose":
        return (perm := ints(node, "perm")) is not None and perm == sorted(perm)
    if kind in {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand"} or (kind in _LISTS and len(node.inputs) == 1):
        return _same_shape(source, result)
    if kind == "Slice":
        return len(node.inputs) < 5 and _same_shape(source, result)
    if kind == "Pad" and len(node.inputs) > 1:
        return _holds_only(node.inputs[1], 0)
    neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(kind)
    return neutral is not None and _holds_only(node.inputs[1], neutral) and _same_shape(source, result)


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    shapes = (one.shape, other.shape)
    if any(shape is None or not shape.is_static() for shape in shapes):
        return False
    return one.shape == other.shape


def _holds_only(value: ir.Value | None, number: int) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.size <= _SMALL and bool(np.all(tensor.numpy() == number))


def equal_constants(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    """Whether two small constants are equal; taken for granted where one is not known."""
    if one is None or other is None or one.size > _SMALL or other.size > _SMALL:
        return True
    return bool(np.array_equal(one.numpy().reshape(-1), other.numpy().reshape(-1)))


def equality_classes(side: Side) -> dict[str, int]:
    """Number the tensors of a graph so that those that the same operations compute have the same number."""
    numbers: dict[object, int] = {}
    classes: dict[str, int] = {}

    def number(name: str) -> int:
        if name not in classes:
            value = side.graph.initializers.get(name)
            small = None if value is None else _content(value.const_value)
            classes[name] = numbers.setdefault(("tensor", name) if small is None else small, len(numbers))
        return classes[name]

    for node in side.graph:
        if is_copy(node):
            classes[str(node.outputs[0].name)] = number(str(node.inputs[0].name)) if node.inputs[0] is not None else -1
            continue
        key = None if node.op_type in _RANDOM or any(bodies_of(node)) else _operation(node)
        sources = tuple(None if v is None or not v.name else number(v.name) for v in node.inputs)
        for index, value in enumerate(node.outputs):
            own = ("node", id(node), index) if key is None else (key, sources, index)
            classes[str(value.name)] = numbers.setdefault(own, len(numbers))
    return classes


def _operation(node: ir.Node) -> object:
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.is_ref():
            return None
        if attribute.type == ir.AttributeType.TENSOR:
            content = _content(attribute.as_tensor())
            if content is None:
                return None
            attributes.append((name, content))
        else:
            attributes.append((name, repr(attribute.value)))
    return (node.domain, node.op_type, node.overload, tuple(attributes))


def _content(tensor: ir.TensorProtocol | None) -> object:
    """Return what a small constant holds, to be compared; None for a large or unknown one."""
    if tensor is None or tensor.size > _SMALL or isinstance(tensor, ir.ExternalTensor):
        return None
    if tensor.dtype == ir.DataType.STRING:
        return ("strings", tuple(tensor.shape), repr(tensor.numpy().tolist()))
    return (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
