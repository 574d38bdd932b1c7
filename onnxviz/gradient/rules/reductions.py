"""Sums, means, extremes and norms over axes."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient, no_gradient
from onnxviz.gradient.step import Step

no_gradient("it returns positions", "ArgMax", "ArgMin", "NonZero")


def _axes(s: Step) -> ir.Value | None:
    """Return the axes that are reduced as int64; None for all; an empty vector for none."""
    axes = s.input(1)
    known = s.known(1)
    if axes is None or (known is not None and not known.size):
        return s.ops.ints() if s.attr("noop_with_empty_axes", 0) else None
    return axes


def _kept(s: Step, value: ir.Value, axes: ir.Value | None) -> ir.Value:
    """Return what has the shape of the output with the reduced axes as sizes of 1."""
    if s.attr("keepdims", 1):
        return value
    if axes is None:
        rank = s.rank()
        if rank is not None:
            return s.ops.Reshape(value, s.ops.ints(*[1] * rank))
        return s.ops.Reshape(value, s.ops.Expand(s.ops.integer(1), s.ops.Shape(s.ops.Shape(s[0]))))
    known = s.known(1)
    if known is not None:
        return s.ops.Unsqueeze(value, axes) if known.size else value
    ones = s.ops.ReduceSum(s[0], axes, keepdims=1, noop_with_empty_axes=s.attr("noop_with_empty_axes", 0))
    return s.ops.Reshape(value, s.ops.Shape(ones), allowzero=1)


def _spread(s: Step, value: ir.Value) -> ir.Value:
    """Return a tensor of the input's shape with the value of its sum at each place."""
    return s.ops.Expand(_kept(s, value, _axes(s)), s.ops.shape(s[0]))


@gradient("ReduceSum", since=13)
def reduce_sum(s: Step, dy: ir.Value) -> Grads:
    return _spread(s, dy)


@gradient("ReduceMean", since=18)
def reduce_mean(s: Step, dy: ir.Value) -> Grads:
    ops = s.ops
    count = ops.Div(ops.Size(s[0]), ops.Size(s.y))
    known = s.known(1)
    rank = s.rank()
    if rank is not None and (s.input(1) is None or known is not None):
        axes = range(rank) if known is None or not known.size else [int(axis) % rank for axis in known]
        skipped = (known is None or not known.size) and s.attr("noop_with_empty_axes", 0)
        return _spread(s, ops.Div(dy, ops.count(s[0], [] if skipped else axes, dy)))
    return _spread(s, ops.Div(dy, ops.cast(count, dy)))


@gradient("ReduceSumSquare", since=18)
def reduce_sum_square(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(_spread(s, dy), s.ops.Mul(s[0], s.ops.scalar(2, dy)))


@gradient("ReduceL1", since=18)
def reduce_l1(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(_spread(s, dy), s.ops.Sign(s[0]))


@gradient("ReduceL2", since=18)
def reduce_l2(s: Step, dy: ir.Value) -> Grads:
    """0 where the norm is 0, as PyTorch."""
    ops, zero = s.ops, s.ops.scalar(0, dy)
    none = ops.Equal(s.y, zero)
    ratio = ops.Where(none, zero, ops.Div(dy, ops.Where(none, ops.scalar(1, dy), s.y)))
    return ops.Mul(_spread(s, ratio), s[0])


@gradient("ReduceLogSum", since=18)
def reduce_log_sum(s: Step, dy: ir.Value) -> Grads:
    return _spread(s, s.ops.Div(dy, s.ops.Exp(s.y)))


@gradient("ReduceLogSumExp", since=18)
def reduce_log_sum_exp(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(_spread(s, dy), s.ops.Exp(s.ops.Sub(s[0], _spread(s, s.y))))


@gradient("ReduceMax", "ReduceMin", since=18)
def reduce_extreme(s: Step, dy: ir.Value) -> Grads:
    """Equal ones share the gradient evenly, as PyTorch's ``amax`` does."""
    ops, axes = s.ops, _axes(s)
    hit = ops.cast(ops.Equal(s[0], _kept(s, s.y, axes)), dy)
    inputs = (hit,) if axes is None else (hit, axes)
    hits = ops.ReduceSum(*inputs, keepdims=1, noop_with_empty_axes=s.attr("noop_with_empty_axes", 0))
    return ops.Mul(hit, ops.Div(_kept(s, dy, axes), hits))


@gradient("ReduceProd", since=18)
def reduce_prod(s: Step, dy: ir.Value) -> Grads:
    """The product of the others, right where one of them is 0 too."""
    ops, axes, x = s.ops, _axes(s), s[0]
    zero, one = ops.scalar(0, dy), ops.scalar(1, dy)

    def over(op_type: str, value: ir.Value) -> ir.Value:
        inputs = (value,) if axes is None else (value, axes)
        return ops.node(
            op_type, *inputs, keepdims=1, noop_with_empty_axes=s.attr("noop_with_empty_axes", 0)
        )  # fmt: skip

    is_zero = ops.Equal(x, zero)
    others = over("ReduceProd", ops.Where(is_zero, one, x))  # the product of what is not 0
    zeros = over("ReduceSum", ops.cast(is_zero, dy))
    where_zero = ops.Where(ops.Equal(zeros, one), others, zero)  # 0 alone among its own
    where_not = ops.Where(ops.Equal(zeros, zero), ops.Div(others, ops.Where(is_zero, one, x)), zero)
    return ops.Mul(_kept(s, dy, axes), ops.Where(is_zero, where_zero, where_not))
