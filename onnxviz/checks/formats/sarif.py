"""Results of checks as SARIF 2.1.0, which code hosts show beside the files (OASIS standard, 27 March 2020)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from onnxviz._version import __version__
from onnxviz.checks.finding import Finding, Place, Severity, plain
from onnxviz.checks.registry import Check
from onnxviz.checks.run import CheckResult
from onnxviz.errors import printable

__all__ = ["to_sarif"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
#: Kinds of places that SARIF has a word for (§3.33.7).
_KINDS = {"function": "function", "node": "member", "tensor": "variable", "model": "module", "file": "resource"}


def to_sarif(result: CheckResult, fail_on: Severity = "error") -> str:
    """Return a result as a SARIF log with one run.

    Results are what failed; those that the baseline has are marked as suppressed. What could not be checked stands
    among the notifications of the run, for viewers would take it for a result; what passed in the run's properties.
    """
    rules = [_rule(one) for one in result.checks]
    index = {rule["id"]: position for position, rule in enumerate(rules)}
    uri = _uri(result.model)
    failed = [f for f in result.findings if f.verdict == "fail"]
    unchecked = [f for f in result.findings if f.verdict == "not_checked"]
    run = {
        "tool": {"driver": {"name": "onnxviz", "version": __version__, "rules": rules}},
        "invocations": [
            {
                "executionSuccessful": not result.unchecked,
                "toolExecutionNotifications": [_notification(f, index) for f in unchecked],
            }
        ],
        "artifacts": [{"location": {"uri": uri}, "roles": ["analysisTarget"]}],
        "results": [_result(f, index, uri) for f in failed],
        "properties": {"passed": [f.id for f in result.findings if f.verdict == "pass"], "inputs": list(result.inputs)},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False) + "\n"


def _uri(model: str) -> str:
    path = Path(model)
    if not path.is_absolute():
        return quote(path.as_posix())
    try:
        return quote(path.relative_to(Path.cwd()).as_posix())
    except ValueError:
        return path.as_uri()


def _rule(one: Check) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": "".join(word.capitalize() for word in one.title.replace("-", " ").split() if word.isalnum()) or one.id,
        "shortDescription": {"text": one.title},
        "fullDescription": {"text": f"{one.what} {one.why}"},
        "help": {"text": f"{one.remedy} False positives: {one.false_positives}"},
        "defaultConfiguration": {"level": _LEVELS[one.severity]},
    }


def _result(finding: Finding, index: dict[str, int], uri: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": index[finding.id],
        "kind": "fail",
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.line()}. {printable(finding.remedy)}".strip()},
        "locations": [_location(finding.where[:1], uri)],
        "partialFingerprints": {"onnxviz/v1": finding.fingerprint},
        "properties": {"evidence": plain(finding.evidence)},
    }
    if len(finding.where) > 1:
        found["relatedLocations"] = [_location([place], uri) for place in finding.where[1:]]
    if finding.known:
        found["suppressions"] = [{"kind": "external", "justification": "in the baseline"}]
    return found


def _location(places: tuple[Place, ...] | list[Place], uri: str) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}}
    }
    if places:
        location["logicalLocations"] = [
            {"name": printable(place.name), "kind": _KINDS.get(place.kind, place.kind)} for place in places
        ]
    return location


def _notification(finding: Finding, index: dict[str, int]) -> dict[str, Any]:
    note: dict[str, Any] = {
        "descriptor": {"id": f"not-checked/{finding.cause}"},
        "level": "note" if finding.cause == "left_out" else "error",
        "message": {"text": printable(f"{finding.id} was not checked: {finding.message}")},
    }
    if finding.id in index:
        note["associatedRule"] = {"id": finding.id, "index": index[finding.id]}
    return note
