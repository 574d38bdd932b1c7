"""What decides how an operator passes positions on besides its inputs' sights: opset, functions, small tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.contents import CONTENT_RULES, MALFORMED, Content, Known, attribute

__all__ = ["Facts", "is_given"]

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_SMALL = 64  # elements of a tensor that is read
_WHOLE = (ir.DataType.INT64, ir.DataType.INT32)


@dataclass
class Facts:
    """What is known of a model, node by node in its order.

    Attributes:
        known: Shapes and the contents of small vectors.
        functions: The operators that the model itself defines.
        arrays: The contents of small tensors of more than one axis.
    """

    known: Known
    functions: frozenset[ir.OperatorIdentifier] = frozenset()
    arrays: dict[ir.Value, np.ndarray[Any, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model) -> Facts:
        """Return what holds before the first node."""
        opsets = model.graph.opset_imports
        return cls(Known(opsets.get("", opsets.get("ai.onnx", 1))), frozenset(model.functions))

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.known.opset

    def is_standard(self, node: ir.Node) -> bool:
        """Whether an operator is what its name says: not a function of the model or of someone else's domain."""
        return node.domain in _DOMAINS and node.op_identifier() not in self.functions

    def follow(self, node: ir.Node) -> None:
        """Note what the first output holds, if that is a few whole numbers on their way to a shape or to pads."""
        if not node.outputs or not node.inputs or not self.is_standard(node):
            return
        try:
            array = _MOVES[node.op_type](self, node) if node.op_type in _MOVES else None
            content = self._computed(node) if array is None else None
        except MALFORMED:
            return
        if array is not None and array.ndim <= 1:
            content = Content(tuple(array.reshape(-1).tolist()), array.ndim == 0)
        elif array is not None:
            self.arrays[node.outputs[0]] = array
        if content is not None:
            self.known.contents[node.outputs[0]] = content

    def _computed(self, node: ir.Node) -> Content | None:
        rule = CONTENT_RULES.get(node.op_type)
        dims = self.known.shape(node.outputs[0])
        if rule is None or dims is None or len(dims) > 1 or (dims and isinstance(dims[0], int) and dims[0] > _SMALL):
            return None
        return rule(node, self.known)

    def array(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """Return what a small tensor of whole numbers holds: sizes, open ones among them."""
        if value is None:
            return None
        if (found := self.arrays.get(value)) is not None:
            return found
        if (content := self.known.content(value)) is not None:
            made = np.empty(len(content.elements), object)
            made[:] = content.elements
            return made.reshape(()) if content.scalar else made
        tensor = constant_tensor(value)
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in _WHOLE:
            return None
        return tensor.numpy().astype(object) if tensor.size <= _SMALL else None

    def elements(self, node: ir.Node, index: int) -> list[Any] | None:
        """Return the elements of a small input, None for those that are open; None where not even their count is known.

        Floats are read from constants in the file itself alone.
        """
        value = node.inputs[index] if index < len(node.inputs) else None
        tensor = constant_tensor(value)
        try:
            if tensor is None:
                array = self.array(value)
                found = None if array is None else array.reshape(-1).tolist()
                return None if found is None else [n if isinstance(n, int) else None for n in found]
            if isinstance(tensor, ir.ExternalTensor) or tensor.size > _SMALL:
                return None
            numbers = tensor.numpy().reshape(-1).tolist()
            return [n if isinstance(n, (int, float)) and abs(n) < 2**64 else None for n in numbers]
        except MALFORMED:
            return None  # a damaged tensor

    def numbers(self, node: ir.Node, index: int) -> list[float] | None:
        """Return the elements of a small input that is known throughout."""
        found = self.elements(node, index)
        return None if found is None or any(n is None for n in found) else [float(n) for n in found]

    def whole(self, node: ir.Node, name: str, index: int) -> list[int | None] | None:
        """Return what older opsets hold in an attribute and newer ones in an input; None for what is open."""
        given = node.attributes.get(name)
        if given is not None and not given.is_ref():
            value = [given.value] if isinstance(given.value, int) else given.value
            fits = isinstance(value, (list, tuple)) and all(isinstance(n, int) and abs(n) < 2**64 for n in value)
            return list(value) if fits else None
        found = self.elements(node, index)
        return None if found is None else [int(n) if n is not None and n == int(n) else None for n in found]


def _integers(facts: Facts, node: ir.Node, name: str, index: int) -> list[int] | None:
    found = facts.whole(node, name, index)
    return None if found is None or any(n is None for n in found) else [n for n in found if n is not None]


def _same(facts: Facts, node: ir.Node) -> np.ndarray[Any, Any] | None:
    return None if attribute(node, "to") == ir.DataType.BOOL else facts.array(node.inputs[0])


def _reshaped(facts: Facts, node: ir.Node) -> np.ndarray[Any, Any] | None:
    data, target = facts.array(node.inputs[0]), _integers(facts, node, "shape", 1)
    if data is None or target is None or len(target) > 8:
        return None
    return data.reshape([data.shape[i] if size == 0 else size for i, size in enumerate(target)])


def _transposed(facts: Facts, node: ir.Node) -> np.ndarray[Any, Any] | None:
    data = facts.array(node.inputs[0])
    return None if data is None else data.transpose(attribute(node, "perm"))


def _sliced(facts: Facts, node: ir.Node) -> np.ndarray[Any, Any] | None:
    data = facts.array(node.inputs[0])
    starts, ends = _integers(facts, node, "starts", 1), _integers(facts, node, "ends", 2)
    if data is None or starts is None or ends is None:
        return None
    axes = _integers(facts, node, "axes", 3) if is_given(node, "axes", 3) else list(range(len(starts)))
    steps = _integers(facts, node, "steps", 4) if is_given(node, "steps", 4) else [1] * len(starts)
    if axes is None or steps is None:
        return None
    where = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, None if step < 0 and end < -data.shape[axis] else end, step)
    return data[tuple(where)]


def is_given(node: ir.Node, name: str, index: int) -> bool:
    """Whether a node has something, as an attribute or as an input."""
    return name in node.attributes or (index < len(node.inputs) and node.inputs[index] is not None)


_MOVES: dict[str, Callable[[Facts, ir.Node], np.ndarray[Any, Any] | None]] = {
    "Identity": _same,
    "Cast": _same,
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "Slice": _sliced,
}
