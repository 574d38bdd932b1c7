"""onnx's own node tests: none is wrong, nearly all that have a gradient pass, the rest say why they do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from onnxviz.gradient.registry import standard_table
from tests.gradient.coverage import table
from tests.gradient.node_cases import Outcome, cases, check

COVERAGE = Path(__file__).parents[2] / "docs" / "gradient_coverage.tsv"
EVERY = 9  # of which the default suite checks one


def listed(outcomes: list[Outcome], *statuses: str) -> list[str]:
    return [f"{o.status} {o.op_type}-{o.version} {o.name}: {o.detail}" for o in outcomes if o.status in statuses]


def test_a_spread_of_the_node_tests() -> None:
    outcomes = [check(case) for case in list(cases())[::EVERY]]
    assert len(outcomes) > 90
    assert not listed(outcomes, "wrong", "failed")


@pytest.mark.slow
def test_all_node_tests() -> None:
    outcomes = [check(case) for case in cases()]
    assert not listed(outcomes, "wrong", "failed")
    counts = Counter(outcome.status for outcome in outcomes)
    assert counts["pass"] > 700
    differentiable = counts["pass"] + counts["refused"]
    assert counts["pass"] >= 0.95 * differentiable, listed(outcomes, "refused")
    assert all(outcome.detail for outcome in outcomes if outcome.status != "pass")
    assert table(outcomes) == COVERAGE.read_text(encoding="utf-8"), (
        "python -m tests.gradient.coverage docs/gradient_coverage.tsv"
    )


@pytest.mark.parametrize("op_type", ["Tanh", "MatMul", "Gather", "Concat", "SoftmaxCrossEntropyLoss", "Pad"])
def test_a_rule_off_by_a_thousandth_is_wrong(op_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxviz.gradient import registry

    rows = registry.standard_table().rows["", op_type]

    def off(right: registry.Rule) -> registry.Rule:
        def rule(s: registry.Step, *grads: object) -> registry.Grads:
            made = right(s, *grads)
            return tuple(
                None if grad is None else s.ops.Mul(grad, s.ops.scalar(1.003, grad))
                for grad in (made if isinstance(made, tuple) else (made,))
            )

        return rule

    wrong = [registry.Row(row.since, off(row.rule), row.broadcasts, row.inner) for row in rows]
    found = [case for case in cases() if case.model.graph.node[0].op_type == op_type][:3]
    assert all(check(case).status == "pass" for case in found)
    monkeypatch.setitem(registry.standard_table().rows, ("", op_type), wrong)
    assert "wrong" in {check(case, tolerance=1e-3).status for case in found}


def test_every_operator_of_the_newest_opset_has_a_rule_a_body_or_a_reason() -> None:
    import onnx

    from onnxviz.gradient.fused import EXPANSIONS

    newest = {s.name: s for s in onnx.defs.get_all_schemas() if not s.domain and not s.deprecated}
    known, rules = standard_table(), standard_table().rows
    left = [
        name
        for name, schema in newest.items()
        if ("", name) not in rules and ("", name) not in known.none and ("", name) not in EXPANSIONS
        and not (schema.has_function or schema.has_context_dependent_function)
    ]  # fmt: skip
    assert sorted(left) == [
        "Optional",
        "SequenceConstruct",
        "SequenceErase",
        "SequenceInsert",
        "SplitToSequence",
    ]
