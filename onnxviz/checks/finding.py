"""What a check found: one schema for text, JSON, SARIF, JUnit and the report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from onnxviz.errors import CheckError, listed, printable

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.checks.repro import Repro

__all__ = [
    "SEVERITIES",
    "Cause",
    "Finding",
    "InapplicableError",
    "Place",
    "Problem",
    "Severity",
    "Verdict",
    "every_node",
    "node_place",
    "place_of",
    "plain",
    "tensor_place",
]

Severity = Literal["error", "warning", "info"]
Verdict = Literal["fail", "pass", "not_checked"]
#: Why a check did not decide: it was ``left_out`` (it needs what was not given), there is ``no_model`` (the file does
#: not open), it was ``refused`` (what it needs failed), or it ``crashed``.
Cause = Literal["", "left_out", "no_model", "refused", "crashed"]

#: From the gravest on.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_LONGEST = 80  # characters of one name in a line of text


@dataclass(frozen=True)
class Place:
    """A part of a model.

    Attributes:
        kind: ``"model"``, ``"file"``, ``"node"``, ``"tensor"``, ``"function"`` or ``"metadata"``.
        name: Its name in the file, as it is: not escaped.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.kind} {self.name!r}" if self.name else self.kind, _LONGEST)


class InapplicableError(CheckError):
    """Raised by a check that has nothing to look at: what it needs was not given, or the model has none of it."""


def node_place(name: str) -> Place:
    """Return the place of a node."""
    return Place("node", name)


def place_of(node: ir.Node) -> Place:
    """Return the place of a node; one without a name is called by what it writes."""
    return node_place(node.name or f"{node.op_type} of {next((v.name for v in node.outputs if v.name), 'nothing')}")


def every_node(model: ir.Model) -> Iterator[ir.Node]:
    """Yield the nodes of a model, those of bodies and of functions too."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def tensor_place(name: str | None) -> Place:
    """Return the place of a tensor."""
    return Place("tensor", name or "")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, as a check yields it; the check itself adds id, title and severity.

    Attributes:
        message: What is wrong, one sentence without a full stop. It may hold names from the model: they are escaped
            where they are shown.
        where: What it is about, the most telling place first.
        evidence: Numbers and names that prove it, as plain JSON types. Floats that are not finite become text.
        remedy: How to mend this one, where that differs from what the check says in general.
        severity: Where it differs from the check's.
        key: What tells it from other problems of the check at the same places; part of its fingerprint.
        repro: Makes a small model that shows it, where numbers do; called only where such models are asked for.
    """

    message: str
    where: Sequence[Place] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedy: str | None = None
    severity: Severity | None = None
    key: str = ""
    repro: Callable[[], Repro] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Finding:
    """What one check says about one thing.

    Attributes:
        id: Of the check, such as ``"G09"``.
        title: Of the check.
        severity: How grave it is, or would be.
        verdict: ``"fail"``, ``"pass"`` or ``"not_checked"``.
        message: What is wrong; for ``"not_checked"`` the reason.
        where: What it is about; empty for the model as a whole.
        evidence: Numbers and names, plain JSON types.
        remedy: How to mend it; empty where nothing failed.
        cause: Why it was not checked; empty else.
        key: Part of the fingerprint; see :class:`Problem`.
        known: Whether the baseline has it.
    """

    id: str
    title: str
    severity: Severity
    verdict: Verdict
    message: str = ""
    where: tuple[Place, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""
    cause: Cause = ""
    key: str = ""
    known: bool = False

    @property
    def fingerprint(self) -> str:
        """A digest of what was found and where, without the numbers: it stays when a model is trained again."""
        parts = [self.id, self.key, *(part for place in self.where for part in (place.kind, place.name))]
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def as_known(self) -> Finding:
        """Return the finding, marked as one that the baseline has."""
        return replace(self, known=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON types.

        >>> Finding("G05", "duplicate weights", "warning", "pass").to_dict()["verdict"]
        'pass'
        """
        return {
            "id": self.id,
            "title": self.title,
            "severity": self.severity,
            "verdict": self.verdict,
            "message": self.message,
            "where": [{"kind": place.kind, "name": place.name} for place in self.where],
            "evidence": plain(self.evidence),
            "remedy": self.remedy,
            "cause": self.cause,
            "known": self.known,
            "fingerprint": self.fingerprint,
        }

    def line(self) -> str:
        """Return what is wrong and where on one line, escaped."""
        places = [str(place) for place in self.where]
        text = printable(self.message)
        shown = [place for place in places if place.partition(" ")[2] not in text]
        return f"{listed(shown, 3)}: {text}" if shown else text


def plain(value: Any) -> Any:
    """Return evidence as JSON types: numpy numbers become Python's, NaN and infinities become text.

    >>> plain({"largest": float("inf"), "shape": (2, 3)})
    {'largest': 'inf', 'shape': [2, 3]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return str(value)
