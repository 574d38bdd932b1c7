"""Bounds of tensors by interval arithmetic: from inputs that may be any finite number, without running anything.

A tensor has one interval, that of all its elements. An operator without a rule gives an unbounded one, and so does an
operator whose rule cannot say more. An element may be anything within its interval as far as the rules know, so an
interval that leaves a number out is a proof that the number does not occur (up to rounding); one that holds it is none
that it does. Relations between tensors are lost, but for those that hand-written softmax and norms rest on: ``x * x``,
``x - max(x)``, and the sum of its exponentials. Sizes of open dimensions are 1 or more.

Source: R. E. Moore, Interval Analysis, 1966.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.checks.reading import read_array
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of

__all__ = ["UNBOUNDED", "Bounds", "Known", "tensor_bounds", "value_bounds"]

INF = math.inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval that holds each element of a tensor.

    Attributes:
        low: No element is smaller.
        high: No element is larger.
        nonzero: No element is 0, although 0 may lie between the two.
    """

    low: float = -INF
    high: float = INF
    nonzero: bool = False

    @property
    def may_be_zero(self) -> bool:
        """Whether 0 cannot be ruled out."""
        return self.low <= 0 <= self.high and not self.nonzero

    @property
    def magnitude(self) -> float:
        """The largest absolute value that is possible."""
        return max(abs(self.low), abs(self.high))

    def union(self, other: Bounds) -> Bounds:
        """Return the interval around both."""
        nonzero = not self.may_be_zero and not other.may_be_zero
        return Bounds(min(self.low, other.low), max(self.high, other.high), nonzero)


UNBOUNDED = Bounds()
Rule = Callable[[ir.Node, "Known"], "Bounds | None"]


class Known:
    """The bounds that are known while the nodes of a model are gone through in their order."""

    def __init__(self) -> None:
        self._found: dict[ir.Value, Bounds] = {}

    def of(self, value: ir.Value | None) -> Bounds:
        """Return the bounds of a value; a constant is read when it is first asked for."""
        if value is None:
            return UNBOUNDED
        found = self._found.get(value)
        if found is None:
            tensor = None if value.is_graph_input() else constant_tensor(value)
            found = UNBOUNDED if tensor is None else tensor_bounds(tensor)
            self._found[value] = found
        return found

    def input(self, node: ir.Node, index: int = 0) -> Bounds:
        """Return the bounds of an input of a node; unbounded where it has none."""
        return self.of(node.inputs[index]) if index < len(node.inputs) else UNBOUNDED

    def set(self, value: ir.Value, bounds: Bounds) -> None:
        """Note the bounds of a value."""
        self._found[value] = bounds


def tensor_bounds(tensor: ir.TensorProtocol) -> Bounds:
    """Return the smallest and largest element of a tensor; unbounded where it has none that count or cannot be read.

    >>> import numpy as np
    >>> tensor_bounds(ir.Tensor(np.array([3.0, 1.0], np.float32)))
    Bounds(low=1.0, high=3.0, nonzero=True)
    """
    if tensor.dtype == ir.DataType.STRING or tensor.size == 0:
        return UNBOUNDED
    try:
        array = read_array(tensor)
    except CheckError:  # nothing is known of it; checks of weights tell why
        return UNBOUNDED
    if array.dtype.kind == "c":
        return UNBOUNDED
    if array.dtype.kind == "b":
        return Bounds(float(array.min()), float(array.max()))
    low, high = float(array.min()), float(array.max())
    if math.isnan(low) or math.isnan(high):
        return UNBOUNDED
    return Bounds(low, high, array.size <= 4096 and not bool((array == 0).any()))


def value_bounds(graph: ir.Graph, rules: Mapping[str, Rule], visit: Callable[[ir.Node, Known], None]) -> Known:
    """Bound the tensors of a graph, bodies included, and visit each node once the bounds of its inputs are known.

    Args:
        graph: With its nodes in topological order and functions inlined; types and shapes inferred where they can be.
        rules: Operator -> what bounds its first output. What one returns None for, and every other output of it, is
            unbounded, except of operators of the standard domains only.
        visit: Called with each node and what is known.
    """
    known = Known()
    _walk(graph, rules, visit, known)
    return known


def _walk(graph: ir.Graph, rules: Mapping[str, Rule], visit: Callable[[ir.Node, Known], None], known: Known) -> None:
    for node in graph:
        visit(node, known)
        bodies = list(bodies_of(node))
        for body in bodies:
            _walk(body, rules, visit, known)
        if node.op_type == "If" and bodies:
            for index, output in enumerate(node.outputs):
                branches = [known.of(body.outputs[index]) for body in bodies if index < len(body.outputs)]
                known.set(output, _hull(branches))
            continue
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
        found = None if rule is None else rule(node, known)
        if found is not None:
            for output in node.outputs if node.op_type == "Split" else node.outputs[:1]:
                known.set(output, _tidy(found))


def _hull(several: list[Bounds]) -> Bounds:
    if not several:
        return UNBOUNDED
    hull = several[0]
    for bounds in several[1:]:
        hull = hull.union(bounds)
    return hull


def _tidy(found: Bounds) -> Bounds:
    low = -INF if np.isnan(found.low) else float(found.low)
    high = INF if np.isnan(found.high) else float(found.high)
    return UNBOUNDED if low > high else Bounds(low, high, found.nonzero)
