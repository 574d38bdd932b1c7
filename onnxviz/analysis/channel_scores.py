"""Numbers a channel that channels are chosen by: energy, sparsity, range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["channel_ranges", "hoyer_sparsity"]

_AT_ONCE = 1 << 22  # values of the channels that are worked on together


def _chunks(block: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    """Yield rows of ``(C, …)`` as float64 ``(c, L)`` with 0 for what is not finite, and which values are finite."""
    flat = block.reshape(len(block), -1)
    step = max(_AT_ONCE // max(flat.shape[1], 1), 1)
    for start in range(0, len(flat), step):
        where = slice(start, start + step)
        values = flat[where].astype(np.float64)
        finite = np.isfinite(values)
        yield where, np.where(finite, values, 0.0), finite


def hoyer_sparsity(block: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return Hoyer's sparsity of each channel of ``(C, …)`` over its finite values, as ``(C,)`` between 0 and 1.

    ``(√n - L1/L2) / (√n - 1)`` (Hoyer 2004, JMLR 5, section 3.1): 0 for a flat channel, 1 for a single spike; a channel
    of zeros has 0.

    >>> hoyer_sparsity(np.array([[0.0, 0.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    scores = np.zeros(len(block))
    for where, values, finite in _chunks(block):
        values = np.abs(values)
        peak = values.max(axis=1, initial=0.0)
        root = np.sqrt(finite.sum(axis=1))
        known = (root > 1) & (peak > 0)
        values /= np.where(peak > 0, peak, 1.0)[:, None]
        longest = np.sqrt(np.square(values).sum(axis=1))
        ratio = values.sum(axis=1) / np.where(known, longest, 1.0)
        scores[where] = np.where(known, (root - ratio) / np.where(known, root - 1, 1.0), 0.0)
    return np.clip(scores, 0.0, 1.0)


def channel_ranges(
    block: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return energy (mean of ``x²``), smallest and largest finite value of each channel of ``(C, …)``.

    Ranges are NaN, and the energy is 0, where nothing is finite.
    """
    energy = np.zeros(len(block))
    low, high = (np.full(len(block), np.nan, np.float32) for _ in range(2))
    for where, values, finite in _chunks(block):
        count = finite.sum(axis=1)
        energy[where] = np.square(values).sum(axis=1) / np.maximum(count, 1)
        if not values.shape[1]:
            continue
        least = np.where(finite, values, np.inf).min(axis=1)
        most = np.where(finite, values, -np.inf).max(axis=1)
        low[where] = np.where(count > 0, least, np.nan)
        high[where] = np.where(count > 0, most, np.nan)
    return energy, low, high
