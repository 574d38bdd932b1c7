"""Activation functions. At a kink the gradient is that of PyTorch: that of Relu at 0 is 0."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.ops import Step
from onnxviz.gradient.registry import Grads, gradient


@gradient("Relu")
def relu(s: Step, dy: ir.Value) -> Grads:
    zero = s.ops.scalar(0, dy)
    return s.ops.Where(s.ops.Greater(s.y, zero), dy, zero)


@gradient("Sigmoid")
def sigmoid(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s.ops.Mul(s.y, s.ops.Sub(s.ops.scalar(1, dy), s.y)))


@gradient("Tanh")
def tanh(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s.ops.Sub(s.ops.scalar(1, dy), s.ops.Mul(s.y, s.y)))
