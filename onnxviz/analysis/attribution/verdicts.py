"""Verdicts on an attribution: a check is passed, failed, in doubt or not made, in words, with its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.faithfulness import Curves, Faithfulness
from onnxviz.analysis.attribution.randomization import Randomization
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.scale import number

__all__ = ["ALIKE", "COMPLETE", "DIFFERENT", "MARGIN", "Check", "completeness", "curves", "cuts", "infidelity_check",
           "map_itself", "randomized", "sensitivity"]  # fmt: skip

Verdict = Literal["pass", "fail", "doubt", "not_checked"]
#: The largest share of the difference to the baseline that a complete map may miss.
COMPLETE = 0.05
#: Rank correlations with maps of random weights: from this on a map hardly changes …
ALIKE = 0.8
#: … and up to this it changes.
DIFFERENT = 0.5
#: How much better than a control an area must be.
MARGIN = 0.02
_SURE = 2.0  # standard deviations of random controls that a map must be away from them
_SAME = 1 - 1e-9  # a correlation with what did not change at all
_REACH = 0.1  # that a curve must go from end to end
_STEADY, _UNSTEADY = 0.5, 1.0  # of the map's own size
_FAITHFUL, _UNFAITHFUL = 0.5, 0.9  # of what a map of zeros leaves unexplained


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        verdict: ``"pass"``, ``"fail"``, ``"doubt"``, or ``"not_checked"`` where it could not be.
        text: What was found, in words, with numbers and limits.
        value: The number that was compared; None without one.
        limit: What it was compared with.
    """

    name: str
    verdict: Verdict
    text: str
    value: float | None = None
    limit: str = ""

    def __str__(self) -> str:
        words = {"pass": "passed", "fail": "FAILED", "doubt": "in doubt", "not_checked": "not checked"}
        return f"{words[self.verdict]} {self.name}: {self.text}"


def map_itself(one: Attribution) -> Check:
    """Say whether the map holds numbers that say anything."""
    arrays = [np.asarray(array, np.float64) for array in one.maps.values()]
    bad = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if bad:
        return Check("map", "fail", f"{bad} of its numbers are NaN or infinite", bad, "0")
    flat = [i for i in range(one.samples) if all(np.ptp(array[i]) == 0 for array in arrays if array[i].size)]
    if flat:
        which = "it is" if one.samples == 1 else f"those of samples {', '.join(map(str, flat[:6]))} are"
        return Check("map", "fail", f"{which} the same everywhere, so nothing is pointed at", len(flat), "0")
    return Check("map", "pass", "finite and not constant", 0, "0")


def completeness(one: Attribution) -> Check | None:
    """Say whether the map adds up to what it promises; None of a method that promises nothing."""
    if one.completeness is None:
        return None
    base = np.zeros(one.samples) if one.baseline_score is None else one.baseline_score
    whole = np.abs(one.score - base)
    missed = float(np.max(np.abs(one.completeness) / np.where(whole > 0, whole, 1.0)))
    against = "the score" if one.baseline_score is None else "the difference to the baseline"
    limit = f"{100 * COMPLETE:.0f} %"
    if not np.isfinite(missed):
        return Check("completeness", "not_checked", "the score is NaN or infinite")
    if missed <= COMPLETE:
        return Check(
            "completeness", "pass", f"its sum is {against}, but for {_percent(missed)} (limit {limit})", missed, limit
        )
    way = "; more steps bring it nearer" if "steps" in one.parameters else ""
    return Check(
        "completeness", "fail", f"its sum misses {_percent(missed)} of {against} (limit {limit}){way}", missed, limit
    )


def _percent(share: float) -> str:
    return f"{number(float(f'{100 * share:.0f}')) if share >= 0.1 else f'{100 * share:.2g}'} %"


def cuts(one: Attribution, *, by_gradient: bool) -> Check | None:
    """Say whether gradients reached all that leads to the target; None of a method that takes none."""
    if not by_gradient:
        return None
    if not one.cuts:
        return Check("gradient", "pass", "no path is cut", 0, "0")
    return Check("gradient", "doubt", f"{len(one.cuts)} paths are cut: what goes through them is not in the map",
                 len(one.cuts), "0")  # fmt: skip


def randomized(found: Randomization) -> Check:
    """Say whether the map changes when the weights of the upper half of the layers are drawn anew."""
    value, error = found.upper, found.error
    name = "weights"
    if not np.isfinite(value):
        why = "all maps of random weights are" if found.flat else "the map is"
        return Check(name, "not_checked", f"{why} the same everywhere, so none can be compared with it")
    upper = found.drawn[found.counted[-1]]
    what = f"rank correlation {number(round(value, 2))}{_plus(round(error, 2))}"
    what += f", up to {upper} of {found.total} layers drawn anew"
    if found.flat:
        what += f", {found.flat} of {found.correlation.size} maps left out as they are the same everywhere"
    if value - error >= ALIKE:
        text = f"it hardly changes when the weights are random ({what}; limit {ALIKE})"
        why = "it shows the picture, not the model"
        if np.nanmin(found.correlation[0]) > _SAME and np.nanmin(found.by_stage) < ALIKE:
            why = "it does not depend on the weights next to the output, so it is about no class"
        return Check(name, "fail", f"{text}: {why}", value, f"< {ALIKE}")
    if value + error <= DIFFERENT:
        text = f"it changes when the weights are random ({what}; limit {DIFFERENT})"
        return Check(name, "pass", text, value, f"≤ {DIFFERENT}")
    how = "it changes only in part" if DIFFERENT < value < ALIKE else "whether it changes is not sure"
    text = f"{how} when the weights are random ({what}; changed is up to {DIFFERENT})"
    return Check(name, "doubt", text, value, f"≤ {DIFFERENT}")


def curves(found: Faithfulness) -> list[Check]:
    """Say of deletion and insertion whether the map does better than chance, and than a blob in the middle."""
    pairs = (("deletion", found.deletion, -1.0), ("insertion", found.insertion, 1.0))
    checks = [_against_chance(name, one, sign) for name, one, sign in pairs]
    centre = _against_centre([(one, sign) for _, one, sign in pairs])
    return [*checks, *([centre] if centre is not None else [])]


def _plus(error: float) -> str:
    return f" ± {number(round(error, 3))}" if error >= 0.0005 else ""


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _against_chance(name: str, found: Curves, sign: float) -> Check:
    areas = found.areas()
    own, chance = _mean(areas["map"]), _mean(areas["random"])
    reach = _mean(np.abs(found.map[:, -1] - found.map[:, 0]))
    if not (np.isfinite(own) and np.isfinite(chance)) or reach < _REACH:
        return Check(name, "not_checked", f"the score of the baseline ({found.fill}) is hardly another")
    what = f"area {number(own)}, random {number(chance)}{_plus(found.spread)}, margin {MARGIN}, {found.fill}"
    ahead, sure = sign * (own - chance), _SURE * found.spread
    limit = f"{'≤' if sign < 0 else '≥'} {chance + sign * MARGIN:.3f}"
    verb = "falls" if sign < 0 else "rises"
    if ahead >= max(MARGIN, sure):
        return Check(name, "pass", f"the score {verb} faster than in a random order ({what})", own, limit)
    if ahead + sure > MARGIN:
        text = f"whether the score {verb} faster than in a random order is not sure ({what})"
        return Check(name, "doubt", text, own, limit)
    how = "no faster than" if ahead > -MARGIN else "more slowly than"
    return Check(name, "fail", f"the score {verb} {how} in a random order ({what})", own, limit)


def _against_centre(pairs: Sequence[tuple[Curves, float]]) -> Check | None:
    ahead, told = [], []
    for found, sign in pairs:
        areas = found.areas()
        if "centre" not in areas:
            return None
        if not _mean(np.abs(found.map[:, -1] - found.map[:, 0])) >= _REACH:
            continue
        own, other = _mean(areas["map"]), _mean(areas["centre"])
        ahead.append(sign * (own - other))
        told.append(f"{'deletion' if sign < 0 else 'insertion'} {number(own)} to {number(other)}")
    known = [value for value in ahead if np.isfinite(value)]
    if not known:
        return None
    what = f"{', '.join(told)}, margin {MARGIN}"
    if max(known) >= MARGIN and min(known) > -MARGIN:
        return Check("blob", "pass", f"it does better than a blob in the middle ({what})", max(known), f"≥ {MARGIN}")
    behind = [words.split()[0] for words, value in zip(told, ahead, strict=True) if value <= -MARGIN]
    how = f"better at {' and '.join(behind)}" if behind else "as well"
    text = f"a blob in the middle does {how} ({what}): these curves do not speak for the map"
    return Check("blob", "doubt", text, max(known), f"≥ {MARGIN}")


def sensitivity(values: npt.NDArray[np.float64], radius: float) -> Check:
    """Say whether the map stays what it is when the input changes a little."""
    value = float(np.nanmax(values)) if np.isfinite(values).any() else float("nan")
    if not np.isfinite(value):
        return Check("sensitivity", "not_checked", "the map is 0 everywhere")
    what = f"by {number(value)} of its size at most under noise of {100 * radius:g} % of the range"
    if value <= _STEADY:
        return Check("sensitivity", "pass", f"it changes {what} (limit {_STEADY})", value, f"≤ {_STEADY}")
    verdict: Verdict = "doubt" if value < _UNSTEADY else "fail"
    return Check("sensitivity", verdict, f"it changes {what} (steady is up to {_STEADY})", value, f"≤ {_STEADY}")


def infidelity_check(values: npt.NDArray[np.float64], errors: npt.NDArray[np.float64] | None = None) -> Check:
    """Say whether sums of the map foretell what taking away blocks of the input does.

    Args:
        values: ``(N,)``.
        errors: ``(N,)``: their standard errors; None where they are known exactly.
    """
    value = _mean(values)
    if not np.isfinite(value):
        return Check("infidelity", "not_checked", "the score never changes when blocks of the input are taken away")
    known = np.zeros(1) if errors is None else errors[np.isfinite(values) & np.isfinite(errors)]
    error = float(np.sqrt(np.sum(known**2)) / max(known.size, 1))
    sure = f" ± {_percent(error)}" if error >= 0.005 else ""
    what = f"{_percent(value)}{sure} of what taking away blocks does to the score is not foretold by the map"
    if value + error <= _FAITHFUL:
        return Check("infidelity", "pass", f"{what} (limit {_percent(_FAITHFUL)})", value, f"≤ {_FAITHFUL}")
    verdict: Verdict = "doubt" if value - error < _UNFAITHFUL else "fail"
    return Check("infidelity", verdict, f"{what} (foretold is up to {_percent(_FAITHFUL)})", value, f"≤ {_FAITHFUL}")
