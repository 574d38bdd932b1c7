"""Two models in one drawing."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz import api
from onnxviz.diagram.architecture import architecture, architecture_diff
from onnxviz.diagram.comparison import STATUSES
from onnxviz.diagram.scene import Rect, Text
from onnxviz.graph.model import copy_model
from onnxviz.graph.provenance import Provenance, set_provenance
from tests.diagram.scene_geometry import faults


def other(model: ir.Model) -> ir.Model:
    """Another kernel, one operator less, one more."""
    changed = copy_model(model)
    nodes = {node.op_type: node for node in changed.graph}
    nodes["MaxPool"].attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [3, 3])
    nodes["MaxPool"].attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 1, 1])  # so that sizes stay
    relu = nodes["Relu"]
    assert relu.inputs[0] is not None
    ir.convenience.replace_all_uses_with(relu.outputs[0], relu.inputs[0])
    changed.graph.remove(relu)
    extra = ir.node("Tanh", [nodes["Flatten"].outputs[0]], name="extra")
    extra.outputs[0].name = "extra"
    nodes["Gemm"].replace_input_with(0, extra.outputs[0])
    changed.graph.insert_after(nodes["Flatten"], extra)
    return changed


def test_every_block_has_the_colour_and_sign_of_what_became_of_it(small_cnn: ir.Model) -> None:
    drawing, diff = architecture_diff(small_cnn, other(small_cnn))
    found = {}
    for node, group in zip(drawing.network.nodes, (g for g in drawing.scene.groups if g.box), strict=True):
        fill = group.items[0]
        assert isinstance(fill, Rect)
        if node.role == "node":
            status = next(status for status, (colour, _) in STATUSES.items() if colour == fill.fill)
            assert node.lines[0] == STATUSES[status][1] + node.op_type
            found[node.op_type] = status
    assert found == {
        "Conv": "same", "MaxPool": "changed", "Flatten": "same", "Tanh": "added", "Gemm": "same", "Relu": "removed",
    }  # fmt: skip
    pool = next(node for node in drawing.network.nodes if node.op_type == "MaxPool")
    assert "kernel_shape: 2, 2 → 3, 3" in pool.lines
    legend = next(group for group in drawing.scene.groups if group.role == "legend")
    texts = [item.text for item in legend.items if isinstance(item, Text)]
    assert texts == ["same 3", "~ changed 1", "+ added 1", "− removed 1"]
    assert len(diff.added) == len(diff.removed) == 1
    assert faults(drawing.scene) == []


def test_what_is_gone_hangs_where_it_hung(small_cnn: ir.Model) -> None:
    drawing, _ = architecture_diff(small_cnn, other(small_cnn))
    names = {node.id: node.op_type or node.role for node in drawing.network.nodes}
    edges = [(names[edge.source], names[edge.target]) for edge in drawing.network.edges]
    assert ("Conv", "Relu") in edges
    assert ("Relu", "MaxPool") in edges
    assert ("Conv", "MaxPool") in edges


def test_equal_models_look_like_one(small_cnn: ir.Model) -> None:
    drawing, diff = architecture_diff(small_cnn, copy_model(small_cnn))
    assert diff.equal
    assert [node.id for node in drawing.network.nodes] == [node.id for node in architecture(small_cnn).network.nodes]


def test_other_inputs_are_both_drawn(small_cnn: ir.Model) -> None:
    changed = copy_model(small_cnn)
    changed.graph.inputs[0].name = "photo"
    drawing, _ = architecture_diff(small_cnn, changed)
    assert [node.name for node in drawing.network.nodes if node.role == "input"] == ["photo", "x"]


def test_groups_tell_how_much_of_them_differs(small_cnn: ir.Model) -> None:
    for node in small_cnn.graph:
        set_provenance(node, Provenance("head.part" if node.op_type in ("Flatten", "Gemm") else "stem.part"))
    changed = other(small_cnn)
    set_provenance(next(node for node in changed.graph if node.op_type == "Tanh"), Provenance("head.new"))
    drawing, _ = architecture_diff(small_cnn, changed, depth=1)
    lines = {node.name: node.lines for node in drawing.network.nodes if node.role == "group"}
    assert lines["stem"][-2:] == ("1 changed", "1 removed")
    assert lines["head"][-1] == "1 added"
    assert faults(drawing.scene) == []


def test_the_verb_writes_pictures_and_data(small_cnn: ir.Model, tmp_path: Path) -> None:
    api.graph_diff(small_cnn, other(small_cnn), tmp_path / "d.svg", theme="print")
    assert "− Relu" in (tmp_path / "d.svg").read_text(encoding="utf-8")
    api.graph_diff(small_cnn, other(small_cnn), tmp_path / "d.json")
    data = json.loads((tmp_path / "d.json").read_text())
    assert [node["op_type"] for node in data["removed"]] == ["Relu"]
    assert data["changed"][0]["changes"] == ["kernel_shape: 2, 2 → 3, 3", "pads: added, 0, 0, 1, 1"]


@pytest.mark.corpus
def test_drawings_of_the_corpus_beside_one_another(corpus: Path) -> None:
    from onnxviz.graph.io import open_model

    found = sorted((corpus / "models" / "classifier").glob("*.onnx"))[:4]
    models = [model for model in map(open_model, found) if model.graph.num_nodes() < 400]
    for one in models:
        for two in models:
            assert faults(architecture_diff(one, two)[0].scene) == []
