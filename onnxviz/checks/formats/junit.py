"""Results of checks as JUnit XML, which CI servers read: a test case a check."""

from __future__ import annotations

from xml.etree import ElementTree

from onnxviz.checks.finding import Finding, Severity
from onnxviz.checks.registry import Check
from onnxviz.checks.run import CheckResult
from onnxviz.errors import printable

__all__ = ["to_junit"]


def to_junit(result: CheckResult, fail_on: Severity = "error") -> str:
    """Return a result as JUnit XML.

    A check fails where a finding is as grave as ``fail_on`` and not known from the baseline; what is less grave stands
    in its output. What was left out is skipped, what could not be checked is an error.
    """
    suite = ElementTree.Element("testsuite", name=printable(f"onnxviz check {result.model}"))
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    titles = {finding.id: finding.title for finding in result.findings}
    known = {one.id: one for one in result.checks}
    for id, title in titles.items():
        case = ElementTree.SubElement(
            suite, "testcase", name=printable(f"{id} {title}"), classname=f"onnxviz.{_family(known.get(id))}"
        )
        kind = _fill(case, [f for f in result.findings if f.id == id], result.failures(fail_on))
        counts["tests"] += 1
        if kind:
            counts[kind] += 1
    for name, count in counts.items():
        suite.set(name, str(count))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _family(one: Check | None) -> str:
    return "other" if one is None else one.function.__module__.rpartition(".")[2]


def _fill(case: ElementTree.Element, findings: list[Finding], failing: tuple[Finding, ...]) -> str:
    """Write what a check said into its case, and return which count of the suite that raises."""
    failed = [f for f in findings if f.verdict == "fail"]
    grave = [f for f in failed if any(f is other for other in failing)]
    mild = [f for f in failed if not any(f is other for other in grave)]
    unchecked = [f for f in findings if f.verdict == "not_checked"]
    kind = ""
    if grave:
        kind, element = "failures", ElementTree.SubElement(case, "failure", type=grave[0].severity)
        element.set("message", grave[0].line() + (f" (and {len(grave) - 1} more)" if len(grave) > 1 else ""))
        element.text = "\n".join(f"{f.line()}; {printable(f.remedy)}" for f in grave)
    elif any(f.cause != "left_out" for f in unchecked):
        kind, element = "errors", ElementTree.SubElement(case, "error", type=unchecked[0].cause)
        element.set("message", printable(unchecked[0].message))
    elif unchecked:
        kind, element = "skipped", ElementTree.SubElement(case, "skipped")
        element.set("message", printable(unchecked[0].message))
    if mild:
        out = ElementTree.SubElement(case, "system-out")
        out.text = "\n".join(f"{f.severity}{' (known)' if f.known else ''}: {f.line()}" for f in mild)
    return kind
