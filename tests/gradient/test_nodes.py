"""onnx's own node tests, in all versions: none is wrong, nearly all that have a gradient pass, the rest say why not."""

from __future__ import annotations

from collections import Counter

import pytest

from onnxviz.gradient.coverage import Covered, coverage, matrix
from onnxviz.gradient.registry import standard_table
from tests.gradient.coverage import FILE, every_case, rows, text
from tests.gradient.node_cases import Outcome, cases, check
from tests.gradient.version_cases import own_cases, versions

EVERY = 9  # of which the default suite checks one


def listed(outcomes: list[Outcome], *statuses: str) -> list[str]:
    return [f"{o.status} {o.op_type}-{o.version} {o.name}: {o.detail}" for o in outcomes if o.status in statuses]


def test_a_spread_of_the_node_tests() -> None:
    outcomes = [check(case) for case in list(cases())[::EVERY]]
    assert len(outcomes) > 90
    assert not listed(outcomes, "wrong", "failed")


@pytest.mark.slow
def test_all_cases_and_the_table_that_the_package_carries() -> None:
    outcomes = [check(case) for case in every_case()]
    assert not listed(outcomes, "wrong", "failed")
    counts = Counter(outcome.status for outcome in outcomes)
    assert counts["pass"] > 1500
    differentiable = counts["pass"] + counts["refused"]
    assert counts["pass"] >= 0.95 * differentiable, listed(outcomes, "refused")
    assert all(outcome.detail for outcome in outcomes if outcome.status != "pass")
    assert text(rows(outcomes)) == FILE.read_text(encoding="utf-8"), "python -m tests.gradient.coverage"


def test_the_table_says_of_a_spread_of_our_own_cases_what_they_say() -> None:
    outcomes = [check(case) for case in list(own_cases())[::3]]
    assert not listed(outcomes, "wrong", "failed")
    known = {(row.domain, row.operator, row.version): row for row in coverage()}
    for row in rows(outcomes):
        if row.cases_pass + row.cases_refused + row.cases_no_gradient:
            written = known[row.domain, row.operator, row.version]
            assert (written.how, written.cases_pass >= row.cases_pass) == (row.how, True), row
            assert written.cases_refused >= row.cases_refused, row


def test_a_row_that_no_test_stands_behind_is_seen() -> None:
    made = {(r.operator, r.version): r for r in rows([Outcome("a", "Celu", 12, "refused", "it is 'y': alpha; hint")])}
    assert (made["Celu", 12].status, made["Celu", 12].why) == ("refused", "alpha")
    assert made["Exp", 13].status == "untested"
    assert made["Shape", 13].status == "no gradient"


def test_every_version_of_every_operator_is_told_and_none_is_untested() -> None:
    import onnx

    known = {(row.domain, row.operator, row.version): row for row in coverage()}
    for schema in onnx.defs.get_all_schemas_with_history():
        place = schema.domain or "ai.onnx", schema.name, schema.since_version
        if schema.since_version in versions(schema.name, schema.domain) and not schema.deprecated:
            assert place in known
    assert not [row for row in known.values() if row.status == "untested"]
    assert all(row.why for row in known.values() if row.status != "pass")
    assert all(row.cases_pass for row in known.values() if row.status == "pass")


def test_the_matrix_has_a_column_an_opset() -> None:
    lines = matrix((
        Covered("ai.onnx", "Abs", 6, "pass", "rule", 1, 0, 0, "", ""),
        Covered("ai.onnx", "Abs", 9, "refused", "rule", 0, 1, 0, "", "why"),
        Covered("com.microsoft", "Gelu", 1, "pass", "rule", 1, 0, 0, "", ""),
    )).splitlines()  # fmt: skip
    assert [line.split() for line in lines] == [
        ["ai.onnx"], ["7", "8", "9"], ["Abs", "+", ".", "x"], [], ["com.microsoft"], ["Gelu", "+"],
    ]  # fmt: skip


def test_the_matrix_is_narrower_than_a_terminal() -> None:
    lines = matrix(coverage()).splitlines()
    assert max(map(len, lines)) < 80
    tens, ones = (line[24:] for line in lines[:2])
    assert [int(tens[i - 1 : i + 1].replace(" ", "") + ones[i]) for i in range(1, len(ones), 2)][:5] == [
        7,
        8,
        9,
        10,
        11,
    ]


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
