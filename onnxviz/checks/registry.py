"""The checks that there are: those of onnxviz, and what others add through the entry-point group ``onnxviz.checks``.

A check is one small function, made a :class:`Check` by the decorator :func:`check`::

    @check("T01", "warning", "too many layers", needs=Need.MODEL,
           what="Counts the nodes.", why="A deep model is slow.", remedy="Take some out.", false_positives="None.")
    def too_many_layers(subject):
        count = subject.model.graph.num_nodes()
        if count > 100:
            yield Problem(f"the model has {count} nodes", evidence={"nodes": count})

An entry point names one check, or a list or tuple of them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from onnxviz.checks.finding import SEVERITIES, Problem, Severity

if TYPE_CHECKING:
    from onnxviz.checks.subject import Subject

__all__ = ["FAMILIES", "GROUP", "Check", "Evidence", "Need", "all_checks", "check"]

#: Entry-point group in which checks are registered.
GROUP = "onnxviz.checks"
#: Modules of this package that hold checks.
FAMILIES = (
    "onnxviz.checks.specification",
    "onnxviz.checks.compatibility",
    "onnxviz.checks.parameters",
    "onnxviz.checks.hygiene",
    "onnxviz.checks.clutter",
    "onnxviz.checks.deployment",
    "onnxviz.checks.external",
    "onnxviz.checks.numeric",
    "onnxviz.checks.quantisation",
    "onnxviz.checks.dynamics",
    "onnxviz.checks.execution",
    "onnxviz.checks.batching",
    "onnxviz.checks.sizes",
    "onnxviz.checks.nonfinite",
    "onnxviz.checks.precision",
    "onnxviz.checks.liveliness",
    "onnxviz.checks.repeatability",
    "onnxviz.checks.agreement",
    "onnxviz.checks.preprocessing",
    "onnxviz.checks.placement",
    "onnxviz.checks.budget",
    "onnxviz.checks.latency",
    "onnxviz.checks.quantised_error",
)
_ID = re.compile(r"[A-Z][A-Z0-9_]*[0-9]+")

#: What a check function yields beside problems: numbers that a reader of "passed" wants, such as how many samples.
Evidence = Mapping[str, Any]
CheckFunction = Callable[["Subject"], Iterable["Problem | Evidence"]]


class Need(enum.Flag):
    """What a check looks at. ``INPUTS`` and ``SESSION`` run the model, so ``--static`` leaves their checks out."""

    FILE = enum.auto()  #: the bytes on disk, whatever they hold
    PROTO = enum.auto()  #: a file that parses: ``subject.proto``, which lacks large weights
    MODEL = enum.auto()  #: a model that opens: ``subject.model``, ``subject.inferred``
    INPUTS = enum.auto()  #: feeds, given or made up: ``subject.inputs``
    SESSION = enum.auto()  #: onnxruntime
    REFERENCE = enum.auto()  #: the model to compare with: ``subject.reference``
    PROVIDERS = enum.auto()  #: the providers that were asked for: ``subject.providers``
    MEMORY = enum.auto()  #: the memory budget in bytes: ``subject.max_memory``

    @property
    def runs(self) -> bool:
        """Whether the model is run."""
        return bool(self & (Need.INPUTS | Need.SESSION))


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: A letter or more and a number; unique.
        severity: Of what it finds, unless a problem says otherwise.
        title: What it finds, a few words.
        needs: What it looks at.
        function: Yields a :class:`Problem` for each thing that is wrong. A mapping that it yields is evidence of what
            was looked at. It raises an :class:`onnxviz.errors.OnnxvizError` where it cannot decide.
        what: What it looks for, and how.
        why: Why it matters.
        remedy: How to mend it.
        false_positives: When it is wrong, or right and harmless.
    """

    id: str
    severity: Severity
    title: str
    needs: Need
    function: CheckFunction
    what: str
    why: str
    remedy: str
    false_positives: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"{self.id!r} is no id of a check: write capitals and a number, such as ACME01")
        if self.severity not in SEVERITIES:
            raise ValueError(f"check {self.id}: the severity is one of {', '.join(SEVERITIES)}")
        for name in ("title", "what", "why", "remedy", "false_positives"):
            if not getattr(self, name).strip():
                raise ValueError(f"check {self.id} says nothing about {name.replace('_', ' ')}")

    def __call__(self, subject: Subject) -> Iterator[Problem | Evidence]:
        """Run the check, without what :mod:`onnxviz.checks.run` adds."""
        return iter(self.function(subject))


def check(
    id: str, severity: Severity, title: str, *, needs: Need, what: str, why: str, remedy: str, false_positives: str
) -> Callable[[CheckFunction], Check]:
    """Make a :class:`Check` of a function; see there for the arguments.

    >>> @check("T01", "info", "anything", needs=Need.MODEL, what="Nothing.", why="An example.", remedy="None.",
    ...        false_positives="None.")
    ... def nothing(subject):
    ...     yield from ()
    >>> nothing.id, nothing.needs.runs
    ('T01', False)
    """

    def made(function: CheckFunction) -> Check:
        return Check(id, severity, title, needs, function, what, why, remedy, false_positives)

    return made


def all_checks() -> tuple[tuple[Check, ...], dict[str, str]]:
    """Return every check, sorted by id, and what could not be loaded: name of the entry point -> why.

    >>> {"G01", "X01"} <= {one.id for one in all_checks()[0]}
    True
    """
    found = {one.id: one for module in FAMILIES for one in vars(import_module(module)).values() if _is_check(one)}
    failures: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            for one in _checks_of(point.load()):
                if one.id in found:
                    raise ValueError(f"there is another check {one.id}")
                found[one.id] = one
        except Exception as error:  # noqa: BLE001 - what others wrote may fail in any way; the reader is told
            failures[point.name] = f"{point.value} cannot be loaded: {type(error).__name__}: {error}"
    return tuple(found[id] for id in sorted(found)), failures


def _is_check(value: object) -> bool:
    return isinstance(value, Check)


def _checks_of(loaded: object) -> list[Check]:
    several = [loaded] if isinstance(loaded, Check) else list(loaded) if isinstance(loaded, (list, tuple)) else []
    if not several or not all(isinstance(one, Check) for one in several):
        raise TypeError("it is neither a check nor a list of checks")
    return several
