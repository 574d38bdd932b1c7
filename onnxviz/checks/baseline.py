"""A baseline: the findings of a model that its owner knows and lets pass.

It belongs to a model, not to one file of it: a model that was trained again, or mended, is still the same. What tells
models apart is their interface (names and types of inputs and outputs) and which operators they are made of.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxviz.checks.run import CheckResult
from onnxviz.errors import InputError, listed
from onnxviz.graph.files import atomic_write
from onnxviz.graph.shapes import dtype_name, model_inputs

__all__ = ["Baseline", "Identity", "apply_baseline", "identity_of", "load_baseline", "save_baseline"]

_SCHEMA = 1
_ALIKE = 0.5  # share of operators that a model must have in common with the baseline's


@dataclass(frozen=True)
class Identity:
    """What tells one model from another.

    Attributes:
        inputs: Name and element type of each input that a caller feeds, sorted.
        outputs: The same of the outputs.
        ops: How often each operator occurs.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: Mapping[str, int]

    def difference(self, other: Identity) -> str:
        """Return why another model is not this one; empty if it is."""
        for what, mine, theirs in (("inputs", self.inputs, other.inputs), ("outputs", self.outputs, other.outputs)):
            if mine != theirs:
                return f"its {what} are {listed(mine) or 'none'}, not {listed(theirs) or 'none'}"
        most = max(sum(self.ops.values()), sum(other.ops.values()))
        common = sum((Counter(self.ops) & Counter(other.ops)).values())
        return f"only {common} of {most} operators are the same" if common < _ALIKE * most else ""


@dataclass(frozen=True)
class Baseline:
    """Known findings.

    Attributes:
        identity: Of the model that has them.
        known: Fingerprint of each finding -> what a reader calls it.
    """

    identity: Identity
    known: Mapping[str, str]


def identity_of(model: ir.Model) -> Identity:
    """Return what tells a model from others.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}'
    ... )
    >>> identity_of(model)
    Identity(inputs=('x float32',), outputs=('y float32',), ops={'Neg': 1})
    """
    ops = Counter(node.op_type for node in model.graph.all_nodes())
    sides = [[f"{v.name} {dtype_name(v)}" for v in values] for values in (model_inputs(model), model.graph.outputs)]
    return Identity(tuple(sorted(sides[0])), tuple(sorted(sides[1])), dict(sorted(ops.items())))


def save_baseline(result: CheckResult, model: ir.Model, path: str | os.PathLike[str]) -> int:
    """Write what failed as a baseline, and return how many findings that are.

    Raises:
        OutputError: The file cannot be written.
    """
    failed = [finding for finding in result.findings if finding.verdict == "fail"]
    identity = identity_of(model)
    data = {
        "onnxviz_baseline": _SCHEMA,
        "model": {"inputs": identity.inputs, "outputs": identity.outputs, "ops": identity.ops},
        "findings": [{"fingerprint": f.fingerprint, "id": f.id, "finding": f.line()} for f in failed],
    }
    atomic_write(path, json.dumps(data, indent=1) + "\n")
    return len(failed)


def load_baseline(path: str | os.PathLike[str]) -> Baseline:
    """Read a baseline.

    Raises:
        InputError: There is no such file, or it is no baseline.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the baseline {os.fspath(path)}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{os.fspath(path)} is no baseline: it is not JSON", hint=_WRITE) from error
    try:
        return _read(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{os.fspath(path)} is no baseline of onnxviz", hint=_WRITE) from error


_WRITE = "write one with --save-baseline"


def _read(data: Any) -> Baseline:
    if data["onnxviz_baseline"] != _SCHEMA:
        raise ValueError("another version")
    model = data["model"]
    ops = {str(op): int(count) for op, count in model["ops"].items()}
    identity = Identity(tuple(map(str, model["inputs"])), tuple(map(str, model["outputs"])), ops)
    return Baseline(identity, {str(f["fingerprint"]): f"{f['id']} {f['finding']}" for f in data["findings"]})


def apply_baseline(result: CheckResult, baseline: Baseline, model: ir.Model) -> CheckResult:
    """Return a result in which the findings that a baseline has are marked as known.

    Findings of the baseline that are gone are told in a note, so that it can be written anew.

    Raises:
        InputError: The baseline was written for another model.
    """
    difference = identity_of(model).difference(baseline.identity)
    if difference:
        raise InputError(f"the baseline was written for another model: {difference}", hint=_WRITE)
    findings = tuple(
        f.as_known() if f.verdict == "fail" and f.fingerprint in baseline.known else f for f in result.findings
    )
    asked = {one.id for one in result.checks}
    seen = {f.fingerprint for f in findings}
    gone = [text for mark, text in baseline.known.items() if mark not in seen and text.partition(" ")[0] in asked]
    notes = (f"no longer found, of the baseline's: {listed(gone, 3)}",) if gone else ()
    return replace(result, findings=findings, notes=(*result.notes, *notes))
