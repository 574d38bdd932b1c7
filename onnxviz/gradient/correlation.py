"""The gradient of a convolution's weights: the input correlated with the gradient of the output."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.windows import Window, rest_of, spatial

__all__ = ["weight_grad"]

#: Elements of a kernel that get a product of matrices each
_PRODUCTS = 9


def weight_grad(ops: Ops, dy: ir.Value, x: ir.Value, window: Window, y: ir.Value, group: int = 1) -> ir.Value:
    """Return the gradient of a convolution's weights, ``(M, C / group, …)``.

    Each element of the kernel gets the product of dy with the part of x that it slides over, a long one over all
    samples and places; kernels of many elements, and groups, get one convolution in which samples and channels have
    changed places.

    Args:
        ops: Writes the nodes.
        dy: ``(N, M, …)``, the gradient of the output.
        x: ``(N, C, …)``, the input.
        window: How it slides.
        y: A tensor with the spatial sizes of the output.
        group: Number of groups.
    """
    if group == 1 and math.prod(window.kernel) <= _PRODUCTS:
        return _products(ops, dy, x, window, y)
    return _convolution(ops, dy, x, window, y, group)


def _padded(ops: Ops, x: ir.Value, window: Window) -> ir.Value:
    if window.pads is not None and not any(window.pads):
        return x
    begin, end = window.pad_values(ops)
    if window.pads is not None:
        rank = len(window.kernel)
        return ops.Pad(x, ops.ints(0, 0, *window.pads[:rank], 0, 0, *window.pads[rank:]))
    return ops.Pad(x, ops.Concat(ops.ints(0, 0), begin, ops.ints(0, 0), end, axis=0))


def _products(ops: Ops, dy: ir.Value, x: ir.Value, window: Window, y: ir.Value) -> ir.Value:
    swap = [1, 0, *window.axes]
    rows = ops.Flatten(ops.Transpose(dy, perm=swap), axis=1)
    source = ops.Transpose(_padded(ops, x, window), perm=swap)
    plain = set(window.strides) == {1} == set(window.kernel)
    ends = None if plain else _ends(ops, window, y)
    made = []
    for place in product(*map(range, window.kernel)):
        part = source
        if ends is not None:
            first = [index * dilation for index, dilation in zip(place, window.dilations, strict=True)]
            steps = [] if set(window.strides) == {1} else [ops.ints(*window.strides)]
            part = ops.Slice(source, ops.ints(*first), ends(first), ops.ints(*window.axes), *steps)
        made.append(ops.Gemm(rows, ops.Flatten(part, axis=1), transB=1))
    stacked = ops.Concat(*(ops.Unsqueeze(value, ops.ints(2)) for value in made), axis=2) if len(made) > 1 else made[0]
    return ops.Reshape(stacked, ops.ints(0, 0, *window.kernel))


def _ends(ops: Ops, window: Window, y: ir.Value) -> Callable[[list[int]], ir.Value]:
    """Return what tells where the windows' elements end, of which the first lie at given places."""
    sizes = spatial(y, len(window.kernel))
    if None not in sizes:
        fixed = [(size or 0) * step for size, step in zip(sizes, window.strides, strict=True)]
        return lambda first: ops.ints(*(a + b - s + 1 for a, b, s in zip(first, fixed, window.strides, strict=True)))
    spans = ops.Mul(ops.Shape(y, start=2), ops.ints(*window.strides))
    return lambda first: ops.Add(spans, ops.ints(*(a - s + 1 for a, s in zip(first, window.strides, strict=True))))


def _convolution(ops: Ops, dy: ir.Value, x: ir.Value, window: Window, y: ir.Value, group: int) -> ir.Value:
    rank = len(window.kernel)
    swap = [1, 0, *window.axes]
    pads, crop = window.pads, True
    padded = x
    if pads is None:
        padded = _padded(ops, x, window)
    else:
        rest = rest_of(window, x, y)
        crop = any(left is None or left >= d for left, d in zip(rest, window.dilations, strict=True))
    if group > 1:
        sizes = ops.Shape(padded, start=2)
        parts = ops.Reshape(padded, ops.Concat(ops.ints(0, group, -1), sizes, axis=0))
        parts = ops.Transpose(parts, perm=[2, 1, 0, *(axis + 1 for axis in window.axes)])
        turned = ops.Reshape(parts, ops.Concat(ops.ints(0, -1), sizes, axis=0))
    else:
        turned = ops.Transpose(padded, perm=swap)
    made = ops.Conv(
        turned, ops.Transpose(dy, perm=swap), group=group, strides=window.dilations, dilations=window.strides,
        pads=pads or (0,) * (2 * rank),
    )  # fmt: skip
    if crop:
        made = ops.Slice(made, ops.ints(*[0] * rank), ops.ints(*window.kernel), ops.ints(*window.axes))
    return ops.Transpose(made, perm=swap)
