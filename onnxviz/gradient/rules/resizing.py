"""Resampling by the matrix of each axis: resizing the unit matrix gives what the operator does along that axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step
from onnxviz.gradient.windows import rank_of

_KEPT = (
    "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode", "antialias",
)  # fmt: skip


@gradient("Resize", since=11)
def resize(s: Step, dy: ir.Value) -> Grads:
    """Every mode is linear in the input and works on one axis after the other: ``dX = R₁ᵀ … dY … Rₙᵀ``."""
    rank = rank_of(s)
    axes = [axis % rank for axis in s.attr("axes") or range(rank)]
    for place, axis in enumerate(axes):
        if _unchanged(s, place, axis):
            continue
        if axis == rank - 2:
            dy = s.ops.MatMul(_matrix(s, place, axis, len(axes), across=True), dy)
        elif axis == rank - 1:
            dy = s.ops.MatMul(dy, _matrix(s, place, axis, len(axes), across=False))
        else:
            swap = [rank - 1 if i == axis else axis if i == rank - 1 else i for i in range(rank)]
            turned = s.ops.Transpose(dy, perm=swap)
            dy = s.ops.Transpose(s.ops.MatMul(turned, _matrix(s, place, axis, len(axes), across=False)), perm=swap)
    return dy


def _unchanged(s: Step, place: int, axis: int) -> bool:
    """Whether an axis is left as it is."""
    if s.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    scales = s.known(2)
    if scales is not None and scales.size:
        return float(scales[place]) == 1
    if s.attr("keep_aspect_ratio_policy", "stretch") != "stretch" or s[0].shape is None or s.y.shape is None:
        return False
    size, made = s[0].shape[axis], s.y.shape[axis]
    return size == made and (isinstance(size, int) or size.value is not None)


def _matrix(s: Step, place: int, axis: int, count: int, *, across: bool) -> ir.Value:
    """Return ``(n, m)`` (``across``) or ``(m, n)``, for an axis of n elements that becomes one of m."""
    ops, x = s.ops, s[0]
    kind = np.float64 if x.dtype == ir.DataType.DOUBLE else np.float32
    size = ops.dim(x, axis)
    eye = ops.EyeLike(ops.ConstantOfShape(ops.Concat(size, size, axis=0), value=ir.tensor(np.zeros(1, kind))))
    eye = ops.Reshape(eye, ops.Concat(ops.ints(1, 1), size, size, axis=0))
    attributes = {name: s.attr(name) for name in _KEPT if s.attr(name) is not None}

    def whole(part: ir.Value, other: ir.Value, neutral: ir.Value) -> ir.Value:
        """Return a vector an axis of the unit matrix."""
        pair = (other, part) if across else (part, other)
        return ops.Concat(neutral, neutral, *pair, axis=0)

    roi = scales = sizes = None
    if s.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        bounds = [ops.Gather(s[1], ops.ints(place + offset)) for offset in (0, count)]
        ends = [ops.constant(np.array([number]).astype(_numpy(s[1]))) for number in (0, 1)]
        roi = ops.Concat(*(whole(bound, end, end) for bound, end in zip(bounds, ends, strict=True)), axis=0)
    one = ops.constant(np.ones(1, np.float32))
    if (scale := _scale(s, place)) is not None:
        scales = whole(scale, one, one)
    else:
        sizes = whole(ops.dim(s.y, axis), size, ops.ints(1))
    made = ops.Resize(eye, roi, scales, sizes, **attributes)
    return ops.cast(ops.Squeeze(made, ops.ints(0, 1)), x)


def _numpy(value: ir.Value) -> np.dtype[np.generic]:
    return np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()


def _scale(s: Step, place: int) -> ir.Value | None:
    """Return the scale of an axis, ``(1,)`` float32; None where sizes are given that stretch."""
    ops, scales = s.ops, s.known(2)
    if s.input(3) is None:
        return ops.constant(scales[place : place + 1].astype(np.float32)) if scales is not None else (
            ops.Gather(s[2], ops.ints(place))
        )  # fmt: skip
    policy = s.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    sizes, shape, made = s.known(3), static_shape(s[0]), static_shape(s.y)
    if sizes is None or shape is None or made is None or None in shape or None in made:
        raise s.refuse(f"keep_aspect_ratio_policy = {policy} where the sizes are not known")
    rank = len(shape)
    axes = [axis % rank for axis in s.attr("axes") or range(rank)]
    ratios = [np.float32(size) / np.float32(shape[axis]) for size, axis in zip(sizes, axes, strict=True)]
    ratio = np.float32(min(ratios) if policy == "not_larger" else max(ratios))
    axis = axes[place]
    if int(np.floor(np.float32(shape[axis]) * ratio)) != made[axis]:
        raise s.refuse(f"keep_aspect_ratio_policy = {policy} rounds the size of axis {axis}")
    return ops.constant(np.array([ratio], np.float32))
