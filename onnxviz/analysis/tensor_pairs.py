"""Pairing tensors by what they hold: the same shape, perhaps with axes turned, and nearly the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.numeric import to_float

__all__ = ["pair_by_activations", "turn"]

Array = npt.NDArray[Any]
_ALIKE = 0.95  # cosine similarity from which tensors of one shape may stand for each other
_MOST = 1 << 26  # products of elements that one shape may cost: beyond that, tensors are compared by a sample
_TURNS = ((0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1))


def turn(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return how axes are turned from one shape to the other: empty where they are equal; None where nothing fits.

    >>> turn((1, 3, 4, 5), (1, 4, 5, 3)), turn((2, 3), (2, 3)), turn((2, 3), (3, 2))
    ((0, 2, 3, 1), (), None)
    """
    if source == target:
        return ()
    fitting = (t for t in _TURNS if len(t) == len(source) and tuple(source[axis] for axis in t) == target)
    return next(fitting, None)


def pair_by_activations(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, str]:
    """Return tensors of ours -> those of theirs that hold nearly the same, the best first, each once.

    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.standard_normal((2, 16)).astype(np.float32)
    >>> pair_by_activations({"p": a, "q": b}, {"x": b * 1.01, "y": a})
    {'p': 'y', 'q': 'x'}
    """
    shapes: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for side, arrays in enumerate((ours, theirs)):
        for name, array in arrays.items():
            shapes.setdefault(array.shape, ([], []))[side].append(name)
    found: list[tuple[float, int, int, str, str]] = []
    for shape, (own, others) in shapes.items():
        step = max(1, len(own) * len(others) * int(np.prod(shape, dtype=np.int64)) // _MOST)
        left, right = (_units(arrays, names, step) for arrays, names in ((ours, own), (theirs, others)))
        if left is None or right is None:
            continue
        cosines = left[1] @ right[1].T
        for i, j in np.argwhere(cosines >= _ALIKE):
            found.append((-float(cosines[i, j]), int(i), int(j), left[0][i], right[0][j]))
    matched: dict[str, str] = {}
    for _, _, _, name, twin in sorted(found):
        if name not in matched and twin not in matched.values():
            matched[name] = twin
    return matched


def _units(
    arrays: Mapping[str, Array], names: list[str], step: int
) -> tuple[list[str], npt.NDArray[np.float32]] | None:
    """Return tensors as vectors of length 1, those left out that say too little to be recognised by."""
    units = {name: unit for name in names if (unit := _unit(arrays[name], step)) is not None}
    return (list(units), np.stack(list(units.values()))) if units else None


def _unit(array: Array, step: int) -> npt.NDArray[np.float32] | None:
    if array.size < 8 or "float" not in str(array.dtype):
        return None
    vector = to_float(array).astype(np.float32).ravel()[::step]
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0 or float(vector.std()) < 1e-6 * length:
        return None
    return np.asarray(vector / np.float32(length))
