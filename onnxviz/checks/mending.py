"""Mending a model: rewrites that are provably safe, each proven by running the model before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.checks.repairs import COMPUTING, HARMLESS, Repair
from onnxviz.checks.subject import Subject
from onnxviz.errors import OnnxvizError, listed
from onnxviz.graph.model import copy_model
from onnxviz.runtime.session import Session

__all__ = ["Change", "Mended", "mend"]


@dataclass(frozen=True)
class Change:
    """What one rewrite did.

    Attributes:
        what: A verb, such as ``"removed"``.
        items: What was changed, a line each.
    """

    what: str
    items: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} {listed(self.items)}"


@dataclass(frozen=True)
class Mended:
    """Result of :func:`mend`.

    Attributes:
        model: The mended copy.
        changes: What was done.
        left_out: Rewrites that were not done, and why.
        proof: How many outputs were compared bit by bit after each rewrite; 0 where the model could not be run, so that
            only names and metadata were touched.
    """

    model: ir.Model
    changes: tuple[Change, ...]
    left_out: tuple[str, ...]
    proof: int


def mend(subject: Subject) -> Mended:
    """Return a mended copy of a model.

    Every rewrite is followed by a run, without optimisation, on the inputs of ``subject``; it is taken back where any
    output has another bit. Where the model cannot be run, or gives other outputs the second time, those that touch what
    is computed are left out.

    Raises:
        ModelError: The model does not open, or its graph has a cycle.

    >>> from onnxviz.checks.subject import Subject
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) { [a] h = Identity(x) [b] y = Neg(h) [c] z = Exp(x) }''')
    >>> mended = mend(Subject(model))
    >>> [str(change) for change in mended.changes], [node.name for node in mended.model.graph]
    (["removed node 'c'", "removed, as it changes nothing, node 'a'"], ['b'])
    """
    model = copy_model(subject.model)
    changes: list[Change] = []
    if subject.model.meta.get("was_unsorted"):
        changes.append(Change("sorted", ("the nodes, some of which stood before what they read",)))
    left_out: list[str] = []
    expected, problem = _expected(subject.model, subject)
    for what, repair in (HARMLESS | COMPUTING if expected is None else COMPUTING | HARMLESS).items():
        changed, change = _tried(model, what, repair)
        if change is None:
            continue
        if expected is not None:
            problem = _difference(changed, subject, expected)
        if problem and (expected is not None or what in COMPUTING):
            left_out.append(f"not {change}: {problem}")
        else:
            model = changed
            changes.append(change)
            if expected is None and what in HARMLESS:  # onnxruntime refuses some models with two nodes of one name
                expected, problem = _expected(model, subject)
    return Mended(model, tuple(changes), tuple(left_out), len(expected or ()))


def _tried(model: ir.Model, what: str, repair: Repair) -> tuple[ir.Model, Change | None]:
    changed = copy_model(model)
    done = repair(changed)
    return changed, Change(what, tuple(done)) if done else None


def _expected(model: ir.Model, subject: Subject) -> tuple[dict[str, Any] | None, str]:
    """Return what a model gives, or why that proves nothing."""
    try:
        first, second = (_run(model, subject) for _ in range(2))
    except OnnxvizError as error:
        return None, f"the model cannot be run to prove it: {error.message}"
    differs = _compare(first, second)
    return (None, f"two runs of the model differ, so that nothing can be proven: {differs}") if differs else (first, "")


def _run(model: ir.Model, subject: Subject) -> dict[str, Any]:
    session = Session(model, "cpu", optimize=False, op_library=subject.options.op_library)
    return session.run(subject.inputs.feeds)


def _difference(model: ir.Model, subject: Subject, expected: Mapping[str, Any]) -> str:
    try:
        return _compare(expected, _run(model, subject))
    except OnnxvizError as error:
        return f"the result does not run: {error.message}"


def _compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return which output differs in any bit; empty if none does."""
    if list(one) != list(other):
        return "the outputs have other names"
    return next((f"output {name!r} differs" for name in one if not _equal(one[name], other[name])), "")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return bool(np.array_equal(one, other)) if one.dtype.kind in "OUS" else one.tobytes() == other.tobytes()
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other) or (one != one and other != other)
