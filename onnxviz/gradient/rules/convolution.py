"""Convolutions and their transposes: each is the other's gradient, and the weights' gradient is one too."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.correlation import weight_grad
from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step
from onnxviz.gradient.windows import Window, input_grad, spatial, window_of


def _kernel(s: Step) -> tuple[int, ...]:
    """Return the sizes of the kernel, by attribute or of the weights."""
    sizes = static_shape(s[1])
    found: tuple[int | None, ...] = s.attr("kernel_shape") or (() if sizes is None else sizes[2:])
    kernel = tuple(size for size in found if size is not None)
    if not kernel or len(kernel) < len(found):
        raise s.refuse("the size of its kernel is not known")
    return kernel


def _bias_grad(s: Step, dy: ir.Value, rank: int) -> ir.Value | None:
    return s.ops.sum(dy, [0, *range(2, rank + 2)]) if s.need(2) else None


@gradient("Conv")
def conv(s: Step, dy: ir.Value) -> Grads:
    """Dumoulin and Visin 2016, chapter 4: a transposed convolution with the same weights."""
    window, group = window_of(s, _kernel(s), s[0], s.y), s.attr("group", 1)
    dx = input_grad(s.ops, dy, s[1], window, s[0], s.y, group) if s.need(0) else None
    dw = weight_grad(s.ops, dy, s[0], window, s.y, group) if s.need(1) else None
    return dx, dw, _bias_grad(s, dy, len(window.kernel))


@gradient("ConvTranspose")
def conv_transpose(s: Step, dy: ir.Value) -> Grads:
    """The convolution that it transposes, whose input is the output here."""
    ops, kernel, group = s.ops, _kernel(s), s.attr("group", 1)
    rank = len(kernel)
    window, crop = _transposed_window(s, kernel)
    dx = dw = None
    if s.need(0):
        source, pads = dy, window.pads
        if pads is None:
            begin, end = window.pad_values(ops)
            source = ops.Pad(dy, ops.Concat(ops.ints(0, 0), begin, ops.ints(0, 0), end, axis=0), ops.scalar(0, dy))
        dx = ops.Conv(
            source, s[1], group=group, strides=window.strides, dilations=window.dilations,
            pads=pads or (0,) * (2 * rank),
        )  # fmt: skip
        if crop:
            dx = ops.Slice(dx, ops.ints(*[0] * rank), ops.Shape(s[0], start=2), ops.ints(*window.axes))
    if s.need(1):
        dw = weight_grad(ops, s[0], dy, window, s[0], group)
    return dx, dw, _bias_grad(s, dy, rank)


def _transposed_window(s: Step, kernel: tuple[int, ...]) -> tuple[Window, bool]:
    """Return the window, and whether it may find more places in the output than the input has elements."""
    ops, rank = s.ops, len(kernel)
    strides, dilations = s.attr("strides", (1,) * rank), s.attr("dilations", (1,) * rank)
    more = s.attr("output_padding", (0,) * rank)
    auto, wanted = s.attr("auto_pad", "NOTSET"), s.attr("output_shape")
    plain = Window(kernel, strides, dilations, tuple(s.attr("pads", (0,) * (2 * rank))))
    crop = wanted is not None or any(extra >= step for extra, step in zip(more, strides, strict=True))
    if wanted is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return (plain if auto != "VALID" else Window(kernel, strides, dilations, (0,) * (2 * rank))), crop
    upper, sizes = auto == "SAME_UPPER", spatial(s[0], rank)
    totals: list[int | None] = []
    for axis in range(rank):
        free = plain.extent[axis] + more[axis] - strides[axis]  # of the pads, where the output is of size · stride
        size = sizes[axis]
        if wanted is None:
            totals.append(max(free, 0))
        else:
            totals.append(None if size is None else max(size * strides[axis] + free - wanted[-rank:][axis], 0))
    known = [total for total in totals if total is not None]
    if len(known) == rank:
        begin = [total // 2 if upper else (total + 1) // 2 for total in known]
        ends = [total - first for total, first in zip(known, begin, strict=True)]
        return Window(kernel, strides, dilations, (*begin, *ends)), crop
    free_value = ops.ints(*(plain.extent[i] + more[i] - strides[i] - wanted[-rank:][i] for i in range(rank)))
    total_value = ops.Add(ops.Mul(ops.Shape(s[0], start=2), ops.ints(*strides)), free_value)
    total_value = ops.Max(total_value, ops.ints(0))
    first_value = ops.Div(total_value if upper else ops.Add(total_value, ops.ints(1)), ops.ints(2))
    return Window(kernel, strides, dilations, None, first_value, ops.Sub(total_value, first_value)), crop
