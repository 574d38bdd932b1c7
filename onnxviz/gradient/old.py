"""Operators of files older than the standard's first stable version, which onnxruntime still runs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.fused import Made, Refused, Site, expansion
from onnxviz.gradient.ops import Ops


def _scaled(ops: Ops, x: ir.Value, factor: float, offset: float) -> ir.Value:
    return ops.Add(ops.Mul(x, ops.scalar(factor, x)), ops.scalar(offset, x))


@expansion("Affine", domain="")
def affine(s: Site) -> Made:
    return (_scaled(s.ops, s[0], s.attr("alpha", 1.0), s.attr("beta", 0.0)),)


@expansion("ImageScaler", domain="")
def image_scaler(s: Site) -> Made:
    """``scale · x + bias``, a bias for each channel."""
    ops, x = s.ops, s[0]
    scaled = ops.Mul(x, ops.scalar(s.attr("scale", 1.0), x))
    bias = np.asarray(s.attr("bias", ()), np.float32)
    if not bias.size:
        return (scaled,)
    kind = np.float32 if x.dtype is None else x.dtype.numpy()
    return (ops.Add(scaled, ops.constant(bias.astype(kind).reshape(1, -1, 1, 1))),)


@expansion("Crop", domain="")
def crop(s: Site) -> Made:
    """Cuts ``border`` (left, top, right, bottom) off, or keeps ``scale`` (height, width) behind its first half."""
    border, size = list(s.attr("border", ())), list(s.attr("scale", ()))
    if len(border) != 4 or len(size) not in (0, 2):
        raise Refused("its border is not of four numbers, or its scale not of two")
    left, top, right, bottom = border
    if size:
        return (s.ops.Slice(s[0], s.ops.ints(top, left), s.ops.ints(top + size[0], left + size[1]), s.ops.ints(2, 3)),)
    ends = [-bottom if bottom else np.iinfo(np.int64).max, -right if right else np.iinfo(np.int64).max]
    return (s.ops.Slice(s[0], s.ops.ints(top, left), s.ops.ints(*ends), s.ops.ints(2, 3)),)


@expansion("ScaledTanh", domain="")
def scaled_tanh(s: Site) -> Made:
    ops, x = s.ops, s[0]
    inner = ops.Mul(x, ops.scalar(s.attr("beta", 1.0), x))
    return (ops.Mul(ops.Tanh(inner), ops.scalar(s.attr("alpha", 1.0), x)),)


@expansion("ParametricSoftplus", domain="")
def parametric_softplus(s: Site) -> Made:
    ops, x = s.ops, s[0]
    inner = ops.Mul(x, ops.scalar(s.attr("beta", 1.0), x))
    return (ops.Mul(ops.Softplus(inner), ops.scalar(s.attr("alpha", 1.0), x)),)
