"""Operators that read between elements: grids, deformed kernels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.sampling import (
    Tap,
    cubic_taps,
    linear_taps,
    nearest_taps,
    padded,
    sample_grads,
    sampled,
)  # fmt: skip
from onnxviz.gradient.step import Step
from onnxviz.gradient.windows import rank_of


def _sizes(ops: Ops, x: ir.Value, rank: int, like: ir.Value) -> list[ir.Value]:
    """Return the spatial sizes, scalars of the type of another tensor."""
    known = static_shape(x) or (None,) * rank
    found = []
    for axis in range(2, rank):
        size = known[axis]
        if size is not None:
            found.append(ops.scalar(size, like))
        else:
            found.append(ops.cast(ops.Squeeze(ops.dim(x, axis), ops.ints(0)), like))
    return found


@gradient("GridSample", since=16)
def grid_sample(s: Step, dy: ir.Value) -> Grads:
    """Jaderberg et al. 2015, equations 6 and 7; the last axis of the grid counts from the last axis of the input."""
    ops, rank = s.ops, rank_of(s)
    x, corners, padding = s[0], bool(s.attr("align_corners", 0)), s.attr("padding_mode", "zeros")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(kind := s.attr("mode", "linear"), kind)
    sizes = _sizes(ops, x, rank, dy)
    grid = ops.cast(s[1], dy)
    taps, factors = [], []
    for axis, size in enumerate(sizes):
        own = ops.Gather(grid, ops.integer(rank - 3 - axis), axis=rank - 1)
        own = ops.Reshape(own, ops.ints(0, -1))
        factor = ops.Mul(ops.Sub(size, ops.scalar(1, dy)) if corners else size, ops.scalar(0.5, dy))
        middle = ops.Mul(ops.Sub(size, ops.scalar(1, dy)), ops.scalar(0.5, dy))
        place = ops.Add(ops.Mul(own, factor), middle)
        if mode == "cubic":
            taps.append(cubic_taps(ops, place, size, padding, corners))
        else:
            place, slope = padded(ops, place, size, padding, corners)
            factor = factor if slope is None else ops.Mul(slope, factor)
            taps.append((linear_taps if mode == "linear" else nearest_taps)(ops, place, size))
        factors.append(factor)
    flat = ops.Reshape(x, ops.ints(0, 0, -1))
    dx, places = sample_grads(
        ops, ops.Reshape(dy, ops.ints(0, 0, -1)), flat, taps, sizes, elements=s.need(0), places=s.need(1)
    )
    return ops.Reshape(dx, ops.shape(x), allowzero=1) if dx is not None else None, _to_grid(s, places, factors)


def _to_grid(s: Step, places: list[ir.Value | None], factors: list[ir.Value]) -> ir.Value | None:
    ops, grid = s.ops, s[1]
    if not s.need(1):
        return None
    if all(place is None for place in places):
        return ops.zeros_like(grid)  # the nearest element stays the nearest, as PyTorch has it
    parts = [
        ops.Unsqueeze(ops.Mul(place, factor), ops.ints(2))
        for place, factor in zip(places, factors, strict=True)
        if place is not None
    ]
    return ops.Reshape(ops.cast(ops.Concat(*reversed(parts), axis=2), grid), ops.shape(grid), allowzero=1)


@gradient("DeformConv", since=19)
def deform_conv(s: Step, dy: ir.Value) -> Grads:
    """Zhu et al. 2019, equation 1: weights times what is read at the moved places, times the mask."""
    ops, x, w, group, parts = s.ops, s[0], s[1], s.attr("group", 1), s.attr("offset_group", 1)
    rank, shape = rank_of(s), static_shape(s[1])
    if shape is None or None in shape:
        raise s.refuse("the shape of its weights is not known")
    filters, inputs, kernel = shape[0] or 0, (shape[1] or 0) * group, [size or 0 for size in shape[2:]]
    count = int(np.prod(kernel))
    taps, sizes = _moved(s, kernel, parts)
    flat = ops.Reshape(x, ops.Concat(ops.ints(-1, inputs // parts), _product(ops, x), axis=0))
    columns = ops.ints(-1, group, inputs // group * count)  # and the places of the output, as one axis
    length = _product(ops, dy)
    grouped = ops.Reshape(dy, ops.ints(0, group, filters // group, -1))
    weights = ops.Reshape(w, ops.ints(1, group, filters // group, -1))
    through = ops.MatMul(ops.Transpose(weights, perm=[0, 1, 3, 2]), grouped)
    places = ops.Mul(length, ops.ints(count))
    through = ops.Reshape(through, ops.Concat(ops.ints(-1, inputs // parts), places, axis=0))
    mask = s.input(4)
    scale = None if mask is None else ops.Reshape(mask, ops.Concat(ops.ints(-1, 1), places, axis=0))
    read = sampled(ops, flat, taps, sizes) if s.need(1) or s.need(4) else None
    back = through if scale is None else ops.Mul(through, scale)
    dx, moves = sample_grads(ops, back, flat, taps, sizes, elements=s.need(0), places=s.need(2))
    dw = doffset = dmask = None
    if s.need(1) and read is not None:
        seen = ops.Reshape(read if scale is None else ops.Mul(read, scale), ops.Concat(columns, length, axis=0))
        dw = ops.Reshape(ops.sum(ops.MatMul(grouped, ops.Transpose(seen, perm=[0, 1, 3, 2])), [0]), ops.shape(w))
    if s.need(2):
        split = [ops.Reshape(move, ops.Concat(ops.ints(-1, count, 1), length, axis=0)) for move in moves if move]
        doffset = ops.Reshape(ops.Concat(*split, axis=2), ops.shape(s[2]), allowzero=1)
    if s.need(4) and read is not None and mask is not None:
        dmask = ops.Reshape(ops.sum(ops.Mul(through, read), [1]), ops.shape(mask), allowzero=1)
    dbias = ops.sum(dy, [0, *range(2, rank)]) if s.need(3) else None
    return ops.Reshape(dx, ops.shape(x), allowzero=1) if dx is not None else None, dw, doffset, dbias, dmask


def _product(ops: Ops, value: ir.Value) -> ir.Value:
    """Return the number of elements of a feature map, ``(1,)`` int64."""
    sizes = static_shape(value)
    if sizes is not None and None not in sizes[2:]:
        return ops.ints(int(np.prod([size or 0 for size in sizes[2:]])))
    return ops.ReduceProd(ops.Shape(value, start=2), keepdims=1)


def _moved(s: Step, kernel: list[int], parts: int) -> tuple[list[list[Tap]], list[ir.Value]]:
    """Return what each place of a deformed kernel reads, ``(N · parts, kernel · output)``, and the sizes."""
    ops, dims, offset = s.ops, len(kernel), s[2]
    strides, dilations = s.attr("strides", (1,) * dims), s.attr("dilations", (1,) * dims)
    pads, sizes = s.attr("pads", (0,) * (2 * dims)), _sizes(ops, s[0], dims + 2, offset)
    length = _product(ops, s.y)
    split = ops.Reshape(offset, ops.Concat(ops.ints(-1, int(np.prod(kernel)), dims), length, axis=0))
    taps = []
    for axis, size in enumerate(kernel):
        along = np.arange(size, dtype=np.int64) * dilations[axis] - pads[axis]
        inner = np.broadcast_to(along.reshape([-1 if i == axis else 1 for i in range(dims)]), kernel).reshape(-1)
        made = ops.Squeeze(ops.dim(s.y, axis + 2), ops.ints(0))
        steps = ops.Mul(ops.Range(ops.integer(0), made, ops.integer(1)), ops.integer(strides[axis]))
        steps = ops.Reshape(steps, ops.ints(*(-1 if i == axis else 1 for i in range(dims))))
        outer = ops.Reshape(ops.Expand(steps, ops.Shape(s.y, start=2)), ops.ints(1, -1))
        base = ops.cast(ops.Add(ops.constant(inner.reshape(-1, 1)), outer), offset)
        own = ops.Add(ops.Gather(split, ops.integer(axis), axis=2), base)
        taps.append(linear_taps(ops, ops.Reshape(own, ops.ints(0, -1)), sizes[axis]))
    return taps, sizes
