"""Methods that follow the gradient from a baseline to the input: integrated gradients and gradient SHAP."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.baselines import Baseline, BaselineSpec, baselines
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.methods import Found, method

__all__ = ["gradient_shap", "integrated_gradients"]

Array = npt.NDArray[Any]


@method("integrated-gradients", "each input's share of the difference between the score and that of a baseline",
        source="Sundararajan et al. 2017, arXiv:1703.01365, eq. 1", unit="score")  # fmt: skip
def integrated_gradients(case: Case, *, steps: int = 50, baseline: BaselineSpec = "zeros", seed: int = 0) -> Found:
    """Return ``(x − x′) ∫ ∂y/∂x`` along the straight way from a baseline, by Gauss and Legendre's rule.

    Of several baselines the mean. ``completeness`` is ``Σ − (y(x) − y(x′))``: what the rule misses.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at, weights = (nodes + 1) / 2, weights / 2
    chosen = baselines(case, baseline, seed)
    totals = {name: np.zeros(case.value(name).shape) for name in case.sources}
    for one in chosen:
        for sample, places in case.gradients.copies(steps):
            rows = {name: _between(case, one, name, sample, at[places]) for name in case.sources}
            found = case.gradients(*case.changed(sample, rows)).gradients
            for name, gradient in found.items():
                way = _way(case, one, name, sample) / len(chosen)
                for weight, own in zip(weights[places], gradient, strict=True):
                    totals[name][sample] += weight * own * way
    return _completed(case, totals, chosen, {"steps": steps, "baseline": _names(chosen), "seed": seed})


@method("gradient-shap", "expected gradients: the same over random points between the input and random baselines",
        source="Lundberg and Lee 2017, arXiv:1705.07874; Erion et al. 2019, arXiv:1906.10670, eq. 3",
        unit="score")  # fmt: skip
def gradient_shap(
    case: Case, *, copies: int = 50, baseline: BaselineSpec = "zeros,uniform", noise: float = 0.0, seed: int = 0
) -> Found:
    """Return the mean of ``(x̃ − x′) ∂y/∂x`` over random baselines x′, points between them, and Gaussian noise on x.

    ``completeness`` is 0 in expectation only.
    """
    chosen = baselines(case, baseline, seed)
    totals = {name: np.zeros(case.value(name).shape) for name in case.sources}
    for sample, places in case.gradients.copies(copies):
        shapes = {name: (len(places), *case.value(name).shape[1:]) for name in case.sources}
        rows = {name: np.empty(shape, case.value(name).dtype) for name, shape in shapes.items()}
        ways = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        for row, place in enumerate(places.tolist()):
            rng = np.random.default_rng((seed, sample, place))
            one, part = chosen[int(rng.integers(len(chosen)))], rng.random()
            for name in case.sources:
                own = np.asarray(case.value(name)[sample], np.float64)
                own = own + rng.standard_normal(own.shape) * (noise * float(np.ptp(own))) if noise else own
                base = np.asarray(one.rows[name][sample], np.float64)
                rows[name][row], ways[name][row] = base + part * (own - base), own - base
        for name, gradient in case.gradients(*case.changed(sample, rows)).gradients.items():
            for own, way in zip(gradient, ways[name], strict=True):
                totals[name][sample] += np.float64(own) * way / copies
    told = {"copies": copies, "baseline": _names(chosen), "noise": noise, "seed": seed}
    return _completed(case, totals, chosen, told)


def _way(case: Case, one: Baseline, name: str, sample: int) -> Array:
    return np.asarray(np.float64(case.value(name)[sample]) - np.float64(one.rows[name][sample]))


def _between(case: Case, one: Baseline, name: str, sample: int, at: Array) -> Array:
    base, way = np.float64(one.rows[name][sample]), _way(case, one, name, sample)
    made = np.empty((len(at), *way.shape), case.value(name).dtype)
    for row, part in enumerate(at):
        made[row] = base + part * way
    return made


def _names(chosen: list[Baseline]) -> str:
    return ", ".join(one.name for one in chosen)


def _completed(case: Case, maps: dict[str, Array], chosen: list[Baseline], told: dict[str, Any]) -> Found:
    scores = [case.forward({**case.feeds, **_typed(case, one)}, case.everything).scores for one in chosen]
    base = np.mean(scores, axis=0)
    total = sum(array.reshape(case.samples, -1).sum(axis=1) for array in maps.values())
    return Found(
        maps, np.asarray(base), np.asarray(total - (case.scores - base)), case.gradients.cuts, parameters=told
    )  # fmt: skip


def _typed(case: Case, one: Baseline) -> dict[str, Array]:
    return {name: np.asarray(rows, case.value(name).dtype) for name, rows in one.rows.items()}
