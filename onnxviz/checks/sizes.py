"""Checks of unusual sizes: D03."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onnxviz.checks.axes import Dimension, batch_dimension, dimensions, sized
from onnxviz.checks.finding import InapplicableError, Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError

_MOST_DIMENSIONS = 6
_LARGEST = 1 << 24  # elements of an input
_MEMORY = 4 << 30
_SECONDS = 20.0


@check(
    "D03",
    "warning",
    "fails at size 0, 1 or a large one",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Runs the model with each open dimension at 0, at 1 and at an odd size about twice the usual, in a process of "
    "its own; a dimension that fails alone is tried together with those that have the same usual size.",
    why="The empty batch, the sentence of one word and the long document come in production first.",
    remedy="Guard such inputs before the model, or export so that shapes follow from the inputs; look for sizes that "
    "were constants at export.",
    false_positives="Networks with strides need a least size, and some a multiple of 32; positions end where their "
    "table does. That only size 0 fails is information.",
)
def odd_sizes(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the dimensions that fail at some size."""
    every = dimensions(subject.model)
    batch = batch_dimension(subject.model)
    if batch is not None:
        every = [batch, *(d for d in every if not set(d.axes.items()) <= set(batch.axes.items()))]
    if not every:
        raise InapplicableError("the model has no open dimension")
    feeds = subject.inputs.feeds
    chosen = every[:_MOST_DIMENSIONS]
    plan = [(d, size) for d in chosen for size in _sizes(d.size(feeds)) if _fits(feeds, d, size)]
    base, *results = _try(subject, [feeds, *(sized(feeds, d, size) for d, size in plan)])
    if isinstance(base, str):
        raise CheckError(f"the model does not run at the usual sizes: {base}")
    failures: dict[str, dict[int, str]] = {}
    for (dimension, size), result in zip(plan, results, strict=True):
        if isinstance(result, str):
            failures.setdefault(dimension.name, {})[size] = result
    together = _together(subject, chosen, failures)
    for dimension in chosen:
        failed = {s: t for s, t in failures.get(dimension.name, {}).items() if (dimension.name, s) not in together}
        if failed:
            yield _problem(dimension, failed, dimension.size(feeds))
    yield {
        "dimensions": {d.name: _sizes(d.size(feeds)) for d in chosen},
        "left_out": [d.name for d in every[_MOST_DIMENSIONS:]],
        "only_together": sorted({name for name, _ in together}),
    }  # fmt: skip


def _sizes(usual: int) -> list[int]:
    return [size for size in (0, 1, 2 * usual + 1 if usual > 1 else 17) if size != usual]


def _fits(feeds: Mapping[str, Any], dimension: Dimension, size: int) -> bool:
    usual = max(dimension.size(feeds), 1)
    return all(math.prod(np.shape(feeds[name])) // usual * size <= _LARGEST for name in dimension.axes)


def _try(subject: Subject, feeds: list[Mapping[str, Any]]) -> list[Any]:
    from onnxviz.runtime.trial import source_of, trial

    with source_of(subject.model) as source:
        return list(
            trial(
                source, feeds, shapes_only=True, op_library=subject.options.op_library, timeout=_SECONDS, memory=_MEMORY
            )
        )


def _together(
    subject: Subject, chosen: list[Dimension], failures: Mapping[str, Mapping[int, str]]
) -> set[tuple[str, int]]:
    """Return what works once the dimensions of the same usual size change with it: they have to agree."""
    feeds = subject.inputs.feeds
    tries: list[tuple[str, int, Dimension]] = []
    for dimension in chosen:
        usual = dimension.size(feeds)
        partners = [d for d in chosen if d.size(feeds) == usual]
        axes = {name: axis for d in partners for name, axis in d.axes.items()}
        if len(partners) > 1 and len(axes) == sum(len(d.axes) for d in partners):
            tries += [
                (dimension.name, size, Dimension(dimension.name, axes)) for size in failures.get(dimension.name, {})
            ]
    if not tries:
        return set()
    results = _try(subject, [sized(feeds, d, size) for _, size, d in tries])
    return {(name, size) for (name, size, _), result in zip(tries, results, strict=True) if not isinstance(result, str)}


def _problem(dimension: Dimension, failed: Mapping[int, str], usual: int) -> Problem:
    crashed = any("crashed" in text for text in failed.values())
    evidence = {
        "dimension": dimension.name,
        "usual": usual,
        "fails": {str(size): text[:300] for size, text in failed.items()},
    }
    first = next(iter(failed.values()))
    sizes = " and ".join(map(str, failed))
    message = f"{dimension.name!r} fails at {sizes}, and runs at {usual}: {first[:200]}"
    grave = crashed or any(failed.keys() - {0})
    return Problem(
        message,
        [tensor_place(n) for n in dimension.axes],
        evidence,
        severity="warning" if grave else "info",
        key=dimension.name,
    )
