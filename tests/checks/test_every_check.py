"""Every check flags its planted defect, is silent on the clean twin, and says what a reader needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxviz.checks.registry import FAMILIES, Check, all_checks
from onnxviz.checks.run import run_checks
from tests.checks.cases import CASES

CHECKS = [one for one in all_checks()[0] if one.function.__module__ in FAMILIES]


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.id)
def test_it_flags_its_planted_defect(one: Check, tmp_path: Path) -> None:
    assert one.id in CASES, f"{one.id} has no fixture: add one under tests/checks/cases"
    case = CASES[one.id]
    findings = run_checks(case.bad(tmp_path).subject(), checks=[one]).findings
    failed = [f for f in findings if f.verdict == "fail"]
    assert failed, findings
    assert [f for f in findings if f.verdict == "not_checked"] == []
    said = [f for f in failed if case.says in f.message]
    assert said, [f.message for f in failed]
    assert said[0].severity == (case.severity or one.severity)
    assert said[0].remedy
    assert dict(case.evidence).items() <= dict(said[0].evidence).items()
    assert {f.id for f in failed} == {one.id}


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.id)
def test_it_is_silent_on_the_clean_twin(one: Check, tmp_path: Path) -> None:
    findings = run_checks(CASES[one.id].clean(tmp_path).subject(), checks=[one]).findings
    assert [(f.verdict, f.message) for f in findings] == [("pass", "")]


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.id)
def test_its_paragraph_is_written(one: Check) -> None:
    for text in (one.what, one.why, one.remedy, one.false_positives):
        assert text.endswith((".", "`.")), text
    assert not one.title.endswith(".")


def test_no_case_is_left_over() -> None:
    assert set(CASES) == {one.id for one in CHECKS}
