"""The frame: what runs, what a crash becomes, what it comes to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnxviz.checks import registry
from onnxviz.checks.finding import Finding, Place, Problem, plain
from onnxviz.checks.registry import Check, Need, all_checks, check
from onnxviz.checks.run import MOST, run_checks
from onnxviz.checks.subject import Options, Subject
from onnxviz.errors import CheckError, InputError, ModelError
from tests.checks.cases.given import net

MODEL = net("[r] y = Relu(x)")
#: What a package of checks holds.
ACME = """
from onnxviz.checks.finding import Problem
from onnxviz.checks.registry import Need, check

words = {"what": "Counts.", "why": "A test.", "remedy": "None.", "false_positives": "None."}


@check("ACME01", "warning", "nodes", needs=Need.MODEL, **words)
def nodes(subject):
    yield Problem(f"it has {subject.model.graph.num_nodes()} node")


@check("ACME02", "info", "nothing", needs=Need.MODEL, **words)
def nothing(subject):
    yield {"looked": True}


CHECKS = (nodes, nothing)
"""


def made(function: Any, needs: Need = Need.MODEL, severity: Any = "warning") -> Check:
    words = {"what": "a.", "why": "b.", "remedy": "Mend it.", "false_positives": "None."}
    return check("T01", severity, "a test", needs=needs, **words)(function)


def run(function: Any, needs: Need = Need.MODEL, severity: Any = "warning", **options: Any) -> Any:
    subject = Subject(ir.from_onnx_text(MODEL), Options(**options))
    return run_checks(subject, checks=[made(function, needs, severity)])


def fails(subject: Subject) -> Iterator[Problem]:
    yield Problem("it is wrong", [Place("node", "r")], {"n": 3})


def test_problems_become_findings() -> None:
    result = run(fails)
    (finding,) = result.findings
    assert (finding.verdict, finding.severity, finding.remedy) == ("fail", "warning", "Mend it.")
    assert finding.line() == "node 'r': it is wrong"
    assert finding.to_dict()["where"] == [{"kind": "node", "name": "r"}]
    assert [result.exit_code("error"), result.exit_code("warning")] == [0, 1]


def test_nothing_wrong_is_passed_with_its_evidence() -> None:
    result = run(lambda subject: [{"samples": 4}])
    assert [(f.verdict, f.evidence) for f in result.findings] == [("pass", {"samples": 4})]
    assert result.exit_code("warning") == 0


def test_a_crash_is_not_checked_and_never_passed() -> None:
    def crashes(subject: Subject) -> Iterator[Problem]:
        yield Problem("before")
        raise ZeroDivisionError("by 0\nline two")

    findings = run(crashes).findings
    assert [f.verdict for f in findings] == ["fail", "not_checked"]
    assert findings[1].message == r"the check crashed: ZeroDivisionError: by 0\nline two"
    assert findings[1].cause == "crashed"
    assert run(lambda subject: 1 / 0).exit_code() == 3


def test_what_fails_counts_more_than_what_could_not_be_checked() -> None:
    def both(subject: Subject) -> Iterator[Problem]:
        yield Problem("wrong")
        raise CheckError("no more can be said")

    result = run(both, severity="error")
    assert result.exit_code() == 1
    assert result.unchecked[0].cause == "refused"


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (Need.REFERENCE, "--reference"), (Need.PROVIDERS, "--providers"), (Need.MEMORY, "--max-memory"), (Need.FILE, "in memory"),
    ],
)  # fmt: skip
def test_what_was_not_given_is_left_out(need: Need, reason: str) -> None:
    result = run(fails, need)
    assert [(f.verdict, f.cause) for f in result.findings] == [("not_checked", "left_out")]
    assert reason in result.findings[0].message
    assert result.exit_code("warning") == 0, "it was not asked for"


@pytest.mark.parametrize("need", [Need.INPUTS, Need.SESSION])
def test_static_runs_nothing(need: Need) -> None:
    assert run(fails, need, static=True).findings[0].verdict == "not_checked"
    assert run(fails, need).findings[0].verdict == "fail"


def test_made_up_inputs_are_said() -> None:
    def looks(subject: Subject) -> Iterator[Problem]:
        yield Problem(f"{sorted(subject.inputs.feeds)} are bad")

    result = run(looks, Need.INPUTS, seed=7)
    assert result.findings[0].evidence == {"random_inputs": ["x"], "seed": 7}
    assert result.inputs == ("x: random, seed 7, float32 [2]",)
    given = run(looks, Need.INPUTS, inputs={"x": [1.0, 2.0]})
    assert given.findings[0].evidence == {}


def test_a_model_that_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 99)
    result = run_checks(Subject(tmp_path / "m.onnx"))
    verdicts = {f.id: f.verdict for f in result.findings}
    assert verdicts.pop("G01") == "fail"
    assert "pass" not in {v for id, v in verdicts.items() if id not in ("X03",)}, (
        "what was not looked at has not passed"
    )
    assert result.exit_code() == 1
    assert run_checks(Subject(tmp_path / "m.onnx"), skip=["G01"]).exit_code() == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        Subject(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        Subject(tmp_path)


def test_only_and_skip() -> None:
    subject = Subject(ir.from_onnx_text(MODEL))
    ids = lambda **chosen: [one.id for one in run_checks(subject, **chosen).checks]  # noqa: E731
    assert ids(only=["G03"]) == ["G03"]
    assert ids(only=["g0*"], skip=["G01"])[:2] != ["G01"]
    assert "G03" not in ids(skip=["G03"])
    with pytest.raises(InputError, match="there is no check 'G99'"):
        ids(only=["G99"])


def test_many_findings_are_cut_and_counted() -> None:
    def many(subject: Subject) -> Iterator[Problem]:
        for number in range(MOST + 50):
            yield Problem("wrong", [Place("node", str(number))], severity="error" if number == MOST + 7 else None)

    findings = run(many).findings
    assert len(findings) == MOST + 1
    assert findings[-1].message == "50 more like these"
    assert findings[-1].severity == "error", "the gravest of those that are left out"

    def others(subject: Subject) -> Iterator[Problem]:
        yield from [*list(many(subject))[:-1], Problem("wrong", [Place("node", "new")])]

    assert run(others).findings[-1].fingerprint != findings[-1].fingerprint


def test_fingerprints_leave_numbers_out() -> None:
    one = Finding("T01", "t", "error", "fail", "3 of 4", (Place("node", "a"),), {"n": 3})
    other = Finding("T01", "t", "error", "fail", "2 of 4", (Place("node", "a"),), {"n": 2})
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Finding("T01", "t", "error", "fail", where=(Place("node", "b"),)).fingerprint
    assert one.fingerprint != Finding("T02", "t", "error", "fail", where=(Place("node", "a"),)).fingerprint


def test_evidence_is_plain() -> None:
    import numpy as np

    assert plain({"a": np.float32(1.5), "b": float("nan"), "c": (np.int64(2), None, True)}) == {
        "a": 1.5, "b": "nan", "c": [2, None, True],
    }  # fmt: skip


class TestEntryPoints:
    @pytest.fixture
    def points(self, monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
        points: list[EntryPoint] = []
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        return points

    def test_a_third_party_adds_checks(self, points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
        import types

        module = types.ModuleType("acme_checks")
        module.CHECKS = [made(fails)]  # type: ignore[attr-defined]
        monkeypatch.setitem(__import__("sys").modules, "acme_checks", module)
        points.append(EntryPoint("acme", "acme_checks:CHECKS", registry.GROUP))
        found, failures = all_checks()
        assert "T01" in [one.id for one in found]
        assert failures == {}

    def test_an_installed_distribution_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package as pip leaves it: a module, and the folder with its metadata."""
        about = tmp_path / "acme_onnx_checks-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-onnx-checks\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[onnxviz.checks]\nacme = acme_onnx_checks:CHECKS\n")
        (tmp_path / "acme_onnx_checks.py").write_text(ACME)
        assert "ACME01" not in [one.id for one in all_checks()[0]]
        monkeypatch.syspath_prepend(tmp_path)
        result = run_checks(Subject(ir.from_onnx_text(MODEL)), only=["ACME*"])
        assert [(f.id, f.verdict, f.message) for f in result.findings] == [
            ("ACME01", "fail", "it has 1 node"), ("ACME02", "pass", ""),
        ]  # fmt: skip
        monkeypatch.delitem(sys.modules, "acme_onnx_checks")

    def test_one_that_cannot_be_loaded_has_not_passed(self, points: list[EntryPoint]) -> None:
        points += [
            EntryPoint("acme", "no_such_module:CHECKS", registry.GROUP),
            EntryPoint("b", "json:dumps", registry.GROUP),
        ]
        result = run_checks(Subject(ir.from_onnx_text(MODEL)), skip=["G*"])
        broken = {f.id: f.message for f in result.findings if f.cause == "crashed"}
        assert "ModuleNotFoundError" in broken["acme"]
        assert "neither a check nor a list" in broken["b"]
        assert result.exit_code() == 3

    def test_an_id_that_is_taken(self, points: list[EntryPoint]) -> None:
        points.append(EntryPoint("copy", "onnxviz.checks.hygiene:node_names", registry.GROUP))
        assert "another check G03" in all_checks()[1]["copy"]


def test_a_check_must_say_what_it_is() -> None:
    with pytest.raises(ValueError, match="says nothing about why"):
        check("T01", "info", "t", needs=Need.MODEL, what="a", why="", remedy="c", false_positives="d")(fails)
    with pytest.raises(ValueError, match="is no id"):
        check("bad id", "info", "t", needs=Need.MODEL, what="a", why="b", remedy="c", false_positives="d")(fails)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    run_checks(Subject(ir.from_onnx_text(MODEL)), only=["G03", "G04"], progress=lambda *counted: told.append(counted))
    assert told == [(1, 2), (2, 2)]
