"""The page of checks says what the checks say, and its examples are right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from onnxviz.checks.registry import FAMILIES, Check, all_checks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/checks.md").read_text(encoding="utf-8")


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("make_checks", ROOT / "docs/make_checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    assert generator().page(PAGE) == PAGE, "run python docs/make_checks.py"


def test_an_outdated_page_is_noticed() -> None:
    assert generator().page(PAGE.replace("### G05", "### G5")) != PAGE.replace("### G05", "### G5")


CHECKS = [one for one in all_checks()[0] if one.function.__module__ in FAMILIES]


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.id)
def test_links_of_the_table_lead_to_a_paragraph(one: Check) -> None:
    (anchor,) = re.findall(rf"\| \[{one.id}\]\(#([^)]+)\)", PAGE)
    headings = [heading.lower() for heading in re.findall(r"^### (.*)$", PAGE, flags=re.M)]
    assert anchor in [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings]


def test_the_example_is_a_check() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)[0]
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["too_many_layers"].id == "ACME01"
