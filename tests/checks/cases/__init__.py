"""For each check, a model with the planted defect and a clean twin: ``CASES`` of every module in this folder."""

from __future__ import annotations

import importlib
import pkgutil

from tests.checks.cases.given import Case

__all__ = ["CASES", "Case"]

CASES: dict[str, Case] = {}
for _module in pkgutil.iter_modules(__path__):
    for _id, _case in getattr(importlib.import_module(f"{__name__}.{_module.name}"), "CASES", {}).items():
        assert _id not in CASES, f"two cases of {_id}"
        CASES[_id] = _case
