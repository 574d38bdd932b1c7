"""Sums, products, powers and what else takes two tensors and broadcasts them."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.ops import Step
from onnxviz.gradient.registry import Grads, gradient


@gradient("Add", broadcasts=True)
def add(s: Step, dy: ir.Value) -> Grads:
    return dy, dy


@gradient("Sub", broadcasts=True)
def sub(s: Step, dy: ir.Value) -> Grads:
    return dy, s.ops.Neg(dy) if s.need(1) else None


@gradient("Mul", broadcasts=True)
def mul(s: Step, dy: ir.Value) -> Grads:
    return s.ops.Mul(dy, s[1]) if s.need(0) else None, s.ops.Mul(dy, s[0]) if s.need(1) else None


@gradient("Div", broadcasts=True)
def div(s: Step, dy: ir.Value) -> Grads:
    quotient = s.ops.Div(dy, s[1])
    return quotient, s.ops.Neg(s.ops.Mul(quotient, s.y)) if s.need(1) else None
