"""What moves numbers without changing them: shapes, orders, parts, borders, repeats."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.rules.tracing import traced
from onnxviz.gradient.step import Step


@gradient("Reshape", "Flatten", quantised=True)
def reshape(s: Step, dy: ir.Value) -> Grads:
    return s.ops.reshape(dy, s[0])


@gradient("Squeeze", "Unsqueeze", since=13, quantised=True)
def squeeze(s: Step, dy: ir.Value) -> Grads:
    """Each is the other's inverse; their axes count in one and the same tensor."""
    sizes, axes = static_shape(s[0]), s.input(1)
    if axes is None or (sizes is not None and None not in sizes):
        return s.ops.reshape(dy, s[0])
    return s.ops.node("Unsqueeze" if s.node.op_type == "Squeeze" else "Squeeze", dy, axes)


@gradient("Transpose", quantised=True)
def transpose(s: Step, dy: ir.Value) -> Grads:
    perm = s.attr("perm")
    if perm is None:
        return s.ops.Transpose(dy)
    return s.ops.Transpose(dy, perm=[int(axis) for axis in np.argsort(perm)])


@gradient("Concat", since=4, quantised=True)
def concat(s: Step, dy: ir.Value) -> Grads:
    ops, axis = s.ops, int(s.attr("axis"))
    inputs = [value for value in s.node.inputs if value is not None]
    if len(inputs) == 1:
        return dy
    parts = [ops.dim(value, axis) for value in inputs]
    known = [static_shape(value) for value in inputs]
    sizes = [shape[axis] if shape is not None else None for shape in known]
    if None not in sizes:
        lengths = ops.ints(*(size for size in sizes if size is not None))
    else:
        lengths = ops.Concat(*parts, axis=0)
    return tuple(ops.nodes("Split", len(inputs), dy, lengths, axis=axis))


@gradient("Split", since=13)
def split(s: Step, *grads: ir.Value | None) -> Grads:
    """A part that nothing reads counts as zeros."""
    parts = [s.ops.zeros_like(s.output(i)) if grad is None else grad for i, grad in enumerate(grads)]
    return s.ops.Concat(*parts, axis=s.attr("axis", 0)) if len(parts) > 1 else parts[0]


@gradient("Expand", broadcasts=True)
def expand(s: Step, dy: ir.Value) -> Grads:
    return dy


@gradient("Tile", since=6)
def tile(s: Step, dy: ir.Value) -> Grads:
    ops, rank, repeats, sizes = s.ops, s.rank(), s.known(1), static_shape(s[0])
    if rank is None:
        return traced(s, dy, lambda places: ops.Tile(places, s[1]))
    if not rank:
        return dy
    if repeats is not None and sizes is not None and None not in sizes:
        shape = ops.ints(*(int(n) for pair in zip(repeats, sizes, strict=True) for n in pair if n is not None))
    else:
        pairs = [ops.Unsqueeze(vector, ops.ints(1)) for vector in (s[1], ops.shape(s[0]))]
        shape = ops.Reshape(ops.Concat(*pairs, axis=1), ops.ints(-1))
    return ops.sum(ops.Reshape(dy, shape, allowzero=1), range(0, 2 * rank, 2))


@gradient("Pad", since=11)
def pad(s: Step, dy: ir.Value) -> Grads:
    """Constant borders are cut off, and what was cut off is zero; other borders add to where they were read from."""
    ops, axes = s.ops, s.input(3)
    if s.attr("mode", "constant") != "constant":
        mode = s.attr("mode")
        return traced(s, dy, lambda places: ops.Pad(places, ops.all_pads(s[0], s[1], axes, s.rank()), mode=mode))
    known = s.known(1)
    back = ops.Neg(s[1]) if known is None else ops.ints(*(-int(n) for n in known))
    inner = ops.pad(dy, back, axes, s.rank())
    if not s.need(2):
        return inner
    kept = ops.pad(inner, s[1], axes, s.rank())  # dy where the input lies, 0 on the borders
    border = ops.ReduceSum(ops.Sub(dy, kept), keepdims=0)
    return inner, None, ops.reshape(border, s[2])


@gradient("Trilu")
def trilu(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Trilu(dy, s.input(1), upper=s.attr("upper", 1))


@gradient("ReverseSequence")
def reverse_sequence(s: Step, dy: ir.Value) -> Grads:
    """Its own inverse."""
    return s.ops.ReverseSequence(dy, s[1], batch_axis=s.attr("batch_axis", 1), time_axis=s.attr("time_axis", 0))
