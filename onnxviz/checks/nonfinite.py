"""Checks of NaN and infinities in a run: N01."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.numeric import to_float
from onnxviz.checks.finding import Place, Problem, node_place, tensor_place
from onnxviz.checks.observed import Observed
from onnxviz.checks.registry import Evidence, Need, check
from onnxviz.checks.repro import Shows, node_repro
from onnxviz.checks.running import Arrays, flat, new_session, observe, observed
from onnxviz.checks.subject import Subject


@check(
    "N01",
    "error",
    "NaN or Inf in a run",
    needs=Need.MODEL | Need.INPUTS,
    what="Runs the model node by node, nothing fused, and looks at every tensor for NaN and infinities; reported is "
    "the first node that makes them, with the ranges of what it read. `--repro FOLDER` writes that node "
    "as a model of its own, its inputs beside it.",
    why="One NaN makes everything behind it NaN, and an answer that is NaN passes many a comparison unnoticed.",
    remedy="Look at what the node read: bound its operand, add an epsilon, or use the operator that is stable; if the "
    "weights are at fault, N04 says so.",
    false_positives="Random inputs may lie where no real input does: what only they cause is a warning. Infinities "
    "that no output shows are a warning, and -Inf that masks something is none.",
)
def nonfinite(subject: Subject) -> Iterator[Problem | Evidence]:
    """Yield the first tensor that is not finite."""
    for record in subject.inputs.records:
        array = subject.inputs.feeds[record.name]
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
            yield Problem(
                "the input itself is not finite", [tensor_place(record.name)], severity="warning", key="input"
            )
            return
    seen = observed(subject)
    shown = {str(value.name) for value in subject.inlined.graph.outputs}
    bad = {name: one for name, one in seen.items() if not one.finite}
    kind = _kind(bad, shown)
    if kind is not None:
        yield _problem(subject, bad, shown, kind)
    yield {"tensors": len(seen), "samples": subject.batches.samples, "masked": sum(one.minus for one in bad.values())}


def _kind(bad: dict[str, Observed], shown: set[str]) -> Literal["nan", "inf"] | None:
    """Return what to look for: NaN before Inf; -Inf in tensors that are not outputs is a mask, and nothing."""
    if any(one.nan for one in bad.values()):
        return "nan"
    return "inf" if any(one.plus or (one.minus and name in shown) for name, one in bad.items()) else None


def _problem(subject: Subject, bad: dict[str, Observed], shown: set[str], kind: Literal["nan", "inf"]) -> Problem:
    first = next(name for name, one in bad.items() if (one.nan if kind == "nan" else one.plus or name in shown))
    one = bad[first]
    reaches = [name for name in bad if name in shown]
    grave = any(bad[name].nan or bad[name].plus for name in reaches) and not _only_random(subject)
    node = next((n for n in subject.inlined.graph if any(v.name == first for v in n.outputs)), None)
    evidence: dict[str, Any] = {
        "nan": one.nan, "inf": one.plus, "minus_inf": one.minus, "of": one.count, "samples": subject.batches.samples,
        "outputs_reached": reaches, "tensors_not_finite": len(bad),
    }  # fmt: skip
    places: list[Place] = [tensor_place(first)]
    if node is not None:
        places.insert(0, node_place(node.name or node.op_type))
        evidence |= {"op_type": node.op_type, **_origin(subject, first, kind, node)}
    where = f"{', '.join(reaches[:3])} among the outputs" if reaches else "no output"
    counts = [(one.nan, "NaN"), (one.plus, "Inf"), (one.minus, "-Inf")]
    what = " and ".join(f"{count:,} {name}" for count, name in counts if count)
    message = (
        f"{node.op_type if node is not None else 'it'} gives {what} among {one.count:,} values; it reaches {where}"
    )
    repro = None if node is None else node_repro(subject, first, _holds(kind))
    return Problem(message, places, evidence, severity="error" if grave else "warning", key=kind, repro=repro)


def _holds(kind: Literal["nan", "inf"]) -> Shows:
    test = np.isnan if kind == "nan" else np.isinf
    return lambda array: bool(test(to_float(array)).any())


def _origin(subject: Subject, tensor: str, kind: Literal["nan", "inf"], node: ir.Node) -> dict[str, Any]:
    """Return what the node read, and where in its result the first such number stands."""
    found = observe(subject.model, subject, tensors=tensor, stop_on=kind).nonfinite
    if found is None or found.tensor != tensor:
        return {}
    return {"read": [str(one) for one in found.inputs[:8]], "index": list(found.index)}


def _only_random(subject: Subject) -> bool:
    """Whether the model was fed made-up numbers, and others of a usual range give finite outputs.

    These are from 0 to 1, and from 1 to 2: each output must be finite for one of them.
    """
    if not subject.made_up:
        return False
    session = new_session(subject)
    bad: list[set[str]] = []
    for start in (0, 1):
        feeds = {name: _tamed(array, start) for name, array in subject.inputs.feeds.items()}
        results: Arrays = flat(session.run(feeds))
        bad.append({n for n, a in results.items() if a.dtype.kind == "f" and not np.isfinite(a).all()})
    return not set.intersection(*bad)


def _tamed(array: Any, start: int) -> Any:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    return (start + np.abs(array) / (1 + np.abs(array))).astype(array.dtype)
