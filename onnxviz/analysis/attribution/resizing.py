"""Maps and masks between grids of different size: linear between the centres of cells, or the nearest cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.placement import CellAxis, stretched

__all__ = ["enlarged", "linear_weights", "nearest_weights"]

Array = npt.NDArray[Any]


def linear_weights(cells: CellAxis, size: int) -> npt.NDArray[np.float64]:
    """Return how much each cell counts at each position of an axis, ``(size, cells)``.

    Linear between the centres of cells, the outermost continued to the ends; of cells that fill the axis it is what
    PyTorch gives with ``align_corners=False``.

    >>> linear_weights(stretched(2, 4), 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    at = np.clip(cells.cells(np.arange(size, dtype=np.float64)), 0, cells.count - 1)
    low = np.floor(at).astype(np.intp)
    weights = np.zeros((size, cells.count))
    np.add.at(weights, (np.arange(size), low), 1 - (at - low))
    np.add.at(weights, (np.arange(size), np.minimum(low + 1, cells.count - 1)), at - low)
    return weights


def nearest_weights(count: int, size: int) -> npt.NDArray[np.float64]:
    """Return ``(size, count)``: each of ``size`` positions takes the cell that it lies in, of cells that fill the axis.

    >>> nearest_weights(2, 3).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    return np.eye(count)[np.arange(size) * count // size]


def enlarged(
    array: Array, sizes: Sequence[int], *, cells: Sequence[CellAxis] | None = None, nearest: bool = False
) -> npt.NDArray[np.float64]:
    """Return an array whose last axes have other sizes.

    Args:
        array: ``(…, *cells)``.
        sizes: Of the last ``len(sizes)`` axes.
        cells: Where the cells lie along each of these; by default they fill it from end to end.
        nearest: Each position takes the cell that it lies in, where they fill the axis; else linear.

    >>> enlarged(np.array([[0.0, 4.0]]), (1, 4)).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    made = np.asarray(array, np.float64)
    for place, size in enumerate(sizes):
        axis = place - len(sizes)
        count = made.shape[axis]
        if count == size and cells is None:
            continue
        lying = stretched(count, size) if cells is None else cells[place]
        weights = nearest_weights(count, size) if nearest else linear_weights(lying, size)
        # einsum, for the threads of a matrix product would contend with those of the model
        made = np.moveaxis(np.einsum("ij,j...->i...", weights, np.moveaxis(made, axis, 0)), 0, axis)
    return made
