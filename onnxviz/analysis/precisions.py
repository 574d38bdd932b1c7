"""float16 and 8-bit codes: what they hold, and what rounding to them makes of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.numeric import is_numeric, to_float

__all__ = ["FLUSHED", "LARGEST16", "NORMAL16", "ROUNDS_TO_INF", "CodeRounding", "HalfRounding", "ValueRange"]

Array = npt.NDArray[Any]

#: The largest number of float16.
LARGEST16 = 65504.0
#: From here on a number becomes Inf in float16: half-way between the largest and the next that there would be.
ROUNDS_TO_INF = 65520.0
#: Below it a number of float16 is subnormal and loses bits.
NORMAL16 = 2.0**-14
#: Up to half of the smallest subnormal of float16, a number becomes 0 there.
FLUSHED = 2.0**-25
_SMALLEST16 = 2.0**-24


@dataclass(frozen=True)
class ValueRange:
    """Which numbers a tensor held, and how many of them float16 cannot hold.

    Attributes:
        count: Elements.
        low, high: Smallest and largest finite value; inf and -inf where there is none.
        odd: Number of NaN and Inf.
        nonzero: Finite elements other than 0.
        over: Finite elements that become Inf in float16: from 65520 on.
        subnormal: Those that float16 holds with fewer bits, or not: not 0 and below 2⁻¹⁴.
        flushed: Those of them that become 0: 2⁻²⁵ and below.
        squares: Sum of the squares of the finite elements.
    """

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    odd: int = 0
    nonzero: int = 0
    over: int = 0
    subnormal: int = 0
    flushed: int = 0
    squares: float = 0.0

    @classmethod
    def of(cls, array: Array) -> ValueRange:
        """Return the range of an array; an empty one for what holds no numbers.

        >>> seen = ValueRange.of(np.float32([1e5, -2, 1e-6, 1e-9, 0]))
        >>> seen.largest, seen.over, seen.subnormal, seen.flushed
        (100000.0, 1, 2, 1)
        """
        if not isinstance(array, np.ndarray) or not is_numeric(array.dtype) or not array.size:
            return cls()
        values = to_float(array, np.float64 if array.dtype == np.float64 else np.float32).reshape(-1)
        low, high = float(values.min()), float(values.max())
        odd = 0
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = np.isfinite(values)
            odd = int(values.size - finite.sum())
            values = values[finite]
            low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
        size = np.abs(values)
        zeros = int(values.size - np.count_nonzero(values))
        small = int((size < NORMAL16).sum())
        return cls(
            array.size, low, high, odd, int(values.size) - zeros,
            int((size >= ROUNDS_TO_INF).sum()) if max(-low, high) >= ROUNDS_TO_INF else 0,
            small - zeros, int((size <= FLUSHED).sum()) - zeros if small > zeros else 0,
            float(np.square(values, dtype=np.float64).sum()),
        )  # fmt: skip

    def merge(self, other: Self, /) -> Self:
        """Return the range of both sets of values."""
        return type(self)(
            self.count + other.count, min(self.low, other.low), max(self.high, other.high), self.odd + other.odd,
            self.nonzero + other.nonzero, self.over + other.over, self.subnormal + other.subnormal,
            self.flushed + other.flushed, self.squares + other.squares,
        )  # fmt: skip

    @property
    def largest(self) -> float:
        """The largest finite magnitude; 0 where there is none."""
        return max(abs(self.low), abs(self.high)) if self.low <= self.high else 0.0

    @property
    def peak(self) -> float:
        """The largest magnitude over the root mean square: what one scale for all of it has to span; 0 for zeros."""
        finite = self.count - self.odd
        mean = float(np.sqrt(self.squares / finite)) if finite else 0.0
        return self.largest / mean if mean else 0.0

    def share(self, count: int) -> float:
        """Return a count as a share of the elements that are not 0."""
        return count / self.nonzero if self.nonzero else 0.0


class HalfRounding:
    """Rounding to float16 and back, to the nearest, ties to even; what is too large becomes Inf.

    Constants are clamped to ±65504 and kept from becoming 0, as onnxruntime's converter does.

    >>> HalfRounding().activation("x", np.float32([1e5, 1.0001])).tolist()
    [inf, 1.0]
    """

    shared = False  # a Cast stands before the node that is converted

    def activation(self, name: str, array: Array) -> Array:
        """Return a tensor, rounded."""
        with np.errstate(over="ignore", under="ignore"):
            return array.astype(np.float16).astype(array.dtype)

    def weight(self, array: Array, axis: int | None) -> Array:
        """Return a constant, clamped and rounded."""
        return self.constant(array)

    def bias(self, array: Array, name: str, weight: Array, axis: int | None) -> Array:
        """Return a constant, clamped and rounded."""
        return self.constant(array)

    def constant(self, array: Array) -> Array:
        """Return a constant, clamped and rounded."""
        finite = np.isfinite(array)
        clamped = np.where(finite, np.clip(array, -LARGEST16, LARGEST16), array)
        tiny = finite & (array != 0) & (np.abs(array) < _SMALLEST16)
        return self.activation("", np.where(tiny, np.copysign(_SMALLEST16, array), clamped).astype(array.dtype))


class CodeRounding:
    """Rounding to 8-bit codes and back: unsigned with a zero point for activations, signed about 0 for weights.

    ``scale = (high - low) / 255``, ``zero = round(-low / scale)`` over the range seen, widened to hold 0, and
    ``scale = max|w| / 127`` for weights, a scale for each channel: onnxruntime's static quantisation by minimum and
    maximum with ``QuantType.QUInt8`` and ``QuantType.QInt8``, per channel.

    Args:
        ranges: Range of each activation, by name.

    >>> CodeRounding({"x": (0.0, 255.0)}).activation("x", np.float32([0.4, 300])).tolist()
    [0.0, 255.0]
    """

    shared = True  # a QuantizeLinear stands behind the tensor

    def __init__(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        self._ranges = ranges

    def step(self, name: str) -> float:
        """Return the scale of the codes of a tensor; 1 where its range is not known."""
        return _scale(*self._ranges.get(name, (np.inf, -np.inf)))

    def activation(self, name: str, array: Array) -> Array:
        """Return a tensor rounded to the codes of its range; what lies outside of it is clipped."""
        low, high = self._ranges.get(name, (np.inf, -np.inf))
        return _codes(array, low, high) if low <= high else array

    def weight(self, array: Array, axis: int | None) -> Array:
        """Return a weight rounded to signed codes."""
        scale = _weight_scale(array, axis)
        return (np.clip(np.rint(array / scale), -127, 127) * scale).astype(array.dtype)

    def bias(self, array: Array, name: str, weight: Array, axis: int | None) -> Array:
        """Return a bias rounded to signed 32-bit codes; their scale is that of an activation times that of a weight."""
        scales = _weight_scale(weight, axis).reshape(-1) * np.float32(self.step(name))
        if name not in self._ranges or (scales.size > 1 and array.shape[-1:] != scales.shape):
            return array
        limits = np.iinfo(np.int32)
        codes = np.clip(np.rint(array.astype(np.float64) / scales.astype(np.float64)), limits.min, limits.max)
        return np.asarray(codes * scales, array.dtype)

    def constant(self, array: Array) -> Array:
        """Return a constant rounded to the codes of its own range."""
        seen = ValueRange.of(array)
        return _codes(array, seen.low, seen.high) if seen.count else array


def _weight_scale(array: Array, axis: int | None) -> npt.NDArray[np.float32]:
    """Return the scales of a weight's signed codes, one for each place along an axis, with the weight's axes."""
    others = None if axis is None or array.ndim < 2 else tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    largest = np.abs(array).max(axis=others, keepdims=True, initial=0.0).astype(np.float64)
    return np.where(largest / 127 < np.finfo(np.float32).tiny, 1.0, largest / 127).astype(np.float32)


def _scale(low: float, high: float) -> float:
    """Return the scale of 8-bit codes over a range that is widened to hold 0; 1 for one without width."""
    scale = (max(high, 0.0) - min(low, 0.0)) / 255 if low <= high else 0.0
    return float(np.float32(scale)) if scale >= np.finfo(np.float32).tiny else 1.0


def _codes(array: Array, low: float, high: float) -> Array:
    scale = np.float32(_scale(low, high))
    zero = np.float32(np.rint(-min(low, 0.0) / float(scale)))
    with np.errstate(invalid="ignore", over="ignore"):
        codes = np.asarray(np.rint(array / scale))
        codes += zero
        np.clip(codes, 0, 255, out=codes)
    codes -= zero
    codes *= scale
    return codes.astype(array.dtype, copy=False)
