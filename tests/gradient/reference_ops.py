"""Operators that neither onnxruntime's CPU provider nor onnx's reference evaluator computes, written down in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Arrays = tuple[np.ndarray, ...]


class GlobalLpPool(OpRun):
    """The p-norm over all axes but the first two."""

    op_domain = ""

    def _run(self, x: np.ndarray, p: int | None = None) -> Arrays:  # type: ignore[override]
        axes, p = tuple(range(2, x.ndim)), p or 2
        return (((np.abs(x) ** p).sum(axes, keepdims=True) ** (1 / p)),)


class MaxRoiPool(OpRun):
    """Girshick 2015: each region is cut into bins of whole pixels, whose largest values are taken."""

    op_domain = ""

    def _run(  # type: ignore[override]
        self, x: np.ndarray, rois: np.ndarray, pooled_shape: Any = None, spatial_scale: float | None = None
    ) -> Arrays:
        pooled, scale = tuple(pooled_shape), 1.0 if spatial_scale is None else spatial_scale
        y = np.zeros((len(rois), x.shape[1], *pooled), x.dtype)
        for n, roi in enumerate(rois):
            left, top, right, bottom = (math.floor(abs(c * scale) + 0.5) for c in roi[1:])
            starts, sizes = (top, left), (max(bottom - top + 1, 1), max(right - left + 1, 1))
            for place in np.ndindex(*pooled):
                window = tuple(
                    slice(
                        min(max(start + math.floor(i * size / count), 0), limit),
                        min(max(start + math.ceil((i + 1) * size / count), 0), limit),
                    )
                    for i, start, size, count, limit in zip(place, starts, sizes, pooled, x.shape[2:], strict=True)
                )
                cells = x[int(roi[0])][(slice(None), *window)].reshape(x.shape[1], -1)
                y[(n, slice(None), *place)] = cells.max(1) if cells.size else 0
        return (y,)


class BiasAdd(OpRun):
    """The sum of three."""

    op_domain = "com.microsoft"

    def _run(self, x: np.ndarray, bias: np.ndarray, skip: np.ndarray) -> Arrays:  # type: ignore[override]
        return (x + bias + skip,)


class BiasSplitGelu(OpRun):
    """The first half times the GELU of the second, of a sum."""

    op_domain = "com.microsoft"

    def _run(self, x: np.ndarray, bias: np.ndarray) -> Arrays:  # type: ignore[override]
        a, b = np.split(x + bias, 2, axis=-1)
        return (a * b * 0.5 * (1 + np.vectorize(math.erf)(b / math.sqrt(2))),)


class BiasSoftmax(OpRun):
    """Softmax over the last axes of a sum."""

    op_domain = "com.microsoft"

    def _run(  # type: ignore[override]
        self, x: np.ndarray, bias: np.ndarray, axis: int | None = None, is_inner_broadcast: int | None = None
    ) -> Arrays:
        axes = tuple(range(1 if axis is None else axis, x.ndim))
        e = np.exp(x + bias - (x + bias).max(axes, keepdims=True))
        return (e / e.sum(axes, keepdims=True),)


class NhwcConv(OpRun):
    """A convolution of stride 1 without padding, channels last."""

    op_domain = "com.microsoft"

    def _run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> Arrays:  # type: ignore[override]
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], axis=(1, 2))  # (N, H, W, C, kh, kw)
        return (np.einsum("nhwcij,mijc->nhwm", windows, w) + bias,)


class NhwcFusedConv(NhwcConv):
    """The same with a ReLU."""

    def _run(  # type: ignore[override]
        self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, activation: str | None = None
    ) -> Arrays:
        assert activation == "Relu"
        (y,) = super()._run(x, w, bias)
        return (np.maximum(y, 0),)


OPS = [GlobalLpPool, MaxRoiPool, BiasAdd, BiasSplitGelu, BiasSoftmax, NhwcConv, NhwcFusedConv]


def reference(model: Any) -> ReferenceEvaluator:
    """Return onnx's reference evaluator of a model, with what it lacks."""
    return ReferenceEvaluator(model, new_ops=OPS)
