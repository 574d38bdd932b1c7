"""Functions of one number: powers, exponentials, trigonometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import SHAPE_ONLY, Grads, gradient, no_gradient
from onnxviz.gradient.step import Step

no_gradient("it is constant between its steps", "Ceil", "Floor", "Round", "Sign")
no_gradient(SHAPE_ONLY, "Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike")


def _square(ops: Ops, value: ir.Value) -> ir.Value:
    return ops.Mul(value, value)


#: operator -> the derivative, from the ops, the input, the output, and a maker of constants
_DERIVATIVES: dict[str, Callable[[Ops, ir.Value, ir.Value, Callable[[float], ir.Value]], Any]] = {
    "Exp": lambda o, x, y, c: y,
    "Log": lambda o, x, y, c: o.Reciprocal(x),
    "Sqrt": lambda o, x, y, c: o.Div(c(0.5), y),
    "Reciprocal": lambda o, x, y, c: o.Neg(_square(o, y)),
    "Sin": lambda o, x, y, c: o.Cos(x),
    "Cos": lambda o, x, y, c: o.Neg(o.Sin(x)),
    "Tan": lambda o, x, y, c: o.Add(c(1), _square(o, y)),
    "Asin": lambda o, x, y, c: o.Reciprocal(o.Sqrt(o.Sub(c(1), _square(o, x)))),
    "Acos": lambda o, x, y, c: o.Neg(o.Reciprocal(o.Sqrt(o.Sub(c(1), _square(o, x))))),
    "Atan": lambda o, x, y, c: o.Reciprocal(o.Add(c(1), _square(o, x))),
    "Sinh": lambda o, x, y, c: o.Cosh(x),
    "Cosh": lambda o, x, y, c: o.Sinh(x),
    "Asinh": lambda o, x, y, c: o.Reciprocal(o.Sqrt(o.Add(_square(o, x), c(1)))),
    "Acosh": lambda o, x, y, c: o.Reciprocal(o.Mul(o.Sqrt(o.Sub(x, c(1))), o.Sqrt(o.Add(x, c(1))))),
    "Atanh": lambda o, x, y, c: o.Reciprocal(o.Sub(c(1), _square(o, x))),
    "Erf": lambda o, x, y, c: o.Mul(c(2 / math.sqrt(math.pi)), o.Exp(o.Neg(_square(o, x)))),
    "Abs": lambda o, x, y, c: o.Sign(x),
}


def _enter(op_type: str) -> None:
    derivative = _DERIVATIVES[op_type]

    @gradient(op_type)
    def rule(s: Step, dy: ir.Value) -> Grads:
        return s.ops.Mul(dy, derivative(s.ops, s[0], s.y, lambda number: s.ops.scalar(number, dy)))


for _name in _DERIVATIVES:
    _enter(_name)


@gradient("Neg")
def neg(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Neg(dy)


@gradient("CumSum")
def cumulative_sum(s: Step, dy: ir.Value) -> Grads:
    """The same sum from the other end."""
    return s.ops.CumSum(dy, s[1], exclusive=s.attr("exclusive", 0), reverse=1 - s.attr("reverse", 0))
