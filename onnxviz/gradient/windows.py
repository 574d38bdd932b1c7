"""Windows that slide over the spatial axes of a tensor: their pads, and sums that go back where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.step import Step
from onnxviz.gradient.subpixel import few_numbers, subpixel
from onnxviz.graph.constants import constant_tensor

__all__ = ["Window", "input_grad", "rank_of", "rest_of", "spatial", "spread", "window_counts", "window_of"]

#: Elements of weights that are turned round: a runtime keeps both, and larger ones cost more memory than they save time
_TURNED = 700_000


@dataclass(frozen=True)
class Window:
    """How a kernel slides over D axes.

    Attributes:
        kernel: Its size along each axis.
        strides: Step from a window to the next.
        dilations: Step from an element of the kernel to the next.
        pads: Elements before and after, ``(begin…, end…)``; None where they are known at run time only.
        begin: Then the first half of them, ``(D,)`` int64.
        end: And the second.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    begin: ir.Value | None = None
    end: ir.Value | None = None

    @property
    def extent(self) -> tuple[int, ...]:
        """What a window spans along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def axes(self) -> range:
        """The axes that it slides over."""
        return range(2, 2 + len(self.kernel))

    def pad_values(self, ops: Ops) -> tuple[ir.Value, ir.Value]:
        """Return the pads before and after, ``(D,)`` int64 each."""
        if self.pads is not None:
            rank = len(self.kernel)
            return ops.ints(*self.pads[:rank]), ops.ints(*self.pads[rank:])
        assert self.begin is not None
        assert self.end is not None
        return self.begin, self.end


def rank_of(s: Step) -> int:
    """Return the rank of the first input, which a rule cannot do without."""
    rank = s.rank()
    if rank is None:
        raise s.refuse("the rank of its input is not known")
    return rank


def spatial(value: ir.Value, rank: int) -> tuple[int | None, ...]:
    """Return the sizes behind the first two, None for each that is open."""
    sizes = static_shape(value)
    return sizes[2:] if sizes is not None else (None,) * rank


def window_of(s: Step, kernel: Sequence[int], x: ir.Value, y: ir.Value) -> Window:
    """Return the window of a node that slides over ``x`` and makes ``y``, with ``auto_pad`` resolved."""
    kernel = tuple(int(size) for size in kernel)
    rank = len(kernel)
    strides = tuple(s.attr("strides", (1,) * rank))
    dilations = tuple(s.attr("dilations", (1,) * rank))
    auto = s.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return Window(kernel, strides, dilations, tuple(s.attr("pads", (0,) * (2 * rank))))
    plain = Window(kernel, strides, dilations, (0,) * (2 * rank))
    if auto == "VALID":
        return plain
    return same_pads(s.ops, plain, x, y, lower=auto == "SAME_LOWER")


def same_pads(ops: Ops, window: Window, x: ir.Value, y: ir.Value, *, lower: bool) -> Window:
    """Return a window with the pads of ``SAME_UPPER`` or ``SAME_LOWER``."""
    totals: list[int | None] = []
    rank = len(window.kernel)
    for size, step, extent in zip(spatial(x, rank), window.strides, window.extent, strict=True):
        if step == 1:
            totals.append(extent - 1)
        else:
            totals.append(None if size is None else max((-(-size // step) - 1) * step + extent - size, 0))
    known = [total for total in totals if total is not None]
    if len(known) == rank:
        begin = [(total + lower) // 2 for total in known]
        pads = (*begin, *(total - first for total, first in zip(known, begin, strict=True)))
        return Window(window.kernel, window.strides, window.dilations, pads)
    inner = ops.Mul(ops.Sub(ops.Shape(y, start=2), ops.ints(1)), ops.ints(*window.strides))
    total = ops.Max(ops.Sub(ops.Add(inner, ops.ints(*window.extent)), ops.Shape(x, start=2)), ops.ints(0))
    begin_value = ops.Div(ops.Add(total, ops.ints(int(lower))), ops.ints(2))
    return Window(window.kernel, window.strides, window.dilations, None, begin_value, ops.Sub(total, begin_value))


def rest_of(window: Window, x: ir.Value, y: ir.Value) -> list[int | None]:
    """Return for each axis how much of the padded input the last window leaves over; below 0 where it hangs over."""
    assert window.pads is not None
    rank = len(window.kernel)
    found: list[int | None] = []
    for axis, (size, made) in enumerate(zip(spatial(x, rank), spatial(y, rank), strict=True)):
        step = window.strides[axis]
        if step == 1:
            found.append(0)
        elif size is None or made is None:
            found.append(None)
        else:
            padded = size + window.pads[axis] + window.pads[axis + rank]
            found.append(padded - (made - 1) * step - window.extent[axis])
    return found


def input_grad(
    ops: Ops, dy: ir.Value, w: ir.Value, window: Window, x: ir.Value, y: ir.Value, group: int = 1
) -> ir.Value:
    """Return the gradient of a convolution's input.

    Args:
        ops: Writes the nodes.
        dy: ``(N, M, …)``, the gradient of ``y``.
        w: ``(M, C / group, …)``.
        window: How it slides.
        x: A tensor with the spatial sizes of the input.
        y: A tensor with the spatial sizes of the output.
        group: Number of groups.
    """
    rank, sliding = len(window.kernel), {"strides": window.strides, "dilations": window.dilations, "group": group}
    more = [step - 1 for step in window.strides]
    if window.pads is None:
        begin = window.begin
        whole = ops.ConvTranspose(dy, w, **sliding, **({"output_padding": more} if any(more) else {}))
        ends = ops.Add(begin, ops.Shape(x, start=2))
        return ops.Slice(whole, begin, ends, ops.ints(*window.axes))
    rest = [left for left in rest_of(window, x, y) if left is not None]
    begin_pads = window.pads[:rank]
    if len(rest) < rank:
        whole = ops.ConvTranspose(dy, w, **sliding, pads=[*begin_pads, *[0] * rank], output_padding=more)
        return ops.Slice(whole, ops.ints(*[0] * rank), ops.Shape(x, start=2), ops.ints(*window.axes))
    tails = [pad - left for pad, left in zip(window.pads[rank:], rest, strict=True)]
    turned = [extent - 1 - pad for extent, pad in zip(window.extent * 2, (*begin_pads, *tails), strict=True)]
    weights = constant_tensor(w)
    fixed = weights is not None and weights.size <= _TURNED and static_shape(w) is not None
    if fixed and set(window.strides) == {1} and min(turned) >= 0:
        return ops.Conv(dy, _turned(ops, w, group), pads=turned, dilations=window.dilations, group=group)
    if fixed and group == 1 and set(window.dilations) == {1} and few_numbers(w, window.strides):
        known = ([size or 0 for size in spatial(value, rank)] for value in (x, y))
        if (made := subpixel(ops, dy, w, window.strides[0], begin_pads, *known)) is not None:
            return made
    missing = [max(-tail, 0) for tail in tails]
    if any(missing):
        sliding["output_padding"] = missing
    return ops.ConvTranspose(dy, w, **sliding, pads=[*begin_pads, *(max(tail, 0) for tail in tails)])


def _turned(ops: Ops, w: ir.Value, group: int) -> ir.Value:
    """Return weights with the roles of input and output swapped and each axis reversed; a runtime folds it."""
    sizes = static_shape(w)
    assert sizes is not None
    outputs, inputs, kernel = sizes[0] or 0, sizes[1] or 0, [size or 1 for size in sizes[2:]]
    axes = range(2, len(sizes))
    if group == 1:
        swapped = ops.Transpose(w, perm=[1, 0, *axes])
    elif inputs == 1 and outputs == group:
        swapped = w
    else:
        parts = ops.Reshape(w, ops.ints(group, outputs // group, inputs, *kernel))
        swapped = ops.Transpose(parts, perm=[0, 2, 1, *(axis + 1 for axis in axes)])
        swapped = ops.Reshape(swapped, ops.ints(group * inputs, outputs // group, *kernel))
    reverse = [axis for axis, size in zip(axes, kernel, strict=True) if size > 1]
    if not reverse:
        return swapped
    count, lowest = len(reverse), -(2**31)
    return ops.Slice(
        swapped, ops.ints(*[-1] * count), ops.ints(*[lowest] * count), ops.ints(*reverse), ops.ints(*[-1] * count)
    )


def spread(ops: Ops, part: ir.Value, window: Window, x: ir.Value, y: ir.Value) -> ir.Value:
    """Add what belongs to each window to every element in it: ``(N, C, …)`` of ``y`` -> the shape of ``x``."""
    sizes, made, rank = spatial(x, len(window.kernel)), spatial(y, len(window.kernel)), len(window.kernel)
    if window.kernel == window.strides and window.pads == (0,) * (2 * rank) and set(window.dilations) == {1}:
        exact = [m is not None and n == m * k for n, m, k in zip(sizes, made, window.kernel, strict=True)]
        if all(exact):
            apart = ops.Reshape(part, ops.ints(0, 0, *(n for m in made for n in (m or 0, 1))))
            stretched = ops.Expand(apart, ops.ints(1, 1, *(n for k in window.kernel for n in (1, k))))
            return ops.Reshape(stretched, ops.ints(0, 0, *(n or 0 for n in sizes)))
    flat = ops.Reshape(part, _planes(ops, y, rank))
    ones = _ones(ops, window.kernel, part)
    return ops.Reshape(input_grad(ops, flat, ones, window, x, y), ops.shape(x), allowzero=1)


def _planes(ops: Ops, y: ir.Value, rank: int) -> ir.Value:
    sizes = spatial(y, rank)
    if None not in sizes:
        return ops.ints(-1, 1, *(size or 0 for size in sizes))
    return ops.Concat(ops.ints(-1, 1), ops.Shape(y, start=2), axis=0)


def _ones(ops: Ops, kernel: Sequence[int], like: ir.Value) -> ir.Value:
    assert like.dtype is not None
    return ops.constant(np.ones((1, 1, *kernel)).astype(like.dtype.numpy()))


def window_counts(ops: Ops, window: Window, x: ir.Value, y: ir.Value, like: ir.Value, *, padded: bool) -> ir.Value:
    """Return how many elements each window holds, pads among them or not; it broadcasts with ``y``."""
    rank = len(window.kernel)
    sizes, made = spatial(x, rank), spatial(y, rank)
    total: ir.Value | None = None
    number = np.ones((1, 1, *[1] * rank), np.int64)
    for axis in range(rank):
        size, outputs = sizes[axis], made[axis]
        if window.pads is not None and size is not None and outputs is not None:
            before, after = window.pads[axis], window.pads[axis + rank]
            places = np.arange(outputs)[:, None] * window.strides[axis] - before
            places = places + np.arange(window.kernel[axis]) * window.dilations[axis]
            low, high = (-before, size + after) if padded else (0, size)
            counts = ((places >= low) & (places < high)).sum(1)
            number = number * counts.reshape([-1 if i == axis + 2 else 1 for i in range(rank + 2)])
        else:
            along = _count_at_run_time(ops, window, axis, x, y, padded)
            total = along if total is None else ops.Mul(total, along)
    if (number == number.flat[0]).all():
        number = number.reshape(-1)[:1].reshape(())
    assert like.dtype is not None
    fixed = ops.constant(number.astype(like.dtype.numpy()))
    if total is None:
        return fixed
    counted = ops.cast(total, like)
    return counted if number.ndim == 0 and number == 1 else ops.Mul(counted, fixed)


def _count_at_run_time(ops: Ops, window: Window, axis: int, x: ir.Value, y: ir.Value, padded: bool) -> ir.Value:
    rank, k = len(window.kernel), window.kernel[axis]
    begin, end = window.pad_values(ops)
    before, after = (ops.Gather(pad, ops.ints(axis)) for pad in (begin, end))
    outputs = ops.Squeeze(ops.dim(y, axis + 2), ops.ints(0))
    first = ops.Mul(ops.Range(ops.integer(0), outputs, ops.integer(1)), ops.integer(window.strides[axis]))
    places = ops.Unsqueeze(ops.Sub(first, before), ops.ints(1))
    places = ops.Add(places, ops.constant(np.arange(k, dtype=np.int64) * window.dilations[axis]))
    low, high = ops.ints(0), ops.dim(x, axis + 2)
    if padded:
        low, high = ops.Neg(before), ops.Add(high, after)
    inside = ops.And(ops.GreaterOrEqual(places, low), ops.Less(places, high))
    counts = ops.ReduceSum(ops.Cast(inside, to=int(ir.DataType.INT64)), ops.ints(1), keepdims=0)
    return ops.Reshape(counts, ops.ints(*[-1 if i == axis + 2 else 1 for i in range(rank + 2)]))
