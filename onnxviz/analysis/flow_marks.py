"""Stretches of layers in which something goes wrong on the way: vanishing, exploding, saturated, collapsed …"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from onnxviz.errors import InputError

if TYPE_CHECKING:
    from onnxviz.analysis.flow import LayerNumbers
    from onnxviz.analysis.flow_plan import Stage

__all__ = [
    "KINDS_OF_MARKS", "Mark", "Thresholds", "activation_marks", "meaning", "read_thresholds", "runs_of", "trend_marks",
    "value_marks",
]  # fmt: skip

#: Kind -> what it means, in the order in which pictures show them.
KINDS_OF_MARKS = {
    "not finite": "NaN or infinite values",
    "exploding": "RMS grows layer by layer",
    "vanishing": "RMS falls layer by layer",
    "saturated": "inputs where the function is flat",
    "silent": "inputs where the rectifier is flat",
    "dead": "channels that are never above 0",
    "constant": "the same for all samples",
    "low rank": "samples differ in one direction only",
    "same tokens": "all tokens of a sample the same",
    "zero": "all values are 0",
}
_OF_GRADIENTS = {
    "not finite": "NaN or infinite gradients",
    "exploding": "the L2 norm of a sample's gradient grows layer by layer on its way back",
    "vanishing": "the L2 norm of a sample's gradient falls layer by layer on its way back",
    "dead": "channels whose gradient is 0 for all samples",
    "zero": "all gradients are 0",
}
_SETBACK = 1 / 2  # a fall ends where the RMS rises again by a decade and by this part of the fall, in decades
_MOST_OF_ONE = 0.5  # share of a fall (in decades) that one layer may have


def meaning(kind: str, series: str) -> str:
    """Return what a mark means in a series.

    >>> meaning("dead", "gradients")
    'channels whose gradient is 0 for all samples'
    """
    return _OF_GRADIENTS.get(kind, KINDS_OF_MARKS[kind]) if series == "gradients" else KINDS_OF_MARKS[kind]


@dataclass(frozen=True)
class Thresholds:
    """From when a stretch is marked.

    Attributes:
        vanishing: RMS at its end by RMS at its start, at most.
        exploding: The same, at least.
        steps: Layers that a fall or growth takes, at least: a single change of scale is none.
        saturated: Share of the inputs of a bounded function (sigmoid, tanh) where it is flat, at least.
        silent: The same of a rectifier.
        dead: Share of channels that are never above 0, at least.
        observations: Values that there must be of each channel before it is called dead.
        variation: Part of the RMS that differs between samples (or tokens), at most.
        rank: Effective rank of the samples, at most.
        rank_limit: The largest rank that must have been possible for that.
        gradient_vanishing: L2 norm of a sample's gradient at the end of a stretch, towards the inputs, by that at its
            start, towards the target, at most.
        gradient_exploding: The same, at least.
        gradient_dead: Share of channels whose gradient is 0 for all samples, at least.
    """

    vanishing: float = 1e-3
    exploding: float = 1e3
    steps: int = 3
    saturated: float = 0.5
    silent: float = 0.98
    dead: float = 0.5
    observations: int = 30
    variation: float = 1e-3
    rank: float = 1.2
    rank_limit: int = 8
    gradient_vanishing: float = 1e-3
    gradient_exploding: float = 1e3
    gradient_dead: float = 0.5


def read_thresholds(given: Sequence[str]) -> Thresholds:
    """Read ``NAME=VALUE`` texts.

    Raises:
        InputError: There is no such threshold, or the value is no positive number.

    >>> read_thresholds(["vanishing=1e-4"]).vanishing
    0.0001
    """
    known = {f.name: f.type for f in fields(Thresholds)}
    found: dict[str, float | int] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in known or not 0 < number < math.inf:
            raise InputError(
                f"--threshold {text!r} is not NAME=VALUE above 0", hint=f"the names are {', '.join(known)}"
            )
        found[name] = round(number) if known[name] == "int" else number
    return replace(Thresholds(), **found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Mark:
    """A stretch of layers.

    Attributes:
        kind: A key of :data:`KINDS_OF_MARKS`.
        first: Index of its first layer.
        last: Index of its last layer.
        value: The number that says it: of a fall or growth its factor, else that of the worst layer.
        threshold: What it is compared with.
        text: The number in words.
    """

    kind: str
    first: int
    last: int
    value: float
    threshold: float
    text: str


def activation_marks(
    stages: Sequence[Stage], layers: Sequence[LayerNumbers | None], by: Thresholds
) -> tuple[Mark, ...]:
    """Return the stretches of activations that pass a threshold.

    *Vanishing* and *exploding* follow the RMS from the inputs through the layers that have learned kernels (Glorot and
    Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"; He et al. 2015 for
    rectifiers): between the first and the last layer of the stretch it changes by the factor, in at least ``steps``
    layers, of which none makes more than half of the change (in decades); a change back by
    a factor of 10, and by half of the change so far (in decades), ends it.
    *Saturated* and *silent*: share of what enters an activation function where its slope is below 1 % of its largest;
    functions behind the last layer with weights are left out, since an answer that is sure saturates. *Dead* after Lu
    et al. 2019 ("Dying ReLU and initialization"). *Constant*: what differs between samples is that part of the RMS or
    less (Poole et al. 2016: the ordered phase); *low rank* by the effective rank (Roy and Vetterli 2007; Daneshmand et
    al. 2020), *same tokens* after Dong, Cordonnier and Loukas 2021. Samples that differ as little when they enter are
    not held against the layers, nor is what depends on no input.
    """
    marks = value_marks(layers)
    marks += trend_marks(_trunk(stages, layers), by)

    def scan(kind: str, number: Callable[[LayerNumbers], float | None], limit: float, say: str, *, low: bool) -> None:
        nonlocal marks
        judged = [None if n is None or not _judged(s, kind) else number(n) for s, n in zip(stages, layers, strict=True)]
        marks += runs_of(kind, judged, limit, say, low=low)

    scan("saturated", lambda n: None if n.rectifier else n.flat, by.saturated, "{:.0%} of inputs flat", low=False)
    scan("silent", lambda n: n.flat if n.rectifier else None, by.silent, "{:.1%} of inputs flat", low=False)
    scan("dead", lambda n: _dead(n, by.observations), by.dead, "{:.0%} of channels dead", low=False)
    if _differ(stages, layers, lambda n: n.variation, by.variation):
        scan("constant", lambda n: n.variation, by.variation, "{:.2g} of the RMS differs between samples", low=True)
    if _differ(stages, layers, lambda n: _rank(n, by.rank_limit), by.rank):
        scan("low rank", lambda n: _rank(n, by.rank_limit), by.rank, "effective rank {:.2f}", low=True)
    scan("same tokens", lambda n: n.token_spread, by.variation, "{:.2g} of the norm differs between tokens", low=True)
    order = list(KINDS_OF_MARKS)
    return tuple(sorted(marks, key=lambda mark: (order.index(mark.kind), mark.first)))


def _judged(stage: Stage, kind: str) -> bool:
    return stage.varies and not (kind in ("saturated", "silent", "dead") and stage.head)


def _dead(numbers: LayerNumbers, least: int) -> float | None:
    if numbers.dead is None or not numbers.channels or numbers.observations < least:
        return None
    return numbers.dead / numbers.channels


def _rank(numbers: LayerNumbers, least: int) -> float | None:
    return numbers.effective_rank if numbers.rank_limit >= least else None


def _differ(
    stages: Sequence[Stage],
    layers: Sequence[LayerNumbers | None],
    number: Callable[[LayerNumbers], float | None],
    least: float,
) -> bool:
    """Whether samples differ where they enter: by the inputs, or by the first layer that has the number."""
    found = [
        (s.depth, v) for s, n in zip(stages, layers, strict=True) if n is not None and (v := number(n)) is not None
    ]
    if not found:
        return False
    return max(value for depth, value in found if depth == found[0][0]) > least


def value_marks(layers: Sequence[LayerNumbers | None]) -> tuple[Mark, ...]:
    """Return the stretches of layers that hold NaN or Inf, and those that are 0 throughout."""

    def bad(numbers: LayerNumbers) -> float:
        return (numbers.nan + numbers.inf) / max(numbers.count + numbers.nan + numbers.inf, 1)

    finite = [None if n is None or not bad(n) else bad(n) for n in layers]
    found = runs_of("not finite", finite, 0.0, "{:.2%} of values NaN or infinite", low=False)
    zeros = [None if n is None or n.zero < 1 else n.zero for n in layers]
    return found + runs_of("zero", zeros, 1.0, "all values are 0", low=False)


def runs_of(kind: str, numbers: Sequence[float | None], limit: float, say: str, *, low: bool) -> tuple[Mark, ...]:
    """Return runs of layers that pass a limit; layers that have no such number neither end a run nor begin one."""
    marks: list[Mark] = []
    run: list[int] = []
    for place, value in [*enumerate(numbers), (len(numbers), math.inf if low else -math.inf)]:
        if value is None:
            continue
        if value <= limit if low else value >= limit:
            run.append(place)
        elif run:
            values = [v for i in run if (v := numbers[i]) is not None]
            worst = min(values) if low else max(values)
            marks.append(Mark(kind, run[0], run[-1], worst, limit, say.format(worst)))
            run = []
    return tuple(marks)


def _trunk(stages: Sequence[Stage], layers: Sequence[LayerNumbers | None]) -> list[tuple[int, float]]:
    """Return index and RMS of the inputs (the largest of them) and of the layers with learned kernels."""
    found = [
        (place, numbers.rms)
        for place, (stage, numbers) in enumerate(zip(stages, layers, strict=True))
        if numbers is not None and numbers.rms is not None and stage.varies and (stage.weighted or stage.depth == 0)
    ]
    entering = [one for one in found if stages[one[0]].depth == 0]
    return [*sorted(entering, key=lambda one: one[1])[-1:], *(one for one in found if stages[one[0]].depth > 0)]


def trend_marks(trunk: Sequence[tuple[int, float]], by: Thresholds) -> tuple[Mark, ...]:
    """Return the stretches in which the RMS falls or grows by a factor, layer by layer.

    Args:
        trunk: Index of a layer and its RMS, in order.
        by: ``vanishing``, ``exploding`` and ``steps``.

    >>> [m.kind for m in trend_marks([(i, 0.1**i) for i in range(5)], Thresholds())]
    ['vanishing']
    >>> trend_marks([(0, 120.0), (1, 0.1), (2, 0.1), (3, 0.1)], Thresholds())
    ()
    """
    levels = [math.log10(max(rms, 1e-300)) for _, rms in trunk]
    marks = []
    for kind, sign, limit in (("vanishing", -1, by.vanishing), ("exploding", 1, by.exploding)):
        for first, last in _trends([sign * level for level in levels]):
            change = levels[last] - levels[first]
            steps = [sign * (levels[i + 1] - levels[i]) for i in range(first, last)]
            enough = sign * change >= abs(math.log10(limit)) - 1e-9 and last - first >= by.steps
            if enough and max(steps) <= _MOST_OF_ONE * sum(steps):
                factor = 10.0**change if abs(change) < 300 else (0.0 if change < 0 else math.inf)
                said = f"RMS ×{factor:.2g} over {last - first} layers"
                marks.append(Mark(kind, trunk[first][0], trunk[last][0], factor, limit, said))
    return tuple(marks)


def _trends(levels: Sequence[float]) -> list[tuple[int, int]]:
    """Return the stretches in which a level rises, from a lowest to a highest point, without a large setback."""
    found: list[tuple[int, int]] = []
    low = high = 0
    for place, level in enumerate(levels):
        if level > levels[high]:
            high = place
        elif level < levels[low] or levels[high] - level >= max(1.0, _SETBACK * (levels[high] - levels[low])):
            if high > low:
                found.append((low, high))
            low = high = place
    return [*found, (low, high)] if high > low else found
