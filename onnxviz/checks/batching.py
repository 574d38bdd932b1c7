"""Checks of batches: fixed by accident (D01), and samples that influence each other (D02)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxviz.analysis.axes import Dimension, batch_dimension, row_axis, varied
from onnxviz.analysis.batch_rows import compare_rows
from onnxviz.analysis.comparison import OutputParity
from onnxviz.checks.finding import InapplicableError, Problem, Severity, tensor_place
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.running import MOST_NODES, Arrays, flat, in_words, new_session, repeatable, tolerance
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError, ExecutionError, InputError
from onnxviz.graph.shapes import model_inputs, name_axes, shape_list

_COUNTS = (1, 2, 3)
_ORDER = (2, 0, 1)


@dataclass(frozen=True)
class _Runs:
    """Outputs for 1, 2 and 3 samples, or why there are none."""

    dimension: Dimension
    feeds: Mapping[int, Mapping[str, Any]]
    results: Mapping[int, Arrays | str]
    session: Any


def _runs(subject: Subject) -> _Runs | None:
    """Run with 1, 2 and 3 samples; None where no dimension counts samples."""

    def run() -> _Runs | None:
        dimension = batch_dimension(subject.model)
        if dimension is None:
            return None
        feeds = {count: varied(subject.inputs.feeds, dimension, count) for count in _COUNTS}
        session = new_session(subject)
        return _Runs(dimension, feeds, {c: _tried(session, f) for c, f in feeds.items()}, session)

    return subject.shared("batches of 1, 2 and 3", run)


def _tried(session: Any, feeds: Mapping[str, Any]) -> Arrays | str:
    try:
        return flat(session.run(feeds))
    except (ExecutionError, InputError) as error:
        return str(error.message)


@check(
    "D01",
    "error",
    "batch fixed by accident",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Runs a model whose batch is open with 1, 2 and 3 samples: it must run, and outputs that are declared with "
    "the batch must have it. A model that is declared with a fixed batch is tried with the declaration opened.",
    why="An export that traced one sample bakes its batch into a Reshape or a constant: the model fails, or mixes "
    "samples, on the day when it is served in batches.",
    remedy="Export with dynamic axes (dynamic_shapes in PyTorch), and reshape by -1 or by what Shape gives, not by "
    "numbers.",
    false_positives="A first dimension whose name does not say so is taken to count samples where all inputs have "
    "one, and what fails along it is a warning. That only the declaration fixes the batch is information: many "
    "runtimes want it so.",
)
def fixed_batch(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield what fails with other numbers of samples."""
    runs = _runs(subject)
    if runs is None:
        yield from _declared_only(subject)
        return
    failed = {count: result for count, result in runs.results.items() if isinstance(result, str)}
    dimension = runs.dimension
    if len(failed) == len(_COUNTS):
        raise CheckError(f"it runs with no number of samples: {failed[1]}")
    where = [tensor_place(name) for name in dimension.axes]
    if failed:
        evidence = {"dimension": dimension.name, "fails": {str(count): text[:300] for count, text in failed.items()}}
        counts = " and ".join(map(str, failed))
        first = next(iter(failed.values()))
        severity: Severity = "warning" if dimension.guessed else "error"
        message = f"{dimension.name!r} is open, and it fails with {counts} samples: {first[:200]}"
        yield Problem(message, where, evidence, severity=severity, key="fails")
    else:
        yield from _stuck(subject, runs)
    yield {"dimension": dimension.name, "samples": list(_COUNTS)}


def _stuck(subject: Subject, runs: _Runs) -> Iterator[Problem]:
    """Yield the outputs that are declared with the batch and do not have it."""
    results = {count: result for count, result in runs.results.items() if not isinstance(result, str)}
    for value in subject.model.graph.outputs:
        name = str(value.name)
        for axis, dim in enumerate(shape_list(value) or []):
            if dim != runs.dimension.name:
                continue
            sizes = {
                count: result[name].shape[axis]
                for count, result in results.items()
                if name in result and axis < result[name].ndim
            }
            if sizes and any(count != size for count, size in sizes.items()):
                told = ", ".join(f"{size} for {count}" for count, size in sizes.items())
                evidence = {"axis": axis, "sizes": {str(count): size for count, size in sizes.items()}}
                message = f"axis {axis} is declared as {dim!r}, the number of samples, and is {told}"
                yield Problem(message, [tensor_place(name)], evidence, key="output")


def _declared_only(subject: Subject) -> Iterator[Problem | Evidence]:
    """Open a batch that is declared as fixed, and see whether more than the declaration fixes it."""
    inputs = model_inputs(subject.model)
    shapes = [shape_list(value) or [] for value in inputs]
    batches = {shape[0] for shape in shapes if len(shape) > 1}
    if len(batches) != 1 or not isinstance(batch := next(iter(batches)), int):
        raise InapplicableError("no dimension of the inputs counts samples")
    axes = {str(v.name): 0 for v, s in zip(inputs, shapes, strict=True) if len(s) > 1}
    if (nodes := sum(1 for _ in subject.inlined.graph)) > MOST_NODES:
        raise CheckError(
            f"with {nodes:,} nodes it is not tried whether only its declaration fixes the batch at {batch}"
        )
    count = 2 * batch + 1
    result = _tried_opened(subject, Dimension("batch", axes), count)
    if not isinstance(result, str) and all(a.shape[:1] == (count,) for a in result.values() if a.ndim):
        message = f"only its declaration fixes the batch at {batch}: it computes {count} samples as well"
        yield Problem(
            message,
            [tensor_place(name) for name in axes],
            {"batch": batch, "tried": count},
            severity="info",
            key="declared",
        )
    yield {"batch": batch, "fixed": True}


def _tried_opened(subject: Subject, dimension: Dimension, count: int) -> Arrays | str:
    model = name_axes(subject.inlined, {name: {axis: "batch"} for name, axis in dimension.axes.items()})
    try:
        session = new_session(subject, model)
    except ExecutionError as error:
        return error.message
    feeds = varied(subject.inputs.feeds, dimension, count)
    return _tried(session, feeds)


@check(
    "D02",
    "error",
    "samples of a batch influence each other",
    needs=Need.MODEL | Need.INPUTS | Need.SESSION,
    what="Runs three samples together, in another order, and each alone, and compares what the outputs say of each "
    "sample, within rounding.",
    why="An answer that depends on what else is in the batch is wrong whenever requests of strangers share one: a "
    "BatchNormalization in training mode, a softmax or a mean over the wrong axis, a scale taken over all samples.",
    remedy="Find the first operator that reduces over the batch (N07 and `onnxviz compare` help); export in evaluation "
    "mode.",
    false_positives="Models that compare samples on purpose, such as rerankers over a list. Dynamic quantisation "
    "takes one scale for all samples, and is a warning.",
)
def rows_mix(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the outputs in which samples depend on each other."""
    runs = _runs(subject)
    if runs is None:
        raise InapplicableError("no open dimension of the inputs counts samples")
    if texts := [result for result in runs.results.values() if isinstance(result, str)]:
        raise CheckError(f"it does not run with 1, 2 and 3 samples (see D01): {texts[0]}")
    one, two, three = (runs.results[count] for count in _COUNTS)
    assert not isinstance(one, str)
    assert not isinstance(two, str)
    assert not isinstance(three, str)
    repeatable(subject)
    axes = {n: row_axis(one[n].shape, two[n].shape, a.shape) for n, a in three.items() if n in one and n in two}
    grown = {name: axis for name, axis in axes.items() if axis is not None}
    if not grown:
        raise InapplicableError("no output has a part for each sample")
    severity: Severity = "warning" if runs.dimension.guessed or _dynamic(subject) else "error"
    for how, parity in _compared(subject, runs, three, grown):
        message = f"what it says of a sample changes when {how}: it {parity.problem}"
        yield Problem(
            message,
            [tensor_place(parity.name)],
            {**in_words(parity), "dimension": runs.dimension.name},
            severity=severity,
        )
    yield {"outputs": len(grown), "without_samples": [name for name, axis in axes.items() if axis is None]}


def _compared(
    subject: Subject, runs: _Runs, three: Arrays, grown: Mapping[str, int]
) -> Iterator[tuple[str, OutputParity]]:
    """Yield the worst comparison of each output that fails, and what was done."""
    dimension, feeds = runs.dimension, dict(runs.feeds[3])
    turned = {n: np.take(a, _ORDER, dimension.axes[n]) if n in dimension.axes else a for n, a in feeds.items()}
    after = _tried(runs.session, turned)
    alone = [
        _tried(
            runs.session,
            {n: np.take(a, [i], dimension.axes[n]) if n in dimension.axes else a for n, a in feeds.items()},
        )
        for i in range(3)
    ]
    limits = {name: tolerance(subject.inferred, str(three[name].dtype)) for name in grown}
    yield from compare_rows(three, alone, grown, limits, None if isinstance(after, str) else after, _ORDER)


def _dynamic(subject: Subject) -> bool:
    return any(n.op_type.startswith("Dynamic") and "Quantize" in n.op_type for n in subject.inlined.graph.all_nodes())
