"""Whether the model needs what a map points at: deletion and insertion curves beside controls, and infidelity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.baselines import BaselineSpec, baselines
from onnxviz.analysis.attribution.positions import Positions
from onnxviz.analysis.attribution.probabilities import Scorer

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case

__all__ = ["CONTROLS", "Curves", "Faithfulness", "area", "faithfulness", "infidelity"]

Array = npt.NDArray[np.float64]
#: Control -> what it is.
CONTROLS = {
    "random": "the values of the map at random places",
    "blurred": "the map, blurred",
    "centre": "a Gaussian, of a quarter of the sides",
}
_FLAT = 1e-6  # of the score: a difference to the baseline that is too small to divide by


@dataclass(frozen=True, eq=False)
class Curves:
    """A curve of the map and of each control.

    Attributes:
        map: ``(N, K + 1)``.
        controls: Name -> ``(N, K + 1)``; of ``"random"`` the mean of several.
        random: ``(D, N, K + 1)``: each draw of the random control.
        fill: What stands for nothing.
    """

    map: Array
    controls: Mapping[str, Array]
    random: Array
    fill: str

    def areas(self) -> dict[str, Array]:
        """Return the area under each curve, ``(N,)``: ``"map"`` and the controls."""
        return {"map": area(self.map), **{name: area(curve) for name, curve in self.controls.items()}}

    @property
    def spread(self) -> float:
        """The standard deviation of the area of random controls, means over the samples; 0 of a single draw."""
        areas = area(self.random)
        known = areas[:, np.isfinite(areas).all(axis=0)].mean(axis=1) if len(areas) > 1 else np.zeros(0)
        return float(np.std(known, ddof=1)) if np.isfinite(known).all() and known.size else 0.0


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion and insertion.

    Attributes:
        fractions: ``(K + 1,)``: the share of positions that was taken away, or put back.
        unit: What the curves show.
        deletion: The most important positions go first: the lower the area the better.
        insertion: The most important positions come first: the higher the area the better.
    """

    fractions: Array
    unit: str
    deletion: Curves
    insertion: Curves


def area(curve: Array) -> Array:
    """Return the area under curves ``(…, K + 1)`` over 0 … 1, by trapezoids.

    Petsiuk et al. 2018, RISE, arXiv:1806.07421, section 4.3.

    >>> area(np.array([1.0, 0.5, 0.0])).item()
    0.5
    """
    return np.asarray((curve[..., 1:] + curve[..., :-1]).mean(axis=-1) / 2)


def faithfulness(
    case: Case, where: Positions, *, steps: int = 24, draws: int = 5, seed: int = 0,
    deletion_fill: BaselineSpec = "zeros", insertion_fill: BaselineSpec | None = None,
) -> Faithfulness:  # fmt: skip
    """Take positions away in the order of a map, and put them back in that order.

    Petsiuk et al. 2018, RISE, arXiv:1806.07421, section 4.3, with ``steps`` steps of equal size rather than a row of
    pixels each. Maps that are spread out do well at this whatever they show (Hooker et al. 2019, arXiv:1806.10758),
    therefore the controls.

    Args:
        case: What is explained.
        where: The positions, ranked by the map.
        steps: How many parts the positions are taken away in, K.
        draws: How many random controls.
        seed: Of what is random.
        deletion_fill: What takes the place of a deleted position: see
            :func:`onnxviz.analysis.attribution.baselines.baselines`.
        insertion_fill: What positions are put back into: by default the blurred input; zeros where nothing has
            neighbours, or where blurring leaves more than half of the score.
    """
    steps = min(steps, where.count)
    cut = np.rint(np.linspace(0, where.count, steps + 1)).astype(np.intp)
    scorer = Scorer(case, probability=True)
    insertion_fill = insertion_fill or _blurred_or_zeros(case, where, scorer)
    made = []
    for fill, back in ((deletion_fill, False), (insertion_fill, True)):
        base = baselines(case, fill, seed)[0]
        walk = _Walk(case, where, scorer, cut, {name: np.asarray(rows) for name, rows in base.rows.items()}, back, seed)
        random = np.stack([walk.curve("random", seed + draw + 1) for draw in range(draws)])
        others = {kind: walk.curve(kind) for kind in ("blurred", "centre") if where.control(0, kind) is not None}
        made.append(Curves(walk.curve(None), {"random": random.mean(axis=0), **others}, random, base.name))
    return Faithfulness(cut / where.count, _unit(scorer), made[0], made[1])


def _unit(scorer: Scorer) -> str:
    if _is_share(scorer):
        return "score: 1 of the input, 0 of the baseline"
    of = {"softmax": "softmax of the scores", "sigmoid": "sigmoid of the score"}.get(scorer.by)
    return "probability" + (f" ({of})" if of else "")


def _is_share(scorer: Scorer) -> bool:
    """Whether scores are no probabilities, and are shown as shares of the way from the baseline to the input."""
    return scorer.unit != "probability"


def _blurred_or_zeros(case: Case, where: Positions, scorer: Scorer) -> str:
    if case.inner or not all(block.spatial for block in where.blocks):
        return "zeros"
    left, rest = [], []
    fills = [baselines(case, name)[0].rows for name in ("blurred", "zeros")]
    for sample in range(case.samples):
        taken = np.repeat([[False], [True], [True]], where.count, axis=1)
        parts = [where.without(case, sample, taken[i : i + 1], fills[max(i - 1, 0)]) for i in range(3)]
        whole, blurry, none = (float(scorer(*case.changed(sample, part))[0]) for part in parts)
        left.append(blurry - (none if _is_share(scorer) else 0.0))
        rest.append(whole - (none if _is_share(scorer) else 0.0))
    return "blurred" if np.mean(left) <= np.mean(rest) / 2 else "zeros"


@dataclass(frozen=True, eq=False)
class _Walk:
    case: Case
    where: Positions
    scorer: Scorer
    cut: npt.NDArray[np.intp]
    rows: Mapping[str, npt.NDArray[Any]]
    back: bool
    seed: int

    def curve(self, kind: str | None, seed: int = 0) -> Array:
        """Return ``(N, K + 1)``: of the map, or of a control."""
        return np.stack([self._of(sample, kind, seed) for sample in range(self.case.samples)])

    def _of(self, sample: int, kind: str | None, seed: int) -> Array:
        where = self.where
        found = where.spread(where.heats(sample)) if kind is None else where.control(sample, kind, seed)
        assert found is not None
        rank = np.empty(where.count, np.intp)
        rank[where.order(found, self.seed)] = np.arange(where.count)
        at_once = max(self.case.forward.rows, 1)
        parts = []
        for start in range(0, len(self.cut), at_once):
            gone = rank[None] < self.cut[start : start + at_once, None]
            parts.append(self._scores(sample, ~gone if self.back else gone))
        scores = np.concatenate(parts)
        if not _is_share(self.scorer):
            return scores
        none, whole = (scores[0], scores[-1]) if self.back else (scores[-1], scores[0])
        if abs(whole - none) <= _FLAT * max(abs(whole), abs(none)):
            return np.full(len(scores), np.nan)
        return np.asarray((scores - none) / (whole - none))

    def _scores(self, sample: int, taken: npt.NDArray[np.bool_]) -> Array:
        rows = self.where.without(self.case, sample, taken, self.rows)
        return self.scorer(*self.case.changed(sample, rows))


def infidelity(
    case: Case, where: Positions, *, perturbations: int = 128, seed: int = 0, fill: BaselineSpec = "zeros"
) -> tuple[Array, Array]:  # fmt: skip
    """Return how badly sums of the map foretell what taking away blocks of the input does to the score.

    Both are ``(N,)``: the infidelity, and its standard error over the blocks (jackknife: Efron and Stein 1981).

    ``min_β E[(β Σ_taken Φ − (y(x) − y(x without them)))²] / E[(y(x) − y(x without them))²]``: 0 where the sums are in
    proportion to the differences, 1 where they tell nothing. Yeh et al. 2019, arXiv:1901.09392, definition 2.1 with
    square removal, the optimal scaling of section 2, and divided by what a map of zeros has. NaN where the score never
    changes.

    Args:
        case: What is explained.
        where: The positions, with the map.
        perturbations: How many blocks, of 1/8 to 1/2 of each side; without neighbours, of half of the features.
        seed: Of the blocks.
        fill: What takes the place of a position that is taken away.
    """
    base = baselines(case, fill, seed)[0]
    found = np.full((2, case.samples), np.nan)
    for sample in range(case.samples):
        taken = _blocks(where, perturbations, np.random.default_rng((seed, sample, 11)))
        rows = where.without(case, sample, taken, {name: np.asarray(rows) for name, rows in base.rows.items()})
        fall = case.scores[sample] - case.forward(*case.changed(sample, rows)).scores
        told = taken.astype(np.float64) @ np.nan_to_num(where.spread(where.heats(sample)))
        if np.abs(fall).max() > _FLAT * abs(case.scores[sample]):
            found[:, sample] = _unexplained(told, fall), _standard_error(told, fall)
    return found[0], found[1]


def _unexplained(told: Array, fall: Array) -> float:
    """Return the share of ``fall`` (in squares) that no multiple of ``told`` explains.

    >>> _unexplained(np.array([1.0, 2.0]), np.array([3.0, 6.0])), _unexplained(np.zeros(2), np.ones(2))
    (0.0, 1.0)
    """
    whole, own = float(fall @ fall), float(told @ told)
    if not whole > 0:
        return float("nan")
    return max(1.0 - float(told @ fall) ** 2 / (own * whole), 0.0) if own > 0 else 1.0


def _standard_error(told: Array, fall: Array) -> float:
    """Return the standard error of :func:`_unexplained`, from what it is without each block."""
    count = len(fall)
    each = [_unexplained(np.delete(told, i), np.delete(fall, i)) for i in range(count)]
    return float(np.sqrt((count - 1) * np.nanvar(each))) if np.isfinite(each).any() else float("nan")


def _blocks(where: Positions, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    parts = []
    for block in where.blocks:
        if not block.spatial:
            parts.append(rng.random((count, block.count)) < 0.5)
            continue
        made = np.ones((count, *block.size), bool)
        for row in made:
            for axis, length in enumerate(block.size):
                reach = int(rng.integers(max(length // 8, 1), max(length // 2, 1) + 1))
                start = int(rng.integers(0, length - reach + 1))
                keep = np.ones(length, bool)
                keep[start : start + reach] = False
                np.moveaxis(row, axis, 0)[keep] = False
        parts.append(made.reshape(count, -1))
    return np.concatenate(parts, axis=1)
