"""Runs that checks share: outputs with and without optimisation, what every tensor held, and how results compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.comparison import OutputParity, compare
from onnxviz.analysis.rounding import tolerance
from onnxviz.checks.observed import Observed, Observer
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError, ExecutionError

if TYPE_CHECKING:
    from onnxviz.runtime.collect import Reduce
    from onnxviz.runtime.record import Capture
    from onnxviz.runtime.session import Session

__all__ = [
    "Arrays",
    "differences",
    "flat",
    "in_words",
    "new_session",
    "observe",
    "observed",
    "outputs",
    "repeatable",
    "tolerance",
]

Arrays = dict[str, npt.NDArray[Any]]

#: Batches that outputs are compared on; all of them are observed.
MOST_BATCHES = 8
#: Nodes up to which every tensor is looked at: each node is a session of its own.
MOST_NODES = 10_000


def flat(results: Mapping[str, Any]) -> Arrays:
    """Return results as arrays: the items of sequences and maps are named after their place.

    >>> {name: a.tolist() for name, a in flat({"y": [{1: 0.5}, {1: 0.25}]}).items()}
    {'y[0][1]': 0.5, 'y[1][1]': 0.25}
    """
    return dict(_flattened(results.items()))


def _flattened(items: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, value in items:
        if isinstance(value, Mapping):
            yield from _flattened((f"{name}[{key}]", item) for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            yield from _flattened((f"{name}[{place}]", item) for place, item in enumerate(value))
        elif value is not None:
            yield name, np.asarray(value)


def new_session(subject: Subject, model: ir.Model | None = None, **options: Any) -> Session:
    """Return a session of a model, or of the one that is checked, on the CPU unless told otherwise.

    That of the model as it is, nothing fused, is made once: a model of very many nodes takes onnxruntime a minute.

    Raises:
        ExecutionError: onnxruntime refuses the model, or crashes while it optimises it.
    """
    from onnxviz.runtime.session import Session

    def make() -> Session:
        where = options.pop("providers", "cpu")
        return Session(model or subject.model, where, op_library=subject.options.op_library, **options)

    if model is None and options.get("optimize"):
        _survives_optimising(subject)
    plain = model is None and not any(options.values())
    return subject.shared("session, as in the file", make) if plain else make()


def _survives_optimising(subject: Subject) -> None:
    """Optimise the model in a process of its own first: some that run unoptimised take onnxruntime down."""

    def tried() -> str:
        from onnxviz.runtime.trial import source_of, trial

        with source_of(subject.model) as source:
            (result,) = trial(source, [subject.inputs.feeds], optimize=True, op_library=subject.options.op_library)
        return result if isinstance(result, str) else ""

    if "crashed" in (said := subject.shared("optimised in a process of its own", tried)):
        raise ExecutionError(f"optimised, it does not run: {said}")


def outputs(subject: Subject, *, optimize: bool) -> list[Arrays]:
    """Return the outputs for each batch, :data:`MOST_BATCHES` at most, on the CPU.

    Raises:
        ExecutionError: onnxruntime refuses the model or fails while running it.
    """

    def run() -> list[Arrays]:
        session = new_session(subject, optimize=optimize)
        places = range(min(len(subject.batches), MOST_BATCHES))
        return [flat(session.run(subject.batches.batch(place).feeds)) for place in places]

    return subject.shared(f"outputs, {'optimised' if optimize else 'as in the file'}", run)


def repeatable(subject: Subject) -> None:
    """See that a second run gives the same.

    Raises:
        CheckError: It does not, so that a comparison says nothing.
    """

    def second() -> list[str]:
        session = new_session(subject)  # one: each new one begins to draw random numbers where this process began
        first, again = (flat(session.run(subject.inputs.feeds)) for _ in range(2))
        return [p.name for p in differences(first, again, model=subject.inferred) if p.problem]

    if names := subject.shared("outputs that differ from run to run", second):
        raise CheckError(f"two runs on the same input differ in output {names[0]!r}, so a comparison says nothing")


def observe(model: ir.Model, subject: Subject, observer: Reduce | None = None, **options: Any) -> Capture:
    """Run a model node by node on all batches and keep what an observer makes of each tensor."""
    from onnxviz.runtime.capture import capture

    options = {"bodies": False, **options}
    reduce = None if options.get("keep") else observer or Observer.of(model)
    return capture(
        model, subject.batches, reduce=reduce, keep=options.pop("keep", False), providers="cpu",
        op_library=subject.options.op_library, **options,
    )  # fmt: skip


def observed(subject: Subject) -> Mapping[str, Observed]:
    """Return what every tensor of the main graph held over all batches, in the order of the graph.

    Raises:
        ExecutionError: onnxruntime has no kernel for a node, or a node fails.
    """

    def run() -> Mapping[str, Observed]:
        if (nodes := sum(1 for _ in subject.inlined.graph)) > MOST_NODES:
            raise CheckError(f"{nodes:,} nodes are too many to look at one by one; the most are {MOST_NODES:,}")
        captured = observe(subject.model, subject, Observer.of(subject.inferred))
        return {name: record.statistics for name, record in captured.items() if record.statistics is not None}

    return subject.shared("observed", run)


def differences(expected: Arrays, found: Arrays, model: ir.Model | None = None) -> list[OutputParity]:
    """Compare outputs by name: strict about shapes, types and NaN.

    Args:
        expected: What they should be.
        found: What they are.
        model: Tells the :func:`tolerance`; None takes that of the type alone.
    """
    results = []
    limits = {
        dtype: tolerance(model, dtype) if model is not None else 0.0
        for dtype in {str(array.dtype) for array in expected.values()}
    }
    for name, array in expected.items():
        other = found.get(name)
        if other is None:
            problem = "is missing"
            results.append(OutputParity(name, str(array.dtype), (), np.inf, np.inf, np.inf, 0.0, 0.0, problem))
            continue
        results.append(compare(name, array, other, limits[str(array.dtype)] or None, peak=10))
    return results


def in_words(parity: OutputParity) -> dict[str, Any]:
    """Return the numbers of a comparison as evidence."""
    return {
        "max_abs": parity.max_abs, "max_relative": parity.max_relative, "relative_l2": parity.relative_l2,
        "cosine": parity.cosine, "tolerance": parity.tolerance, "shape": list(parity.shape), "dtype": parity.dtype,
    }  # fmt: skip
