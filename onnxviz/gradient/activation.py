"""The activations of recurrent layers, with their slopes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.gradient.ops import Ops

__all__ = ["NUMBERS", "Activation"]

Pair = tuple[ir.Value, ir.Value]
_GIVEN = float("nan")
#: activation -> the numbers it takes (alpha, beta), with what they are by default; runtimes disagree on some
NUMBERS: dict[str, tuple[float | None, float | None]] = {
    "relu": (None, None), "tanh": (None, None), "sigmoid": (None, None), "softsign": (None, None),
    "softplus": (None, None), "leakyrelu": (0.01, None), "thresholdedrelu": (_GIVEN, None), "elu": (1.0, None),
    "affine": (_GIVEN, _GIVEN), "scaledtanh": (_GIVEN, _GIVEN), "hardsigmoid": (0.2, 0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """An activation of a gate, with its numbers and the bound that its input is clipped to."""

    name: str
    alpha: float | None
    beta: float | None
    clip: float

    def __call__(self, ops: Ops, z: ir.Value) -> Pair:
        """Return its value and its slope."""
        if not self.clip:
            return self.plain(ops, z)
        low, high = ops.scalar(-self.clip, z), ops.scalar(self.clip, z)
        value, slope = self.plain(ops, ops.Clip(z, low, high))
        inside = ops.LessOrEqual(ops.Abs(z), high)
        return value, ops.Where(inside, slope, ops.scalar(0, z))

    def plain(self, ops: Ops, z: ir.Value) -> Pair:
        def number(value: float | None) -> ir.Value:
            return ops.scalar(value or 0.0, z)

        one, zero, alpha = number(1), number(0), number(self.alpha)
        if self.name == "sigmoid":
            value = ops.Sigmoid(z)
            return value, ops.Mul(value, ops.Sub(one, value))
        if self.name == "tanh":
            value = ops.Tanh(z)
            return value, ops.Sub(one, ops.Mul(value, value))
        if self.name == "scaledtanh":
            value = ops.Tanh(ops.Mul(z, number(self.beta)))
            slope = ops.Mul(ops.Sub(one, ops.Mul(value, value)), number((self.alpha or 0) * (self.beta or 0)))
            return ops.Mul(value, alpha), slope
        if self.name == "affine":
            return ops.Add(ops.Mul(z, alpha), number(self.beta)), ops.Expand(alpha, ops.Shape(z))
        if self.name == "softsign":
            below = ops.Add(one, ops.Abs(z))
            return ops.Div(z, below), ops.Div(one, ops.Mul(below, below))
        if self.name == "softplus":
            return ops.Softplus(z), ops.Sigmoid(z)
        if self.name == "hardsigmoid":
            line = ops.Add(ops.Mul(z, alpha), number(self.beta))
            inside = ops.And(ops.Greater(line, zero), ops.Less(line, one))
            return ops.Clip(line, zero, one), ops.Where(inside, alpha, zero)
        if self.name == "thresholdedrelu":
            passed = ops.GreaterOrEqual(z, alpha)
            return ops.Where(passed, z, zero), ops.Where(passed, one, zero)
        positive = ops.Greater(z, zero)
        if self.name == "elu":
            low = ops.Mul(alpha, ops.Exp(ops.Min(z, zero)))
            return ops.Where(positive, z, ops.Sub(low, alpha)), ops.Where(positive, one, low)
        slope = alpha if self.name == "leakyrelu" else zero
        return ops.Where(positive, z, ops.Mul(z, slope)), ops.Where(positive, one, slope)
