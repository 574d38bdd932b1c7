"""A block of channels as one number a position, and such a map between its cells."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Reduction", "over_channels", "resampled"]

Reduction = Literal["mean", "max", "energy"]
_AT_ONCE = 1 << 22  # values that are worked on together


def over_channels(block: npt.NDArray[Any], by: Reduction) -> npt.NDArray[np.float32]:
    """Return the mean, the maximum or the energy (mean of ``x²``) over the channels of ``(C, …)``, finite values only.

    >>> over_channels(np.array([[1.0, -3.0], [np.nan, 1.0]]), "energy").tolist()
    [1.0, 5.0]
    """
    finite = np.isfinite(block)
    count = finite.sum(axis=0)
    if by == "max":
        heat = np.where(finite, block, -np.inf).max(axis=0).astype(np.float64)
    else:
        total = np.zeros(block.shape[1:])
        step = max(_AT_ONCE // max(total.size, 1), 1)  # some channels at a time: no copy of them all in float64
        for start in range(0, len(block), step):
            part = slice(start, start + step)
            values = np.where(finite[part], block[part], 0.0).astype(np.float64)
            total += (values if by == "mean" else np.square(values)).sum(axis=0)
        heat = total / np.maximum(count, 1)
    found: npt.NDArray[np.float32] = np.where(count > 0, heat, np.nan).astype(np.float32)
    return found


def resampled(
    heat: npt.NDArray[np.float32], rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Return a map at fractional cells, bilinearly between their centres.

    Beyond the outermost centres the outermost cells go on for half a cell; further out is NaN, for no cell is there.
    NaN stays within the cells that hold it: pixels nearest to one of them are NaN, others are made of the finite cells.

    Args:
        heat: ``(h, w)``.
        rows: ``(H,)``: where each row of the result lies, in cells: see
            :meth:`onnxviz.analysis.placement.CellAxis.cells`.
        columns: ``(W,)``: likewise.

    >>> resampled(np.float32([[0, 4]]), np.zeros(1), np.array([-0.75, -0.25, 0.5, 1.0])).tolist()
    [[nan, 0.0, 2.0, 4.0]]
    """
    finite = np.isfinite(heat)
    values, weights = np.where(finite, heat, 0.0).astype(np.float64), finite.astype(np.float64)
    for axis, at in ((0, rows), (1, columns)):
        last = heat.shape[axis] - 1
        inside = np.clip(at, 0, last)
        low = np.floor(inside).astype(np.intp)
        part = np.expand_dims(inside - low, 1 - axis)
        high = np.minimum(low + 1, last)
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
        weights = weights.take(low, axis) * (1 - part) + weights.take(high, axis) * part
    nearest = [
        np.clip(np.rint(at), 0, n - 1).astype(np.intp) for at, n in zip((rows, columns), heat.shape, strict=True)
    ]
    known = finite[np.ix_(*nearest)] & (weights > 0)
    for axis, (at, n) in enumerate(zip((rows, columns), heat.shape, strict=True)):
        known &= np.expand_dims((at >= -0.5 - 1e-9) & (at <= n - 0.5 + 1e-9), 1 - axis)
    found: npt.NDArray[np.float32] = np.where(known, values / np.where(known, weights, 1.0), np.nan).astype(np.float32)
    return found
