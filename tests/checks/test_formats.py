"""Text, JSON, SARIF and JUnit say the same, whatever names a model holds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import onnx_ir as ir
import pytest

from onnxviz.checks.finding import Place, Problem
from onnxviz.checks.formats import FORMATS, render
from onnxviz.checks.registry import Need, check
from onnxviz.checks.run import CheckResult, run_checks
from onnxviz.checks.subject import Options, Subject
from tests.checks.cases.given import net

HOSTILE = "a\"'<]]></script>\x00\x1b[31m\n\u202eevil\udc80" + "x" * 10_000
SCHEMA = json.loads(gzip.decompress((Path(__file__).parent / "data" / "sarif-2.1.0.json.gz").read_bytes()))


def result() -> CheckResult:
    words: dict[str, Any] = {"what": "a.", "why": "b.", "remedy": "Mend it.", "false_positives": "None."}

    @check("T01", "error", "hostile names", needs=Need.MODEL, **words)
    def hostile(subject: Subject) -> Iterator[Problem]:
        yield Problem(
            f"bad {HOSTILE}", [Place("node", HOSTILE), Place("tensor", "t")], {"x": float("nan"), "n": HOSTILE}
        )
        yield Problem("mild", severity="warning")

    @check("T02", "warning", "never asked", needs=Need.REFERENCE, **words)
    def never(subject: Subject) -> Iterator[Problem]:
        yield from ()

    @check("T03", "error", "crashes", needs=Need.MODEL, **words)
    def crashes(subject: Subject) -> Iterator[Problem]:
        raise KeyError(HOSTILE)

    @check("T04", "info", "fine", needs=Need.MODEL, **words)
    def fine(subject: Subject) -> Iterator[Problem]:
        yield from ()

    return run_checks(Subject(ir.from_onnx_text(net("[r] y = Relu(x)"))), checks=[hostile, never, crashes, fine])


@pytest.mark.parametrize("format", FORMATS)
def test_no_control_character_comes_out(format: str) -> None:
    text = render(result(), format)
    text.encode("utf-8")
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert render(result(), format) == text


def test_text() -> None:
    lines = render(result(), "text").splitlines()
    assert lines[0] == "error    T01  hostile names"
    assert lines[1].strip().startswith("node ")
    assert lines[2].strip() == "→ Mend it."
    assert [lines[3], lines[4].strip()] == ["warning  T01  hostile names", "mild"]
    assert any("not checked: T02: no --reference was given" in line for line in lines)
    assert "passed: T04" in lines
    assert lines[-1].endswith("1 error, 1 warning, 0 for information; 1 passed, 2 not checked")
    assert max(map(len, lines)) < 2100


def test_json_lists_every_verdict() -> None:
    found = json.loads(render(result(), "json"))
    assert [(f["id"], f["verdict"]) for f in found["findings"]] == [
        ("T01", "fail"), ("T01", "fail"), ("T02", "not_checked"), ("T03", "not_checked"), ("T04", "pass"),
    ]  # fmt: skip
    assert {"id", "severity", "verdict", "where", "evidence", "remedy"} <= set(found["findings"][0])
    assert found["findings"][0]["where"][0] == {"kind": "node", "name": HOSTILE}, "names are whole"
    assert found["findings"][0]["evidence"]["x"] == "nan"
    assert found["exit_code"] == 1


def test_sarif_keeps_to_its_schema() -> None:
    log = json.loads(render(result(), "sarif"))
    jsonschema.validate(log, SCHEMA)
    (run,) = log["runs"]
    assert [r["id"] for r in run["tool"]["driver"]["rules"]] == ["T01", "T02", "T03", "T04"]
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [("T01", "error"), ("T01", "warning")]
    assert run["results"][0]["relatedLocations"][0]["logicalLocations"][0]["name"] == "t"
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert [(n["associatedRule"]["id"], n["level"]) for n in notes] == [("T02", "note"), ("T03", "error")]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert run["properties"]["passed"] == ["T04"]


def test_the_schema_can_refuse() -> None:
    log = json.loads(render(result(), "sarif"))
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(log, SCHEMA)


#: What Jenkins, GitLab and GitHub's reporters have in common (the schema of Jenkins' xUnit plugin, junit-10.xsd): the
#: attributes that an element must and may have, and its children in order.
JUNIT: dict[str, tuple[set[str], set[str], tuple[str, ...]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, ("testsuite",)),
    "testsuite": (
        {"name", "tests"},
        {"failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "testcase": (
        {"name", "classname"},
        {"time", "status", "assertions"},
        ("skipped", "error", "failure", "system-out", "system-err"),
    ),
    "failure": (set(), {"message", "type"}, ()),
    "error": (set(), {"message", "type"}, ()),
    "skipped": (set(), {"message"}, ()),
    "system-out": (set(), set(), ()),
}


def breaches(element: ElementTree.Element) -> Iterator[str]:
    """Yield how an element breaks the rules of JUnit's format."""
    must, may, children = JUNIT[element.tag]
    if not must <= set(element.attrib) <= must | may:
        yield f"{element.tag} has the attributes {sorted(element.attrib)}"
    places = [children.index(child.tag) if child.tag in children else -1 for child in element]
    if -1 in places or places != sorted(places):
        yield f"{element.tag} holds {[child.tag for child in element]}"
    if children and (element.text or "").strip():
        yield f"{element.tag} holds text"
    if element.tag == "testsuite":
        cases = element.findall("testcase")
        counts = {"tests": len(cases)} | {
            f"{kind}s".replace("skippeds", "skipped"): sum(case.find(kind) is not None for case in cases)
            for kind in ("failure", "error", "skipped")
        }
        yield from (f"{name} is not {n}" for name, n in counts.items() if int(element.get(name, "0")) != n)
        names = [(case.get("classname"), case.get("name")) for case in cases]
        if len(set(names)) != len(names):
            yield "two cases have one name"
    for child in element:
        if child.tag in JUNIT:
            yield from breaches(child)


@pytest.mark.parametrize("fail_on", ["error", "warning"])
def test_junit_keeps_to_its_rules(fail_on: str) -> None:
    assert list(breaches(ElementTree.fromstring(render(result(), "junit", fail_on)))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('tests="4"', 'tests="5"'), ('classname="', 'class="'), ("<skipped ", "<skip "),
        ('failures="1"', 'failures="0"'), ("<testsuite ", '<testsuite color="red" '),
    ],
)  # fmt: skip
def test_the_rules_of_junit_can_refuse(old: str, new: str) -> None:
    text = render(result(), "junit")
    assert old in text
    broken = text.replace(old, new).replace("</skipped>", "</skip>" if "skip " in new else "</skipped>")
    assert list(breaches(ElementTree.fromstring(broken))) != []


def test_every_check_of_a_real_model_keeps_to_both_formats(models: Path) -> None:
    found = run_checks(Subject(models / "lenet5.onnx", Options(static=True)))
    log = json.loads(render(found, "sarif"))
    jsonschema.validate(log, SCHEMA)
    assert len(log["runs"][0]["tool"]["driver"]["rules"]) == len(found.checks)
    assert list(breaches(ElementTree.fromstring(render(found, "junit")))) == []


def test_junit_is_read_back() -> None:
    (suite,) = ElementTree.fromstring(render(result(), "junit"))
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "1", "skipped": "1",
    }  # fmt: skip
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert list(cases.values()) == [["failure", "system-out"], ["skipped"], ["error"], []]
    strict = ElementTree.fromstring(render(result(), "junit", "warning"))[0]
    assert [child.tag for child in strict[0]] == ["failure"], "with --fail-on warning both count"
