"""Regions of feature maps: RoiAlign, MaxRoiPool. The regions themselves get no gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.bodies import close
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.rules.tracing import added_at, int64
from onnxviz.gradient.step import Step

_INT64 = int(ir.DataType.INT64)


@dataclass(frozen=True)
class _Samples:
    """Where the S samples of each bin lie along an axis, for R regions.

    Attributes:
        place: ``(R, bins, S)``, brought into the axis.
        inside: ``(R, bins, S)``: whether the sample lay in it.
        live: ``(R, 1, S)``: whether the region has so many samples.
        count: Samples of each region, ``(R, 1)`` or a scalar.
    """

    place: ir.Value
    inside: ir.Value
    live: ir.Value
    count: ir.Value


@gradient("RoiAlign", since=10)
def roi_align(s: Step, dy: ir.Value) -> Grads:
    """He et al. 2017. A mean of bilinear samples is a matrix along each axis; a maximum is of one weighed corner."""
    if s.attr("mode", "avg") == "max":
        return _largest_corner(s, dy)
    ops, x = s.ops, s[0]
    high = _matrix(s, 1, s.attr("output_height", 1), ops.dim(x, 2))
    wide = _matrix(s, 0, s.attr("output_width", 1), ops.dim(x, 3))
    rows = ops.MatMul(dy, ops.Unsqueeze(ops.cast(wide, dy), ops.ints(1)))  # (R, C, PH, W)
    batch = ops.Range(ops.integer(0), ops.Squeeze(ops.dim(x, 0), ops.ints(0)), ops.integer(1))
    own = ops.cast(ops.Equal(ops.Unsqueeze(batch, ops.ints(1)), int64(ops, s[2])), dy)
    # (N, H, R · PH) times (R · PH, C · W)
    flat = ops.Reshape(ops.Transpose(rows, perm=[0, 2, 1, 3]), ops.Concat(
        ops.ints(-1), ops.Mul(ops.dim(x, 1), ops.dim(x, 3)), axis=0))  # fmt: skip
    columns = ops.Transpose(ops.cast(high, dy), perm=[2, 0, 1])  # (H, R, PH)
    chosen = ops.Mul(ops.Unsqueeze(columns, ops.ints(0)), ops.Unsqueeze(own, ops.ints(1, 3)))
    total = ops.MatMul(ops.Reshape(chosen, ops.Concat(ops.ints(0, 0), ops.dim(flat, 0), axis=0), allowzero=0), flat)
    apart = ops.Reshape(total, ops.Concat(ops.ints(0, 0), ops.dim(x, 1), ops.dim(x, 3), axis=0))
    return ops.Transpose(apart, perm=[0, 2, 1, 3]), None, None


def _samples(s: Step, axis: int, bins: int, size: ir.Value) -> _Samples:
    ops, rois = s.ops, s[1]
    half = s.attr("coordinate_transformation_mode", "half_pixel" if s.version >= 16 else "output_half_pixel")
    scale, zero, one = ops.scalar(s.attr("spatial_scale", 1.0), rois), ops.scalar(0, rois), ops.scalar(1, rois)
    shift = ops.scalar(0.5 if half == "half_pixel" else 0, rois)
    start, end = (
        ops.Sub(ops.Mul(ops.Gather(rois, ops.ints(axis + offset), axis=1), scale), shift) for offset in (0, 2)
    )  # (R, 1)
    span = ops.Sub(end, start)
    bin_size = ops.Div(span if half == "half_pixel" else ops.Max(span, one), ops.scalar(bins, rois))
    ratio = s.attr("sampling_ratio", 0)
    if ratio > 0:
        samples, most = ops.scalar(ratio, rois), ops.integer(ratio)
    else:
        samples = ops.Max(ops.Ceil(bin_size), one)
        most = ops.Cast(
            ops.ReduceMax(ops.Concat(samples, ops.Expand(one, ops.ints(1, 1)), axis=0), keepdims=0), to=_INT64
        )
    step = ops.cast(ops.Range(ops.integer(0), most, ops.integer(1)), rois)
    step = ops.Unsqueeze(step, ops.ints(0))  # (1, S)
    within = ops.Mul(ops.Div(ops.Add(step, ops.scalar(0.5, rois)), samples), bin_size)  # (R, S)
    first = ops.Add(start, ops.Mul(bin_size, _numbers(ops, bins, rois)))  # (R, bins)
    place = ops.Add(ops.Unsqueeze(first, ops.ints(2)), ops.Unsqueeze(within, ops.ints(1)))  # (R, bins, S)
    length = ops.cast(size, rois)
    inside = ops.And(ops.GreaterOrEqual(place, ops.Neg(one)), ops.LessOrEqual(place, length))
    held = ops.Max(ops.Min(place, ops.Sub(length, one)), zero)
    return _Samples(held, inside, ops.Unsqueeze(ops.Less(step, samples), ops.ints(1)), samples)


def _numbers(ops: Ops, count: int, like: ir.Value) -> ir.Value:
    return ops.constant(np.arange(count).astype(np.float32 if like.dtype is None else like.dtype.numpy()))


def _matrix(s: Step, axis: int, bins: int, size: ir.Value) -> ir.Value:
    """Return ``(R, bins, size)``: how much each element counts in the mean of each bin."""
    ops, rois, made = s.ops, s[1], _samples(s, axis, bins, size)
    zero, one = ops.scalar(0, rois), ops.scalar(1, rois)
    elements = ops.cast(ops.Range(ops.integer(0), ops.Squeeze(size, ops.ints(0)), ops.integer(1)), rois)
    away = ops.Abs(ops.Sub(ops.Unsqueeze(made.place, ops.ints(3)), elements))  # (R, bins, S, size)
    counts = ops.Unsqueeze(ops.And(made.inside, made.live), ops.ints(3))
    weight = ops.Where(counts, ops.Max(ops.Sub(one, away), zero), zero)
    count = made.count if s.attr("sampling_ratio", 0) > 0 else ops.Unsqueeze(made.count, ops.ints(2))
    return ops.Div(ops.sum(weight, [2]), count)


def _corners(s: Step, axis: int, bins: int, size: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return index, weight and liveness ``(R, bins, 2 S)`` of the two elements beside each sample."""
    ops, rois, made = s.ops, s[1], _samples(s, axis, bins, size)
    low = ops.Floor(made.place)
    part = ops.Sub(made.place, low)
    last = ops.Sub(ops.cast(size, rois), ops.scalar(1, rois))
    index = ops.Concat(low, ops.Min(ops.Add(low, ops.scalar(1, rois)), last), axis=2)
    weight = ops.Concat(ops.Sub(ops.scalar(1, rois), part), part, axis=2)
    weight = ops.Where(ops.Concat(made.inside, made.inside, axis=2), weight, ops.scalar(0, rois))
    return ops.Cast(index, to=_INT64), weight, ops.Concat(made.live, made.live, axis=2)


def _largest_corner(s: Step, dy: ir.Value) -> Grads:
    """Each maximum is that of the four corners of each sample, each times its weight, as in onnxruntime."""
    ops, x, bins = s.ops, s[0], (s.attr("output_height", 1), s.attr("output_width", 1))
    rows, columns = (_corners(s, 1 - i, bins[i], ops.dim(x, 2 + i)) for i in (0, 1))
    corners = ops.Mul(*(ops.Shape(axis[1], start=2, end=3) for axis in (rows, columns)))
    shape = ops.Concat(ops.Shape(s[1], start=0, end=1), ops.ints(1, bins[0] * bins[1]), corners, axis=0)

    def crossed(op_type: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return ``(R, 1, bins, corners)``, all corners of a bin on one axis."""
        whole = ops.node(op_type, ops.Unsqueeze(a, ops.ints(1, 3, 5)), ops.Unsqueeze(b, ops.ints(1, 2, 4)))
        return ops.Reshape(whole, shape, allowzero=1)

    alive = [ops.Expand(axis[2], ops.Shape(axis[1])) for axis in (rows, columns)]
    weight, live = ops.cast(crossed("Mul", rows[1], columns[1]), dy), crossed("And", *alive)
    place = crossed("Add", ops.Mul(rows[0], ops.dim(x, 3)), columns[0])
    place = ops.Add(place, _planes(ops, x, int64(ops, s[2])))  # (R, C, bins, corners)
    read = ops.Mul(ops.Gather(ops.Reshape(x, ops.ints(-1)), place), weight)
    first = ops.ArgMax(ops.Where(live, read, ops.scalar(-np.inf, dy)), axis=3, keepdims=1)
    wide = ops.Expand(weight, ops.Shape(place))
    kept = ops.GatherElements(wide, first, axis=3)
    part = ops.Mul(ops.Reshape(dy, ops.ints(0, 0, bins[0] * bins[1], 1)), kept)
    return added_at(ops, ops.GatherElements(place, first, axis=3), part, x), None, None


def _planes(ops: Ops, x: ir.Value, batch: ir.Value) -> ir.Value:
    """Return ``(R, C, 1, 1)``: where the feature maps that each region reads begin in the flat input."""
    channels, plane = ops.dim(x, 1), ops.Mul(ops.dim(x, 2), ops.dim(x, 3))
    numbers = ops.Range(ops.integer(0), ops.Squeeze(channels, ops.ints(0)), ops.integer(1))
    started = ops.Add(ops.Mul(ops.Unsqueeze(batch, ops.ints(1)), channels), numbers)
    return ops.Unsqueeze(ops.Mul(started, plane), ops.ints(2, 3))


@gradient("MaxRoiPool")
def max_roi_pool(s: Step, dy: ir.Value) -> Grads:
    """Girshick 2015: goes to the first of the largest elements of each bin; bins are of whole elements."""
    ops, x, rois = s.ops, s[0], _single(s)
    batch = ops.Cast(ops.Gather(rois, ops.integer(0), axis=1), to=_INT64)  # (R,)
    pooled = s.attr("pooled_shape")
    bounds = [_bins(s, rois, axis, pooled[i], ops.dim(x, 2 + i)) for i, axis in enumerate((2, 1))]
    places = _first_places(s, batch, bounds)
    empty = [ops.LessOrEqual(end, start) for start, end in bounds]
    none = ops.Or(ops.Unsqueeze(empty[0], ops.ints(2)), ops.Unsqueeze(empty[1], ops.ints(1)))
    part = ops.Where(ops.Unsqueeze(none, ops.ints(1)), ops.scalar(0, dy), dy)
    return added_at(ops, ops.Add(places, _planes(ops, x, batch)), part, x), None


def _single(s: Step) -> ir.Value:
    """Return the regions in at least single precision: half has no room for coordinates."""
    rois = s[1]
    return s.ops.Cast(rois, to=int(ir.DataType.FLOAT)) if rois.dtype == ir.DataType.FLOAT16 else rois


def _bins(s: Step, rois: ir.Value, axis: int, bins: int, size: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the first element of each bin and the one behind its last, ``(R, bins)`` int64 each."""
    ops, scale = s.ops, s.ops.scalar(s.attr("spatial_scale", 1.0), rois)
    one, half = ops.scalar(1, rois), ops.scalar(0.5, rois)
    scaled = [ops.Mul(ops.Gather(rois, ops.ints(axis + offset), axis=1), scale) for offset in (0, 2)]
    start, end = (ops.Mul(ops.Sign(v), ops.Floor(ops.Add(ops.Abs(v), half))) for v in scaled)  # halves away from 0
    each = ops.Div(ops.Max(ops.Add(ops.Sub(end, start), one), one), ops.scalar(bins, rois))
    numbers = _numbers(ops, bins, rois)
    edges = ops.Floor(ops.Mul(numbers, each)), ops.Ceil(ops.Mul(ops.Add(numbers, one), each))
    first, last = (ops.Cast(ops.Add(edge, start), to=_INT64) for edge in edges)
    return ops.Max(ops.Min(first, size), ops.ints(0)), ops.Max(ops.Min(last, size), ops.ints(0))


def _first_places(s: Step, batch: ir.Value, bounds: list[tuple[ir.Value, ir.Value]]) -> ir.Value:
    """Return where in its feature map the maximum of each bin lies, ``(R, C, PH, PW)``: a region after the other."""
    body = s.ops.body("region")
    x, sizes = s[0], [s.ops.dim(s[0], axis) for axis in (2, 3)]
    given = [batch, *bounds[0], *bounds[1]]
    entered = [
        ir.Value(name=body.name("region"), type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([None] * (i > 0)))
        for i in range(len(given))
    ]
    own = body.Gather(x, entered[0], axis=0)  # (C, H, W)

    def masked(value: ir.Value, axis: int, axes: tuple[int, ...]) -> ir.Value:
        start, end = (body.Unsqueeze(v, body.ints(1)) for v in entered[1 + 2 * axis : 3 + 2 * axis])
        along = body.Range(body.integer(0), body.Squeeze(sizes[axis], body.ints(0)), body.integer(1))
        inside = body.And(body.GreaterOrEqual(along, start), body.Less(along, end))
        return body.Where(body.Unsqueeze(inside, body.ints(*axes)), value, body.scalar(-np.inf, x))

    rows = masked(body.Unsqueeze(own, body.ints(2)), 1, (0, 1))  # (C, H, PW, W)
    column = body.ArgMax(rows, axis=3, keepdims=0)
    best = body.Transpose(body.ReduceMax(rows, body.ints(3), keepdims=0), perm=[0, 2, 1])  # (C, PW, H)
    row = body.ArgMax(masked(body.Unsqueeze(best, body.ints(1)), 0, (0, 2)), axis=3, keepdims=0)  # (C, PH, PW)
    place = body.Add(body.Mul(row, sizes[1]), body.GatherElements(column, row, axis=1))
    graph = close(body, entered, [body.typed(place, batch)])
    made = s.ops.node("Scan", *given, num_scan_inputs=len(given), body=graph)
    made.type = ir.TensorType(ir.DataType.INT64)
    return made
