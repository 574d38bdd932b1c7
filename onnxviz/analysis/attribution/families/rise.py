"""RISE: the scores of randomly covered inputs, averaged over their masks; it needs no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.axes import position_axes, spatial_axes
from onnxviz.analysis.attribution.baselines import BaselineSpec, baselines, seen_through
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.methods import Found, method
from onnxviz.analysis.attribution.probabilities import Scorer
from onnxviz.analysis.attribution.resizing import linear_weights
from onnxviz.analysis.placement import stretched
from onnxviz.analysis.scale import number
from onnxviz.errors import InputError

__all__ = ["Grid", "mask", "rise"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """What masks of an input are made of.

    Attributes:
        axes: Axes of positions, counted with that of the samples.
        shape: Their sizes.
        cells: Cells along each.
        smooth: Whether cells are stretched over the positions, shifted and interpolated; else they are the positions.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    cells: tuple[int, ...]
    smooth: bool

    def spread(self, masks: Array, rank: int) -> Array:
        """Return masks ``(R, *shape)`` as they broadcast with rows of some rank."""
        sizes = [1] * (rank - 1)
        for axis, size in zip(self.axes, self.shape, strict=True):
            sizes[axis - 1] = size
        return masks.reshape(len(masks), *sizes)


def mask(grid: Grid, share: float, seed: int, place: int, which: int = 0) -> npt.NDArray[np.float64]:
    """Return a mask (Petsiuk et al. 2018, section 3.2): random cells, stretched over one cell more, shifted, cropped.

    Args:
        grid: Its size.
        share: Chance of a cell to be 1.
        seed, place: Of the random numbers: each mask has its own.
        which: Of several inputs, each of which has masks of its own.

    >>> mask(Grid((1,), (4,), (2,), True), 0.5, 0, 4).round(2).tolist()
    [0.0, 0.33, 0.67, 1.0]
    """
    rng = np.random.default_rng((seed, place, which) if which else (seed, place))
    made: npt.NDArray[np.float64] = (rng.random(grid.cells) < share).astype(np.float64)
    if not grid.smooth:
        return made
    for axis, (size, count) in enumerate(zip(grid.shape, grid.cells, strict=True)):
        cell = -(-size // count)
        first = int(rng.integers(cell))
        weights = linear_weights(stretched(count, cell * (count + 1)), cell * (count + 1))[first : first + size]
        made = np.moveaxis(np.einsum("ij,j...->i...", weights, np.moveaxis(made, axis, 0)), 0, axis)
    return made


@method("rise", "the mean score of randomly covered copies in which a place is seen, less that of all copies",
        source="Petsiuk et al. 2018, arXiv:1806.07421, eq. 6", needs=(), unit="score")  # fmt: skip
def rise(
    case: Case, *, masks: int = 4000, grid: int = 7, share: float = 0.5, probability: bool = True,
    centred: bool = True, fill: BaselineSpec = "zeros", seed: int = 0,
) -> Found:  # fmt: skip
    """Return ``Σᵢ (f(x ⊙ Mᵢ) - f̄) Mᵢ / (N p)`` over random masks.

    Args:
        case: What is explained.
        masks: ``N``.
        grid: Cells of a mask along each axis of a picture, volume or signal; of tokens and features each is a cell.
        share: ``p``, the chance of a cell to be seen.
        probability: Whether ``f`` is the probability of the class, as in the paper, where the target is a class; else
            its score.
        centred: Whether the mean ``f̄`` of all copies is taken off: what is left has the sign of the effect, and does
            not hold the unevenness of the masks. The paper does not.
        fill: What is seen of a covered cell.
        seed: Of the masks, which are the same for all samples.
    """
    if not 0 < share < 1:
        raise InputError(f"a share of {share} cells is no chance", hint="give a number between 0 and 1")
    scorer = Scorer(case, probability)
    chosen = baselines(case, fill, seed)
    if len(chosen) > 1:
        raise InputError("RISE takes one fill", hint="give one baseline")
    grids = {name: _grid(case, name, grid) for name in case.sources}
    sums = {name: np.zeros((case.samples, 5, *own.shape)) for name, own in grids.items()}
    total = np.zeros(case.samples)
    for sample, places in case.forward.copies(masks):
        made = {
            n: np.stack([mask(own, share, seed, int(i), which) for i in places])
            for which, (n, own) in enumerate(grids.items())
        }
        rows = {n: seen_through(case, n, sample, chosen[0].rows[n], grids[n].spread(m, case.value(n).ndim))
                for n, m in made.items()}  # fmt: skip
        scores = scorer(*case.changed(sample, rows))
        total[sample] += scores.sum()
        for name, m in made.items():
            sums[name][sample] += _sums(scores, m)
    found = {n: _finished(s, total / masks if centred else 0 * total, masks, share) for n, s in sums.items()}
    maps = {n: _wide(case, n, grids[n], values) for n, (values, _) in found.items()}
    return Found(maps, notes=(*scorer.notes, *_told(found)), unit=scorer.unit)


def _grid(case: Case, name: str, cells: int) -> Grid:
    axes, smooth = position_axes(case, name), bool(spatial_axes(case, name))
    shape = tuple(case.value(name).shape[axis] for axis in axes)
    return Grid(axes, shape, tuple(min(cells, size) for size in shape) if smooth else shape, smooth)


def _sums(scores: Array, masks: Array) -> Array:
    """Return the sums over masks that a map and its error are made of: ``f M``, ``M``, ``f² M²``, ``f M²``, ``M²``."""
    square, ones = masks * masks, np.ones(len(masks))
    parts = ((scores, masks), (ones, masks), (scores**2, square), (scores, square), (ones, square))
    # einsum, for the threads of a matrix product would contend with those of the model.
    return np.stack([np.einsum("r,r...->...", weight, one) for weight, one in parts])


def _finished(sums: Array, mean: Array, masks: int, share: float) -> tuple[Array, Array]:
    """Return the map of each sample, and its standard error at each place."""
    middle = mean.reshape(-1, *[1] * (sums.ndim - 2))
    scored, plain, both, once, square = (sums[:, i] for i in range(5))
    values = (scored - middle * plain) / masks
    second = (both - 2 * middle * once + middle**2 * square) / masks
    return values / share, np.sqrt(np.maximum(second - values**2, 0) / masks) / share


def _wide(case: Case, name: str, grid: Grid, values: Array) -> Array:
    return np.broadcast_to(grid.spread(values, case.value(name).ndim), case.value(name).shape)


def _told(found: dict[str, tuple[Array, Array]]) -> tuple[str, ...]:
    most = max(float(np.abs(values).max()) for values, _ in found.values())
    error = float(np.median(np.concatenate([errors.reshape(-1) for _, errors in found.values()])))
    return (f"standard error of a place {number(error)}, the largest magnitude is {number(most)}",)
