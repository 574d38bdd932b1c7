"""How Resize and Upsample pass on what their input sees: the positions that interpolation weighs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import onnx_ir as ir

from onnxviz.graph.position_facts import Facts, is_given
from onnxviz.graph.position_maps import PositionMap, bordered, resample
from onnxviz.graph.position_sights import Sight, axes_of, dims, ints, kept, text

__all__ = ["resize"]

_DENOMINATORS = (64, 256, 1024, 4096)  # the largest ones that are tried for a scale
# Runtimes compute in 32-bit floats: where a scale is no exact binary fraction, both sides of a boundary are read.
_SLACK = Fraction(1, 1024)
_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis is resized.

    Attributes:
        scale: Positions of the output per position of the input.
        old: How many positions the input has; None where that is open.
        new: How many the output has.
        by_sizes: Whether the node gives the size of the output rather than the scale.
    """

    scale: Fraction
    old: int | None
    new: int | None
    by_sizes: bool


def resize(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Return what a resized map sees."""
    rank = len(sight.axes)
    before, after = dims(node.inputs[0]) or [None] * rank, dims(node.outputs[0]) or [None] * rank
    scales = _scales(node, rank, facts)
    if len(before) != rank or len(after) != rank:
        return None
    by_sizes = not is_given(node, "scales", _scales_at(node, facts))
    if by_sizes and text(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    maps = list(sight.axes)
    for at, entry in enumerate(sight.axes):
        old, new = (size if isinstance(size, int) and size > 0 else None for size in (before[at], after[at]))
        scale = scales[at] if scales is not None else None
        if by_sizes and old is not None and new is not None:
            scale = Fraction(new, old)
        if entry is not None:
            maps[at] = None if scale is None else _resized(node, entry, _Axis(scale, old, new, by_sizes), facts)
    return kept(sight, maps)


def _scales_at(node: ir.Node, facts: Facts) -> int:
    return 1 if node.op_type == "Upsample" or facts.opset < 11 else 2


def _scales(node: ir.Node, rank: int, facts: Facts) -> list[Fraction | None] | None:
    """Return the scale of each axis, None where it is open or too uneven to be written as a fraction."""
    found = node.attributes.get("scales")
    if found is None:
        scales = facts.elements(node, _scales_at(node, facts))
    else:
        scales = list(found.value) if isinstance(found.value, (list, tuple)) else None
    axes = axes_of(ints(node, "axes"), rank) if "axes" in node.attributes else list(range(rank))
    if scales is None or axes is None or len(scales) != len(axes):
        return None
    made: list[Fraction | None] = [Fraction(1)] * rank
    for axis, scale in zip(axes, scales, strict=True):
        fits = isinstance(scale, (int, float)) and 0 < scale < _DENOMINATORS[-1]
        made[axis] = _fraction(scale) if fits else None
    return made


def _fraction(scale: float) -> Fraction | None:
    """Return the simplest fraction that is the scale but for its rounding to 32 bits."""
    candidates = (Fraction(scale).limit_denominator(finest) for finest in _DENOMINATORS)
    return next((near for near in candidates if abs(near - Fraction(scale)) <= near / 10**6), None)


def _resized(node: ir.Node, entry: PositionMap, axis: _Axis, facts: Facts) -> PositionMap | None:
    old_rule = node.op_type == "Upsample" or facts.opset < 11
    placed = _placed("asymmetric" if old_rule else text(node, "coordinate_transformation_mode", "half_pixel"), axis)
    if placed is None:
        return None
    step, offset, exact = placed
    if step == 1 and offset == 0:
        return entry
    slack = Fraction(0) if exact else _SLACK
    mode = text(node, "mode", "nearest")
    nearest = "floor" if old_rule else text(node, "nearest_mode", "round_prefer_floor")
    widened = max(Fraction(1), step) if (ints(node, "antialias") or [0])[0] else None

    def reads(i: int) -> Sequence[int]:
        low, high = step * i + offset - slack, step * i + offset + slack
        if mode == "nearest":
            return range(_nearest(low, nearest), _nearest(high, nearest) + 1)
        reach = 2 if mode == "cubic" else 1
        if widened is not None:
            return range(math.floor(low - reach * widened) + 1, math.ceil(high + reach * widened))
        if low == high and low.denominator == 1:
            return [int(low)]
        return range(math.floor(low) + 1 - reach, math.ceil(high) + reach)

    def clamped(i: int) -> Sequence[int]:
        return [min(max(at, 0), (axis.old or 1) - 1) for at in reads(i)]

    found = None
    if axis.old and axis.new and (reads(0)[-1] < 0 or reads(axis.new - 1)[0] >= axis.old):
        found = bordered(entry, step.denominator, step.numerator, clamped, axis.new)
    return found or resample(entry, step.denominator, step.numerator, reads)


def _placed(how: str, axis: _Axis) -> tuple[Fraction, Fraction, bool] | None:
    """Return step and offset of where the output's positions lie in the input, and whether floats hold them exactly.

    The formulas of the operator's documentation; None for those that depend on sizes which are open, and for cropping.
    """
    step = 1 / axis.scale
    exact = axis.scale.denominator & (axis.scale.denominator - 1) == 0
    if how == "align_corners":
        if axis.old is None or axis.new is None or min(axis.old, axis.new) < 2:
            return None
        return Fraction(axis.old - 1, axis.new - 1), Fraction(0), True
    if how == "asymmetric":
        return step, Fraction(0), exact
    if how == "tf_half_pixel_for_nn":
        return step, step / 2, exact
    if how == "pytorch_half_pixel" and axis.scale < 1 and axis.new in (None, 1):
        return None if axis.new is None else (step, Fraction(0), True)
    if how == "half_pixel_symmetric" and not axis.by_sizes:
        if axis.old is None or axis.new is None:
            return None
        return step, step / 2 - _HALF + Fraction(axis.old, 2) * (1 - axis.new * step / axis.old), False
    known = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    return (step, step / 2 - _HALF, exact) if how in known else None


def _nearest(at: Fraction, how: str) -> int:
    if how == "floor":
        return math.floor(at)
    if how == "ceil":
        return math.ceil(at)
    return math.ceil(at - _HALF) if how == "round_prefer_floor" else math.floor(at + _HALF)
