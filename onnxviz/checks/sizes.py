"""Checks of unusual sizes: D03."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnxviz.analysis.axes import Dimension, free_dimensions
from onnxviz.analysis.size_trials import MEMORY, SizeTrials, work_together
from onnxviz.checks.finding import InapplicableError, Problem, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError

_MOST_DIMENSIONS = 6


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
    every = free_dimensions(subject.model)
    if not every:
        raise InapplicableError("the model has no open dimension")
    chosen = every[:_MOST_DIMENSIONS]
    failures: dict[str, dict[int, str]] = {}
    together: set[str] = set()
    with SizeTrials(
        subject.model, subject.inputs.feeds, chosen, op_library=subject.options.op_library, memory=MEMORY
    ) as trials:
        if (trouble := trials.run({}).trouble) is not None:
            raise CheckError(f"the model does not run at the usual sizes: {trouble}")
        for dimension in chosen:
            for size in _sizes(trials.usual[dimension.name]):
                trouble = trials.run({dimension.name: size}).trouble
                if trouble is not None and work_together(trials, dimension.name, size):
                    together.add(dimension.name)
                elif trouble is not None:
                    failures.setdefault(dimension.name, {})[size] = trouble
        for dimension in chosen:
            if failed := failures.get(dimension.name):
                yield _problem(dimension, failed, trials.usual[dimension.name])
        yield {
            "dimensions": {name: _sizes(usual) for name, usual in trials.usual.items()},
            "left_out": [d.name for d in every[_MOST_DIMENSIONS:]],
            "only_together": sorted(together),
        }  # fmt: skip


def _sizes(usual: int) -> list[int]:
    return [size for size in (0, 1, 2 * usual + 1 if usual > 1 else 17) if size != usual]


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
