"""Which operators have a gradient, version by version: what the tests found, as the package carries it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from importlib import resources
from itertools import groupby

__all__ = ["HEADER", "STATUSES", "Covered", "coverage", "matrix"]

HEADER = (
    "domain", "operator", "version", "status", "how", "cases_pass", "cases_refused", "cases_no_gradient",
    "second_opinion", "why",
)  # fmt: skip
#: Status -> its sign in a matrix, and what it means.
STATUSES = {
    "pass": ("+", "every case has the gradient that differences of the outputs show"),
    "partly": ("o", "so have some cases; the others are refused, with the reason"),
    "refused": ("x", "an error that names it; --allow-cut goes on without its paths"),
    "no gradient": ("-", "its gradient is zero or undefined; what it cuts is reported"),
    "untested": ("?", "no case of it ran"),
}
_FIRST = 7
_WIDTH = 24


@dataclass(frozen=True)
class Covered:
    """What is known of the gradient of one version of an operator.

    Attributes:
        domain: Such as ``ai.onnx``.
        operator: Its name.
        version: The opset in which it came or last changed.
        status: One of :data:`STATUSES`.
        how: Where the gradient comes from: ``rule``, ``function body`` (ONNX's own), ``expansion``, or nothing.
        cases_pass: Cases whose gradient agrees with central differences.
        cases_refused: Cases that are refused by name.
        cases_no_gradient: Cases that have no gradient.
        second_opinion: Another implementation that agrees on graphs with this operator.
        why: The reasons of those that do not pass.
    """

    domain: str
    operator: str
    version: int
    status: str
    how: str
    cases_pass: int
    cases_refused: int
    cases_no_gradient: int
    second_opinion: str
    why: str

    def cells(self) -> tuple[str | int, ...]:
        """Return the fields in the order of :data:`HEADER`."""
        return astuple(self)


def coverage() -> tuple[Covered, ...]:
    """Return what the tests found, a row for each version of each operator, by domain, name and version.

    >>> [(row.version, row.status, row.how) for row in coverage() if row.operator == "Celu"]
    [(12, 'pass', 'rule'), (28, 'pass', 'rule')]
    """
    lines = resources.files("onnxviz.gradient").joinpath("coverage.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(_row(line.split("\t")) for line in lines[1:])


def _row(cells: list[str]) -> Covered:
    domain, operator, version, status, how, passed, refused, none, second, why = cells
    return Covered(domain, operator, int(version), status, how, int(passed), int(refused), int(none), second, why)


def matrix(rows: tuple[Covered, ...]) -> str:
    """Return the rows as a matrix, a line an operator and a column an opset of the standard operators.

    Opsets are written downwards, so that a line has less than 80 letters. The sign of a version stands where it came,
    and dots as long as it is in force; signs are those of :data:`STATUSES`. Operators of other domains have the sign of
    their newest version and no columns.

    >>> print(matrix(tuple(row for row in coverage() if row.operator == "Celu")))
    ai.onnx                        1 1 1 1 1 1 1 1 1 1 2 2 2 2 2 2 2 2 2
                             7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8
    Celu                               + . . . . . . . . . . . . . . . +
    """
    newest = max((row.version for row in rows if row.domain == "ai.onnx"), default=_FIRST)
    lines: list[str] = []
    for domain, group in groupby(rows, lambda row: row.domain):
        standard = domain == "ai.onnx"
        columns = range(_FIRST, newest + 1) if standard else range(0)
        lines += [""] * bool(lines) + [f"{domain:<{_WIDTH}}" + "".join(f"{opset // 10 or ' ':>2}" for opset in columns)]
        lines += [" " * _WIDTH + "".join(f"{opset % 10:2}" for opset in columns)] if standard else []
        for operator, versions in groupby(group, lambda row: row.operator):
            known = list(versions)
            cells = _cells(known, columns) if standard else f" {STATUSES[known[-1].status][0]}"
            lines.append(f"{operator:<{_WIDTH}} {cells[1:]}".rstrip() if len(operator) >= _WIDTH else
                         f"{operator:<{_WIDTH}}{cells}".rstrip())  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def _cells(rows: list[Covered], opsets: range) -> str:
    """Return a cell of two letters for each opset."""
    cells = []
    for opset in opsets:
        row = next((row for row in reversed(rows) if row.version <= opset), None)
        starts = row is not None and (row.version == opset or opset == opsets[0])
        cells.append("" if row is None else STATUSES[row.status][0] if starts else ".")
    return "".join(f"{cell:>2}" for cell in cells)
