"""Redirected gradients of rectifiers, for activation maximisation."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.overrides.rectifiers import Rectifying, rectified_place, rectifier_table
from onnxviz.gradient.registry import Table
from onnxviz.gradient.step import Step

__all__ = ["redirected_table"]


class _Redirected(Rectifying):
    name = "redirected gradients"


def redirected_table() -> Table:
    """Return the rules that let gradients through dead rectifiers, for a target that is to be maximised.

    The rule of lucid (Olah, Mordvintsev and Schubert 2017, Feature Visualization; ``redirected_relu_grad.py``): where
    the true gradient of a whole sample is zero behind a rectifier, what comes back passes, except that which would push
    an input below 0 further down, or one above the upper bound further up. lucid descends on the negative of its
    objective, so its signs are the other way round.

    >>> redirected_table().method.name
    'redirected gradients'
    """
    return rectifier_table(_Redirected(), _redirected)


def _redirected(s: Step, dy: ir.Value, active: ir.Value) -> ir.Value:
    ops, zero, x = s.ops, s.ops.scalar(0, dy), s[rectified_place(s)]
    if s.y.shape is None or len(s.y.shape) < 2:
        raise s.refuse("redirection looks at whole samples, and no axis of samples is known")
    slope = ops.Mul(dy, _slope(s, dy)) if s.node.op_type in ("LeakyRelu", "PRelu") else zero
    true = ops.Where(active, dy, slope)
    away = ops.And(ops.LessOrEqual(x, zero), ops.Less(dy, zero))
    if s.node.op_type == "Clip" and s.input(2) is not None:
        away = ops.Or(away, ops.And(ops.GreaterOrEqual(x, s[2]), ops.Greater(dy, zero)))
    largest = ops.ReduceMax(ops.Abs(true), ops.ints(*range(1, len(s.y.shape))), keepdims=1)
    return ops.Where(ops.Greater(largest, zero), true, ops.Where(away, zero, dy))


def _slope(s: Step, dy: ir.Value) -> ir.Value:
    return s[1] if s.node.op_type == "PRelu" else s.ops.scalar(s.attr("alpha", 0.01), dy)
