"""Results of checks as text, JSON, SARIF and JUnit: each a function from a result to the text of a file."""

from __future__ import annotations

import json
from collections.abc import Callable

from onnxviz.checks.finding import Severity
from onnxviz.checks.formats.junit import to_junit
from onnxviz.checks.formats.sarif import to_sarif
from onnxviz.checks.formats.text import to_text
from onnxviz.checks.run import CheckResult

__all__ = ["FORMATS", "render"]


def _to_json(result: CheckResult, fail_on: Severity) -> str:
    return json.dumps(result.to_dict() | {"exit_code": result.exit_code(fail_on)}, indent=1, allow_nan=False) + "\n"


#: Name of a format -> what writes it: result and ``--fail-on`` in, text out.
FORMATS: dict[str, Callable[[CheckResult, Severity], str]] = {
    "text": to_text,
    "json": _to_json,
    "sarif": to_sarif,
    "junit": to_junit,
}


def render(result: CheckResult, format: str = "text", fail_on: Severity = "error") -> str:
    """Return a result as the text of a file.

    Args:
        result: What the checks said.
        format: A key of :data:`FORMATS`.
        fail_on: How grave a finding must be to count as a failure.
    """
    return FORMATS[format](result, fail_on)
