"""Reading a tensor at places between its elements, and what goes back: to the elements and to the places."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import onnx_ir as ir

from onnxviz.gradient.ops import Ops

__all__ = ["Tap", "cubic_taps", "linear_taps", "nearest_taps", "padded", "reflected", "sample_grads", "sampled"]

_CUBIC = -0.75  # of Keys 1981, as in PyTorch


@dataclass(frozen=True)
class Tap:
    """One element along an axis that a place reads; all are ``(B, P)``.

    Attributes:
        index: Which, int64, inside the axis.
        weight: How much it counts; 0 for what lies outside.
        slope: The derivative of the weight by the coordinate; None where it has none.
    """

    index: ir.Value
    weight: ir.Value
    slope: ir.Value | None


def linear_taps(ops: Ops, place: ir.Value, size: ir.Value) -> list[Tap]:
    """Return the two elements beside each coordinate, ``(B, P)``, of an axis of ``size`` (a scalar of floats)."""
    low, one = ops.Floor(place), ops.scalar(1, place)
    part = ops.Sub(place, low)
    near = _tap(ops, low, ops.Sub(one, part), ops.scalar(-1, place), size)
    return [near, _tap(ops, ops.Add(low, one), part, one, size)]


def nearest_taps(ops: Ops, place: ir.Value, size: ir.Value) -> list[Tap]:
    """Return the element next to each coordinate; halves go to the even one."""
    return [_tap(ops, ops.Round(place), ops.scalar(1, place), None, size)]


def cubic_taps(ops: Ops, place: ir.Value, size: ir.Value, padding: str, corners: bool) -> list[Tap]:
    """Return four elements around each coordinate, by Keys 1981 with -0.75; those outside as ``padding`` says."""
    low = ops.Floor(place)
    part = ops.Sub(place, low)
    taps = []
    for offset in (-1, 0, 1, 2):
        index = ops.Add(low, ops.scalar(offset, place))
        away = ops.Sub(ops.scalar(offset, place), part)  # from the coordinate to the element
        distance = away if offset > 0 else ops.Neg(away)
        a = _CUBIC
        form = (a, -5 * a, 8 * a, -4 * a) if offset in (-1, 2) else (a + 2, -(a + 3), 0.0, 1.0)
        weight = _polynomial(ops, distance, form)
        slope = _polynomial(ops, distance, (3 * form[0], 2 * form[1], form[2]))
        slope = ops.Neg(slope) if offset > 0 else slope
        index = padded(ops, index, size, padding, corners)[0]
        taps.append(_tap(ops, index, weight, slope, size))
    return taps


def _polynomial(ops: Ops, x: ir.Value, factors: Sequence[float]) -> ir.Value:
    value = ops.scalar(factors[0], x)
    for factor in factors[1:]:
        value = ops.Add(ops.Mul(value, x), ops.scalar(factor, x))
    return value


def _tap(ops: Ops, index: ir.Value, weight: ir.Value, slope: ir.Value | None, size: ir.Value) -> Tap:
    zero, last = ops.scalar(0, index), ops.Sub(size, ops.scalar(1, size))
    inside = ops.And(ops.GreaterOrEqual(index, zero), ops.LessOrEqual(index, last))
    whole = ops.Cast(ops.Max(ops.Min(index, last), zero), to=int(ir.DataType.INT64))
    masked = None if slope is None else ops.Where(inside, slope, zero)
    return Tap(whole, ops.Where(inside, weight, zero), masked)


def padded(ops: Ops, place: ir.Value, size: ir.Value, padding: str, corners: bool) -> tuple[ir.Value, ir.Value | None]:
    """Return coordinates brought into the axis, and the derivative by what they were; None for 1."""
    if padding == "zeros":
        return place, None
    zero, last = ops.scalar(0, place), ops.Sub(size, ops.scalar(1, size))
    slope: ir.Value | None = None
    if padding == "reflection":
        place, slope = reflected(ops, place, size, corners)
    held = ops.Max(ops.Min(place, last), zero)
    free = ops.cast(ops.And(ops.Greater(place, zero), ops.Less(place, last)), place)
    return held, free if slope is None else ops.Mul(slope, free)


def reflected(ops: Ops, place: ir.Value, size: ir.Value, corners: bool) -> tuple[ir.Value, ir.Value]:
    """Return coordinates mirrored at the ends, at the centres of the last elements or their borders; and ±1."""
    one, two = ops.scalar(1, place), ops.scalar(2, place)
    low = ops.scalar(0 if corners else -0.5, place)
    span = ops.Max(ops.Sub(size, one), ops.scalar(1e-30, place)) if corners else size
    away = ops.Sub(place, low)
    turns = ops.Floor(ops.Div(ops.Abs(away), span))
    rest = ops.Sub(ops.Abs(away), ops.Mul(turns, span))
    odd = ops.Equal(ops.Mod(turns, two, fmod=1), one)
    there = ops.Add(ops.Where(odd, ops.Sub(span, rest), rest), low)
    return there, ops.Mul(ops.Sign(away), ops.Where(odd, ops.Neg(one), one))


def _reads(
    ops: Ops, taps: Sequence[Sequence[Tap]], sizes: Sequence[ir.Value]
) -> list[tuple[tuple[Tap, ...], ir.Value]]:
    """Return each combination of taps with its place ``(B, P)`` in the flat axis."""
    found = []
    for chosen in itertools.product(*taps):
        flat = chosen[0].index
        for tap, size in zip(chosen[1:], sizes[1:], strict=True):
            flat = ops.Add(ops.Mul(flat, ops.Cast(size, to=int(ir.DataType.INT64))), tap.index)
        found.append((chosen, flat))
    return found


def _picked(ops: Ops, x: ir.Value, flat: ir.Value) -> ir.Value:
    """Read ``x`` ``(B, C, L)`` at ``(B, P)``: ``(B, C, P)``."""
    index = ops.Unsqueeze(flat, ops.ints(1))
    wide = ops.Expand(index, ops.Concat(ops.ints(1), ops.Shape(x, start=1, end=2), ops.ints(1), axis=0))
    return ops.GatherElements(x, wide, axis=2)


def sampled(ops: Ops, x: ir.Value, taps: Sequence[Sequence[Tap]], sizes: Sequence[ir.Value]) -> ir.Value:
    """Return ``(B, C, P)``: a flat tensor ``(B, C, L)`` read with the taps of each axis."""
    parts = []
    for chosen, flat in _reads(ops, taps, sizes):
        weight = reduce(ops.Mul, [tap.weight for tap in chosen])
        parts.append(ops.Mul(_picked(ops, x, flat), ops.Unsqueeze(weight, ops.ints(1))))
    return ops.add(parts)


def sample_grads(
    ops: Ops, dy: ir.Value, x: ir.Value, taps: Sequence[Sequence[Tap]], sizes: Sequence[ir.Value],
    *, elements: bool, places: bool,
) -> tuple[ir.Value | None, list[ir.Value | None]]:  # fmt: skip
    """Return the gradients of :func:`sampled`: of ``x`` and, for each axis, of the coordinates ``(B, P)``.

    Args:
        ops: Writes the nodes.
        dy: ``(B, C, P)``.
        x: ``(B, C, L)``, flat.
        taps: For each axis the elements that a place reads.
        sizes: Size of each axis, a scalar of floats.
        elements: Whether the gradient of ``x`` is asked for.
        places: Whether those of the coordinates are.
    """
    reads = _reads(ops, taps, sizes)
    dx = _scattered(ops, dy, x, reads) if elements else None
    slopes: list[list[ir.Value]] = [[] for _ in taps]
    for chosen, flat in reads if places else []:
        if all(tap.slope is None for tap in chosen):
            continue
        met = ops.sum(ops.Mul(dy, _picked(ops, x, flat)), [1])
        for axis, tap in enumerate(chosen):
            if tap.slope is not None:
                others = [other.weight for other in (*chosen[:axis], *chosen[axis + 1 :])]
                slopes[axis].append(reduce(ops.Mul, [*others, tap.slope, met]))
    return dx, [ops.add(parts) if parts else None for parts in slopes]


def _scattered(ops: Ops, dy: ir.Value, x: ir.Value, reads: Sequence[tuple[tuple[Tap, ...], ir.Value]]) -> ir.Value:
    parts, indices = [], []
    for chosen, flat in reads:
        weight = reduce(ops.Mul, [tap.weight for tap in chosen])
        parts.append(ops.Mul(dy, ops.Unsqueeze(weight, ops.ints(1))))
        indices.append(ops.Unsqueeze(flat, ops.ints(1)))
    updates = ops.Concat(*parts, axis=2) if len(parts) > 1 else parts[0]
    index = ops.Concat(*indices, axis=2) if len(indices) > 1 else indices[0]
    wide = ops.Expand(index, ops.Shape(updates))
    return ops.scatter_add(ops.shape(x), wide, updates, 2)
