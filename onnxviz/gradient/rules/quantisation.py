"""Quantised numbers: scales have gradients; rounding passes one on request only.

On request (``straight_through``) the gradient of a quantised tensor is that of what it stands for, in real units:
DequantizeLinear passes it as it is, QuantizeLinear where the number lies in the range (Jacob et al. 2018; PyTorch's
``fake_quantize``).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step

_RANGES = {
    ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767), ir.DataType.UINT16: (0, 65535),
}  # fmt: skip


@gradient("QuantizeLinear", since=10, quantised=True)
def quantize(s: Step, dy: ir.Value) -> Grads:
    """Pass what rounds to a number of the range."""
    ops, kind = s.ops, s.y.dtype
    if kind is None or kind not in _RANGES:
        raise s.refuse(f"straight-through quantisation to {kind.name if kind is not None else 'an unknown type'}")
    given = {name: s.attr(name) for name in ("axis", "block_size") if s.attr(name) is not None}
    low, high = (_dequantised(s, number, kind, given) for number in _RANGES[kind])
    width = ops.Sub(high, low)
    first, last = _RANGES[kind]
    reach = ops.Mul(width, ops.scalar(0.5 + 0.5 / (last - first), dy))
    middle = ops.Mul(ops.Add(low, high), ops.scalar(0.5, dy))
    inside = ops.LessOrEqual(ops.Abs(ops.Sub(s[0], middle)), reach)
    return ops.Where(inside, dy, ops.scalar(0, dy))


def _dequantised(s: Step, number: int, kind: ir.DataType, given: dict[str, int]) -> ir.Value:
    """Return what a quantised number stands for at each place."""
    filled = s.ops.ConstantOfShape(s.ops.shape(s[0]), value=ir.tensor(np.array([number], kind.numpy())))
    made = s.ops.DequantizeLinear(filled, s[1], s.input(2), **given)
    return s.ops.cast(s.ops.typed(made, s[1]), s[0])


@gradient("DequantizeLinear", since=10, quantised=True)
def dequantize(s: Step, dy: ir.Value) -> Grads:
    """``(x - zero point) · scale``: linear in the scale."""
    if not s.need(1):
        return dy
    ops, scale = s.ops, s[1]
    ones = ops.filled(ops.shape(scale), 1.0, scale)
    given = {name: s.attr(name) for name in ("axis", "block_size", "output_dtype") if s.attr(name) is not None}
    whole = ops.DequantizeLinear(s[0], ones, s.input(2), **given)
    return dy, ops.cast(_to_scale(s, ops.Mul(dy, ops.typed(whole, dy))), scale)


def _to_scale(s: Step, value: ir.Value) -> ir.Value:
    """Sum over all that one scale is for: the tensor, a slice along an axis, or a block."""
    ops, rank, sizes = s.ops, s.rank(0), static_shape(s[1])
    if sizes is None or rank is None:
        raise s.refuse("the rank of its scale or of its input is not known")
    if not sizes or sizes == (1,):
        return ops.reshape(ops.ReduceSum(value, keepdims=0), s[1])
    axis = s.axis(1)
    if len(sizes) == 1 and not s.attr("block_size", 0):
        return ops.sum(value, [i for i in range(rank) if i != axis])
    block, blocks = s.attr("block_size", 0), ops.dim(s[1], axis)
    missing = ops.Sub(ops.Mul(blocks, ops.ints(block)), ops.dim(s[0], axis))
    padded = ops.pad(value, ops.Concat(ops.ints(0), missing, axis=0), ops.ints(axis), rank)
    before, after = (ops.Slice(ops.shape(s[1]), ops.ints(a), ops.ints(b)) for a, b in ((0, axis), (axis + 1, rank)))
    parts = [before, blocks, ops.ints(block), after]
    return ops.sum(ops.Reshape(padded, ops.Concat(*parts, axis=0), allowzero=1), [axis + 1])


@gradient("DynamicQuantizeLinear", since=11, quantised=True)
def dynamic_quantize(s: Step, dy: ir.Value | None, dscale: ir.Value | None, dzero: ir.Value | None) -> Grads:
    """The range is that of the numbers and 0, so that all lie in it; the scale is its width / 255."""
    ops, x, dx = s.ops, s[0], dy
    if dscale is not None:
        zero, part = ops.scalar(0, x), ops.Div(dscale, ops.scalar(255, x))
        for kind, sign, beyond in (("ReduceMax", part, ops.Greater), ("ReduceMin", ops.Neg(part), ops.Less)):
            end = ops.node(kind, x, keepdims=0)
            hit = ops.cast(ops.And(ops.Equal(x, end), beyond(x, zero)), x)
            count = ops.Max(ops.ReduceSum(hit, keepdims=0), ops.scalar(1, x))
            more = ops.Mul(hit, ops.Div(sign, count))
            dx = more if dx is None else ops.Add(dx, more)
    return dx


@gradient("MatMulNBits", domain="com.microsoft")
def matmul_of_few_bits(s: Step, dy: ir.Value) -> Grads:
    """``dY W``, with the weights unpacked: blocks of ``block_size`` numbers, the low bits of a byte first."""
    ops, bits, width, rows, block = (
        s.ops, s.attr("bits", 4), int(s.attr("K")), int(s.attr("N")), int(s.attr("block_size"))
    )  # fmt: skip
    if bits not in (4, 8) or s.input(4) is not None:
        raise s.refuse(f"bits={bits}" if bits not in (4, 8) else "the input g_idx")
    blocks = -(-width // block)
    weights = ops.Reshape(_unpacked(s, s[1], bits), ops.ints(rows, blocks, block))
    scales = ops.Reshape(s[2], ops.ints(rows, blocks, 1))
    weights = ops.cast(weights, scales)
    points = s.input(3)
    if points is None:
        center = ops.scalar(1 << (bits - 1), scales)
    elif points.dtype == ir.DataType.UINT8:
        packed = _unpacked(s, ops.Reshape(points, ops.ints(rows, -1)), bits)
        center = ops.Unsqueeze(
            ops.cast(ops.Slice(packed, ops.ints(0), ops.ints(blocks), ops.ints(1)), scales), ops.ints(2)
        )
    else:
        center = ops.Reshape(points, ops.ints(rows, blocks, 1))
    whole = ops.Reshape(ops.Mul(ops.Sub(weights, center), scales), ops.ints(rows, blocks * block))
    whole = whole if blocks * block == width else ops.Slice(whole, ops.ints(0), ops.ints(width), ops.ints(1))
    bias = None
    if s.need(5):
        bias = ops.ReduceSum(ops.Reshape(dy, ops.ints(-1, rows)), ops.ints(0), keepdims=0)
    return ops.MatMul(dy, whole), None, None, None, None, bias


def _unpacked(s: Step, value: ir.Value, bits: int) -> ir.Value:
    """Return the numbers in bytes, along a last axis that is twice as long for 4 bits."""
    ops = s.ops
    if bits == 8:
        return value
    low = ops.BitwiseAnd(value, ops.constant(np.array(15, np.uint8)))
    high = ops.BitShift(value, ops.constant(np.array(4, np.uint8)), direction="RIGHT")
    pairs = ops.Concat(ops.Unsqueeze(low, ops.ints(-1)), ops.Unsqueeze(high, ops.ints(-1)), axis=-1)
    shape = [0] * (len(value.shape) - 1 if value.shape is not None else 1)
    return ops.Reshape(pairs, ops.ints(*shape, -1))
