"""The sizes of outputs as formulas of the sizes of inputs: inferred from the graph, else fitted, always verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any, Literal

import numpy as np

from onnxviz.analysis.size_plan import Symbols

__all__ = ["OutputSize", "fit", "output_sizes"]

Source = Literal["inferred", "fitted", "none"]
Point = tuple[Mapping[str, int], int]
_FINEST = 512  # denominator of a fitted factor


@dataclass(frozen=True)
class OutputSize:
    """The size of one axis of an output.

    Attributes:
        output: The output.
        axis: Its axis; -1 where its rank is not always the same.
        formula: Of the sizes of inputs, such as ``"floor(h/32)"``; None where none was found.
        source: Whether the formula follows from the graph or was fitted to what was seen.
        verified: Runs that it holds in.
        seen: Up to six pairs of sizes and what it was, where no formula holds.
        depends_on_data: Other values of the same size gave another.
    """

    output: str
    axis: int
    formula: str | None
    source: Source
    verified: int
    seen: tuple[tuple[Mapping[str, int], int], ...] = ()
    depends_on_data: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "seen": [{"sizes": dict(sizes), "size": size} for sizes, size in self.seen]}

    def __str__(self) -> str:
        if self.formula is not None and not self.depends_on_data:
            return self.formula
        told = ", ".join(str(size) for _, size in self.seen[:4])
        return f"? (depends on data: {told})" if self.depends_on_data else f"? ({told})"


def output_sizes(
    symbols: Symbols, runs: Sequence[tuple[Mapping[str, int], Mapping[str, tuple[int, ...]]]], other: Mapping[str, Any]
) -> list[OutputSize]:
    """Return the size of every axis of every output.

    Args:
        symbols: The model.
        runs: The sizes of each run, and the shapes of its outputs; the first is at the usual sizes.
        other: The shapes that other values gave at the usual sizes.
    """
    found = []
    for output, usual in runs[0][1].items():
        shapes = [(sizes, shape[output]) for sizes, shape in runs if output in shape]
        if any(len(shape) != len(usual) for _, shape in shapes):
            ranks = tuple((sizes, len(shape)) for sizes, shape in shapes)
            odd = [pair for pair in ranks if pair[1] != len(usual)]
            found.append(OutputSize(output, -1, None, "none", 0, (ranks[0], *odd[:5])))
            continue
        for axis in range(len(usual)):
            points = [(sizes, shape[axis]) for sizes, shape in shapes]
            data = output in other and (len(other[output]) != len(usual) or other[output][axis] != usual[axis])
            found.append(_one(symbols, output, axis, points, data))
    return found


def _one(symbols: Symbols, output: str, axis: int, points: Sequence[Point], data: bool) -> OutputSize:
    inferred = symbols.formula(output, axis)
    if inferred is not None and all(symbols.value(output, axis, sizes) == size for sizes, size in points):
        return OutputSize(output, axis, inferred, "inferred", len(points), (), data)
    fitted = None if data else fit(points)
    if fitted is not None:
        return OutputSize(output, axis, fitted, "fitted", len(points))
    different = {size: (sizes, size) for sizes, size in reversed(points)}
    return OutputSize(output, axis, None, "none", 0, tuple(list(different.values())[::-1][:6]), data)


def fit(points: Sequence[Point]) -> str | None:
    """Return a formula that gives every size that was seen; None where no simple one does.

    Tried are a constant, ``floor((a·n + b)/c)`` of one dimension, and sums of products of up to two dimensions.

    >>> fit([({"h": 32}, 1), ({"h": 63}, 1), ({"h": 64}, 2), ({"h": 320}, 10)])
    'floor(h/32)'
    >>> fit([({"n": n, "t": t}, 3 * n * t) for n in (1, 2, 3) for t in (4, 5)])
    '3*n*t'
    """
    sizes = {size for _, size in points}
    if len(sizes) == 1:
        return str(sizes.pop())
    names = [name for name in points[0][0] if len({at[name] for at, _ in points}) > 1]
    for name in names:
        if (text := _quotient([(at[name], size) for at, size in points], name)) is not None:
            return text
    return _polynomial(points, names)


def _quotient(points: Sequence[tuple[int, int]], name: str) -> str | None:
    """Return ``floor((a·n + b)/c)``, or without the floor where it is exact."""
    ordered = sorted(set(points))
    if len({x for x, _ in ordered}) < len(ordered) or len(ordered) < 3:
        return None  # the same size gave different ones, or too few to say
    (x0, y0), (x1, y1) = ordered[0], ordered[-1]
    for most in (1, 2, 4, 8, 16, 32, 64, 128):
        slope = Fraction(y1 - y0, x1 - x0).limit_denominator(most)
        a, c = slope.numerator, slope.denominator
        if not a:
            continue
        low = max(c * y - a * x for x, y in ordered)
        high = min(c * y - a * x + c - 1 for x, y in ordered)
        if low > high:
            continue
        b = min(range(low, high + 1), key=abs)
        return _written(a, b, c, name)
    return None


def _written(a: int, b: int, c: int, name: str) -> str:
    product = name if a == 1 else f"{a}*{name}"
    total = product if not b else f"{product} {'+' if b > 0 else '-'} {abs(b)}"
    if c == 1:
        return total
    return f"floor({total}/{c})" if not b else f"floor(({total})/{c})"


def _polynomial(points: Sequence[Point], names: Sequence[str]) -> str | None:
    terms = [(), *((name,) for name in names), *combinations(names, 2)]
    if len(points) < len(terms) + 2:
        return None
    rows = np.array([[np.prod([at[name] for name in term]) for term in terms] for at, _ in points], np.float64)
    target = np.array([size for _, size in points], np.float64)
    solution, *_ = np.linalg.lstsq(rows, target, rcond=None)
    factors = [Fraction(float(value)).limit_denominator(_FINEST) for value in solution]
    for row, size in zip(rows, target, strict=True):
        if sum(factor * int(value) for factor, value in zip(factors, row, strict=True)) != int(size):
            return None
    parts = []
    for factor, term in sorted(zip(factors, terms, strict=True), key=lambda entry: -len(entry[1])):
        if factor:
            written = "*".join((*([] if factor == 1 and term else [str(abs(factor))]), *term))
            parts.append(f"- {written}" if factor < 0 else f"+ {written}")
    return " ".join(parts).removeprefix("+ ") if parts else None
