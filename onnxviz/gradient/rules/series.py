"""Series: ranges, running products, Fourier transforms."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step


@gradient("Range")
def range_(s: Step, dy: ir.Value) -> Grads:
    """``start + i · delta``; the limit only says how many."""
    ops = s.ops
    numbers = ops.Range(ops.integer(0), ops.Squeeze(ops.dim(s.y, 0)), ops.integer(1))
    slope = ops.ReduceSum(ops.Mul(dy, ops.cast(numbers, dy)), keepdims=0) if s.need(2) else None
    nothing = ops.scalar(0, dy) if s.need(1) else None
    return ops.reshape(ops.ReduceSum(dy, keepdims=0), s[0]), nothing, slope


@gradient("CumProd")
def cumulative_product(s: Step, dy: ir.Value) -> Grads:
    """The sum of the products without the number itself, right where some numbers are 0 too."""
    ops, x, axis = s.ops, s[0], s[1]
    exclusive, reverse = s.attr("exclusive", 0), s.attr("reverse", 0)
    zero, one = ops.scalar(0, dy), ops.scalar(1, dy)
    is_zero = ops.Equal(x, zero)
    safe = ops.Where(is_zero, one, x)
    products = ops.CumProd(safe, axis, exclusive=exclusive, reverse=reverse)
    zeros = ops.CumSum(ops.cast(is_zero, dy), axis, exclusive=exclusive, reverse=reverse)

    def back(wanted: ir.Value) -> ir.Value:
        part = ops.Mul(dy, ops.Where(ops.Equal(zeros, wanted), products, zero))
        return ops.CumSum(part, axis, exclusive=exclusive, reverse=1 - reverse)

    return ops.Where(is_zero, back(one), ops.Div(back(zero), safe))


@gradient("DFT", since=17)
def fourier(s: Step, dy: ir.Value) -> Grads:
    """The transform is linear; its adjoint is the inverse transform times N (see docs.scipy.org/doc/scipy, fft).

    Complex numbers are pairs on the last axis, and so are their gradients: ``dL/dRe + i dL/dIm``.
    """
    ops, rank = s.ops, s.rank()
    last = None if rank is None else s[0].shape[rank - 1]  # type: ignore[index]
    if last not in (1, 2):
        raise s.refuse("it is not known whether its input is real or complex")
    default = ops.integer(-2) if s.version >= 20 else ops.integer(s.attr("axis", 1))
    axis = ops.Reshape(s.input(2) or default, ops.ints(1))
    inverse, onesided, given = s.attr("inverse", 0), s.attr("onesided", 0), s.input(1)
    if inverse and onesided:
        return _inverse_of_real(s, dy, axis)
    own = _along(ops, s[0], axis)
    points = own if given is None else ops.Cast(ops.Reshape(given, ops.ints(1)), to=7)
    whole = _resized(ops, dy, axis, points, rank) if onesided else dy
    back = _transformed(s, whole, axis, inverse=1 - inverse)
    count = ops.cast(ops.Squeeze(points), dy)
    back = ops.Div(back, count) if inverse else ops.Mul(back, count)
    if last == 1:
        back = ops.Slice(back, ops.ints(0), ops.ints(1), ops.ints(-1))
    return back if given is None else _resized(ops, back, axis, own, rank)


def _inverse_of_real(s: Step, dy: ir.Value, axis: ir.Value) -> ir.Value:
    """Of one-sided complex numbers all but the first and, for even N, the last stand for two."""
    ops = s.ops
    count = _along(ops, s.y, axis)
    back = _transformed(s, dy, axis, onesided=1)
    two = ops.ints(2)
    half = ops.Div(count, two)
    places = ops.Range(ops.integer(0), ops.Squeeze(ops.Add(half, ops.ints(1))), ops.integer(1))
    single = ops.Or(ops.Equal(places, ops.integer(0)), ops.Equal(ops.Mul(places, two), count))
    factor = ops.cast(ops.Where(single, ops.integer(1), ops.integer(2)), dy)
    ones = ops.Expand(ops.integer(1), ops.Shape(ops.Shape(s[0])))
    shape = ops.ScatterElements(ones, ops.Where(ops.Less(axis, ops.ints(0)), ops.Add(axis, ops.Shape(ones)), axis),
                                ops.Shape(factor), axis=0)  # fmt: skip
    scaled = ops.Div(ops.Mul(back, ops.Reshape(factor, shape)), ops.cast(ops.Squeeze(count), dy))
    return _resized(ops, scaled, axis, _along(ops, s[0], axis), s.rank())


def _transformed(s: Step, value: ir.Value, axis: ir.Value, **attributes: int) -> ir.Value:
    if s.version >= 20:
        return s.ops.DFT(value, None, s.ops.Squeeze(axis), **attributes)
    return s.ops.DFT(value, axis=s.attr("axis", 1), **attributes)


def _along(ops: Ops, value: ir.Value, axis: ir.Value) -> ir.Value:
    return ops.Gather(ops.shape(value), axis)


def _resized(ops: Ops, value: ir.Value, axis: ir.Value, wanted: ir.Value, rank: int | None) -> ir.Value:
    """Cut an axis off at its end, or continue it with zeros."""
    more = ops.Sub(wanted, ops.Gather(ops.Shape(value), axis))
    return ops.pad(value, ops.Concat(ops.ints(0), more, axis=0), axis, rank)
