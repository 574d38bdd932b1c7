"""How far a tensor is from what it should be, in the measures that fields are used to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ErrorMetrics", "error_metrics"]

Array = npt.NDArray[Any]
_SEVERAL = 5


@dataclass(frozen=True)
class ErrorMetrics:
    """Measures of one tensor, beside those of :class:`onnxviz.analysis.comparison.OutputParity`.

    Attributes:
        rmse: Root of the mean squared difference, in the unit of the tensor.
        psnr: ``20·log₁₀(range / rmse)`` in dB, the range being the reference's largest value less its smallest;
            infinite where they are equal.
        top1: Share of the rows (all axes but the last) whose largest element is at the same place; None for rows of
            one.
        top5: Share of the five largest elements of a row that are among the five largest of the other, averaged over
            the rows; None for rows of five elements or less.
    """

    rmse: float
    psnr: float
    top1: float | None = None
    top5: float | None = None

    def worse(self, other: ErrorMetrics) -> ErrorMetrics:
        """Return the worst of each measure."""
        return ErrorMetrics(
            max(self.rmse, other.rmse),
            min(self.psnr, other.psnr),
            _least(self.top1, other.top1),
            _least(self.top5, other.top5),
        )


def error_metrics(reference: Array, own: Array, *, ranked: bool = False) -> ErrorMetrics:
    """Measure the difference of two tensors of one shape.

    Elements that are not finite in both are left out of the sums; where nothing can be measured (another shape, numbers
    against text, nothing finite) the error is infinite, so that it never passes for a small one.

    Args:
        reference: What is right.
        own: What is compared.
        ranked: Whether the last axis holds scores, so that agreement of the largest is measured.

    >>> a = np.float32([[0, 3, 1], [4, 0, 2]])
    >>> found = error_metrics(a, a + np.float32([0, 0.5, 0]), ranked=True)
    >>> round(found.rmse, 4), round(found.psnr, 2), found.top1
    (0.2887, 22.83, 1.0)
    """
    if reference.shape != own.shape or any(array.dtype.kind in "OUSM" for array in (reference, own)):
        return ErrorMetrics(math.inf, -math.inf)
    if not reference.size:
        return ErrorMetrics(0.0, math.inf)
    one, other = (np.asarray(array, np.float64) for array in (reference, own))
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.any():
        equal = np.array_equal(one, other, equal_nan=True)
        return ErrorMetrics(0.0, math.inf) if equal else ErrorMetrics(math.inf, -math.inf)
    with np.errstate(over="ignore"):
        rmse = float(np.sqrt(np.mean((one[finite] - other[finite]) ** 2)))
        span = float(np.ptp(one[finite]))
    psnr = math.inf if not rmse else 20 * math.log10(span / rmse) if span and math.isfinite(span) else -math.inf
    if not ranked or not one.ndim or one.shape[-1] < 2:
        return ErrorMetrics(rmse, psnr)
    return ErrorMetrics(rmse, psnr, *_agreement(one.reshape(-1, one.shape[-1]), other.reshape(-1, one.shape[-1])))


def _agreement(one: Array, other: Array) -> tuple[float, float | None]:
    """Return how often the largest of a row is the same, and the share of the five largest that are."""
    top1 = float(np.mean(np.argmax(one, 1) == np.argmax(other, 1)))
    if one.shape[1] <= _SEVERAL:
        return top1, None
    several = [np.argpartition(-rows, _SEVERAL - 1, axis=1)[:, :_SEVERAL] for rows in (one, other)]
    shared = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(*several, strict=True)]
    return top1, float(np.mean(shared)) / _SEVERAL


def _least(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)
