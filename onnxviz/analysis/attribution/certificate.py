"""The certificate of an attribution: what is known of how far it can be trusted, with what was done to find out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.faithfulness import Curves, Faithfulness, area, faithfulness, infidelity
from onnxviz.analysis.attribution.methods import find_method
from onnxviz.analysis.attribution.positions import Positions, positions_of
from onnxviz.analysis.attribution.randomization import Randomization, randomization, weight_layers
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.attribution.sensitivity import sensitivity_max
from onnxviz.analysis.attribution.verdicts import (
    Check,
    completeness,
    curves,
    cuts,
    infidelity_check,
    map_itself,
    randomized,
    sensitivity,
)
from onnxviz.analysis.scale import number
from onnxviz.errors import InputError, SelectionError, listed

__all__ = ["Examination", "TrustCertificate", "certified", "cost", "examination_of"]

Maps = Mapping[str, npt.NDArray[Any]]
#: Setting -> the least it can be.
_COUNTS = {"steps": 1, "draws": 1, "stages": 0, "redraws": 1, "perturbations": 0, "copies": 0, "seed": 0}


@dataclass(frozen=True)
class Examination:
    """How an attribution is examined where that is asked for; what costs most is up to ``stages`` × ``redraws``
    explanations.

    Attributes:
        steps: Steps of the deletion and insertion curves.
        draws: Random controls of them.
        deletion: What takes the place of deleted positions: a baseline's name.
        insertion: What positions are inserted into; None takes the blurred input, or zeros.
        stages: Most stages at which the weights are drawn anew; 0 leaves that out.
        redraws: How many times at most: see
            :func:`onnxviz.analysis.attribution.randomization.randomization`.
        perturbations: Blocks that are taken away for the infidelity; 0 leaves it out.
        copies: Noisy inputs for the sensitivity; 0 leaves it out.
        radius: Of that noise, as a share of the input's range.
        seed: Of all that is random.
    """

    steps: int = 24
    draws: int = 5
    deletion: str = "zeros"
    insertion: str | None = None
    stages: int = 8
    redraws: int = 8
    perturbations: int = 128
    copies: int = 10
    radius: float = 0.02
    seed: int = 0


def examination_of(given: Mapping[str, Any]) -> Examination:
    """Return an examination with some settings.

    Raises:
        InputError: There is no such setting, or a number is not one.

    >>> examination_of({"stages": 4}).stages
    4
    """
    known = {field.name: field.default for field in fields(Examination)}
    if unknown := [key for key in given if key not in known]:
        shown = listed([f"{key} ({value})" for key, value in known.items()], 12)
        raise InputError(f"an examination has no setting {unknown[0]!r}", hint=f"it has {shown}")
    made = Examination(**given)
    for name, least in _COUNTS.items():
        value = getattr(made, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            hint = f"give a whole number, {least} or more"
            raise InputError(f"{name} of an examination cannot be {value!r}", hint=hint)
    if not isinstance(made.radius, (int, float)) or not 0 < made.radius < 1:
        raise InputError(f"the radius of an examination cannot be {made.radius!r}", hint="give a share such as 0.02")
    return made


@dataclass(frozen=True, eq=False)
class TrustCertificate:
    """What is known of how far a map can be trusted.

    Attributes:
        method: The method.
        target: What is explained, for each sample.
        score: ``(N,)``.
        parameters: Of the method.
        checks: What was checked, in the order of reading.
        completeness: ``(N,)``: what the sum of the map misses; None where the method promises nothing.
        cuts: Where gradients end.
        providers: Execution providers, in order of preference.
        fallbacks: Node -> provider, of nodes that the first provider did not take.
        faithfulness: Deletion and insertion; None where that was not examined.
        randomization: Maps of random weights; None where that was not examined.
        infidelity: ``(N,)``; None where that was not examined.
        sensitivity: ``(N,)``; None where that was not examined.
        examination: How it was examined; None where only what costs nothing was.
    """

    method: str
    target: tuple[str, ...]
    score: npt.NDArray[np.float64]
    parameters: Mapping[str, Any]
    checks: tuple[Check, ...]
    completeness: npt.NDArray[np.float64] | None = None
    cuts: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    fallbacks: Mapping[str, str] | None = None
    faithfulness: Faithfulness | None = None
    randomization: Randomization | None = None
    infidelity: npt.NDArray[np.float64] | None = None
    sensitivity: npt.NDArray[np.float64] | None = None
    examination: Examination | None = None

    def __getitem__(self, name: str) -> Check:
        """Return a check by its name."""
        return next(check for check in self.checks if check.name == name)

    def lines(self) -> tuple[str, ...]:
        """Return it for a reader: what was passed in one line, then a line for each other check."""
        good = [check for check in self.checks if check.verdict == "pass"]
        lines = []
        if good and self.examination is None:
            lines.append(f"certificate: {', '.join(check.text for check in good)}; --certify examines it")
        elif good:
            lines.append(f"certificate: passed {', '.join(f'{c.name}{_value(c)}' for c in good)}")
        if self.fallbacks:
            lines.append(f"{len(self.fallbacks)} nodes ran on {', '.join(sorted(set(self.fallbacks.values())))}")
        return (*lines, *(str(check) for check in self.checks if check.verdict != "pass"))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types; what is not finite is null."""
        made: dict[str, Any] = {
            "format": "onnxviz.certificate/1", "method": self.method, "target": list(self.target), "score": self.score,
            "parameters": dict(self.parameters), "checks": [asdict(check) for check in self.checks],
            "completeness": self.completeness, "cuts": list(self.cuts), "providers": list(self.providers),
            "fallbacks": dict(self.fallbacks or {}), "infidelity": self.infidelity, "sensitivity": self.sensitivity,
            "faithfulness": None if self.faithfulness is None else _faith(self.faithfulness),
            "randomization": None if self.randomization is None else _random(self.randomization),
            "examination": None if self.examination is None else asdict(self.examination),
        }  # fmt: skip
        return dict(_plain(made))


def certified(
    case: Case, one: Attribution, parameters: Mapping[str, Any] | None = None, examination: Examination | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> Attribution:  # fmt: skip
    """Return an attribution with its certificate.

    Args:
        case: What was explained.
        one: The attribution.
        parameters: What the method was given.
        examination: How to examine it; None leaves it at what costs nothing.
        tell: Called while it is examined, with what is done, how much of it, and of how much.
    """
    row = find_method(one.method)
    cheap = [map_itself(one), completeness(one), cuts(one, by_gradient="gradient" in row.needs)]
    made = TrustCertificate(
        one.method, one.target, one.score, one.parameters, tuple(check for check in cheap if check is not None),
        one.completeness, one.cuts, one.providers, case.fallbacks, examination=examination,
    )  # fmt: skip
    if examination is not None:
        made = _Work(case, one, {**row.parameters, **(parameters or {})}, examination, tell).examined(made)
    return replace(one, certificate=made)


def cost(case: Case, one: Attribution, examination: Examination) -> str:
    """Return in words what an examination costs.

    The counts are of samples that go through the model, and of explanations of all samples; each explanation of random
    weights also opens a model.
    """
    forward = 2 * (3 + examination.draws) * (examination.steps + 1) + examination.perturbations
    anew = min(examination.stages, len(weight_layers(case.model, case.target.tensor))) * examination.redraws
    return (
        f"examining {one.method}: {forward * case.samples} samples through the model, and up to "
        f"{anew + examination.copies} more explanations of {case.samples}, {anew} of them with other weights"
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """One examination."""

    case: Case
    one: Attribution
    parameters: Mapping[str, Any]
    how: Examination
    tell: Callable[[str, int, int], None] | None

    def again(self, case: Case) -> Maps:
        """Explain a case by the same method, layer and parameters."""
        row = find_method(self.one.method)
        layer = (self.one.layer,) if "layer" in row.needs and self.one.layer is not None else ()
        return row.run(case, *layer, **self.parameters).maps

    def examined(self, made: TrustCertificate) -> TrustCertificate:
        if made["map"].verdict == "fail":
            return self.with_checks(made, Check("examination", "not_checked", "there is nothing in the map to examine"))
        for part in (self.with_curves, self.with_random_weights, self.with_noise):
            made = part(made)
        return made

    @staticmethod
    def with_checks(made: TrustCertificate, *checks: Check) -> TrustCertificate:
        return replace(made, checks=(*made.checks, *checks))

    def telling(self, what: str) -> Callable[[int, int], None] | None:
        return None if self.tell is None else partial(self.tell, what)

    def with_curves(self, made: TrustCertificate) -> TrustCertificate:
        try:
            where: Positions = positions_of(self.case, self.one)
        except SelectionError as error:
            names = ("deletion", "insertion", "infidelity")
            return self.with_checks(made, *(Check(name, "not_checked", error.message) for name in names))
        how = self.how
        found = faithfulness(
            self.case, where, steps=how.steps, draws=how.draws, seed=how.seed, deletion_fill=how.deletion,
            insertion_fill=how.insertion,
        )  # fmt: skip
        made = replace(self.with_checks(made, *curves(found)), faithfulness=found)
        if not how.perturbations:
            return made
        missed, unsure = infidelity(
            self.case, where, perturbations=how.perturbations, seed=how.seed, fill=how.deletion
        )  # fmt: skip
        return replace(self.with_checks(made, infidelity_check(missed, unsure)), infidelity=missed)

    def with_random_weights(self, made: TrustCertificate) -> TrustCertificate:
        how = self.how
        if not how.stages:
            return made
        try:
            found = randomization(
                self.case, self.one.maps, self.again, stages=how.stages, draws=how.redraws, seed=how.seed,
                tell=self.telling("random weights"),
            )  # fmt: skip
        except SelectionError as error:
            return self.with_checks(made, Check("weights", "not_checked", error.message))
        return replace(self.with_checks(made, randomized(found)), randomization=found)

    def with_noise(self, made: TrustCertificate) -> TrustCertificate:
        how = self.how
        if not how.copies:
            return made
        found = sensitivity_max(
            self.case, self.one.maps, self.again, copies=how.copies, radius=how.radius, seed=how.seed,
            tell=self.telling("noisy inputs"),
        )  # fmt: skip
        return replace(self.with_checks(made, sensitivity(found, how.radius)), sensitivity=found)


def _value(check: Check) -> str:
    return f" ({number(check.value)})" if check.value and check.limit else ""


def _faith(found: Faithfulness) -> dict[str, Any]:
    return {
        "unit": found.unit, "fractions": found.fractions, "deletion": _curves(found.deletion),
        "insertion": _curves(found.insertion),
    }  # fmt: skip


def _curves(found: Curves) -> dict[str, Any]:
    return {"fill": found.fill, "map": found.map, "controls": dict(found.controls), "areas": found.areas(),
            "random_areas": area(found.random).mean(axis=1)}  # fmt: skip


def _random(found: Randomization) -> dict[str, Any]:
    return {
        "layers": list(found.layers), "drawn": list(found.drawn), "total": found.total, "by_stage": found.by_stage,
        "correlation": found.correlation, "upper": found.upper, "error": found.error, "flat": found.flat,
        "seed": found.seed,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
