"""Maps and masks between grids of different size: linear along each axis, or the nearest cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["enlarged", "linear_weights", "nearest_weights"]

Array = npt.NDArray[Any]


def linear_weights(count: int, size: int) -> npt.NDArray[np.float64]:
    """Return ``(size, count)``: what each of ``size`` cells takes of ``count`` cells of the same length.

    Linear between the centres of cells, the outermost continued to the ends (PyTorch's ``align_corners=False``).

    >>> linear_weights(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    low = np.minimum(at.astype(np.intp), count - 1)
    weights = np.zeros((size, count))
    np.add.at(weights, (np.arange(size), low), 1 - (at - low))
    np.add.at(weights, (np.arange(size), np.minimum(low + 1, count - 1)), at - low)
    return weights


def nearest_weights(count: int, size: int) -> npt.NDArray[np.float64]:
    """Return ``(size, count)``: each of ``size`` cells takes the one that it lies in.

    >>> nearest_weights(2, 3).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    return np.eye(count)[np.arange(size) * count // size]


def enlarged(array: Array, sizes: Sequence[int], *, nearest: bool = False) -> npt.NDArray[np.float64]:
    """Return an array whose last axes have other sizes.

    Args:
        array: ``(…, *cells)``.
        sizes: Of the last ``len(sizes)`` axes.
        nearest: Each cell takes the one that it lies in; else linear.

    >>> enlarged(np.array([[0.0, 4.0]]), (1, 4)).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    made = np.asarray(array, np.float64)
    weights = nearest_weights if nearest else linear_weights
    for axis, size in enumerate(sizes, start=-len(sizes)):
        if made.shape[axis] != size:
            # einsum, for the threads of a matrix product would contend with those of the model
            own = weights(made.shape[axis], size)
            made = np.moveaxis(np.einsum("ij,j...->i...", own, np.moveaxis(made, axis, 0)), 0, axis)
    return made
