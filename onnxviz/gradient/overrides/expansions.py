"""Operators that DeepLIFT takes apart, because it has no rule of its own for them and ONNX no body."""

from __future__ import annotations

from onnxviz.gradient.fused import Made, Site, expansion

__all__ = ["instance_normalization"]


@expansion("InstanceNormalization", domain="")
def instance_normalization(s: Site) -> Made:
    """``γ (x - mean) / √(variance + ε) + β`` over the axes behind the channels."""
    ops, rank = s.ops, s.rank(0)
    axes, column = ops.ints(*range(2, rank)), ops.ints(-1, *[1] * (rank - 2))
    centred = ops.Sub(s[0], ops.ReduceMean(s[0], axes, keepdims=1))
    variance = ops.ReduceMean(ops.Mul(centred, centred), axes, keepdims=1)
    root = ops.Sqrt(ops.Add(variance, ops.scalar(s.attr("epsilon", 1e-5), s[0])))
    normal = ops.Div(centred, root)
    return [ops.Add(ops.Mul(normal, ops.Reshape(s[1], column)), ops.Reshape(s[2], column))]
