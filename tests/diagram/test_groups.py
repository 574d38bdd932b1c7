"""Folded groups in the drawing: what is left, what connects, what is said."""

from __future__ import annotations

import numpy as np
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


def nameless(model: ir.Model) -> ir.Model:
    for node in model.graph:
        node.name = None
        node.metadata_props.clear()
    return model


def test_a_chain_says_what_it_does() -> None:
    drawing = architecture(residual(), fold=["Conv > Relu"])
    blocks = [node for node in drawing.network.nodes if node.role == "group"]
    assert [node.name for node in blocks] == [f"stage/{i}/Conv > Relu/1" for i in range(3)]
    assert blocks[0].lines == ("Conv → Relu", "4 params", "1×1", "W 2×2×1×1")
    assert len({node.id for node in blocks}) == 3
    tooltip = next(group.tooltip for group in drawing.scene.groups if group.id == blocks[0].id)
    assert tooltip.splitlines() == ["stage/0/Conv > Relu/1", "4 parameters", "Conv", "Relu"]


def test_chains_without_names_stand_apart() -> None:
    drawing = architecture(nameless(residual(1)), fold=["Conv > Relu"])
    assert [node.role for node in drawing.network.nodes] == ["input", "group", "node", "node", "output"]
    assert faults(drawing.scene) == []


def test_repeats_of_a_model_without_names() -> None:
    drawing = architecture(nameless(residual(5)), depth=1)
    block = next(node for node in drawing.network.nodes if node.role == "group")
    assert block.lines == ("Residual block ×5", "20 params", "Conv ×5 · Relu ×5 · Add ×5", "15 nodes")
    parts = [node for node in architecture(nameless(residual(5)), depth=2).network.nodes if node.role == "group"]
    assert [part.lines[0] for part in parts] == [f"Residual block {i} of 5" for i in range(1, 6)]
    assert parts[1].name == "Residual block ×5/2"


def test_blocks_of_several_sizes_are_not_said_to_be_equal() -> None:
    model = nameless(residual(5))
    value = model.graph.initializers["w2"]
    value.const_value = ir.Tensor(np.zeros((2, 2, 3, 3), np.float32), name="w2")
    blocks = [node for node in architecture(model, depth=1).network.nodes if node.role == "group"]
    assert all("×5" not in block.lines[0] or "differ" in block.lines[-1] for block in blocks)
    assert sum(int(block.lines[-1].split()[0]) for block in blocks) <= 15
