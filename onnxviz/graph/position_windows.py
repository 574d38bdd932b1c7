"""How convolution and pooling pass on what their input sees: windows along each spatial axis."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.position_facts import Facts
from onnxviz.graph.position_maps import resample
from onnxviz.graph.position_sights import Sight, dims, ints, kept, text

__all__ = ["pool_globally", "transposed_window", "window"]


def _spatial(node: ir.Node, rank: int) -> range:
    last = node.op_type.startswith("Nhwc") or (ints(node, "channels_last") or [0])[0] == 1
    return range(1, rank - 1) if last else range(2, rank)


def _window_shape(node: ir.Node, axes: range) -> list[int] | None:
    kernel = ints(node, "kernel_shape")
    if kernel is None and node.op_type not in KINDS["pool"] and axes.start == 2:
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


def window(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
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


def transposed_window(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
    """Return what a transposed convolution sees: position i of the output reads (i + pad - t · dilation) / stride."""
    axes = _spatial(node, len(sight.axes))
    geometry = _geometry(node, axes)
    if geometry is None:
        return None
    maps = list(sight.axes)
    for at, (axis, (kernel, stride, dilation, before)) in enumerate(zip(axes, geometry, strict=True)):
        entry = maps[axis]
        reach = (kernel - 1) * dilation + 1
        pad = _transposed_pad(node, axes, at, stride, reach, before)
        if pad is None:
            maps[axis] = None
        elif entry is not None:

            def reads(i: int, k: int = kernel, s: int = stride, d: int = dilation, p: int = pad) -> list[int]:
                return [(i + p - t * d) // s for t in range(min(k, 4096)) if (i + p - t * d) % s == 0]

            maps[axis] = resample(entry, stride, 1, reads)
    return kept(sight, maps)


def _transposed_pad(node: ir.Node, axes: range, at: int, stride: int, reach: int, pad: int) -> int | None:
    """Return how much is cut off before the first position, where a given size of the output decides it.

    The operator's documentation: what is too long is cut off at both ends, the odd one before but for ``SAME_UPPER``.
    """
    auto, wanted = text(node, "auto_pad", "NOTSET"), ints(node, "output_shape")
    extra = ints(node, "output_padding") or [0] * len(axes)
    if wanted is not None:
        size = (dims(node.inputs[0]) or [])[axes[at] : axes[at] + 1]
        if len(wanted) < len(axes) or len(extra) != len(axes) or not size or not isinstance(size[0], int):
            return None
        total = (size[0] - 1) * stride + extra[at] + reach - wanted[len(wanted) - len(axes) + at]
    elif auto.startswith("SAME"):
        total = reach - stride
        if any(extra):
            return None
    else:
        return pad
    total = max(total, 0)
    return total // 2 if auto == "SAME_UPPER" else total - total // 2


def pool_globally(node: ir.Node, sight: Sight, _: Facts) -> Sight:
    """Forget the positions: all are seen."""
    axes = _spatial(node, len(sight.axes))
    return kept(sight, [None if axis in axes else entry for axis, entry in enumerate(sight.axes)])
