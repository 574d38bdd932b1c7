"""Activation functions. At a kink the gradient is that of PyTorch: that of Relu at 0 is 0."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient, no_gradient
from onnxviz.gradient.step import Step

no_gradient("it is constant between its steps", "Hardmax")


def _positive(s: Step, dy: ir.Value) -> ir.Value:
    """Return where the input is above 0."""
    return s.ops.Greater(s[0], s.ops.scalar(0, dy))


@gradient("Relu")
def relu(s: Step, dy: ir.Value) -> Grads:
    zero = s.ops.scalar(0, dy)
    return s.ops.Where(s.ops.Greater(s.y, zero), dy, zero)


@gradient("LeakyRelu")
def leaky_relu(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Where(_positive(s, dy), dy, s.ops.Mul(dy, s.ops.scalar(s.attr("alpha", 0.01), dy)))


@gradient("PRelu", broadcasts=True)
def prelu(s: Step, dy: ir.Value) -> Grads:
    ops, positive = s.ops, _positive(s, dy)
    dx = ops.Where(positive, dy, ops.Mul(dy, s[1])) if s.need(0) else None
    return dx, ops.Where(positive, ops.scalar(0, dy), ops.Mul(dy, s[0])) if s.need(1) else None


@gradient("ThresholdedRelu")
def thresholded_relu(s: Step, dy: ir.Value) -> Grads:
    above = s.ops.Greater(s[0], s.ops.scalar(s.attr("alpha", 1.0), dy))
    return s.ops.Where(above, dy, s.ops.scalar(0, dy))


@gradient("Elu")
def elu(s: Step, dy: ir.Value) -> Grads:
    """``α eˣ = y + α`` below 0."""
    slope = s.ops.Add(s.y, s.ops.scalar(s.attr("alpha", 1.0), dy))
    return s.ops.Where(_positive(s, dy), dy, s.ops.Mul(dy, slope))


@gradient("Selu")
def selu(s: Step, dy: ir.Value) -> Grads:
    alpha, gamma = s.attr("alpha", 1.67326319217681884765625), s.attr("gamma", 1.05070102214813232421875)
    below = s.ops.Add(s.y, s.ops.scalar(alpha * gamma, dy))
    return s.ops.Mul(dy, s.ops.Where(_positive(s, dy), s.ops.scalar(gamma, dy), below))


@gradient("Celu")
def celu(s: Step, dy: ir.Value) -> Grads:
    below = s.ops.Exp(s.ops.Div(s.ops.Min(s[0], s.ops.scalar(0, dy)), s.ops.scalar(s.attr("alpha", 1.0), dy)))
    return s.ops.Mul(dy, below)


@gradient("Sigmoid")
def sigmoid(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s.ops.Mul(s.y, s.ops.Sub(s.ops.scalar(1, dy), s.y)))


@gradient("Tanh")
def tanh(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s.ops.Sub(s.ops.scalar(1, dy), s.ops.Mul(s.y, s.y)))


@gradient("HardSigmoid")
def hard_sigmoid(s: Step, dy: ir.Value) -> Grads:
    ops, zero, one = s.ops, s.ops.scalar(0, dy), s.ops.scalar(1, dy)
    inside = ops.And(ops.Greater(s.y, zero), ops.Less(s.y, one))
    return ops.Where(inside, ops.Mul(dy, ops.scalar(s.attr("alpha", 0.2), dy)), zero)


@gradient("HardSwish")
def hard_swish(s: Step, dy: ir.Value) -> Grads:
    """``x · max(0, min(1, x / 6 + 1 / 2))``."""
    ops, x = s.ops, s[0]
    three = ops.scalar(3, dy)
    middle = ops.Mul(dy, ops.Add(ops.Div(x, three), ops.scalar(0.5, dy)))
    upper = ops.Where(ops.Less(x, three), middle, dy)
    return ops.Where(ops.Greater(x, ops.Neg(three)), upper, ops.scalar(0, dy))


@gradient("Softplus")
def softplus(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s.ops.Sigmoid(s[0]))


@gradient("Softsign")
def softsign(s: Step, dy: ir.Value) -> Grads:
    below = s.ops.Add(s.ops.scalar(1, dy), s.ops.Abs(s[0]))
    return s.ops.Div(dy, s.ops.Mul(below, below))


@gradient("Mish")
def mish(s: Step, dy: ir.Value) -> Grads:
    """``x tanh(softplus(x))``: ``t + x (1 - t²) σ(x)``."""
    ops = s.ops
    t = ops.Tanh(ops.Softplus(s[0]))
    slope = ops.Mul(ops.Mul(s[0], ops.Sub(ops.scalar(1, dy), ops.Mul(t, t))), ops.Sigmoid(s[0]))
    return ops.Mul(dy, ops.Add(t, slope))


@gradient("Swish")
def swish(s: Step, dy: ir.Value) -> Grads:
    """``x σ(αx)``: ``σ + α y (1 - σ)``."""
    ops, alpha = s.ops, s.ops.scalar(s.attr("alpha", 1.0), dy)
    gate = ops.Sigmoid(ops.Mul(alpha, s[0]))
    slope = ops.Mul(ops.Mul(alpha, s.y), ops.Sub(ops.scalar(1, dy), gate))
    return ops.Mul(dy, ops.Add(gate, slope))


@gradient("Gelu")
@gradient("Gelu", domain="com.microsoft")
def gelu(s: Step, dy: ir.Value) -> Grads:
    """Hendrycks and Gimpel 2016: ``x Φ(x)``, or the approximation by tanh."""
    ops, x, half, one = s.ops, s[0], s.ops.scalar(0.5, dy), s.ops.scalar(1, dy)
    if s.attr("approximate", "none") == "tanh":
        factor, cubic = ops.scalar(math.sqrt(2 / math.pi), dy), ops.scalar(0.044715, dy)
        square = ops.Mul(x, x)
        t = ops.Tanh(ops.Mul(factor, ops.Mul(x, ops.Add(one, ops.Mul(cubic, square)))))
        inner = ops.Mul(factor, ops.Add(one, ops.Mul(ops.scalar(3 * 0.044715, dy), square)))
        slope = ops.Mul(ops.Mul(x, ops.Sub(one, ops.Mul(t, t))), inner)
        return ops.Mul(dy, ops.Mul(half, ops.Add(ops.Add(one, t), slope)))
    phi = ops.Mul(half, ops.Add(one, ops.Erf(ops.Mul(x, ops.scalar(math.sqrt(0.5), dy)))))
    density = ops.Mul(ops.scalar(1 / math.sqrt(2 * math.pi), dy), ops.Exp(ops.Neg(ops.Mul(half, ops.Mul(x, x)))))
    return ops.Mul(dy, ops.Add(phi, ops.Mul(x, density)))


@gradient("Shrink")
def shrink(s: Step, dy: ir.Value) -> Grads:
    outside = s.ops.Greater(s.ops.Abs(s[0]), s.ops.scalar(s.attr("lambd", 0.5), dy))
    return s.ops.Where(outside, dy, s.ops.scalar(0, dy))


@gradient("Softmax", since=13)
def softmax(s: Step, dy: ir.Value) -> Grads:
    ops, axis = s.ops, s.attr("axis", -1)
    inner = ops.ReduceSum(ops.Mul(dy, s.y), ops.ints(axis), keepdims=1)
    return ops.Mul(s.y, ops.Sub(dy, inner))


@gradient("LogSoftmax", since=13)
def log_softmax(s: Step, dy: ir.Value) -> Grads:
    ops, axis = s.ops, s.attr("axis", -1)
    return ops.Sub(dy, ops.Mul(ops.Exp(s.y), ops.ReduceSum(dy, ops.ints(axis), keepdims=1)))


@gradient("Dropout", since=12)
def dropout(s: Step, dy: ir.Value, *rest: ir.Value | None) -> Grads:
    """Inference passes what enters; in training the mask scales it by ``1 / (1 - ratio)``."""
    ops, training = s.ops, s.known(2)
    if s.input(2) is None or (training is not None and not bool(training)):
        return dy
    ratio = s.input(1)
    kept = ops.Sub(ops.scalar(1, dy), ops.cast(ratio, dy)) if ratio is not None else ops.scalar(0.5, dy)
    return ops.Where(s.output(1), ops.Div(dy, ops.Where(s[2], kept, ops.scalar(1, dy))), ops.scalar(0, dy))
