"""What the cases say of each operator and version: ``python -m tests.gradient.coverage`` writes the package's table."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx

from onnxviz.gradient.coverage import HEADER, Covered
from onnxviz.gradient.fused import EXPANSIONS
from onnxviz.gradient.registry import standard_table
from tests.gradient.node_cases import FLOATS, Outcome, cases, check
from tests.gradient.second_opinion import operators
from tests.gradient.version_cases import older_cases, own_cases, versions

FILE = Path(__file__).parents[2] / "onnxviz" / "gradient" / "coverage.tsv"
_FLOATS = {f"tensor({onnx.TensorProto.DataType.Name(kind).lower()})" for kind in FLOATS}
#: Operators that hold other graphs or sequences: what they take says nothing of floating point.
_HOLDERS = {"If", "Loop", "Scan", "ConcatFromSequence", "SequenceAt", "SequenceErase", "SequenceMap"}


def every_case() -> Iterator[Any]:
    """Yield all cases: onnx's node tests, the same in older versions, and our own."""
    found = list(cases())
    yield from found
    yield from older_cases(found)
    yield from own_cases()


def rows(outcomes: Iterable[Outcome]) -> list[Covered]:
    """Return a row for each version of each operator, cases or not."""
    counts: dict[tuple[str, str, int], Counter[str]] = defaultdict(Counter)
    reasons: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for outcome in outcomes:
        place = outcome.domain, outcome.op_type, outcome.version
        counts[place][outcome.status] += 1
        if outcome.status != "pass":
            reasons[place].add(_reason(outcome.detail))
    second = operators()
    return [
        _row(place, counts[place], reasons[place], "onnx-ad" if place in second and counts[place]["pass"] else "")
        for place in sorted({*counts, *_standard()})
    ]


def text(rows: Iterable[Covered]) -> str:
    """Return the table as the package holds it."""
    return "\t".join(HEADER) + "\n" + "".join("\t".join(map(str, row.cells())) + "\n" for row in rows)


def _standard() -> Iterator[tuple[str, str, int]]:
    """Yield every operator and version of the domains that onnx defines, from opset 7 on."""
    for domain, name in {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}:
        for version in versions(name, domain):
            if not _schema(domain, name, version).deprecated:
                yield domain, name, version
    for domain, name in (*standard_table().rows, *EXPANSIONS):
        if domain:
            yield domain, name, 1


def _schema(domain: str, name: str, version: int) -> Any:
    return onnx.defs.get_schema(name, version, domain)


def _row(place: tuple[str, str, int], counts: Counter[str], why: set[str], second: str) -> Covered:
    domain, name, version = place
    table = standard_table()
    none = table.none.get((domain, name))
    passed, refused, cut = (counts[status] for status in ("pass", "refused", "cut"))
    if none is not None:
        status, why = "no gradient", {none}
    elif passed:
        status = "partly" if refused else "pass"
    elif refused:
        status = "refused"
    elif cut or not _takes_and_gives_floats(domain, name, version):
        status, why = "no gradient", why or {"it has no input or no result of floating point"}
    else:
        status = "untested"
    return Covered(domain or "ai.onnx", name, version, status, _how(domain, name, version), passed, refused, cut,
                   second, "; ".join(sorted(why)))  # fmt: skip


def _how(domain: str, name: str, version: int) -> str:
    """Return where the gradient comes from."""
    if any(row.since <= version for row in standard_table().rows.get((domain, name), ())):
        return "rule"
    if (domain, name) in EXPANSIONS:
        return "expansion"
    if domain == "com.microsoft":
        return ""
    schema = _schema(domain, name, version)
    return "function body" if schema.has_function or schema.has_context_dependent_function else ""


def _takes_and_gives_floats(domain: str, name: str, version: int) -> bool:
    if name in _HOLDERS or domain == "com.microsoft":
        return True
    schema = _schema(domain, name, version)
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}

    def floats(formals: Any) -> bool:
        types = [kind for formal in formals for kind in allowed.get(formal.type_str, {formal.type_str})]
        return any(inner in kind for kind in types for inner in _FLOATS)

    return floats(schema.inputs) and floats(schema.outputs)


def _reason(detail: str) -> str:
    text = detail.removesuffix("; --allow-cut goes on without the paths through it")
    if "all paths are cut (" in text:
        text = text.split("all paths are cut (")[1].removesuffix(")").split(": ", 1)[-1]
    elif "': " in text:
        text = text.split("': ", 1)[1]
    elif "which lies on the path" in text:
        text = "there is no gradient rule for it"
    return text.split("; ")[0].replace("\t", " ")


if __name__ == "__main__":
    outcomes = [check(case) for case in every_case()]
    for bad in [o for o in outcomes if o.status in ("wrong", "failed")]:
        sys.stderr.write(f"{bad.status} {bad.domain} {bad.op_type}-{bad.version} {bad.name}: {bad.detail}\n")
    FILE.write_text(text(rows(outcomes)), encoding="utf-8")
