"""Folded groups in the drawing: what is left, what connects, what is said."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxviz.diagram.architecture import Architecture, architecture
from onnxviz.graph.provenance import Provenance, set_provenance
from tests.diagram.scene_geometry import faults


def residual(blocks: int = 3) -> ir.Model:
    """Blocks with a skip connection each, and one from the first to the last."""
    nodes, x = [], "x"
    for i in range(blocks):
        nodes.append(f"c{i} = Conv(x{i}, w{i}) r{i} = Relu(c{i}) x{i + 1} = Add(r{i}, x{i})".replace("x0", "x"))
        x = f"x{i + 1}"
    weights = ", ".join(f"float[2, 2, 1, 1] w{i} = {{1, 2, 3, 4}}" for i in range(blocks))
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 17]> net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
        <{weights}> {{ {" ".join(nodes)} y = Mul({x}, x1) }}"""
    )
    for index, node in enumerate(list(model.graph)[:-1]):
        part = ("conv", "act", "add")[index % 3]
        set_provenance(node, Provenance(f"stage.{index // 3}.{part}", f"net.{part}"))
    return model


def ids(drawing: Architecture) -> list[str]:
    return [node.id for node in drawing.network.nodes]


def test_a_group_is_one_block_and_its_inner_wires_are_gone() -> None:
    drawing = architecture(residual(), depth=2)
    assert ids(drawing) == [
        "input-x", *(i for i in ids(drawing) if i.startswith("group-")), "node-y", "output-y"
    ]  # fmt: skip
    names = [node.name for node in drawing.network.nodes if node.role == "group"]
    assert names == ["stage/0", "stage/1", "stage/2"]
    edges = [(edge.source.split("-")[0], edge.tensor, edge.target.split("-")[0]) for edge in drawing.network.edges]
    assert edges == [
        ("input", "x", "group"), ("group", "x1", "group"), ("group", "x2", "group"), ("group", "x3", "node"),
        ("group", "x1", "node"), ("node", "y", "output"),
    ]  # fmt: skip


def test_the_block_says_what_it_holds() -> None:
    drawing = architecture(residual(), depth=2)
    (block, *_) = [node for node in drawing.network.nodes if node.role == "group"]
    assert block.lines == ("stage/0", "4 params", "Conv · Relu · Add", "3 nodes")
    assert block.parameters == 4
    tooltip = next(group.tooltip for group in drawing.scene.groups if group.id == block.id)
    assert "3 nodes, 4 parameters" in tooltip


def test_one_group_and_a_depth_beyond_the_models_own() -> None:
    assert [node.role for node in architecture(residual(), depth=1).network.nodes] == [
        "input",
        "group",
        "node",
        "output",
    ]
    flat = architecture(residual())
    assert ids(architecture(residual(), depth=4)) == ids(flat)
    assert ids(architecture(residual(), depth=1, unfold=["stage", "stage/*"])) == ids(flat)
    some = architecture(residual(), fold=["stage/1"])
    assert sum(node.role == "group" for node in some.network.nodes) == 1
    assert len(some.network.nodes) == len(flat.network.nodes) - 2


def test_shared_weights_count_once() -> None:
    model = residual(2)
    first, second = (model.graph.initializers[name] for name in ("w0", "w1"))
    for node, index in list(second.uses()):
        node.replace_input_with(index, first)
    drawing = architecture(model, depth=1)
    assert next(node.parameters for node in drawing.network.nodes if node.role == "group") == 4


def test_a_group_that_is_left_and_entered_again_is_taken_apart() -> None:
    model = residual()
    set_provenance(model.graph[4], Provenance("elsewhere"))  # in the middle of stage 1
    drawing = architecture(model, depth=2)
    assert [node.name for node in drawing.network.nodes if node.role == "group"] == ["stage/0", "stage/2"]
    assert not any(edge.stub for edge in drawing.network.edges)
    assert faults(drawing.scene) == []


def test_a_layer_that_is_called_twice_is_no_group() -> None:
    model = residual(2)
    for node in model.graph:
        if node.op_type == "Relu":
            set_provenance(node, Provenance("relu"))
    drawing = architecture(model, depth=1)
    assert [node.op_type for node in drawing.network.nodes].count("Relu") == 2
    assert not any(edge.stub for edge in drawing.network.edges)


def test_parallel_branches_of_one_group_stay_one_block() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
        a = Neg(x) b = Abs(x) y = Add(a, b) }""")
    for node, layer in zip(model.graph, ("heads.0", "heads.1", "sum"), strict=True):
        set_provenance(node, Provenance(layer))
    drawing = architecture(model, depth=1)
    assert [node.name for node in drawing.network.nodes if node.role == "group"] == ["heads"]


@pytest.mark.parametrize("depth", [None, 1, 2, 3])
def test_nothing_overlaps_at_any_depth(depth: int | None) -> None:
    drawing = architecture(residual(8), depth=depth)
    assert faults(drawing.scene) == []
