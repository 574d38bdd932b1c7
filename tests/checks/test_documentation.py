"""The page of checks says what the checks say, and its examples are right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from onnxviz.checks.registry import FAMILIES, Check, all_checks
from onnxviz.cli import app

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


def unknown_options(page: str) -> list[str]:
    """Return the options in the examples of a page that their verb does not have."""
    verbs = {str(name): verb for name, verb in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", page, flags=re.S))
    wrong = []
    for verb, rest in re.findall(r"onnxviz (check|compare) ([^\n]*)", blocks):
        known = {option for one in verbs[verb].params for option in one.opts}
        wrong += [option for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest) if option not in known]
    return wrong


@pytest.mark.parametrize("name", ["checks.md", "compare.md"])
def test_options_in_the_examples_exist(name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert "onnxviz " in page
    assert unknown_options(page) == []
    assert unknown_options(page + "\n```\nonnxviz check m.onnx --nonsense\n```\n") == ["--nonsense"]


def test_the_example_is_a_check() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)[0]
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["too_many_layers"].id == "ACME01"
