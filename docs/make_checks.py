"""Write the part of the page of checks that follows from the checks themselves: ``python docs/make_checks.py``."""

from __future__ import annotations

from pathlib import Path

from onnxviz.checks.registry import FAMILIES, Check, all_checks

__all__ = ["page"]

PAGE = Path(__file__).resolve().parent / "checks.md"
START, END = "<!-- from here on: docs/make_checks.py -->\n", "<!-- to here -->\n"


def _own(checks: tuple[Check, ...]) -> list[Check]:
    """Return the checks of onnxviz, not those of other packages that are installed here."""
    return [one for one in checks if one.function.__module__ in FAMILIES]


def _paragraph(one: Check) -> str:
    needs = ", ".join(need.name.lower() for need in one.needs if need.name) or "a file"
    about = f"*{one.severity}; needs: {needs}.* {one.what} {one.why}"
    mended = f"**To mend it:** {one.remedy} **False positives:** {one.false_positives}"
    return f"### {one.id}: {one.title}\n\n{about} {mended}\n"


def page(text: str) -> str:
    """Return the page with its generated part made anew."""
    checks = _own(all_checks()[0])
    table = ["| id | severity | finds | runs the model |", "|---|---|---|---|"]
    table += [
        f"| [{c.id}](#{_anchor(c)}) | {c.severity} | {c.title} | {'yes' if c.needs.runs else 'no'} |" for c in checks
    ]
    made = "\n".join([*table, "", *(_paragraph(one) for one in checks)])
    head, _, rest = text.partition(START)
    return f"{head}{START}\n{made}\n{END}{rest.partition(END)[2]}"


def _anchor(one: Check) -> str:
    kept = "".join(c for c in f"{one.id} {one.title}".lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
