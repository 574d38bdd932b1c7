"""Deconvolutional networks."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.overrides.rectifiers import Rectifying, rectifier_table
from onnxviz.gradient.registry import Table
from onnxviz.gradient.step import Step

__all__ = ["deconvnet_table"]


class _Deconvnet(Rectifying):
    name = "deconvnet"


def deconvnet_table() -> Table:
    """Return the rules of a deconvolutional network: what comes back is rectified, whatever the input was.

    Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, section 2.1: ``max(g, 0)`` at
    rectifiers; a leaky one leaks what comes back as it leaks what goes forward. Unpooling by switches and filtering by
    transposed weights are what the true gradients of pooling and convolution are.

    >>> deconvnet_table().method.name
    'deconvnet'
    """
    return rectifier_table(_Deconvnet(), _rectified)


def _rectified(s: Step, dy: ir.Value, active: ir.Value) -> ir.Value:
    ops, zero = s.ops, s.ops.scalar(0, dy)
    if s.node.op_type not in ("LeakyRelu", "PRelu"):
        return ops.Max(dy, zero)
    slope = s[1] if s.node.op_type == "PRelu" else ops.scalar(s.attr("alpha", 0.01), dy)
    return ops.Where(ops.Greater(dy, zero), dy, ops.Mul(dy, slope))
