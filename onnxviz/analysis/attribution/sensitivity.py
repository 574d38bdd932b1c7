"""How much a map changes with changes of the input that nobody sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case

__all__ = ["sensitivity_max"]

Maps = Mapping[str, npt.NDArray[Any]]


def sensitivity_max(
    case: Case, original: Maps, again: Callable[[Case], Maps], *, copies: int = 10, radius: float = 0.02, seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return the largest relative change of a map under small uniform noise, ``(N,)``.

    ``max_δ ‖Φ(x + δ) − Φ(x)‖₂ / ‖Φ(x)‖₂`` over ``copies`` draws with ``‖δ‖∞ ≤ radius`` times the range of each sample's
    input: Yeh et al. 2019, arXiv:1901.09392, definition 2.2, estimated by sampling as there. NaN for a map of zeros.

    Args:
        case: What is explained.
        original: The maps.
        again: Explains a case by the same method and parameters.
        copies: How many draws.
        radius: The largest noise, as a share of the input's range.
        seed: Of the noise.
        tell: Called with how many explanations are done, and of how many.
    """
    size = np.array([_norm(original, sample) for sample in range(case.samples)])
    largest = np.zeros(case.samples)
    for copy in range(copies):
        rng = np.random.default_rng((seed, copy, 13))
        rows = {}
        for name in case.sources:
            fed = np.asarray(case.value(name), np.float64)
            reach = radius * np.ptp(fed.reshape(len(fed), -1), axis=1).reshape(-1, *[1] * (fed.ndim - 1))
            rows[name] = fed + rng.uniform(-1, 1, fed.shape) * reach
        maps = again(case.fed(rows))
        change = {n: np.asarray(maps[n], np.float64) - np.asarray(a, np.float64) for n, a in original.items()}
        largest = np.maximum(largest, [_norm(change, sample) for sample in range(case.samples)])
        if tell is not None:
            tell(copy + 1, copies)
    return np.asarray(np.where(size > 0, largest / np.where(size > 0, size, 1.0), np.nan))


def _norm(maps: Maps, sample: int) -> float:
    return float(np.sqrt(sum(np.sum(np.square(array[sample], dtype=np.float64)) for array in maps.values())))
