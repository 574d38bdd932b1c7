"""What tells a node from others when two models are laid side by side: what it reads, and what its constants hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable

import numpy as np
import onnx_ir as ir

from onnxviz.graph.canonical import COMMUTATIVE
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of

__all__ = ["Fingerprints", "Key", "Sources", "first_weight"]

#: Operator and what is read; two nodes with equal keys do the same with the same, attributes and weights aside.
Key = tuple[Hashable, ...]
_LEAST = 4  # elements of a weight from which it tells a node
_COPIES = frozenset({"Identity", "Cast"})
_STANDARD = ("", "ai.onnx")


class Sources:
    """What values are made of when copies, casts and quantisation are looked through."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, ir.Value | None] = {}

    def of(self, value: ir.Value) -> ir.Value | None:
        """Return the value that another one is a copy of, itself if of none; None for a constant.

        >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
        ...   g (float[2] x) => (float[2] y) {h = Cast<to = 10>(x) y = Cast<to = 1>(h)}''')
        >>> Sources().of(model.graph.outputs[0]).name
        'x'
        """
        chain = []
        current: ir.Value | None = value
        while current is not None and current not in self._known:
            chain.append(current)
            if constant_tensor(current) is not None:
                current = None
                break
            before = _before(current)
            if before is current:
                break
            current = before
        found = self._known.get(current, current) if current is not None else None
        self._known.update(dict.fromkeys(chain, found))
        return found

    def key(self, node: ir.Node, name_of: Callable[[ir.Value], str | None]) -> Key | None:
        """Return the key of a node; None while the name of a tensor that it reads is not known."""
        parts: list[tuple[str, Hashable]] = []
        for value in node.inputs:
            if value is None:
                parts.append(("none", ""))
                continue
            source = self.of(value)
            if source is None:
                parts.append(("constant", _shape(value)))
                continue
            name = name_of(source)
            if name is None:
                return None
            parts.append(("tensor", name))
        if node.op_type in COMMUTATIVE and node.domain in _STANDARD:
            parts.sort(key=repr)
        return (node.domain if node.domain not in _STANDARD else "", node.op_type, *parts)


def _before(value: ir.Value) -> ir.Value:
    """Return what a value is a copy of, one step back; itself where it is none."""
    node = value.producer()
    if node is None or node.domain not in _STANDARD or not node.inputs or node.inputs[0] is None:
        return value
    if node.op_type in _COPIES:
        return node.inputs[0]
    if node.op_type == "DequantizeLinear":
        codes = node.inputs[0].producer()
        if codes is None or constant_tensor(node.inputs[0]) is not None:
            return node.inputs[0]
        if codes.op_type == "QuantizeLinear" and codes.inputs[0] is not None:
            return codes.inputs[0]
    return value


def _shape(value: ir.Value) -> Hashable:
    tensor = constant_tensor(value)
    if tensor is None:  # behind a Cast or a DequantizeLinear
        before = _before(value)
        return _shape(before) if before is not value else None
    return tuple(int(size) for size in tensor.shape if isinstance(size, int))


def first_weight(node: ir.Node) -> ir.TensorProtocol | None:
    """Return the first constant of floats that is large enough to tell a node from others."""
    for value in node.inputs:
        tensor = constant_tensor(value)
        if tensor is not None and tensor.size >= _LEAST and tensor.dtype.is_floating_point():
            return tensor
    return None


class Fingerprints:
    """Digests of what nodes hold, to the precision of float16: a model that was converted to it is recognised."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ir.TensorProtocol, str]] = {}

    def weight(self, node: ir.Node) -> str:
        """Return a digest of the operator and its first large weight; empty where it has none.

        >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
        ...   g (float[1, 2] x) => (float[1, 2] y) {y = Neg(x)}''')
        >>> Fingerprints().weight(model.graph.node(0))
        ''
        """
        tensor = first_weight(node)
        return "" if tensor is None else f"{node.op_type} {self._digest(tensor)}"

    def whole(self, node: ir.Node) -> Hashable:
        """Return what two nodes share whose attributes and constants are all equal."""
        attributes = []
        for name, attribute in sorted(node.attributes.items()):
            if attribute.is_ref():
                attributes.append((name, "reference"))
            elif attribute.type == ir.AttributeType.TENSOR:
                attributes.append((name, self._digest(attribute.as_tensor())))
            elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                attributes.append((name, repr(attribute.value)))
        bodies = tuple(tuple(inner.op_type for inner in body) for body in bodies_of(node))
        tensors = (constant_tensor(value) for value in node.inputs)
        constants = tuple("" if tensor is None else self._digest(tensor) for tensor in tensors)
        return (tuple(attributes), constants, bodies)

    def _digest(self, tensor: ir.TensorProtocol) -> str:
        if id(tensor) not in self._known:
            array = tensor.numpy()
            if tensor.dtype == ir.DataType.STRING:
                data = repr(array.tolist()).encode()
            elif tensor.dtype.is_floating_point():
                with np.errstate(over="ignore"):
                    data = array.astype(np.float16).tobytes()
            else:
                data = array.tobytes()
            head = f"{tuple(array.shape)} ".encode()
            self._known[id(tensor)] = (tensor, hashlib.sha256(head + data).hexdigest())  # holding it keeps its id
        return self._known[id(tensor)][1]
