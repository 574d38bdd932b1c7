"""Shapes of operators that slide a window or scale: convolution, pooling, padding, resizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.contents import Known, Shapes, attribute, integers
from onnxviz.graph.symbolic import Expression, Size, add, ceil_divide, floor_divide, multiply, subtract

__all__ = ["WINDOW_RULES"]


def _window(size: Size, i: int, node: ir.Node, kernel: int) -> Size:
    """Return how often a window fits along axis ``i``: the formulas of the operators' documentation."""
    strides, pads = attribute(node, "strides"), attribute(node, "pads")
    dilations, auto = attribute(node, "dilations"), attribute(node, "auto_pad", "NOTSET")
    stride = strides[i] if strides else 1
    reach = (kernel - 1) * (dilations[i] if dilations else 1) + 1
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return ceil_divide(size, stride)
    before, after = (pads[i], pads[i + len(pads) // 2]) if pads and auto == "NOTSET" else (0, 0)
    room = add(size, before + after - reach)
    if not attribute(node, "ceil_mode", 0):
        return add(floor_divide(room, stride), 1)
    if isinstance(room, Expression) and reach < stride + after:
        return None  # the last window may start in the padding and then does not count
    made = add(ceil_divide(room, stride), 1)
    if isinstance(made, int) and isinstance(size, int) and (made - 1) * stride >= size + before:
        return made - 1
    return made


def _convolution(weight: int = 1) -> Callable[[ir.Node, Known], Shapes]:
    def rule(node: ir.Node, known: Known) -> Shapes:
        data, kernel = known.shape(node.inputs[0]), known.shape(node.inputs[weight])
        if data is None or kernel is None or attribute(node, "channels_last", 0):
            return [None]
        sizes = attribute(node, "kernel_shape") or kernel[2:]
        spatial = (_window(d, i, node, k) if isinstance(k, int) else None for i, (d, k) in _paired(data[2:], sizes))
        return [(data[0], kernel[0], *spatial)]

    return rule


def _paired(dims: Sequence[Size], kernel: Sequence[Size]) -> Sequence[tuple[int, tuple[Size, Size]]]:
    return list(enumerate(zip(dims, kernel, strict=True)))


def _pooling(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    if data is None or attribute(node, "channels_last", 0):
        return [None]
    kernel = attribute(node, "kernel_shape")
    made = (*data[:2], *(_window(d, i, node, kernel[i]) for i, (d, _) in _paired(data[2:], kernel)))
    return [made, made]


def _global_pooling(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    if data is None or attribute(node, "channels_last", 0):
        return [None]
    return [(*data[:2], *(1 for _ in data[2:]))]


def _transposed(node: ir.Node, known: Known) -> Shapes:
    data, weight = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    fixed, auto = attribute(node, "output_shape"), attribute(node, "auto_pad", "NOTSET")
    if data is None or weight is None:
        return [None]
    channels = multiply(weight[1], attribute(node, "group", 1))
    if fixed:
        return [(data[0], channels, *fixed[-len(data) + 2 :])]
    rank = len(data) - 2
    kernel = attribute(node, "kernel_shape") or weight[2:]
    strides, pads = attribute(node, "strides") or [1] * rank, attribute(node, "pads") or [0] * (2 * rank)
    dilations, extra = attribute(node, "dilations") or [1] * rank, attribute(node, "output_padding") or [0] * rank
    spatial = []
    for i, (size, k) in _paired(data[2:], kernel):
        reach = (k - 1) * dilations[i] + 1 if isinstance(k, int) else None
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            # Where the window is smaller than the stride, onnxruntime departs from the operator's text.
            told = reach is not None and reach >= strides[i]
            spatial.append(multiply(size, strides[i]) if told else None)
            continue
        cut = pads[i] + pads[i + rank] if auto == "NOTSET" else 0
        spatial.append(add(add(multiply(subtract(size, 1), strides[i]), extra[i] - cut), reach))
    return [(data[0], channels, *spatial)]


def _pad(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    if data is None:
        return [None]
    content = known.content(node.inputs[1]) if len(node.inputs) > 1 else None
    pads = attribute(node, "pads", attribute(node, "paddings")) or (content.elements if content is not None else None)
    axes = list(range(len(data)))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        listed = integers(node, known, "axes", 3)
        pads, axes = (None, axes) if listed is None else (pads, [axis % len(data) for axis in listed])
    if pads is None:
        return [(None,) * len(data)]
    made = list(data)
    for i, axis in enumerate(axes):
        made[axis] = add(add(data[axis], pads[i]), pads[i + len(axes)])
    return [tuple(made)]


def _resize(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    if data is None or attribute(node, "axes") or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return [None]
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return [None]
    if len(node.inputs) > 3 and (sizes := known.content(node.inputs[3])) is not None:
        return [sizes.elements]
    scales = attribute(node, "scales") or _scales(node.inputs[2 if len(node.inputs) > 2 else 1])
    return [(None,) * len(data) if not scales else tuple(map(_scaled, data, scales))]


def _scales(value: ir.Value | None) -> list[float]:
    tensor = constant_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes > 64:
        return []
    return [float(x) for x in tensor.numpy().reshape(-1).tolist()]


def _scaled(size: Size, scale: float) -> Size:
    if isinstance(size, int):  # in float32, as onnxruntime does: 40 × 1.3 is 52, and not 51.999…
        return int(np.floor(np.float32(size) * np.float32(scale)))
    if scale >= 1 and scale == int(scale):
        return multiply(size, int(scale))
    below = round(1 / scale) if 2**-20 < scale < 1 else 0
    return floor_divide(size, below) if below and scale == 1 / below else None


def _space(node: ir.Node, known: Known) -> Shapes:
    data, block = known.shape(node.inputs[0]), attribute(node, "blocksize", 1)
    if data is None or len(data) != 4:
        return [None]
    n, c, h, w = data
    if node.op_type == "DepthToSpace":
        return [(n, floor_divide(c, block * block), multiply(h, block), multiply(w, block))]
    return [(n, multiply(c, block * block), floor_divide(h, block), floor_divide(w, block))]


def _crop(node: ir.Node, known: Known) -> Shapes:
    """Crop was experimental and has no schema any more; its border is left, top, right, bottom."""
    data, fixed = known.shape(node.inputs[0]), attribute(node, "scale")
    left, top, right, bottom = attribute(node, "border")
    if data is None or len(data) != 4:
        return [None]
    cut = fixed or (add(data[2], -top - bottom), add(data[3], -left - right))
    return [(*data[:2], *cut)]


#: Operator -> the shapes of its outputs, as far as they are known.
WINDOW_RULES: dict[str, Callable[[ir.Node, Known], Shapes]] = {
    **dict.fromkeys(["Conv", "FusedConv", "ConvInteger"], _convolution()),
    "QLinearConv": _convolution(3),
    **dict.fromkeys(["MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"], _pooling),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "QLinearGlobalAveragePool"], _global_pooling),
    "ConvTranspose": _transposed,
    "Pad": _pad,
    **dict.fromkeys(["Resize", "Upsample"], _resize),
    "Crop": _crop,
    **dict.fromkeys(["DepthToSpace", "SpaceToDepth"], _space),
}
