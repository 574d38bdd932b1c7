"""The section on findings: what is wrong with the model by the checks that run nothing."""

from __future__ import annotations

from collections.abc import Iterable

from onnxviz.checks.finding import SEVERITIES, Finding
from onnxviz.checks.run import run_checks
from onnxviz.checks.subject import Options, Subject
from onnxviz.errors import counted
from onnxviz.report.views import Card, Section, Seen

__all__ = ["checks_section"]

_MOST_NODES = 20_000  # a few seconds of checks
_LINES = 8  # findings of one check
_LEAD = (
    "What is wrong with the model itself, as it was opened: nothing is run for it, and what the file holds beside the "
    "graph is not looked at. onnxviz check FILE looks at both."
)


def checks_section(seen: Seen) -> Section:
    """Return the findings of the static checks, the gravest first; a check that could not decide is told."""
    nodes = seen.model.graph.num_nodes()
    if nodes > _MOST_NODES:
        return Section(notes=[f"not checked: with {nodes:,} nodes that takes long; onnxviz check FILE does it"])
    result = run_checks(Subject(seen.model, Options(static=True)))
    failed = result.failures()
    groups = [
        [finding for finding in failed if (finding.severity, finding.id) == (severity, one.id)]
        for severity in SEVERITIES
        for one in result.checks
    ]
    written = {node.name: str(node.outputs[0].name) for node in seen.model.graph if node.name and node.outputs}
    passed = [finding.id for finding in result.findings if finding.verdict == "pass"]
    notes = [f"passed: {' '.join(passed)}", *(f"{f.id} was not checked: {f.message}" for f in result.unchecked)]
    return Section(_LEAD, [_card(group, written) for group in groups if group], notes)


def _card(findings: list[Finding], written: dict[str, str]) -> Card:
    """Return the card of one check: its findings, and what mends them."""
    first = findings[0]
    lines = [finding.line() for finding in findings[:_LINES]]
    more = [f"and {counted(len(findings) - _LINES, 'more finding')}"] if len(findings) > _LINES else []
    remedies = dict.fromkeys(f"→ {finding.remedy}" for finding in findings[:_LINES] if finding.remedy)
    tensors = tuple(dict.fromkeys(_tensors(findings[:_LINES], written)))
    return Card(first.id, first.severity, first.title, tensors, [*lines, *more, *remedies])


def _tensors(findings: Iterable[Finding], written: dict[str, str]) -> Iterable[str]:
    """Yield the tensors that findings are about; of a node, the first that it writes."""
    for finding in findings:
        for place in finding.where:
            if place.kind == "tensor":
                yield place.name
            elif place.kind == "node" and place.name in written:
                yield written[place.name]
