"""Rectified activations, and what guided backpropagation and its kin do at each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.method import Method
from onnxviz.gradient.ops import Ops, label
from onnxviz.gradient.overrides.kinds import scalar_of, true_gradient, wrapped
from onnxviz.gradient.registry import Grads, Rule, Table, standard_table
from onnxviz.gradient.step import Step
from onnxviz.graph.constants import constant_tensor

__all__ = ["Rectified", "Rectifying", "rectified_place", "rectifier_table"]

#: Gets the step, what comes back, and the mask of the elements that the rectifier lets through.
Rectified = Callable[[Step, ir.Value, ir.Value], ir.Value]

_RECTIFIERS = ("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Max")
_SMOOTH = ("Elu", "Selu", "Celu", "Gelu", "HardSwish", "Softplus", "Mish", "Swish", "Erf")  # Erf: of an exported GELU
_COPIES = ("Cast", "CastLike", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Identity")
_RECURRENT = ("RNN", "GRU", "LSTM")


class Rectifying(Method):
    """A method that differs from the true gradient at rectifiers."""

    def begin(
        self, ops: Ops, nodes: Sequence[ir.Node], end: ir.Value, asked: Sequence[ir.Value]
    ) -> list[ir.Node]:  # fmt: skip
        """Return the list that gets the rectifiers."""
        return []

    def remarks(self, plan: list[ir.Node]) -> tuple[str, ...]:
        """Tell where no rectifier was met, so that the true gradient was carried."""
        return () if plan else (f"{self.name}: no rectifier lies on the way, so that this is the true gradient",)


def rectifier_table(method: Method, rule: Rectified) -> Table:
    """Return the true gradients with another rule at rectifiers.

    Rectifiers are Relu, LeakyRelu, PRelu, ThresholdedRelu, Clip from 0 (ReLU6) and Max with a constant 0. At smooth
    activations the true gradient stays, and a note says so; a recurrent operator whose activation is a rectifier, which
    no rule reaches, is refused.
    """

    def rectify(s: Step, dy: ir.Value) -> Grads:
        mask = _active(s, dy)
        if mask is None:
            if s.node.op_type == "Clip" and s.input(1) is not None and _constant(s[1]) is None:
                s.walk.notes.append(
                    f"Clip at {label(s.node)!r}: its lower bound is computed, so that it may be no rectifier; "
                    "the true gradient is used"
                )
            return true_gradient(s, dy)
        s.walk.plan.append(s.node)
        place = rectified_place(s)
        rest: list[ir.Value | None] = [None] * len(s.node.inputs)
        if any(s.need(other) for other in range(len(s.node.inputs)) if other != place):
            rest = list(true_gradient(s, dy))
        rest[place] = rule(s, dy, mask) if s.need(place) else None
        return tuple(rest)

    table = standard_table()
    rows = table.rows | wrapped(_RECTIFIERS, rectify) | wrapped(_SMOOTH, _noted(method))
    rows |= wrapped(["Gelu"], _noted(method), "com.microsoft") | wrapped(_RECURRENT, _without_rectifier)
    return Table(rows, table.none, method)


def _active(s: Step, dy: ir.Value) -> ir.Value | None:
    """Return where the input is let through with slope 1; None where the node is no rectifier."""
    ops, zero, op_type = s.ops, s.ops.scalar(0, dy), s.node.op_type
    if op_type == "ThresholdedRelu":
        return ops.Greater(s[0], ops.scalar(s.attr("alpha", 1.0), dy))
    if op_type == "Clip":
        low, upper = s.input(1), s.input(2)
        high = _constant(upper) if upper is not None else None
        if low is None or scalar_of(_constant(low)) != 0 or (upper is not None and not (scalar_of(high) or 0) > 0):
            return None
        above = ops.Greater(s[0], zero)
        return above if upper is None else ops.And(above, ops.Less(s[0], upper))
    if op_type == "Max":
        place = rectified_place(s)
        known = _constant(s[1 - place]) if len(s.node.inputs) == 2 else None
        return None if known is None or np.any(known) else ops.Greater(s[place], zero)
    return ops.Greater(s.y if op_type == "Relu" else s[0], zero)


def rectified_place(s: Step) -> int:
    """Return which operand of a rectifier is rectified."""
    return 1 if s.node.op_type == "Max" and _constant(s[0]) is not None else 0


def _constant(value: ir.Value, depth: int = 8) -> np.ndarray | None:
    """Return what a tensor always holds, copied, cast or enlarged, of any shape; None where it is computed."""
    tensor = constant_tensor(value)
    if tensor is not None:
        return tensor.numpy()
    node = value.producer()
    if node is None or not depth:
        return None
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return np.zeros(1) if filled is None else filled.as_tensor().numpy()
    if node.op_type not in _COPIES or node.inputs[0] is None:
        return None
    found = _constant(node.inputs[0], depth - 1)
    whole = node.op_type == "Cast" and value.dtype is not None and not value.dtype.is_floating_point()
    return None if whole else found


def _noted(method: Method) -> Rule:
    def rule(s: Step, dy: ir.Value) -> Grads:
        s.walk.notes.append(
            f"{s.node.op_type} at {label(s.node)!r}: {method.name} is of rectifiers; the true gradient is used"
        )
        return true_gradient(s, dy)

    return rule


def _without_rectifier(s: Step, *dys: ir.Value | None) -> Grads:
    kinds = [str(kind).lower() for kind in s.attr("activations", ())]
    found = [kind for kind in kinds if kind.endswith("relu")]
    if found:
        raise s.refuse(f"its activation {found[0]} has the rule of {s.walk.table.method.name}, which does not reach it")
    return true_gradient(s, *dys)
