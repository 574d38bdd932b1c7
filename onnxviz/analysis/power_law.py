"""Power laws in samples: exponent, where the tail begins, how well it fits, how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.errors import InputError

__all__ = ["IMPLAUSIBLE", "LEAST_VALUES", "PowerLaw", "fit_power_law"]

Floats = npt.NDArray[np.float64]

#: Fewer positive values than this are refused: the estimate is unreliable below (Clauset et al. 2009, section 3.3).
LEAST_VALUES = 50
#: Laws whose p-value is below this are rejected.
IMPLAUSIBLE = 0.1
_LEAST_TAIL = 10
_CANDIDATES = 128


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A power law ``p(x) ∝ x^-α`` for ``x ≥ xmin``, fitted to samples.

    Attributes:
        alpha: Exponent of the density.
        xmin: Where the tail begins, in the unit of the samples.
        distance: Kolmogorov-Smirnov distance D between the tail and the law, between 0 and 1.
        tail: Samples at or above ``xmin``.
        count: All positive samples.
        low: Lower end of the interval of α.
        high: Upper end of the interval of α.
        level: Nominal coverage of the interval.
        resamples: Bootstrap samples that the interval is of.
        p_value: Share of samples drawn from the fitted law (below xmin from the data) whose own fit is no nearer to
            them than this one: small where the tail is no power law.
    """

    alpha: float
    xmin: float
    distance: float
    tail: int
    count: int
    low: float
    high: float
    level: float
    resamples: int
    p_value: float

    @property
    def plausible(self) -> bool:
        """Whether the law is not rejected: ``p_value`` of 0.1 or more (Clauset et al. 2009, section 4.1)."""
        return self.p_value >= IMPLAUSIBLE

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return dict(self.__dict__)


def fit_power_law(values: npt.ArrayLike, *, resamples: int = 200, level: float = 0.95, seed: int = 0) -> PowerLaw:
    """Fit a power law to the tail of positive samples, by maximum likelihood.

    ``α = 1 + n / Σ ln(x_i / xmin)`` over the n samples at or above xmin; xmin is the sample at which the tail is
    nearest to its law by the Kolmogorov-Smirnov distance (Clauset, Shalizi and Newman 2009, "Power-law distributions
    in empirical data", eq. 3.1 and section 3.3). Of more than 128 possible xmin an even spread by rank is tried; a tail
    has at least 10 samples. The interval is the percentile bootstrap of the samples, xmin chosen anew in each; it takes
    the samples as independent, which eigenvalues of one matrix are not. That a law is fitted does not say that it
    holds: ``p_value`` does (section 4.1).

    Args:
        values: Samples of any shape; those that are not positive are left out.
        resamples: Bootstrap samples.
        level: Nominal coverage of the interval.
        seed: Of the bootstrap.

    Raises:
        InputError: Fewer than 50 positive samples, a sample that is not finite, or no spread among them.

    >>> sample = (1 - np.random.default_rng(0).random(4000)) ** (-1 / 1.5)  # α = 2.5, xmin = 1
    >>> law = fit_power_law(sample)
    >>> abs(law.alpha - 2.5) < 0.2, law.low < 2.5 < law.high
    (True, True)
    """
    sample = np.asarray(values, np.float64).reshape(-1)
    if not np.isfinite(sample).all():
        raise InputError("a power law cannot be fitted to NaN or Inf", hint="leave these values out")
    sample = np.sort(sample[sample > 0])
    if sample.size < LEAST_VALUES:
        raise InputError(
            f"a power law needs at least {LEAST_VALUES} positive values, here are {sample.size}",
            hint="choose a larger layer",
        )
    found = _fit(sample)
    if found is None:
        raise InputError("a power law cannot be fitted: the values are all alike", hint="choose another layer")
    alpha, xmin, distance, tail = found
    rng = np.random.default_rng(seed)
    drawn = (_fit(np.sort(rng.choice(sample, sample.size))) for _ in range(resamples))
    alphas = [fit[0] for fit in drawn if fit is not None]
    low, high = np.quantile(alphas, [(1 - level) / 2, (1 + level) / 2])
    p_value = _p_value(sample, found, resamples, rng)
    return PowerLaw(alpha, xmin, distance, tail, sample.size, float(low), float(high), level, len(alphas), p_value)


def _p_value(sample: Floats, found: tuple[float, float, float, int], draws: int, rng: np.random.Generator) -> float:
    """Return how often a sample of the law itself is as far from its own fit (Clauset et al. 2009, section 4.1)."""
    alpha, xmin, distance, tail = found
    body = sample[sample < xmin]
    further = 0
    for _ in range(draws):
        above = int(rng.binomial(sample.size, tail / sample.size)) if body.size else sample.size
        drawn = xmin * (1 - rng.random(above)) ** (-1 / (alpha - 1))
        if above < sample.size:
            drawn = np.concatenate([rng.choice(body, sample.size - above), drawn])
        fit = _fit(np.sort(drawn))
        further += fit is None or fit[2] >= distance
    return further / draws if draws else 1.0


def _fit(sample: Floats) -> tuple[float, float, float, int] | None:
    """Return α, xmin, D and the tail's size for an ascending sample; None where no tail has any spread."""
    logs = np.log(sample)
    starts = np.unique(logs[: logs.size - _LEAST_TAIL + 1], return_index=True)[1]
    starts = starts[np.unique(np.linspace(0, starts.size - 1, min(starts.size, _CANDIDATES)).astype(np.int64))]
    sizes = logs.size - starts
    above = np.cumsum(logs[::-1])[::-1][starts] - sizes * logs[starts]
    spread = above > 1e-9 * sizes
    starts, sizes, above = starts[spread], sizes[spread], above[spread]
    if not starts.size:
        return None
    slopes = sizes / above  # α - 1
    law = -np.expm1(-slopes[:, None] * np.maximum(logs - logs[starts, None], 0))
    rank = np.arange(logs.size) - starts[:, None]
    share = sizes[:, None].astype(np.float64)
    off = np.maximum((rank + 1) / share - law, law - rank / share)
    distances = np.where(rank >= 0, off, 0).max(axis=1)
    best = int(np.argmin(distances))
    return 1 + float(slopes[best]), float(sample[starts[best]]), float(distances[best]), int(sizes[best])
