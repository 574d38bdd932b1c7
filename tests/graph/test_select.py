from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.select import select


def names(model: ir.Model, *patterns: str) -> list[str | None]:
    return [value.name for value in select(model, patterns)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("*",), ["c", "r", "p", "f", "y"]),
        (("c",), ["c"]),
        (("conv1",), ["c"]),  # by the name of its node
        (("*1",), ["c", "r", "p", "y"]),
        (("[cr]",), ["c", "r"]),
        (("op:Conv",), ["c"]),
        (("op:*Pool",), ["p"]),
        (("Relu",), ["r"]),  # a bare type, as nothing has that name
        (("@conv",), ["c"]),
        (("@pool", "@linear"), ["p", "y"]),
        (("y", "c"), ["c", "y"]),  # the graph's order, not the patterns'
        (("*", "!@shape"), ["c", "r", "p", "y"]),
        (("!c",), ["r", "p", "f", "y"]),
    ],
)
def test_patterns(small_cnn: ir.Model, patterns: tuple[str, ...], expected: list[str]) -> None:
    assert names(small_cnn, *patterns) == expected


def test_a_name_that_looks_like_a_glob_is_taken_literally() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {a = Relu(x) y = Neg(a)}'
    )
    model.graph.node(0).outputs[0].name = "a[0]"
    assert names(model, "a[0]") == ["a[0]"]


def test_names_that_look_like_patterns() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {a = Relu(x) y = Neg(a) z = Abs(y)}'
    )
    model.graph.node(0).outputs[0].name = "!neg"
    model.graph.node(1).outputs[0].name = "*"
    assert names(model, "!neg") == ["!neg"]
    assert names(model, "*") == ["!neg", "*", "z"]


def test_a_tensor_in_a_body_is_said_to_lie_there() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] n)'
        "{ n = Neg(x) }, else_branch = e () => (float[2] m) { m = Abs(x) }> }"
    )
    with pytest.raises(SelectionError, match="body of an If, Loop or Scan"):
        select(model, "n")


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("conv2", "nearest names are conv1"),
        ("POOL*", "nearest names are .*pool1"),
        ("op:Gru", "op types are Conv, Flatten"),
        ("@attention", "this model has @activation, @conv"),
        ("@nonsense", "the kinds are @conv"),
    ],
)
def test_nothing_found_names_what_is_near(small_cnn: ir.Model, pattern: str, hint: str) -> None:
    with pytest.raises(SelectionError, match=hint):
        select(small_cnn, pattern)


def test_an_operator_has_one_kind() -> None:
    every = [op for ops in KINDS.values() for op in ops]
    assert sorted(op for op in set(every) if every.count(op) > 1) == []
