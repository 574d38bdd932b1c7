"""Sums, products, powers and what else takes tensors and broadcasts them."""

from __future__ import annotations

from functools import reduce

import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step


@gradient("Add", broadcasts=True)
def add(s: Step, dy: ir.Value) -> Grads:
    return dy, dy


@gradient("Sub", broadcasts=True)
def sub(s: Step, dy: ir.Value) -> Grads:
    return dy, s.ops.Neg(dy) if s.need(1) else None


@gradient("Mul", broadcasts=True)
def mul(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s[1]) if s.need(0) else None, s.ops.Mul(dy, s[0]) if s.need(1) else None


@gradient("Div", broadcasts=True)
def div(s: Step, dy: ir.Value) -> Grads:
    quotient = s.ops.Div(dy, s[1])
    return quotient, s.ops.Neg(s.ops.Mul(quotient, s.y)) if s.need(1) else None


@gradient("Pow", broadcasts=True)
def power(s: Step, dy: ir.Value) -> Grads:
    """As PyTorch: the base's gradient is 0 where the exponent is, the exponent's is 0 where the base is 0."""
    ops, base = s.ops, s[0]
    exponent, zero = ops.cast(s[1], dy), ops.scalar(0, dy)
    db = de = None
    if s.need(0):
        known = s.known(1)
        if known is not None and known.size == 1 and float(known.reshape(())) == 2:
            db = ops.Mul(dy, ops.Mul(base, ops.scalar(2, dy)))
        else:
            less = ops.Pow(base, ops.Sub(exponent, ops.scalar(1, dy)))
            db = ops.Mul(dy, ops.Where(ops.Equal(exponent, zero), zero, ops.Mul(exponent, less)))
    if s.need(1):
        positive = ops.Where(ops.Equal(base, zero), ops.scalar(1, dy), base)
        de = ops.Mul(dy, ops.Where(ops.Equal(base, zero), zero, ops.Mul(s.y, ops.Log(positive))))
    return db, de


@gradient("Mod", broadcasts=True)
def modulo(s: Step, dy: ir.Value) -> Grads:
    """``fmod(a, b) = a - trunc(a / b) · b``, and ``floor`` in place of ``trunc`` without ``fmod``."""
    if not s.need(1):
        return dy
    ops = s.ops
    whole = ops.Div(ops.Sub(s.y, s[0]), s[1])
    return dy, ops.Mul(dy, ops.Round(whole))


@gradient("Sum", broadcasts=True)
def total(s: Step, dy: ir.Value) -> Grads:
    return (dy,) * len(s.node.inputs)


@gradient("Mean", broadcasts=True)
def mean(s: Step, dy: ir.Value) -> Grads:
    part = s.ops.Div(dy, s.ops.scalar(len(s.node.inputs), dy))
    return (part,) * len(s.node.inputs)


@gradient("Max", "Min", broadcasts=True)
def extreme(s: Step, dy: ir.Value) -> Grads:
    """Equal ones share the gradient evenly, as PyTorch's ``maximum`` does."""
    ops, one = s.ops, s.ops.scalar(1, dy)
    if len(s.node.inputs) == 1:
        return dy
    zero = ops.scalar(0, dy)
    hits = [ops.Where(ops.Equal(s[i], s.y), one, zero) for i in range(len(s.node.inputs))]
    share = ops.Div(dy, ops.Max(ops.add(hits) if len(hits) < 3 else reduce(ops.Add, hits), one))
    return tuple(ops.Mul(share, hit) if s.need(i) else None for i, hit in enumerate(hits))


@gradient("Where", broadcasts=True)
def where(s: Step, dy: ir.Value) -> Grads:
    ops, zero = s.ops, s.ops.scalar(0, dy)
    return (
        None,
        ops.Where(s[0], dy, zero) if s.need(1) else None,
        ops.Where(s[0], zero, dy) if s.need(2) else None,
    )


@gradient("Clip", since=11)
def clip(s: Step, dy: ir.Value) -> Grads:
    """As PyTorch's ``clamp``: at a bound the gradient passes; where the bounds cross, the upper one holds."""
    ops, zero = s.ops, s.ops.scalar(0, dy)
    low, high = s.input(1), s.input(2)
    inside = dy
    dlow = dhigh = None
    if low is not None:
        below = ops.Less(s[0], low)
        inside, lower = ops.Where(below, zero, inside), ops.Where(below, dy, zero)
    if high is not None:
        inside = ops.Where(ops.Greater(s[0], high), zero, inside)
        raised = s[0] if low is None else ops.Max(s[0], low)
        dhigh = _summed(s, ops.Where(ops.Greater(raised, high), dy, zero)) if s.need(2) else None
        if low is not None:
            lower = ops.Where(ops.Greater(low, high), zero, lower)
    if low is not None and s.need(1):
        dlow = _summed(s, lower)
    return inside, dlow, dhigh


def _summed(s: Step, value: ir.Value) -> ir.Value:
    return s.ops.ReduceSum(value, keepdims=0)


@gradient("Identity", quantised=True)
def identity(s: Step, dy: ir.Value) -> Grads:
    return dy


@gradient("Cast", "CastLike")
def passed(s: Step, dy: ir.Value) -> Grads:
    return s.ops.cast(dy, s[0])
