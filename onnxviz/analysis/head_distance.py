"""How far apart the heads of attention are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attention import LayerAttention, filled_rows
from onnxviz.errors import SelectionError

__all__ = ["HeadDistances", "head_distances", "jensen_shannon"]

_MOST_HEADS = 400
_MOST_WORK = 5e8  # logarithms: some 10 s


@dataclass(frozen=True, eq=False)
class HeadDistances:
    """How far apart heads are.

    Attributes:
        matrix: ``(H, H)`` float64, bits from 0 (the same) to 1 (never looking at the same key); NaN between layers
            with different tokens.
        layers: Title of each head's layer.
        heads: Index of each head in its layer.
        note: What was left out; empty where nothing.
    """

    matrix: npt.NDArray[np.float64]
    layers: tuple[str, ...]
    heads: tuple[int, ...]
    note: str


def jensen_shannon(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Return the mean Jensen-Shannon divergence of the rows of two ``(Q, K)`` arrays, in bits, from 0 to 1.

    ``JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2`` (Lin 1991, equation 4.1); rows empty in either are left out.

    >>> jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    1.0
    """
    p, q = (np.asarray(a, np.float64) for a in (first, second))
    kept = filled_rows(p) & filled_rows(q)
    if not kept.any():
        return float("nan")
    p, q = p[kept], q[kept]

    def bits(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(-np.sum(x * np.log2(np.where(x > 0, x, 1.0)), axis=-1))

    return float(np.clip(np.mean(bits((p + q) / 2) - (bits(p) + bits(q)) / 2), 0, 1))


def head_distances(layers: Sequence[LayerAttention]) -> HeadDistances:
    """Return the Jensen-Shannon divergence between every two heads, as Clark et al. 2019 (section 6) compare them.

    Raises:
        SelectionError: There are fewer than two heads.
    """
    every = [(layer, place) for layer in layers for place in range(len(layer.heads))]
    note = f"the first {_MOST_HEADS} of {len(every)} heads" if len(every) > _MOST_HEADS else ""
    every = every[:_MOST_HEADS]
    if len(every) < 2:
        raise SelectionError("there is one head: nothing to compare it with", hint="leave out --layer or --head")
    largest = max((layer.weights[0] for layer in layers), key=np.size).shape
    rows = max(int(_MOST_WORK / (len(every) ** 2 / 2 * largest[1])), 16)
    if rows < largest[0]:
        note += f"{' · ' if note else ''}by {rows} of up to {largest[0]} queries, evenly spread"
    heads = [_spread(layer.weights[place], rows) for layer, place in every]
    matrix = np.full((len(every), len(every)), np.nan)
    for i, (one, _) in enumerate(every):
        for j, (other, _) in enumerate(every[: i + 1]):
            if one is other or (one.queries.blocks, one.keys.blocks) == (other.queries.blocks, other.keys.blocks):
                matrix[i, j] = matrix[j, i] = 0.0 if i == j else jensen_shannon(heads[i], heads[j])
    return HeadDistances(
        matrix, tuple(layer.title for layer, _ in every), tuple(layer.heads[place] for layer, place in every), note
    )


def _spread(weights: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """Return at most so many rows, evenly spread."""
    count = len(weights)
    return weights if count <= rows else weights[np.linspace(0, count - 1, rows).astype(int)]
