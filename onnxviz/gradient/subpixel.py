"""The gradient of a strided convolution's input as one convolution of stride 1."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape

__all__ = ["few_numbers", "subpixel"]

#: Numbers that one place of the output gives; with more, a transposed convolution is as fast
_FEW = 64
_KINDS = {ir.DataType.FLOAT, ir.DataType.DOUBLE}  # of DepthToSpace in onnxruntime's CPU provider


def few_numbers(w: ir.Value, strides: Sequence[int]) -> bool:
    """Whether a convolution's input has so few channels that :func:`subpixel` is faster than a transposed convolution.

    Args:
        w: ``(M, C, kh, kw)``, with M and C known.
        strides: ``(sh, sw)``.
    """
    sizes = static_shape(w) or ()
    if len(sizes) != 4 or len(set(strides)) > 1 or strides[0] == 1 or w.dtype not in _KINDS:
        return False
    return (sizes[1] or 0) * strides[0] ** 2 <= _FEW


def subpixel(
    ops: Ops, dy: ir.Value, w: ir.Value, step: int, begin: Sequence[int], sizes: Sequence[int], made: Sequence[int]
) -> ir.Value | None:
    """Return the gradient of a convolution's input, ``(N, C, H, W)``; None where windows hang over its end.

    Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?": place ``s q + a`` of the input
    gets ``w[k] dy[q + m]`` for every ``k = a + pad - s m``. So the s² phases a are channels of one convolution, which
    are then put beside each other. A transposed convolution adds up its products in one thread, which takes longer
    than the products where channels are few.

    Args:
        ops: Writes the nodes.
        dy: ``(N, M, h, w)``, the gradient of the output.
        w: ``(M, C, kh, kw)``; a runtime folds what is made of a constant.
        step: The stride s of both axes.
        begin: Pads before each axis.
        sizes: ``(H, W)``.
        made: ``(h, w)``.
    """
    shape = [size or 0 for size in static_shape(w) or ()]
    outputs, channels, *kernel = shape
    taps: list[int] = []
    grow: tuple[list[int], list[int]] = ([], [])
    pads: tuple[list[int], list[int]] = ([], [])
    for size, count, length, before in zip(sizes, made, kernel, begin, strict=True):
        low, high = -((length - 1 - before) // step), (step - 1 + before) // step
        taps.append(high - low + 1)
        grow[0].append(step * high - before)
        grow[1].append(step * taps[-1] - length - grow[0][-1])
        pads[0].append(-low)
        pads[1].append(-(-size // step) + high - count)
    if min(*pads[0], *pads[1]) < 0:
        return None
    grown = ops.Pad(w, ops.ints(0, 0, *grow[0], 0, 0, *grow[1]))
    parts = ops.Reshape(grown, ops.ints(outputs, channels, taps[0], step, taps[1], step))
    phases = ops.Transpose(parts, perm=[3, 5, 1, 0, 2, 4])
    kernels = ops.Reshape(phases, ops.ints(step * step * channels, outputs, *taps))
    last = ops.ints(-(2**31), -(2**31))
    turned = ops.Slice(kernels, ops.ints(-1, -1), last, ops.ints(2, 3), ops.ints(-1, -1))
    whole = ops.DepthToSpace(ops.Conv(dy, turned, pads=[*pads[0], *pads[1]]), blocksize=step)
    if all(size % step == 0 for size in sizes):
        return whole
    return ops.Slice(whole, ops.ints(0, 0), ops.ints(*sizes), ops.ints(2, 3))
