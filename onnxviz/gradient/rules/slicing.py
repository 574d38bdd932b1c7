"""Slice: its gradient is put back between zeros."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.rules.tracing import int64, traced
from onnxviz.gradient.step import Step


@gradient("Slice", since=10)
def slice_(s: Step, dy: ir.Value) -> Grads:
    """Axes of step 1 are padded; for other steps a table says which number of ``dy`` belongs where, or the zero."""
    ops = s.ops
    count = _count(s)
    axes = s.known(3) if s.input(3) is not None else None if count is None else np.arange(count)
    steps = s.known(4) if s.input(4) is not None else None if axes is None else np.ones(len(axes), np.int64)
    if axes is None or steps is None or s.rank() is None:
        return traced(s, dy, lambda places: ops.Slice(places, *s.node.inputs[1:]))
    places = [(i, int(axis), int(step)) for i, (axis, step) in enumerate(zip(axes, steps, strict=True))]
    for i, axis, step in places:
        if step != 1:
            zero_ended = ops.pad(dy, ops.ints(0, 1), ops.ints(axis), s.rank())
            dy = ops.Gather(zero_ended, _sources(s, i, axis, step), axis=axis)
    borders = [(axis, *_borders(s, i, axis)) for i, axis, step in places if step == 1]
    borders = [(axis, before, after) for axis, before, after in borders if not (before is after is None)]
    if not borders:
        return dy
    pads = [before or ops.ints(0) for _, before, _ in borders] + [after or ops.ints(0) for *_, after in borders]
    known = [value.const_value for value in pads]
    if all(tensor is not None for tensor in known):
        joined = ops.ints(*(int(tensor.numpy()[0]) for tensor in known if tensor is not None))
    else:
        joined = ops.Concat(*pads, axis=0)
    return ops.pad(dy, joined, ops.ints(*(axis for axis, *_ in borders)), s.rank())


def _count(s: Step) -> int | None:
    """Return how many axes are sliced."""
    known, sizes = s.known(1), static_shape(s[1])
    return known.size if known is not None else sizes[0] if sizes else None


def _bounds(s: Step, i: int, axis: int) -> tuple[int, int, int] | None:
    """Return start, end and size of an axis where all are known."""
    starts, ends, sizes = s.known(1), s.known(2), static_shape(s[0])
    if starts is None or ends is None or sizes is None or (size := sizes[axis]) is None:
        return None
    return int(starts[i]), int(ends[i]), size


def _borders(s: Step, i: int, axis: int) -> tuple[ir.Value | None, ir.Value | None]:
    """Return how many numbers lie before and after the slice, each ``(1,)`` int64; None twice where it is all."""
    ops, known = s.ops, _bounds(s, i, axis)
    if known is not None:
        start, end, size = known
        kept = range(size)[start:end]
        before = kept[0] if kept else 0
        after = size - before - len(kept)
        return (ops.ints(before), ops.ints(after)) if before or after else (None, None)
    size_now, starts = ops.dim(s[0], axis), s.known(1)
    zero = ops.ints(0)
    if starts is None:
        start_now = int64(ops, ops.Gather(s[1], ops.ints(i)))
        start_now = ops.Where(ops.Less(start_now, zero), ops.Add(start_now, size_now), start_now)
        before_now = ops.Max(ops.Min(start_now, size_now), zero)
    elif (first := int(starts[i])) > 0:
        before_now = ops.Min(ops.ints(first), size_now)
    else:
        before_now = ops.Max(ops.Add(size_now, ops.ints(first)), zero) if first else zero
    return before_now, ops.Sub(ops.Sub(size_now, before_now), ops.dim(s.y, axis))


def _sources(s: Step, i: int, axis: int, step: int) -> ir.Value:
    """Return for each place along an axis the position of its number in the slice; one past the end for none."""
    ops, known = s.ops, _bounds(s, i, axis)
    if known is not None:
        start, end, size = known
        kept = np.arange(size)[start:end:step]
        table = np.full(size, len(kept), np.int64)
        table[kept] = np.arange(len(kept))
        return ops.constant(table)
    size_now, count = ops.dim(s[0], axis), ops.dim(s.y, axis)
    zero, one = ops.integer(0), ops.integer(1)
    bounds = [int64(ops, ops.Gather(s[place], ops.ints(i))) for place in (1, 2)]
    places = ops.Slice(ops.Range(zero, ops.Squeeze(size_now), one), *bounds, ops.ints(0), ops.ints(step))
    numbers = ops.Range(zero, ops.Squeeze(count), one)
    return ops.ScatterElements(ops.Expand(count, size_now), places, numbers, axis=0)
