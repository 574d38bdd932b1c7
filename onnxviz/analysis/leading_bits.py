"""Counting float32 values by their leading bits, the fast way into :class:`onnxviz.analysis.log_bins.LogBins`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.log_bins import BITS, LogBins

__all__ = ["LeadingBits"]

# A key: sign, exponent and the first bits of the mantissa.
_SHIFT = 23 - BITS
_SIGN = 1 << (31 - _SHIFT)
_NORMAL, _INF = 1 << BITS, 255 << BITS  # the first keys of normal values and of what is not finite
_BIAS = (1023 - 127) << BITS  # from a key to the index of LogBins
_LANES = np.tile(np.arange(4, dtype=np.int64) * _SIGN, 1024)


class LeadingBits:
    """Counts of float32 values by sign, exponent and the first 4 bits of the mantissa."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, _SIGN), np.int64)
        self._ends = [0, 0]

    @staticmethod
    def below(magnitude: float) -> int:
        """Return the key below which lie all smaller magnitudes, and all that are not normal in float32."""
        return max(int(np.float32(magnitude).view(np.uint32)) >> _SHIFT, _NORMAL)

    def add(self, values: npt.NDArray[np.float32], scratch: npt.NDArray[np.int64], small: int) -> int:
        """Count contiguous values; return how many have a key of a magnitude below ``small``.

        Args:
            values: One axis.
            scratch: As many entries, to be overwritten.
            small: See :meth:`below`.
        """
        np.right_shift(values.view(np.uint32), _SHIFT, out=scratch)
        if _is_never_negative(values):
            # Many equal values, such as zeros, make each increment wait for the one before: spread them over four.
            lanes = scratch[: len(scratch) // len(_LANES) * len(_LANES)].reshape(-1, len(_LANES))
            np.bitwise_or(lanes, _LANES, out=lanes)
            tables = [np.add.reduce(np.bincount(scratch, minlength=4 * _SIGN).reshape(4, -1), axis=0)]
        else:
            table = np.bincount(scratch)
            tables = [table[:_SIGN], table[_SIGN:]]
        found = 0
        for sign, table in enumerate(tables):
            if len(table):
                self._counts[sign, : len(table)] += table
                self._ends[sign] = max(self._ends[sign], len(table))
                found += int(np.add.reduce(table[:small]))
        return found

    def bins(self) -> LogBins:
        """Return the counts of finite values that are normal in float32."""
        positive, negative = (
            side[_NORMAL : min(end, _INF)] for side, end in zip(self._counts, self._ends, strict=True)
        )
        first = _NORMAL + _BIAS
        return LogBins.trimmed((first, first), (positive, negative))


def _is_never_negative(values: npt.NDArray[np.float32]) -> bool:
    """Whether many values all have the sign +; most that have not are told by a glance."""
    if values.size < len(_LANES) or np.minimum.reduce(values[:: values.size >> 6]) < 0:
        return False
    return bool(np.minimum.reduce(values.view(np.int32)) >= 0)
