"""Guided backpropagation."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.overrides.rectifiers import Rectifying, rectifier_table
from onnxviz.gradient.registry import Table
from onnxviz.gradient.step import Step

__all__ = ["guided_table"]


class _Guided(Rectifying):
    name = "guided backpropagation"


def guided_table() -> Table:
    """Return the rules of guided backpropagation: ``g · [x > 0] · [g > 0]`` at rectifiers.

    Springenberg et al. 2015, Striving for Simplicity: The All Convolutional Net, section 3.4.

    >>> guided_table().method.gives
    'gradient'
    """
    return rectifier_table(_Guided(), _guided)


def _guided(s: Step, dy: ir.Value, active: ir.Value) -> ir.Value:
    zero = s.ops.scalar(0, dy)
    return s.ops.Where(active, s.ops.Max(dy, zero), zero)
