"""Results of checks for a terminal: what failed first, with the way to mend it."""

from __future__ import annotations

from collections.abc import Iterator

from onnxviz.checks.finding import SEVERITIES, Finding, Severity
from onnxviz.checks.run import CheckResult
from onnxviz.errors import counted, printable

__all__ = ["to_text"]

_WIDTH = max(map(len, SEVERITIES))
_SHOWN = 8  # findings of one check and severity; the other formats have all


def to_text(result: CheckResult, fail_on: Severity = "error") -> str:
    """Return a result as lines: findings by severity, then what was not checked, what passed, and the sum."""
    return "\n".join(printable(line, 2000) for line in _lines(result)) + "\n"


def _lines(result: CheckResult) -> Iterator[str]:
    failures = result.failures()
    for severity in SEVERITIES:
        grave = [finding for finding in failures if finding.severity == severity]
        for id in dict.fromkeys(finding.id for finding in grave):
            yield from _group([finding for finding in grave if finding.id == id])
    unchecked = [f for f in result.findings if f.verdict == "not_checked"]
    for reason, ids in _by_reason(unchecked).items():
        yield f"{'?':<{_WIDTH}}  not checked: {' '.join(ids)}: {reason}"
    yield from (f"note: {note}" for note in result.notes)
    if result.inputs:
        yield f"fed: {'; '.join(result.inputs)}"
    passed = [f.id for f in result.findings if f.verdict == "pass"]
    if passed:
        yield f"passed: {' '.join(passed)}"
    yield f"{result.model}: {_sum(result)}"


def _group(findings: list[Finding]) -> Iterator[str]:
    """Yield the findings of one check and severity: the title, then a line each, then what mends them."""
    first = findings[0]
    yield f"{first.severity:<{_WIDTH}}  {first.id}  {first.title}"
    for finding in findings[:_SHOWN]:
        yield f"{'':<{_WIDTH}}       {finding.line()}"
    if len(findings) > _SHOWN:
        yield f"{'':<{_WIDTH}}       … and {len(findings) - _SHOWN} more: see --format json"
    for remedy in dict.fromkeys(finding.remedy for finding in findings[:_SHOWN] if finding.remedy):
        yield f"{'':<{_WIDTH}}     → {remedy}"


def _by_reason(findings: list[Finding]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        reasons.setdefault(finding.message, []).append(finding.id)
    return reasons


def _sum(result: CheckResult) -> str:
    counts = result.counts()
    parts = [
        counted(counts["error"], "error"),
        counted(counts["warning"], "warning"),
        f"{counts['info']} for information",
    ]
    parts += [f"{counts['known']} known from the baseline"] if counts["known"] else []
    return f"{', '.join(parts)}; {counts['pass']} passed, {counts['not_checked']} not checked"
