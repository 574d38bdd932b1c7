"""The table of gradient rules: a row an operator, with a rule a version."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import onnx_ir as ir

from onnxviz.gradient.method import Method
from onnxviz.gradient.step import Step

__all__ = ["SHAPE_ONLY", "Grads", "Row", "Rule", "Table", "gradient", "no_gradient", "standard_table"]

#: Why an operator has no gradient that reads nothing but the shape of its input: such a path is none, so no cut.
SHAPE_ONLY = "it reads the shape alone"

#: What a rule returns: the gradient of each input, None where there is none; a bare value is that of the first input.
Grads = ir.Value | tuple[ir.Value | None, ...] | None
#: Gets the step and the gradient of each output (None for one that nothing reads).
Rule = Callable[..., Grads]


@dataclass(frozen=True)
class Row:
    """A rule.

    Attributes:
        since: First version of the operator that it is true of.
        rule: What makes the gradients of the inputs from those of the outputs.
        broadcasts: Whether inputs are broadcast; then the engine sums what the rule returns to their shapes.
        inner: Number of last axes that are not broadcast, such as 2 of a MatMul.
        quantised: Whether it is true of quantised tensors too, whose gradient is that of what they stand for.
    """

    since: int
    rule: Rule
    broadcasts: bool = False
    inner: int = 0
    quantised: bool = False


@dataclass
class Table:
    """Rules and the explicit list of what has no gradient.

    Attributes:
        rows: ``(domain, operator)`` -> rules, by version.
        none: ``(domain, operator)`` -> why its gradient is zero or undefined everywhere.
        method: What the rules are rules of.
    """

    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    none: dict[tuple[str, str], str] = field(default_factory=dict)
    method: Method = field(default_factory=Method)

    def find(self, node: ir.Node, version: int) -> Row | None:
        """Return the rule of a node, whose operator has that version."""
        rows = self.rows.get(key(node), ())
        return next((row for row in reversed(rows) if row.since <= version), None)

    def reason(self, node: ir.Node) -> str | None:
        """Return why a node has no gradient; None where it may have one."""
        return self.none.get(key(node))

    def changed(self, rules: Mapping[tuple[str, str], Rule]) -> Table:
        """Return a table in which some operators have other rules, as guided backpropagation needs."""
        rows = {**self.rows, **{name: [Row(1, rule)] for name, rule in rules.items()}}
        return Table(rows, {name: why for name, why in self.none.items() if name not in rules}, self.method)


_TABLE = Table()


def key(node: ir.Node) -> tuple[str, str]:
    """Return what a node is looked up by."""
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def gradient(
    *op_types: str,
    since: int = 1,
    domain: str = "",
    broadcasts: bool = False,
    inner: int = 0,
    quantised: bool = False,
) -> Callable[[Rule], Rule]:
    """Enter a rule into the table: a decorator."""

    def enter(rule: Rule) -> Rule:
        for op_type in op_types:
            rows = _TABLE.rows.setdefault((domain, op_type), [])
            rows.append(Row(since, rule, broadcasts, inner, quantised))
            rows.sort(key=lambda row: row.since)
        return rule

    return enter


def no_gradient(why: str, *op_types: str, domain: str = "") -> None:
    """Enter operators into the list of what has no gradient."""
    _TABLE.none |= {(domain, op_type): why for op_type in op_types}


@cache
def standard_table() -> Table:
    """Return the table of true gradients, with all rules loaded."""
    rules = importlib.import_module("onnxviz.gradient.rules")
    for module in pkgutil.iter_modules(rules.__path__):
        importlib.import_module(f"{rules.__name__}.{module.name}")
    return _TABLE


def one(step: Step, made: Grads) -> tuple[ir.Value | None, ...]:
    """Return what a rule made as a tuple with an entry an input."""
    entries = made if isinstance(made, tuple) else (made,)
    return entries + (None,) * (len(step.node.inputs) - len(entries))
