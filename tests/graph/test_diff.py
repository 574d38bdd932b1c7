"""The difference between two models, and that nodes find their partners under other names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.graph.diff import diff_graphs
from onnxviz.graph.io import open_model
from onnxviz.graph.model import copy_model


def rename(model: ir.Model) -> ir.Model:
    """Give every node and inner tensor another name, as another exporter would."""
    other = copy_model(model)
    for index, node in enumerate(other.graph):
        node.name = f"node_{index}"
        for place, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"tensor_{index}_{place}"
    return other


def first(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def weights(model: ir.Model) -> None:
    value = first(model, "Conv").inputs[1]
    assert value is not None
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array.reshape(-1)[0] += 1e-3
    value.const_value = ir.tensor(array, name=value.name)


def shape(model: ir.Model) -> None:
    value = first(model, "Gemm").inputs[1]
    assert value is not None
    value.const_value = ir.tensor(np.zeros((18, 4), np.float32), name=value.name)


def attribute(model: ir.Model) -> None:
    first(model, "MaxPool").attributes["strides"] = ir.AttrInt64s("strides", [1, 1])


def operator(model: ir.Model) -> None:
    first(model, "Relu").op_type = "Elu"


CHANGES: dict[str, tuple[Callable[[ir.Model], None], str, tuple[str, ...]]] = {
    "weights": (weights, "Conv", ("w: other values",)),
    "shape": (shape, "Gemm", ("fw: FLOAT 18×3 → FLOAT 18×4",)),
    "attribute": (attribute, "MaxPool", ("strides: 2, 2 → 1, 1",)),
    "operator": (operator, "Elu", ("operator Relu → Elu",)),
}


def test_a_model_and_itself(small_cnn: ir.Model) -> None:
    diff = diff_graphs(small_cnn, copy_model(small_cnn))
    assert diff.equal
    assert str(diff) == "no difference in 5 nodes"
    assert diff.to_dict() == {"equal": True, "matched": 5, "added": [], "removed": [], "changed": [], "interface": []}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_told(change: str, small_cnn: ir.Model) -> None:
    make, op_type, lines = CHANGES[change]
    other = copy_model(small_cnn)
    make(other)
    diff = diff_graphs(small_cnn, other)
    assert not diff.added
    assert not diff.removed
    assert {node.op_type: found for node, found in diff.changes.items()} == {op_type: lines}


def two(body: str, other: str, outputs: str = "float[2] y") -> tuple[ir.Model, ir.Model]:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => (%s) { %s }'
    one, two = (ir.from_onnx_text(text % (outputs, b)) for b in (body, other))
    return one, two


IF = "y = If<then_branch = t () => (float[2] p) {%s}, else_branch = e () => (float[2] q) {q = Abs(x)}>(c)"
LONG = "k = Constant<value = float[12] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, %d}>() s = ReduceSum(k) y = Mul(x, s)"


@pytest.mark.parametrize(
    ("models", "changed", "line"),
    [
        (two("a = Neg(x) b = Abs(x) y = Sub(a, b)", "a = Neg(x) b = Abs(x) y = Sub(b, a)"), "Sub", "input 0: a → b"),
        (two(IF % "p = Neg(x)", IF % "p = Exp(x)"), "If", "then_branch: "),
        (two(IF % "p = LeakyRelu<alpha = 0.5>(x)", IF % "p = LeakyRelu<alpha = 0.6>(x)"), "If", "then_branch: "),
        (two(LONG % 12, LONG % 13), "Constant", "value: FLOAT 12 "),
    ],
)
def test_what_is_easily_missed(models: tuple[ir.Model, ir.Model], changed: str, line: str) -> None:
    """Swapped inputs, something inside a branch, the last value of a constant."""
    diff = diff_graphs(*models)
    found = {node.op_type: lines for node, lines in diff.changes.items()}
    assert found[changed][0].startswith(line)
    assert not diff.equal


def test_the_interface_counts() -> None:
    outputs = "float[2] y, float[2] z"
    before, after = two("y = Neg(x) z = Abs(x)", "y = Neg(x) z = Abs(x)", outputs)
    after.graph.outputs.pop()
    assert diff_graphs(before, after).interface == ("output 'z' is gone",)
    assert not diff_graphs(before, after).equal
    before, after = two("y = Neg(x)", "y = Neg(x)")
    after.graph.inputs[0].shape = ir.Shape([3])
    assert diff_graphs(before, after).interface == ("input 'x': float32 2 → float32 3",)


def test_other_names_are_no_difference(small_cnn: ir.Model) -> None:
    diff = diff_graphs(small_cnn, rename(small_cnn))
    assert diff.equal
    assert [was.op_type for was in diff.pairs.values()] == [node.op_type for node in diff.pairs]


@pytest.mark.parametrize("change", ["weights", "attribute"])
def test_a_change_is_found_under_other_names(change: str, small_cnn: ir.Model) -> None:
    make, op_type, _ = CHANGES[change]
    other = rename(small_cnn)
    make(other)
    diff = diff_graphs(small_cnn, other)
    assert [node.op_type for node in diff.changes] == [op_type]
    assert not diff.added
    assert not diff.removed


def test_added_and_removed_nodes_leave_the_others_matched(small_cnn: ir.Model) -> None:
    other = rename(small_cnn)
    relu = first(other, "Relu")
    assert relu.inputs[0] is not None
    ir.convenience.replace_all_uses_with(relu.outputs[0], relu.inputs[0])
    other.graph.remove(relu)
    pool = first(other, "MaxPool")
    extra = ir.node("Tanh", [pool.outputs[0]], name="extra")
    first(other, "Flatten").replace_input_with(0, extra.outputs[0])
    other.graph.insert_after(pool, extra)
    diff = diff_graphs(small_cnn, other)
    assert [node.op_type for node in diff.removed] == ["Relu"]
    assert [node.op_type for node in diff.added] == ["Tanh"]
    assert len(diff.pairs) == 4
    assert all(node.op_type == was.op_type for node, was in diff.pairs.items())
    assert str(diff) == "4 nodes matched: 1 added, 1 removed"


def test_repeats_are_paired_in_order() -> None:
    def chain(count: int, prefix: str) -> ir.Model:
        body = " ".join(f"{prefix}{i + 1} = Relu({prefix}{i})" for i in range(count)).replace(f"({prefix}0)", "(x)")
        return ir.from_onnx_text(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] {prefix}{count}) {{ {body} }}'
        )

    diff = diff_graphs(chain(5, "a"), chain(7, "b"))
    assert len(diff.pairs) == 5
    assert len(diff.added) == 2
    assert not diff.changes


@pytest.mark.corpus
def test_corpus_models_differ_from_themselves_in_nothing_and_from_a_renamed_copy_in_nothing(corpus: Path) -> None:
    seen = 0
    for path in sorted((corpus / "models").glob("*/*.onnx")):
        if path.parent.name == "adversarial" or path.stat().st_size > 20_000_000:
            continue
        try:
            model = open_model(path)
        except Exception:  # noqa: BLE001 - some are damaged on purpose
            continue
        if not 1 < model.graph.num_nodes() < 1000:
            continue
        assert diff_graphs(model, copy_model(model)).equal, path.name
        other = diff_graphs(model, rename(model))
        assert not other.added, path.name
        assert not other.removed, path.name
        seen += 1
    assert seen > 30
