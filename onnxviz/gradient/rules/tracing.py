"""Gradients of what picks numbers: find out where each came from, and add its gradient there."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.step import Step

__all__ = ["add_along", "added_at", "int64", "places_of", "traced"]


def int64(ops: Ops, value: ir.Value) -> ir.Value:
    """Return indices as int64, which not every operator takes in another type."""
    return value if value.dtype == ir.DataType.INT64 else ops.Cast(value, to=int(ir.DataType.INT64))


def places_of(ops: Ops, value: ir.Value) -> ir.Value:
    """Return the flat position of each number of a tensor, int64 of its shape."""
    flat = ops.Range(ops.integer(0), _size(ops, value), ops.integer(1))
    return ops.Reshape(flat, ops.shape(value), allowzero=1)


def _size(ops: Ops, value: ir.Value) -> ir.Value:
    sizes = static_shape(value)
    if sizes is not None and None not in sizes:
        return ops.integer(math.prod(size for size in sizes if size is not None))
    return ops.Size(value)


def added_at(ops: Ops, places: ir.Value, dy: ir.Value, like: ir.Value) -> ir.Value:
    """Return a tensor shaped as ``like`` of 0, with each number of ``dy`` added at its flat position."""
    flat = [ops.Reshape(value, ops.ints(-1)) for value in (places, dy)]
    made = ops.scatter_add(ops.Reshape(_size(ops, like), ops.ints(1)), flat[0], flat[1], 0)
    return ops.Reshape(made, ops.shape(like), allowzero=1)


def traced(s: Step, dy: ir.Value, run: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """Return the gradient of the first input of a node that only picks numbers of it.

    Args:
        s: The node.
        dy: Gradient of its output.
        run: Does to positions what the node does to its first input.
    """
    return added_at(s.ops, run(places_of(s.ops, s[0])), dy, s[0])


def add_along(ops: Ops, dy: ir.Value, indices: ir.Value, axis: int, like: ir.Value, index_rank: int = 1) -> ir.Value:
    """Return zeros shaped as ``like`` with slices of ``dy`` added at indices along an axis: the adjoint of Gather."""
    assert like.shape is not None
    rank = len(like.shape)
    where = ops.Unsqueeze(int64(ops, indices), ops.ints(-1))
    if axis == 0:
        return ops.scatter_add(ops.shape(like), where, dy, None)
    first = [*range(axis, axis + index_rank), *range(axis), *range(axis + index_rank, rank + index_rank - 1)]
    order = [axis, *range(axis), *range(axis + 1, rank)]
    sizes = static_shape(like)
    if sizes is not None and None not in sizes:
        shape = ops.ints(*(size for i in order if (size := sizes[i]) is not None))
    else:
        shape = ops.Gather(ops.shape(like), ops.ints(*order))
    front = ops.scatter_add(shape, where, ops.Transpose(dy, perm=first), None)
    return ops.Transpose(front, perm=[*range(1, axis + 1), 0, *range(axis + 1, rank)])
