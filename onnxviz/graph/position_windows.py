"""How convolution, pooling and resizing pass on what their input sees: windows along each spatial axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.position_maps import PositionMap, resample
from onnxviz.graph.position_sights import Sight, dims, ints, kept, numbers, text

__all__ = ["pool_globally", "resize", "transposed_window", "window"]


def _spatial(node: ir.Node, rank: int) -> range:
    return range(1, rank - 1) if node.op_type.startswith("Nhwc") else range(2, rank)


def _window_shape(node: ir.Node, axes: range) -> list[int] | None:
    kernel = ints(node, "kernel_shape")
    if kernel is None and node.op_type not in KINDS["pool"]:
        at = 3 if node.op_type == "QLinearConv" else 1
        tensor = constant_tensor(node.inputs[at]) if at < len(node.inputs) else None
        sizes = [] if tensor is None else [d for d in tensor.shape if isinstance(d, int)]
        kernel = sizes[axes.start : axes.start + len(axes)]
    return kernel if kernel and len(kernel) == len(axes) and all(k > 0 for k in kernel) else None


def _geometry(node: ir.Node, axes: range) -> list[tuple[int, int, int, int]] | None:
    """Return kernel, stride, dilation and the padding before the first position, for each spatial axis."""
    kernel = _window_shape(node, axes)
    if kernel is None:
        return None
    count = len(axes)
    strides, dilations = ints(node, "strides") or [1] * count, ints(node, "dilations") or [1] * count
    pads = ints(node, "pads") or [0] * (2 * count)
    if len(strides) != count or len(dilations) != count or len(pads) != 2 * count or min(*strides, *dilations) < 1:
        return None
    auto = text(node, "auto_pad", "NOTSET")
    sizes = dims(node.inputs[0]) or []
    found = []
    for i, axis in enumerate(axes):
        pad = 0 if auto == "VALID" else pads[i]
        if auto.startswith("SAME"):
            reach, size = (kernel[i] - 1) * dilations[i] + 1, sizes[axis] if axis < len(sizes) else None
            over = (size - 1) % strides[i] + 1 if isinstance(size, int) and size > 0 else strides[i]
            total = max(reach - over, 0)
            pad = total // 2 if auto == "SAME_UPPER" else total - total // 2
        found.append((kernel[i], strides[i], dilations[i], pad))
    return found


def window(node: ir.Node, sight: Sight) -> Sight | None:
    """Return what a window sees that slides over the input; None where its sides are unknown."""
    axes = _spatial(node, len(sight.axes))
    geometry = _geometry(node, axes)
    if geometry is None:
        return None
    maps = list(sight.axes)
    for axis, (kernel, stride, dilation, pad) in zip(axes, geometry, strict=True):
        entry = maps[axis]
        if entry is not None:

            def reads(i: int, k: int = kernel, s: int = stride, d: int = dilation, p: int = pad) -> range:
                return range(s * i - p, s * i - p + (k - 1) * d + 1, d)

            maps[axis] = resample(entry, 1, stride, reads)
    return kept(sight, maps)


def transposed_window(node: ir.Node, sight: Sight) -> Sight | None:
    """Return what a transposed convolution sees: position i of the output reads (i + pad - t · dilation) / stride."""
    axes = _spatial(node, len(sight.axes))
    if ints(node, "output_shape") is not None or text(node, "auto_pad", "NOTSET").startswith("SAME"):
        return None
    geometry = _geometry(node, axes)
    if geometry is None:
        return None
    maps = list(sight.axes)
    for axis, (kernel, stride, dilation, pad) in zip(axes, geometry, strict=True):
        entry = maps[axis]
        if entry is not None:

            def reads(i: int, k: int = kernel, s: int = stride, d: int = dilation, p: int = pad) -> list[int]:
                return [(i + p - t * d) // s for t in range(min(k, 4096)) if (i + p - t * d) % s == 0]

            maps[axis] = resample(entry, stride, 1, reads)
    return kept(sight, maps)


def pool_globally(node: ir.Node, sight: Sight) -> Sight:
    """Forget the positions: all are seen."""
    axes = _spatial(node, len(sight.axes))
    return kept(sight, [None if axis in axes else entry for axis, entry in enumerate(sight.axes)])


def resize(node: ir.Node, sight: Sight) -> Sight | None:
    """Return what a resized map sees."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or len(before) != len(sight.axes):
        return None
    scales = _scales(node, len(before))
    maps = list(sight.axes)
    for axis, entry in enumerate(sight.axes):
        if entry is None:
            continue
        old, new = before[axis], after[axis] if after is not None and len(after) == len(before) else None
        sizes = (old, new) if isinstance(old, int) and isinstance(new, int) and min(old, new) > 0 else None
        scale = scales[axis] if scales is not None else Fraction(sizes[1], sizes[0]) if sizes else None
        maps[axis] = None if scale is None else _scaled(node, entry, scale, sizes)
    return kept(sight, maps)


def _scales(node: ir.Node, rank: int) -> list[Fraction] | None:
    found = node.attributes.get("scales")
    scales = None if found is None else [float(v) for v in found.value]
    for index in (1, 2) if scales is None else ():
        scales = scales or numbers(node, index)
    if scales is None or len(scales) != rank or any(not 0 < n < 4096 for n in scales):
        return None
    return [Fraction(n).limit_denominator(64) for n in scales]


def _scaled(node: ir.Node, entry: PositionMap, scale: Fraction, sizes: tuple[int, int] | None) -> PositionMap | None:
    """Return the map of a resized axis: ``reads`` are the positions that interpolation weighs."""
    old_rule = node.op_type == "Upsample" or len(node.inputs) == 2
    how = "asymmetric" if old_rule else text(node, "coordinate_transformation_mode", "half_pixel")
    step, offset = 1 / scale, Fraction(0)
    if how == "align_corners":
        if sizes is None or min(sizes) < 2:
            return None
        step = Fraction(sizes[0] - 1, sizes[1] - 1)
    elif how != "asymmetric":
        if how == "tf_crop_and_resize":
            return None
        offset = step / 2 - Fraction(1, 2)
    if step == 1 and offset == 0:
        return entry
    mode = text(node, "mode", "nearest")
    nearest = "floor" if old_rule else text(node, "nearest_mode", "round_prefer_floor")

    def reads(i: int) -> Sequence[int]:
        at = step * i + offset
        low = math.floor(at)
        if mode == "nearest":
            return [_nearest(at, nearest)]
        if mode == "cubic":
            return range(low - 1, low + 3) if at != low else [low]
        return [low, low + 1] if at != low else [low]

    return resample(entry, step.denominator, step.numerator, reads)


def _nearest(at: Fraction, how: str) -> int:
    if how == "floor":
        return math.floor(at)
    if how == "ceil":
        return math.ceil(at)
    half = Fraction(1, 2)
    return math.ceil(at - half) if how == "round_prefer_floor" else math.floor(at + half)
