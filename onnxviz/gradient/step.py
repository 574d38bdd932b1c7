"""A forward node as its rule sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.ops import Ops, label
from onnxviz.graph.constants import constant_tensor

if TYPE_CHECKING:
    from onnxviz.gradient.build import Walk

__all__ = ["Step"]


@dataclass(frozen=True, eq=False)
class Step:
    """A forward node as its rule sees it.

    Attributes:
        ops: Writes the backward nodes.
        node: The forward node; opset 18 or later.
        needs: For each input, whether its gradient is asked for.
        version: Version of the operator: the opset in which it last changed.
        walk: The walk, for rules that take one through the node's bodies.
        outside: Tensors around the node that its bodies read and whose gradients are asked for.
        inside: Tensors in its bodies whose gradients are asked for.
        found: Takes the gradients of ``outside`` and ``inside``.
        dropped: Takes the inputs to which a rule carries nothing back, by its definition.
    """

    ops: Ops
    node: ir.Node
    needs: tuple[bool, ...]
    version: int
    walk: Walk
    outside: tuple[ir.Value, ...] = ()
    inside: tuple[ir.Value, ...] = ()
    found: dict[ir.Value, ir.Value] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    def __getitem__(self, place: int) -> ir.Value:
        """Return an input that the node has; a damaged model's may lack it."""
        value = self.input(place)
        if value is None:
            raise self.refuse(f"it has no input {place}")
        return value

    def input(self, place: int) -> ir.Value | None:
        """Return an input, or None where the node has none there."""
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def need(self, place: int) -> bool:
        """Whether the gradient of an input is asked for."""
        return place < len(self.needs) and self.needs[place]

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.node.outputs[0]

    def output(self, place: int) -> ir.Value:
        """Return an output, which the node gets where it has none there."""
        while len(self.node.outputs) <= place:
            self.node.resize_outputs(len(self.node.outputs) + 1)
        value = self.node.outputs[place]
        if not value.name:
            value.name = self.ops.name(f"{self.node.op_type}_{place}")
        return value

    def attr(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute; lists as tuples, text as str."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        value = attribute.value
        return tuple(value) if isinstance(value, (list, tuple)) else value

    def rank(self, place: int = 0) -> int | None:
        """Return the rank of an input, or None where it is not known."""
        value = self.input(place)
        return None if value is None or value.shape is None else len(value.shape)

    def refuse(self, why: str) -> GradientError:
        """Return the error of a form that the rule does not have; raise it."""
        return GradientError(
            f"there is no {self.walk.table.method.gives} of {self.node.op_type}-{self.version} at "
            f"{label(self.node)!r}: {why}",
            hint="--allow-cut goes on without the paths through it",
        )

    def axis(self, default: int, name: str = "axis") -> int:
        """Return an axis attribute, counted from the front where the rank is known."""
        axis = int(self.attr(name, default))
        rank = self.rank()
        return axis + rank if axis < 0 and rank is not None else axis

    def known(self, place: int) -> np.ndarray | None:
        """Return the values of an input that is constant, else None."""
        tensor = constant_tensor(self.input(place))
        return None if tensor is None else np.asarray(tensor.numpy())
