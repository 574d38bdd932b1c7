"""What the node tests say of each operator and version: ``python -m tests.gradient.coverage OUT.tsv`` writes it."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.gradient.node_cases import Outcome, cases, check

HEADER = "operator\tversion\tpass\trefused\tno gradient\twhy not\n"


def table(outcomes: Iterable[Outcome]) -> str:
    """Return a line an operator and version: how many cases pass, are refused, or have no gradient, and why."""
    counts: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    reasons: dict[tuple[str, int], set[str]] = defaultdict(set)
    for outcome in outcomes:
        place = outcome.op_type, outcome.version
        counts[place][outcome.status] += 1
        if outcome.status != "pass":
            reasons[place].add(_reason(outcome.detail))
    lines = []
    for op_type, version in sorted(counts):
        numbers = [str(counts[op_type, version][status]) for status in ("pass", "refused", "cut")]
        lines.append("\t".join([op_type, str(version), *numbers, "; ".join(sorted(reasons[op_type, version]))]))
    return HEADER + "".join(f"{line}\n" for line in lines)


def _reason(detail: str) -> str:
    text = detail.removesuffix("; --allow-cut goes on without the paths through it")
    if "all paths are cut (" in text:
        text = text.split("all paths are cut (")[1].removesuffix(")").split(": ", 1)[-1]
    elif "': " in text:
        text = text.split("': ", 1)[1]
    return text.split("; ")[0]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table(check(case) for case in cases()), encoding="utf-8")
