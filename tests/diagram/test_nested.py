"""Drawings with frames: what stands in what, lines through borders, and nothing that overlaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz.diagram.architecture import Architecture, architecture, architecture_diff
from onnxviz.diagram.scene import Rect
from tests.diagram.scene_geometry import faults
from tests.diagram.test_groups import residual


def frames(drawing: Architecture) -> dict[str, Rect]:
    found = {}
    for group in drawing.scene.groups:
        if group.role == "frame":
            outline = group.items[0]
            assert isinstance(outline, Rect)
            found[group.tooltip.split("\n")[0]] = outline
    return found


def inside(outer: Rect, inner: Rect) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.x + inner.width <= outer.x + outer.width
        and inner.y + inner.height <= outer.y + outer.height
    )


def test_open_groups_are_framed_and_closed_ones_are_blocks() -> None:
    drawing = architecture(residual(), depth=2)
    (frame,) = frames(drawing).values()
    boxes = dict(drawing.scene.boxes())
    groups = [name for name in boxes if name.startswith("group-")]
    assert len(groups) == 3
    assert all(inside(frame, boxes[name]) for name in groups)
    assert not inside(frame, boxes["input-x"])
    assert faults(drawing.scene) == []


def test_a_block_that_leaves_its_frame_is_noticed() -> None:
    drawing = architecture(residual(), depth=2)
    (frame,) = frames(drawing).values()
    box = next(rect for name, rect in drawing.scene.boxes() if name.startswith("group-"))
    assert not inside(frame, replace(box, x=frame.x - 5))


def test_lines_lead_through_the_borders_without_a_gap() -> None:
    drawing = architecture(residual(), depth=2)
    nodes = {node.id: node for node in drawing.network.nodes}
    for edge in drawing.network.edges:
        source, target = nodes[edge.source], nodes[edge.target]
        (x0, y0), (x1, y1) = edge.points[0], edge.points[-1]
        assert y0 == pytest.approx(source.y + source.height, abs=0.02)
        assert y1 == pytest.approx(target.y, abs=0.02)
        assert source.x <= x0 <= source.x + source.width
        assert target.x <= x1 <= target.x + target.width
        assert [y for _, y in edge.points] == sorted(y for _, y in edge.points)


def test_positions_are_data() -> None:
    drawing = architecture(residual(), depth=2)
    layout, network = drawing.layout, drawing.network
    assert layout.boxes.shape == (len(network.nodes), 4)
    assert layout.edges.shape == (len(network.edges), 2)
    first = network.nodes[0]
    assert layout.boxes[0, 2:].tolist() == pytest.approx([first.width, first.height], abs=0.02)
    assert all(len(layout.path(i)) == len(edge.points) for i, edge in enumerate(network.edges))


def test_bodies_open_with_depth() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool p) => (float[2] y) {
        y = If (p) <then_branch = t () => (float[2] t1) {t0 = Abs(x) t1 = Relu(t0)},
                    else_branch = e () => (float[2] e1) {e0 = Neg(x) e1 = Exp(e0)}>
    }"""
    model = ir.from_onnx_text(text)
    assert not frames(architecture(model))
    opened = architecture(model, depth=9)
    assert {"node-t0", "node-e1"} <= {node.id for node in opened.network.nodes}
    assert faults(opened.scene) == []


def test_calls_of_functions_open_with_depth() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17, "local": 1]>
      g (float[1] x) => (float[1] z) { y = local.Twice(x) z = local.Twice(y) }
      <opset_import: ["": 17], domain: "local"> Twice (a) => (c) { b = Neg(a) c = Relu(b) }""")
    assert [node.op_type for node in architecture(model).network.nodes if node.role == "node"] == ["Twice", "Twice"]
    assert [node.name for node in architecture(model, depth=1).network.nodes if node.role == "group"] == [
        "Twice_1", "Twice_2",
    ]  # fmt: skip
    flat = architecture(model, depth=9)
    assert [node.op_type for node in flat.network.nodes if node.role == "node"] == ["Neg", "Relu", "Neg", "Relu"]


def test_a_pattern_is_one_block_in_a_frame() -> None:
    drawing = architecture(residual(), depth=3, fold=["Conv > Relu"])
    heads = [node.lines[0] for node in drawing.network.nodes if node.role == "group"]
    assert heads.count("Conv → Relu") == 3
    assert faults(drawing.scene) == []


def test_what_differs_is_coloured_inside_frames() -> None:
    after = residual()
    after.graph[4].op_type = "LeakyRelu"
    drawing, diff = architecture_diff(residual(), after, depth=2)
    assert diff.changes
    assert frames(drawing)
    assert any(node.lines[0].startswith("~ ") for node in drawing.network.nodes if node.role == "group")


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_same_input_same_bytes(theme: str) -> None:
    first, again = (architecture(residual(), depth=2, theme=theme)._repr_svg_() for _ in range(2))
    assert first == again


def test_frames_are_data_too(tmp_path: Path) -> None:
    drawing = architecture(residual(), depth=2)
    (frame,) = drawing.network.frames
    groups = [node for node in drawing.network.nodes if node.role == "group"]
    assert {node.parent for node in groups} == {frame.id}
    assert {node.parent for node in drawing.network.nodes if node.role != "group"} == {""}
    (outline,) = frames(drawing).values()
    assert (frame.x, frame.width) == pytest.approx((outline.x, outline.width), abs=0.02)
    for ending, opening in (("dot", "subgraph"), ("mmd", "subgraph"), ("json", '"frames"'), ("graphml", "parent")):
        drawing.save(tmp_path / f"g.{ending}")
        text = (tmp_path / f"g.{ending}").read_text(encoding="utf-8")
        assert opening in text, ending
        flat = architecture(residual()).save(tmp_path / f"f.{ending}")
        assert flat.network.frames == ()


def test_a_depth_beyond_the_models_own_still_folds() -> None:
    flat = architecture(residual(), depth=9)
    folded = architecture(residual(), depth=9, fold=["stage/1"])
    assert [node.name for node in folded.network.nodes if node.role == "group"] == ["stage/1"]
    assert len(folded.network.nodes) == len(flat.network.nodes) - 2
    chains = architecture(residual(), depth=9, fold=["Conv > Relu"])
    assert sum(node.role == "group" for node in chains.network.nodes) == 3


def test_a_difference_between_models_with_bodies_has_frames() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool p) => (float[2] y) {
        h = Neg(x) y = If (p) <then_branch = t () => (float[2] t1) {t0 = Abs(h) t1 = Relu(t0)},
                    else_branch = e () => (float[2] e1) {e0 = Neg(h) e1 = Exp(e0)}>
    }"""
    for depth in (1, 2, 9):
        drawing, diff = architecture_diff(ir.from_onnx_text(text), ir.from_onnx_text(text), depth=depth)
        assert (diff.added, diff.removed, diff.changes) == ((), (), {})
        assert {"node-h", "node-y"} <= {node.id for node in drawing.network.nodes}


def test_numbers_of_nodes_inside_functions_are_found() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17, "local": 1]>
      g (float[1, 2] x) => (float[1, 3] z) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> { z = local.Dense(x, w) }
      <opset_import: ["": 17], domain: "local"> Dense (a, b) => (c) { d = MatMul(a, b) c = Relu(d) }""")
    drawing = architecture(model, depth=9, color_by="macs")
    assert {node.op_type: node.value for node in drawing.network.nodes if node.role == "node"}["MatMul"] == 6
