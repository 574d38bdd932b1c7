"""Rectified activations, and what guided backpropagation and its kin do at each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.method import Method
from onnxviz.gradient.ops import Step, label
from onnxviz.gradient.overrides.kinds import scalar_of, true_gradient, wrapped
from onnxviz.gradient.registry import Grads, Rule, Table, standard_table

__all__ = ["Rectified", "rectifier_table"]

#: Gets the step, what comes back, and the mask of the elements that the rectifier lets through.
Rectified = Callable[[Step, ir.Value, ir.Value], ir.Value]

_RECTIFIERS = ("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Max")
_SMOOTH = ("Elu", "Selu", "Celu", "Gelu", "HardSwish", "Softplus", "Mish", "Swish", "Erf")  # Erf: of an exported GELU
_RECURRENT = ("RNN", "GRU", "LSTM")


def rectifier_table(method: Method, rule: Rectified) -> Table:
    """Return the true gradients with another rule at rectifiers.

    Rectifiers are Relu, LeakyRelu, PRelu, ThresholdedRelu, Clip from 0 (ReLU6) and Max with a constant 0. At smooth
    activations the true gradient stays, and a note says so; a recurrent operator whose activation is a rectifier, which
    no rule reaches, is refused.
    """

    def rectify(s: Step, dy: ir.Value) -> Grads:
        mask = _active(s, dy)
        if mask is None:
            return true_gradient(s, dy)
        place = 1 if s.node.op_type == "Max" and s.known(0) is not None else 0
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
        high = s.input(2)
        if scalar_of(s.known(1)) != 0 or (high is not None and not (scalar_of(s.known(2)) or 0) > 0):
            return None
        above = ops.Greater(s[0], zero)
        return above if high is None else ops.And(above, ops.Less(s[0], high))
    if op_type == "Max":
        if len(s.node.inputs) != 2:
            return None
        for place in (0, 1):
            known = s.known(place)
            if known is not None and not np.any(known):
                return ops.Greater(s[1 - place], zero)
        return None
    return ops.Greater(s.y if op_type == "Relu" else s[0], zero)


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
