"""How far a tensor is from what it should be, in the measures that fields are used to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.top_agreement import row_agreement

__all__ = ["ErrorMetrics", "error_metrics", "relative_error"]

Array = npt.NDArray[Any]
_SEVERAL = 5
_PART = 1 << 18  # elements that are looked at together: they stay in the cache


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
    sums = _Sums.of(reference, own)
    if not sums.count:
        return ErrorMetrics(0.0, math.inf) if not sums.odd else ErrorMetrics(math.inf, -math.inf)
    rmse, span = math.sqrt(sums.error / sums.count), sums.high - sums.low
    psnr = math.inf if not rmse else 20 * math.log10(span / rmse) if span and math.isfinite(span) else -math.inf
    if not ranked or not reference.ndim or reference.shape[-1] < 2:
        return ErrorMetrics(rmse, psnr)
    classes = reference.shape[-1]
    one, other = (array.reshape(-1, classes) for array in (reference, own))
    found = row_agreement(one, other, min(_SEVERAL, classes))
    return ErrorMetrics(rmse, psnr, found.top1, found.topk if classes > _SEVERAL else None)


def relative_error(reference: Array, own: Array) -> float:
    """Return ``‖own - reference‖₂ / ‖reference‖₂``; infinite for other shapes, or NaN and Inf at other places.

    >>> relative_error(np.float32([3, 4]), np.float32([3, 4.5]))
    0.1
    """
    if reference.shape != own.shape or any(array.dtype.kind in "OUSM" for array in (reference, own)):
        return math.inf
    sums = _Sums.of(reference, own)
    if sums.odd:
        return math.inf
    return math.sqrt(sums.error / sums.signal) if sums.signal else math.inf if sums.error else 0.0


@dataclass
class _Sums:
    """Sums over two tensors, a part after the other: a large one is not copied as a whole.

    Attributes:
        count: Elements that are finite in both.
        odd: Elements that are not, and differ.
        error: Squared differences.
        signal: Squares of the reference.
        low, high: Extremes of the reference.
    """

    count: int = 0
    odd: int = 0
    error: float = 0.0
    signal: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, reference: Array, own: Array) -> _Sums:
        sums = cls()
        flat = reference.reshape(-1), own.reshape(-1)
        for start in range(0, reference.size, _PART):
            a, b = (np.asarray(array[start : start + _PART], np.float64) for array in flat)
            with np.errstate(invalid="ignore", over="ignore"):
                ends = a.sum() + b.sum()  # finite only if all terms are
            if not np.isfinite(ends):
                finite = np.isfinite(a) & np.isfinite(b)
                odd = ~finite & ~((a == b) | (np.isnan(a) & np.isnan(b)))
                sums.odd += int(odd.sum())
                a, b = a[finite], b[finite]
            if a.size:
                sums.count += a.size
                sums.low, sums.high = min(sums.low, float(a.min())), max(sums.high, float(a.max()))
                sums.signal += float(a @ a)
                a = a - b
                sums.error += float(a @ a)
        return sums


def _least(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)
