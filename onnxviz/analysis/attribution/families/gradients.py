"""Methods that look at the gradient at the input itself, or at an average of gradients around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.methods import Found, method

__all__ = ["input_x_gradient", "noisy", "saliency", "smoothgrad", "smoothgrad_squared", "vargrad"]

Array = npt.NDArray[Any]


@method("saliency", "how strongly the score answers to a small change: |gradient|",
        source="Simonyan et al. 2013, arXiv:1312.6034", unit="score / input")  # fmt: skip
def saliency(case: Case, *, absolute: bool = True) -> Found:
    """Return ``|∂y/∂x|``; the gradient itself without ``absolute``."""
    found = case.clean.gradients
    return Found({n: np.abs(g) if absolute else g for n, g in found.items()}, cuts=case.gradients.cuts)


@method("input-x-gradient", "the share of each input in a linear model that fits here: input × gradient",
        source="Shrikumar et al. 2016, arXiv:1605.01713", unit="score")  # fmt: skip
def input_x_gradient(case: Case) -> Found:
    """Return ``x ⊙ ∂y/∂x``."""
    maps = {n: np.float64(case.value(n)) * g for n, g in case.clean.gradients.items()}
    return Found(maps, cuts=case.gradients.cuts)


@method("smoothgrad", "the mean gradient of noisy copies: less of what flickers from pixel to pixel",
        source="Smilkov et al. 2017, arXiv:1706.03825, eq. 3", unit="score / input")  # fmt: skip
def smoothgrad(case: Case, *, copies: int = 50, noise: float = 0.15, seed: int = 0) -> Found:
    """Return the mean of gradients under Gaussian noise of ``noise`` times the range of each sample's input."""
    return _moments(case, copies, noise, seed, lambda one, two: one)


@method("smoothgrad-squared", "the mean squared gradient of noisy copies",
        source="Hooker et al. 2019, arXiv:1806.10758", unit="(score / input)²")  # fmt: skip
def smoothgrad_squared(case: Case, *, copies: int = 50, noise: float = 0.15, seed: int = 0) -> Found:
    """Return the mean of squared gradients under Gaussian noise."""
    return _moments(case, copies, noise, seed, lambda one, two: two)


@method("vargrad", "how much the gradient of noisy copies varies",
        source="Adebayo et al. 2018, arXiv:1810.03307", unit="(score / input)²")  # fmt: skip
def vargrad(case: Case, *, copies: int = 50, noise: float = 0.15, seed: int = 0) -> Found:
    """Return the variance of gradients under Gaussian noise, of ``copies`` values (no correction by one)."""
    return _moments(case, copies, noise, seed, lambda one, two: np.maximum(two - one**2, 0.0))


def _moments(case: Case, copies: int, noise: float, seed: int, combine: Callable[[Array, Array], Array]) -> Found:
    """Return something of the mean and the mean square of gradients of noisy copies."""
    totals = {n: np.zeros((2, *case.value(n).shape)) for n in case.sources}
    for sample, places in case.gradients.copies(copies):
        found = case.gradients(*case.changed(sample, noisy(case, sample, places, seed, noise)))
        for name, gradient in found.gradients.items():
            for one in gradient:  # row by row, for squares of all in double take more than the run itself
                totals[name][0, sample] += one
                totals[name][1, sample] += np.square(one, dtype=np.float64)
    maps = {name: combine(one / copies, two / copies) for name, (one, two) in totals.items()}
    return Found(maps, cuts=case.gradients.cuts)


def noisy(case: Case, sample: int, places: npt.NDArray[np.intp], seed: int, noise: float) -> dict[str, Array]:
    """Return copies of a sample under Gaussian noise of ``noise`` times the range of each input.

    Each copy has random numbers of its own, so that they do not depend on how many are run together.
    """
    rows = {name: np.empty((len(places), *case.value(name).shape[1:]), case.value(name).dtype) for name in case.sources}
    for row, place in enumerate(places.tolist()):
        rng = np.random.default_rng((seed, sample, place))
        for name, made in rows.items():
            one = np.float64(case.value(name)[sample])
            made[row] = one + rng.standard_normal(one.shape) * (noise * float(np.ptp(one)))
    return rows
