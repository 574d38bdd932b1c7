"""Statistics of a tensor as they are reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.channels import channel_axes, channel_axis
from onnxviz.analysis.histogram import Histogram
from onnxviz.analysis.numeric import is_numeric, to_float
from onnxviz.analysis.summary import QUANTILES, STATISTICS, Summary, merge_all

if TYPE_CHECKING:
    from onnxviz.runtime.record import TensorRecord

__all__ = [
    "QUANTILES",
    "Summary",
    "TensorStatistics",
    "channel_axes",
    "channel_axis",
    "describe",
    "is_numeric",
    "merge_all",
    "statistics",
    "to_float",
]


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one tensor. All but the counts are over its finite values.

    Attributes:
        name: The tensor's name.
        shape: Its shape.
        dtype: Its type, such as ``"float32"`` or ``"bfloat16"``.
        min: Smallest finite value; None where no value is finite, the tensor is empty, or it holds no numbers.
        max: Largest finite value, or None.
        mean: Mean, or None.
        std: Population standard deviation (divided by n), or None; None too where it passes float64's range.
        nan: Number of NaN.
        inf: Number of infinite values of either sign.
        zero: Number of values equal to zero.
        l2: Square root of the sum of squares, or None, as ``std``.
        subnormal: Number of values, not zero, below the smallest normal number of the type.
        quantiles: Share (:data:`QUANTILES`) to value, each off by at most 1/16 of its magnitude; empty where no value
            is finite.
        histogram: Counts over :data:`onnxviz.analysis.histogram.SYMLOG_EDGES`, or None where the tensor holds no
            numbers.
        channels: Statistic (min, max, mean, std, nan, inf, zero, l2, subnormal) to its values, one a channel; None
            where channels are not told apart.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    min: float | int | None
    max: float | int | None
    mean: float | None
    std: float | None
    nan: int
    inf: int
    zero: int
    l2: float | None
    subnormal: int
    quantiles: dict[float, float]
    histogram: Histogram | None
    channels: dict[str, list[Any]] | None = None

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], summary: Summary, *, dtype: str | None = None) -> TensorStatistics:
        """Return the statistics that a summary gives."""
        known = summary.bins is not None and summary.count > 0
        return cls(
            name=name,
            shape=tuple(shape),
            dtype=summary.dtype if dtype is None else dtype,
            **{field: getattr(summary, field) for field in STATISTICS},
            quantiles=dict(zip(QUANTILES, summary.quantiles(), strict=True)) if known else {},  # type: ignore[arg-type]
            histogram=None if summary.bins is None else summary.histogram(),
            channels=None if summary.channels is None else summary.channel_values(),
        )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def to_dict(self, *, distribution: bool = True) -> dict[str, Any]:
        """Return the statistics as JSON-ready values: the fields, with the occupied part of the histogram.

        Args:
            distribution: Quantiles, histogram and channels too, not just what is one number.
        """
        data: dict[str, Any] = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        data |= {field: getattr(self, field) for field in STATISTICS}
        if distribution:
            data["quantiles"] = {f"{share:g}": value for share, value in self.quantiles.items()}
            data["histogram"] = None if self.histogram is None else self.histogram.to_dict()
            if self.channels is not None:
                data["channels"] = self.channels
        return data


def describe(
    name: str,
    array: npt.NDArray[Any],
    *,
    shape: tuple[int, ...] | None = None,
    dtype: str | None = None,
    channel_axis: int | None = None,
) -> TensorStatistics:
    """Return the statistics of an array of any shape and type; text and other non-numbers have no min, max and mean.

    Args:
        name: The tensor's name.
        array: Its values.
        shape: The shape to report where it is not the array's.
        dtype: The type to report where it is not the array's.
        channel_axis: The axis of the channels, to have their statistics too.

    Raises:
        SelectionError: The array has no such axis.

    >>> describe("y", np.array([[0, 2, 4]], np.float32)).to_dict()["mean"]
    2.0
    >>> describe("empty", np.zeros((0, 3))).mean is None
    True
    """
    array = np.asarray(array)
    summary = Summary.of(array, channel_axis=channel_axis)
    return TensorStatistics.of(name, array.shape if shape is None else shape, summary, dtype=dtype)


def statistics(capture: Mapping[str, TensorRecord]) -> list[TensorStatistics]:
    """Return the statistics of every tensor of a capture, in the capture's order, named as the capture names it.

    Where the run kept a :class:`Summary` of a tensor, its array is not needed.
    """
    rows = []
    for key, record in capture.items():
        summary = getattr(record, "statistics", None)
        summary = summary if isinstance(summary, Summary) else Summary.of(record.array)
        rows.append(TensorStatistics.of(key, record.shape, summary, dtype=record.dtype))
    return rows
