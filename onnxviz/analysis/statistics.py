"""Statistics of a tensor, and the moments they are made of, which merge over any split of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnxviz.runtime.capture import TensorRecord

__all__ = ["Moments", "TensorStatistics", "describe", "is_numeric", "statistics", "to_float"]

_CHUNK = 1 << 20  # elements held in float64 at a time: 8 MB


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds real numbers: booleans, integers, floats, and the small types of ``ml_dtypes``.

    >>> is_numeric(np.dtype("float16")), is_numeric(np.dtype("<U3"))
    (True, False)
    """
    return dtype.kind in "biuf" or (dtype.names is None and dtype.type.__module__.split(".")[0] == "ml_dtypes")


def to_float(array: npt.NDArray[Any], dtype: type[np.floating[Any]] = np.float32) -> npt.NDArray[Any]:
    """Return a numeric array as ``dtype``, without a copy where it already is; what overflows becomes Inf.

    >>> to_float(np.array([True, False])).tolist()
    [1.0, 0.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype, copy=False)


@dataclass(frozen=True)
class Moments:
    """What is kept of a set of values so that two sets can be merged into one.

    Attributes:
        count: Number of finite values.
        mean: Mean of the finite values; 0 where there are none.
        m2: Sum of squared differences from the mean, over the finite values.
        min: Smallest finite value; ``inf`` where there are none.
        max: Largest finite value; ``-inf`` where there are none.
        nan: Number of NaN.
        inf: Number of infinite values of either sign.
        zero: Number of values equal to zero.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    nan: int = 0
    inf: int = 0
    zero: int = 0

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Moments:
        """Return the moments of a numeric array of any shape, accumulated in float64, in chunks of bounded memory.

        >>> Moments.of(np.array([1.0, 3.0, np.nan])).mean
        2.0
        """
        flat = array.reshape(-1)
        total = cls()
        for start in range(0, flat.size, _CHUNK):
            total = total.merge(cls._of_chunk(flat[start : start + _CHUNK]))
        return total

    @classmethod
    def _of_chunk(cls, chunk: npt.NDArray[Any]) -> Moments:
        values = to_float(chunk, np.float64)
        low, high = float(values.min()), float(values.max())  # NaN and Inf show in one of them
        nan = inf = 0
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(values)
            nan = int(np.count_nonzero(np.isnan(values)))
            values, inf = values[finite], int(values.size - np.count_nonzero(finite)) - nan
            if not values.size:
                return cls(nan=nan, inf=inf)
            low, high = float(values.min()), float(values.max())
        unit = max(abs(low), abs(high))
        mean = (
            float(np.mean(values / unit)) * unit if unit > 1e300 else float(np.mean(values))
        )  # no overflow of the sum
        mean = min(max(mean, low), high)
        with np.errstate(over="ignore"):
            m2 = float(np.sum(np.square(values - mean)))
        return cls(values.size, mean, m2, low, high, nan, inf, int(values.size - np.count_nonzero(values)))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets together.

        Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        1979, eq. 2.1.

        >>> whole, parts = Moments.of(np.arange(6)), Moments.of(np.arange(2)).merge(Moments.of(np.arange(2, 6)))
        >>> whole == parts
        True
        """
        count = self.count + other.count
        mean, m2 = self.mean, self.m2
        if not self.count:
            mean, m2 = other.mean, other.m2
        elif other.count:
            share = other.count / count
            delta = other.mean - self.mean
            mean = self.mean + delta * share if math.isfinite(delta) else self.mean * (1 - share) + other.mean * share
            m2 = self.m2 + other.m2 + delta * delta * self.count * share
        return Moments(
            count,
            mean,
            m2,
            min(self.min, other.min),
            max(self.max, other.max),
            self.nan + other.nan,
            self.inf + other.inf,
            self.zero + other.zero,
        )

    @property
    def std(self) -> float:
        """Population standard deviation of the finite values; 0 where there are none."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one tensor. ``min``, ``max``, ``mean`` and ``std`` are over its finite values.

    Attributes:
        name: The tensor's name.
        shape: Its shape.
        dtype: Its type, such as ``"float32"`` or ``"bfloat16"``.
        min: Smallest finite value; None where no value is finite, the tensor is empty, or it holds no numbers.
        max: Largest finite value, or None.
        mean: Mean, accumulated in float64, or None.
        std: Population standard deviation (divided by n), or None; None too where it passes float64's range.
        nan: Number of NaN.
        inf: Number of infinite values of either sign.
        zero: Number of values equal to zero.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    nan: int
    inf: int
    zero: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON-ready values under the names of the fields."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "min": self.min,
            "max": self.max,
            "mean": self.mean,
            "std": self.std,
            "nan": self.nan,
            "inf": self.inf,
            "zero": self.zero,
        }


def describe(
    name: str, array: npt.NDArray[Any], *, shape: tuple[int, ...] | None = None, dtype: str | None = None
) -> TensorStatistics:
    """Return the statistics of an array of any shape and type; text and other non-numbers have no min, max and mean.

    Args:
        name: The tensor's name.
        array: Its values.
        shape: The shape to report where it is not the array's.
        dtype: The type to report where it is not the array's.

    >>> describe("y", np.array([[0, 2, 4]], np.float32)).to_dict()["mean"]
    2.0
    >>> describe("empty", np.zeros((0, 3))).mean is None
    True
    """
    array = np.asarray(array)
    label = dtype if dtype is not None else "string" if array.dtype.kind in "OUST" else str(array.dtype)
    shape = tuple(array.shape) if shape is None else tuple(shape)
    moments = Moments.of(array) if is_numeric(array.dtype) else Moments()
    if not moments.count:
        return TensorStatistics(name, shape, label, None, None, None, None, moments.nan, moments.inf, moments.zero)
    std = moments.std if math.isfinite(moments.std) else None
    return TensorStatistics(
        name, shape, label, moments.min, moments.max, moments.mean, std, moments.nan, moments.inf, moments.zero
    )


def statistics(capture: Mapping[str, TensorRecord]) -> list[TensorStatistics]:
    """Return the statistics of every tensor of a capture, in the capture's order."""
    return [describe(r.name, r.array, shape=r.shape, dtype=r.dtype) for r in capture.values()]
