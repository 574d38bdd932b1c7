"""On the whole corpus no check crashes, and every error there has been looked at: ``data/corpus_errors.tsv`` says why.

The table's column ``found`` says what it takes to find an error: nothing but the file (``static``), a run (``run``), or
a copy of the corpus without the external weights (``data``).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from onnxviz.checks.run import run_checks
from onnxviz.checks.subject import Options, Subject

pytestmark = pytest.mark.corpus
TABLE = Path(__file__).parent / "data" / "corpus_errors.tsv"
#: Hand-made files that keep onnxruntime busy for minutes: it takes quadratic time to open them.
_ENDLESS = {"adversarial/big_outputs_20k.onnx", "adversarial/big_wide_50k.onnx"}
_SECONDS = 400


def table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def models(corpus: Path) -> list[str]:
    return sorted(path.relative_to(corpus / "models").as_posix() for path in (corpus / "models").rglob("*.onnx"))


def surprises(errors: Iterable[tuple[str, str]], kinds: set[str], checked: set[str]) -> tuple[set[object], set[object]]:
    """Return errors that the table does not have, and errors of it that are gone."""
    found = set(errors)
    known = {(row["model"], row["check"]): row["found"] for row in table()}
    expected = {key for key, kind in known.items() if kind in kinds and key[0] in checked}
    return found - set(known), expected - found


def test_each_error_in_the_table_has_its_reason(corpus: Path) -> None:
    rows = table()
    assert {row["model"] for row in rows} <= set(models(corpus))
    assert all(len(row["why it is real"]) > 10 and row["found"] in ("static", "run", "data") for row in rows)
    assert len({(row["model"], row["check"]) for row in rows}) == len(rows)


def static_errors(corpus: Path, names: Iterable[str]) -> set[tuple[str, str]]:
    errors = set()
    for name in names:
        result = run_checks(Subject(corpus / "models" / name, Options(static=True)))
        assert [f for f in result.findings if f.cause == "crashed"] == [], name
        errors |= {(name, finding.id) for finding in result.failures("error")}
    return errors


def test_static_errors_are_real_and_nothing_crashes(corpus: Path) -> None:
    names = [name for name in models(corpus) if not name.startswith(("adversarial/", "generated/"))]
    assert surprises(static_errors(corpus, names), {"static"}, set(names)) == (set(), set())


@pytest.mark.long
def test_static_errors_of_hostile_files_are_real(corpus: Path) -> None:
    names = [name for name in models(corpus) if name.startswith(("adversarial/", "generated/"))]
    assert surprises(static_errors(corpus, names), {"static"}, set(names)) == (set(), set())


def test_an_error_that_was_not_looked_at_is_noticed(corpus: Path) -> None:
    row = next(row for row in table() if row["found"] == "static")
    known = {(row["model"], row["check"])}
    assert surprises(known | {("new.onnx", "G01")}, {"static"}, {row["model"]})[0] == {("new.onnx", "G01")}
    assert surprises(set(), {"static"}, {row["model"]})[1] >= known


@pytest.mark.long
def test_errors_of_runs_are_real_and_nothing_crashes(corpus: Path) -> None:
    """By the command line, a process a model: a hostile file may bring onnxruntime down."""
    errors: set[tuple[str, str]] = set()
    names = [name for name in models(corpus) if name not in _ENDLESS]
    for name in names:
        command = [sys.executable, "-m", "onnxviz", "check", str(corpus / "models" / name), "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert done.returncode in (0, 1, 3), (name, done.stderr[-400:])
        findings = json.loads(done.stdout)["findings"]
        assert [f for f in findings if f["cause"] == "crashed"] == [], name
        errors |= {(name, f["id"]) for f in findings if f["verdict"] == "fail" and f["severity"] == "error"}
    assert surprises(errors, {"static", "run"}, set(names)) == (set(), set())
