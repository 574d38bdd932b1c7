"""Tests of ways through a graph as strong lines."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.diagram.architecture import architecture
from onnxviz.diagram.interactive import interactive
from onnxviz.diagram.overlay import Overlay
from onnxviz.diagram.palette import KEY
from onnxviz.diagram.paths import path_edges

MODEL = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y, float[2] z)
  {a = Relu(x) b = Neg(a) c = Abs(a) y = Add(b, c) z = Exp(c)}""")
PATH = ("x", "a", "c", "y")


def overlay(*paths: tuple[str, ...]) -> Overlay:
    return Overlay("share", {"a": 1.0, "b": 0.5, "c": 0.5, "y": 1.0}, paths=paths)


def test_the_lines_of_a_path_are_those_between_its_nodes() -> None:
    drawing = architecture(MODEL, color_by=overlay(PATH))
    edges = path_edges(drawing.network, PATH)
    assert [(e.source, e.target) for e in edges] == [
        ("input-x", "node-a"), ("node-a", "node-c"), ("node-c", "node-y"), ("node-y", "output-y"),
    ]  # fmt: skip
    (group,) = [group for group in drawing.scene.groups if group.role == "path"]
    assert group.items[0].stroke == KEY  # type: ignore[union-attr]
    assert all(edge.target != "node-z" for edge in edges)


def test_without_a_path_the_drawing_is_as_before() -> None:
    with_paths, without = architecture(MODEL, color_by=overlay(PATH)), architecture(MODEL, color_by=overlay())
    kept = tuple(group for group in with_paths.scene.groups if group.role != "path")
    assert kept == without.scene.groups


def test_tensors_that_are_not_drawn_are_passed_over() -> None:
    network = architecture(MODEL).network
    assert path_edges(network, ("x", "a", "hidden", "c", "y")) == path_edges(network, PATH)
    assert path_edges(network, ()) == []
    assert path_edges(network, ("nothing",)) == []


def test_the_page_draws_them_too() -> None:
    strong, plain = (interactive(MODEL, color_by=overlay(*paths)) for paths in ((PATH,), ()))
    assert strong.html != plain.html
