"""The tree of levels: what lies where, and that no wire is lost on its way through the borders."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz.diagram.elements import collect_elements
from onnxviz.diagram.hierarchy import Tree, build_tree
from onnxviz.errors import OnnxvizError
from onnxviz.graph.io import open_model
from onnxviz.graph.scopes import scope_name, scopes
from onnxviz.graph.shapes import infer_shapes


def tree_of(text: str, names: dict[str, str] | None = None) -> Tree:
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    for node in model.graph:
        node.name = (names or {}).get(node.outputs[0].name or "", node.name)
    return build_tree(model, collect_elements(model), scopes(model.graph))


def label(tree: Tree, index: int) -> str:
    element = tree.elements[index]
    if element.members is not None:
        return scope_name(element.members.scope)
    if element.node is not None:
        return str(element.node.outputs[0].name)
    return f"{element.role} {element.value.name}" if element.value is not None else element.role


def wires(tree: Tree, owner: int) -> set[tuple[str, str]]:
    level = tree.levels[owner]
    names = [label(tree, member) for member in level.members]
    names += [f"{element.role} {element.value.name}" for element in level.boxes.elements[len(names) :]]  # type: ignore[union-attr]
    return {(names[wire.source], names[wire.target]) for wire in level.boxes.wires}


def owner(tree: Tree, name: str) -> int:
    return next(index for index in tree.levels if index >= 0 and label(tree, index) == name)


NESTED = "g (float[2] x) => (float[2] z) {a = Neg(x) b = Abs(a) c = Relu(b) d = Add(c, a) z = Neg(d)}"
NAMES = {"a": "/enc/one/Neg", "b": "/enc/two/Abs", "c": "/enc/two/Relu", "d": "/enc/Add", "z": "/dec/Neg"}


def test_a_wire_passes_the_border_of_every_group_around_its_ends() -> None:
    tree = tree_of(NESTED, NAMES)
    assert wires(tree, -1) == {("input x", "enc"), ("enc", "z"), ("z", "output z")}
    assert wires(tree, owner(tree, "enc")) == {
        ("entry x", "a"), ("a", "enc/two"), ("a", "d"), ("enc/two", "d"), ("d", "exit d"),
    }  # fmt: skip
    assert wires(tree, owner(tree, "enc/two")) == {("entry a", "b"), ("b", "c"), ("c", "exit c")}
    assert [label(tree, i) for i in tree.levels if i >= 0] == ["enc", "enc/two"]  # "one" and "dec" hold one node


def test_what_all_nodes_share_is_no_group() -> None:
    tree = tree_of(NESTED, {key: f"/model{name}" for key, name in NAMES.items()})
    assert ("input x", "model/enc") in wires(tree, -1)


def test_a_group_that_is_left_and_entered_again_is_taken_apart() -> None:
    names = {"a": "/enc/one/Neg", "b": "/enc/two/Abs", "c": "/enc/two/Relu", "d": "/enc/one/Add"}
    tree = tree_of(NESTED, names)
    inside = wires(tree, owner(tree, "enc"))
    assert {("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")} <= inside


def test_bodies_are_levels_with_what_they_read_of_the_outside() -> None:
    tree = tree_of("""g (float[2] x, bool p) => (float[2] y) {
        h = Neg(x)
        y = If (p) <then_branch = t () => (float[2] t1) {t0 = Abs(h) t1 = Relu(t0)},
                    else_branch = e () => (float[2] e1) {e1 = Identity(x)}>
    }""")
    node = next(i for i, element in enumerate(tree.elements) if label(tree, i) == "y" and element.node is not None)
    assert {label(tree, member) for member in tree.levels[node].members} == {"then", "else"}
    assert wires(tree, owner(tree, "then")) == {("entry h", "t0"), ("t0", "t1"), ("t1", "output t1")}
    assert ("entry x", "else") in wires(tree, node)
    flow = {(label(tree, a), label(tree, b)) for a, b in tree.flow}
    assert {("h", "t0"), ("output t1", "y"), ("y", "output y")} <= flow


def test_entries_come_before_exits() -> None:
    tree = tree_of(NESTED, NAMES)
    for level in tree.levels.values():
        roles = [element.role for element in level.boxes.elements[len(level.members) :]]
        assert roles == sorted(roles, key=["entry", "exit"].index)
        assert level.entries == roles.count("entry")


@pytest.mark.corpus
def test_every_wire_of_the_corpus_is_found_again(corpus: Path) -> None:
    """Whatever a node reads reaches it on its own level, from its producer or from an entry."""
    checked = 0
    for path in sorted((corpus / "models").glob("*/*.onnx")):
        if path.parent.name == "adversarial" and path.name.startswith(("big", "nest")):
            continue
        try:
            model = infer_shapes(open_model(path))
        except OnnxvizError:
            continue
        found = collect_elements(model)
        tree = build_tree(model, found, scopes(model.graph))
        assert_wires_kept(tree, {(wire.value, wire.target) for wire in found.wires})
        checked += 1
    assert checked > 100


def assert_wires_kept(tree: Tree, wanted: set[tuple[ir.Value, int]]) -> None:
    arrived = {
        (wire.value, level.members[wire.target])
        for level in tree.levels.values()
        for wire in level.boxes.wires
        if wire.target < len(level.members)
    }
    assert wanted <= arrived


def test_a_lost_wire_is_noticed() -> None:
    tree = tree_of(NESTED, NAMES)
    model = tree.elements
    wanted = {(wire.value, tree.levels[-1].members[wire.target]) for wire in tree.levels[-1].boxes.wires}
    assert model
    assert_wires_kept(tree, wanted)
    tree.levels[-1].boxes.wires.pop()
    with pytest.raises(AssertionError):
        assert_wires_kept(tree, wanted)
