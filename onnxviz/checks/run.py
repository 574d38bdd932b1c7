"""Running checks: which can, what each says, and what it comes to."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from onnxviz.checks.finding import SEVERITIES, Cause, Finding, InapplicableError, Problem, Severity
from onnxviz.checks.registry import Check, Need, all_checks
from onnxviz.checks.subject import Subject
from onnxviz.errors import InputError, OnnxvizError, listed, printable

if TYPE_CHECKING:
    from onnxviz.checks.repro import Repro

__all__ = ["MOST", "CheckResult", "choose", "run_checks"]

#: Findings of one check that are listed; one more says how many there are beyond.
MOST = 100


@dataclass(frozen=True)
class CheckResult:
    """What all checks said about one model.

    Attributes:
        model: The file, or the model's name.
        findings: By check, in the order of their ids; each check has at least one.
        checks: The checks that were asked for.
        inputs: What the model was fed, a line each; empty where it was not run.
        notes: What the reader should know besides.
    """

    model: str
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    inputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def failures(self, at_least: Severity = "info") -> tuple[Finding, ...]:
        """Return what failed, is not known from the baseline, and is as grave as ``at_least`` or graver."""
        grave = SEVERITIES[: SEVERITIES.index(at_least) + 1]
        return tuple(f for f in self.findings if f.verdict == "fail" and not f.known and f.severity in grave)

    @property
    def unchecked(self) -> tuple[Finding, ...]:
        """What could not be checked although it was asked for; not what needs something that was not given."""
        return tuple(f for f in self.findings if f.verdict == "not_checked" and f.cause != "left_out")

    def exit_code(self, fail_on: Severity = "error") -> int:
        """Return 1 if something as grave as ``fail_on`` failed, else 3 if something could not be checked, else 0."""
        return 1 if self.failures(fail_on) else 3 if self.unchecked else 0

    def counts(self) -> dict[str, int]:
        """Return how many errors, warnings and pieces of information there are, and how many checks did what."""
        failed = {severity: sum(f.severity == severity for f in self.failures()) for severity in SEVERITIES}
        return failed | {
            "known": sum(f.known for f in self.findings),
            "pass": sum(f.verdict == "pass" for f in self.findings),
            "not_checked": len({f.id for f in self.findings if f.verdict == "not_checked"}),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        return {
            "schema": 1,
            "model": self.model,
            "counts": self.counts(),
            "inputs": list(self.inputs),
            "notes": list(self.notes),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{f.severity}</td><td>{f.id}</td><td>{escape(f.line())}</td><td>{escape(printable(f.remedy))}</td></tr>"
            for f in self.failures()
        )
        return f"<table><caption>{escape(printable(self.model))}</caption>{rows}</table>"


def choose(checks: Iterable[Check], only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[Check, ...]:
    """Return the checks whose id fits one of ``only`` (all, if that is empty) and none of ``skip``.

    Raises:
        InputError: A pattern fits no check.

    >>> from onnxviz.checks.registry import all_checks
    >>> [one.id for one in choose(all_checks()[0], only=["g0*"], skip=["G01", "G02"])][:1]
    ['G03']
    """
    every = tuple(checks)
    for pattern in (*only, *skip):
        if not any(_fits(one, pattern) for one in every):
            raise InputError(
                f"there is no check {pattern!r}", hint=f"the checks are {listed([c.id for c in every], 99)}"
            )
    return tuple(
        one for one in every if (not only or any(_fits(one, p) for p in only)) and not any(_fits(one, p) for p in skip)
    )


def _fits(one: Check, pattern: str) -> bool:
    return fnmatch.fnmatchcase(one.id, pattern.strip().upper())


def run_checks(
    subject: Subject,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    checks: Sequence[Check] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """Run the checks on a model, one after the other.

    Nothing that a check raises ends the run, and nothing is swallowed: such a check is "not checked", and says why.

    Args:
        subject: The model.
        only: Ids, or globs of them, of the checks to run; all if empty.
        skip: Ids, or globs of them, of checks to leave out.
        checks: The checks to choose from; by default every one that there is.
        progress: Called with the number of checks that are done and of all.

    Raises:
        InputError: ``only`` or ``skip`` names no check.
    """
    every, broken = all_checks() if checks is None else (tuple(checks), {})
    chosen = choose(every, only, skip)
    findings: list[Finding] = []
    for done, one in enumerate(chosen, 1):
        findings += _apply(one, subject)
        if progress is not None:
            progress(done, len(chosen))
    if not only:
        findings += [
            Finding(name, "a check of another package", "error", "not_checked", why, cause="crashed")
            for name, why in broken.items()
        ]
    ran = any(one.needs & Need.INPUTS for one in chosen) and "inputs" in subject.__dict__
    fed = [str(record) for record in subject.inputs.records] if ran else []
    return CheckResult(subject.name, tuple(findings), chosen, tuple(fed), _sizes_note(subject, findings))


def _sizes_note(subject: Subject, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return what to do about a model that does not run at sizes that nobody gave; nothing where it runs."""
    failed = any(f.cause == "refused" and "failed while running the model" in f.message for f in findings)
    if not failed or "batches" not in subject.__dict__ or not subject.made_up:
        return ()
    from onnxviz.analysis.axes import free_dimensions

    sizes = {
        d.name: record.shape[d.axes[record.name]]
        for d in free_dimensions(subject.model)
        for record in subject.inputs.records
        if record.name in d.axes and d.name not in subject.options.dims
    }
    told = listed([f"{name}={size}" for name, size in sizes.items()])
    return (f"it was run at sizes that nobody gave, {told}: give --input, or sizes with --dim NAME=N",) if sizes else ()


def _apply(one: Check, subject: Subject) -> list[Finding]:
    lacking = _lacking(one, subject)
    if lacking is not None:
        return [_not_checked(one, *lacking)]
    problems: list[Finding] = []
    makers: list[Callable[[], Repro] | None] = []
    evidence: dict[str, Any] = {}
    stopped: Finding | None = None
    try:
        for found in one(subject):
            if isinstance(found, Problem):
                problems.append(_failed(one, found))
                makers.append(found.repro)
            else:
                evidence.update(found)
    except InapplicableError as error:
        stopped = _not_checked(one, "left_out", str(error))
    except OnnxvizError as error:
        stopped = _not_checked(one, "refused", str(error))
    except OSError as error:
        stopped = _not_checked(one, "refused", f"a file cannot be read: {error.strerror or error}: {error.filename}")
    except Exception as error:  # noqa: BLE001 - a check that crashes has not passed, and its reader is told so
        stopped = _not_checked(one, "crashed", f"the check crashed: {type(error).__name__}: {error}")
    evidence |= _feeds(one, subject)
    problems = [
        replace(finding, evidence={**finding.evidence, **_feeds(one, subject), **shown})
        for finding, shown in zip(problems, _repros(one, subject, makers), strict=True)
    ]
    findings = _shortened(problems)
    if stopped is not None:
        return [*findings, stopped]
    return findings or [Finding(one.id, one.title, one.severity, "pass", evidence=evidence)]


def _repros(one: Check, subject: Subject, makers: Sequence[Callable[[], Repro] | None]) -> Iterator[Mapping[str, Any]]:
    """Write a small model for each problem that can be shown by one, and yield what its evidence says of that."""
    from onnxviz.checks.repro import MOST as MOST_REPROS
    from onnxviz.checks.repro import save_repro

    folder = None if subject.options.static else subject.options.repro
    written = 0
    for make in makers:
        if folder is None or make is None:
            yield {}
        elif written == MOST_REPROS:
            yield {"repro": f"not written: {MOST_REPROS} were written for this check"}
        else:
            try:
                yield {"repro": save_repro(make(), folder, f"{one.id}-{written + 1}")}
                written += 1
            except OnnxvizError as error:
                yield {"repro": f"not written: {error.message}"}
            except Exception as error:  # noqa: BLE001 - the finding stands; its reader is told why nothing shows it
                yield {"repro": f"not written: {type(error).__name__}: {error}"}


def _feeds(one: Check, subject: Subject) -> Mapping[str, Any]:
    """Return what a finding says about what the model was fed: made-up numbers prove less than real ones."""
    if not one.needs & Need.INPUTS or "inputs" not in subject.__dict__:
        return {}
    made_up = subject.inputs.made_up
    return {"random_inputs": made_up, "seed": subject.options.seed} if made_up else {}


def _failed(one: Check, problem: Problem) -> Finding:
    return Finding(
        one.id,
        one.title,
        problem.severity or one.severity,
        "fail",
        problem.message,
        tuple(problem.where),
        dict(problem.evidence),
        one.remedy if problem.remedy is None else problem.remedy,
        key=problem.key,
    )


def _not_checked(one: Check, cause: Cause, reason: str) -> Finding:
    return Finding(one.id, one.title, one.severity, "not_checked", printable(reason), cause=cause)


def _lacking(one: Check, subject: Subject) -> tuple[Cause, str] | None:
    """Return why a check cannot run, if it cannot."""
    options = subject.options
    given = {
        Need.REFERENCE: (options.reference is not None, "no --reference was given"),
        Need.PROVIDERS: (bool(options.providers), "no --providers were given"),
        Need.MEMORY: (options.max_memory is not None, "no --max-memory was given"),
        Need.FILE: (subject.path is not None, "the model is in memory, not in a file"),
    }
    for need, (there, reason) in given.items():
        if one.needs & need and not there:
            return "left_out", reason
    if options.static and one.needs.runs:
        return "left_out", "it runs the model, and --static was given"
    if one.needs & (Need.MODEL | Need.INPUTS | Need.SESSION) and subject.model_error is not None:
        return "no_model", f"the model does not open: {subject.model_error.message}"
    if one.needs & Need.PROTO and subject.proto_error is not None:
        return "no_model", subject.proto_error.message
    return None


def _shortened(findings: list[Finding]) -> list[Finding]:
    """Keep the first findings of a check, and say of the others how many there are.

    The last one's fingerprint is made of theirs, so that a baseline lets pass what it has seen and nothing more.
    """
    if len(findings) <= MOST + 1:
        return findings
    rest = findings[MOST:]
    digest = hashlib.sha256("".join(sorted(f.fingerprint for f in rest)).encode()).hexdigest()[:16]
    worst = min(rest, key=lambda finding: SEVERITIES.index(finding.severity))
    more = replace(
        worst,
        message=f"{len(rest):,} more like these",
        where=(),
        evidence={"more": len(rest)},
        key=f"more {digest}",
    )
    return [*findings[:MOST], more]
