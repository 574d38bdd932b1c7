"""How many values of a tensor lie outside of a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.numeric import is_numeric, to_float

__all__ = ["Clipping"]


@dataclass(frozen=True)
class Clipping:
    """Values outside of a range, over all runs.

    Attributes:
        count: Values in all.
        clipped: Those outside.
        low, high: The smallest and the largest value.
    """

    count: int = 0
    clipped: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    @classmethod
    def of(cls, array: npt.NDArray[Any], low: float, high: float) -> Clipping:
        """Count in one run.

        >>> Clipping.of(np.float32([0, 1, 5]), -1, 1).clipped
        1
        """
        if not is_numeric(array.dtype) or not array.size:
            return cls()
        values = to_float(array)
        outside = int(((values < low) | (values > high)).sum())
        return cls(array.size, outside, float(np.nanmin(values)), float(np.nanmax(values)))

    def merge(self, other: Clipping, /) -> Clipping:
        """Return what both sets of runs saw together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Clipping(self.count + other.count, self.clipped + other.clipped, low, high)
