"""Numbers as colours: what a block's colour says, the scale, the legend."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxviz import api
from onnxviz.diagram.architecture import Architecture, architecture
from onnxviz.diagram.overlay import Overlay, Scale
from onnxviz.diagram.scene import Rect, Text
from onnxviz.errors import InputError
from onnxviz.graph.provenance import Provenance, set_provenance
from tests.diagram.scene_geometry import faults


def fills(drawing: Architecture) -> dict[str, str | None]:
    found = {}
    for group in drawing.scene.groups:
        if group.role in ("node", "group"):
            first = group.items[0]
            assert isinstance(first, Rect)
            found[group.id] = first.fill
    return found


def test_macs_are_those_of_inspect_at_a_batch_of_one(small_cnn: ir.Model) -> None:
    drawing = architecture(small_cnn, color_by="macs")
    values = {node.op_type: node.value for node in drawing.network.nodes if node.role == "node"}
    known = {layer.op_type: layer.macs for layer in api.inspect(small_cnn).layers}
    assert {op: values[op] for op in known} == known
    legend = next(group for group in drawing.scene.groups if group.role == "legend")
    texts = [item.text for item in legend.items if isinstance(item, Text)]
    assert texts[:2] == ["0", "648"]
    assert texts[2].startswith("multiply-accumulates at n = 1")
    assert faults(drawing.scene) == []


def test_more_is_darker_and_the_unknown_is_grey(small_cnn: ir.Model) -> None:
    names = [node.outputs[0].name or "" for node in small_cnn.graph]
    numbers = dict(zip(names[:4], (1.0, 2.0, 4.0, 0.0), strict=True))
    found = fills(architecture(small_cnn, color_by=Overlay("drift", numbers)))
    colours = [found[f"node-{name}"] for name in names]
    lightness = [sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in colours if c]
    assert lightness[2] < lightness[1] < lightness[0] < lightness[3] == 3 * 255
    assert colours[4] == "#eceff2"


def test_a_groups_number_is_the_sum_or_the_largest(small_cnn: ir.Model) -> None:
    for node in list(small_cnn.graph)[:3]:
        set_provenance(node, Provenance("stem.part"))
    numbers = {node.outputs[0].name or "": float(i) for i, node in enumerate(small_cnn.graph)}
    for total, expected in ((True, 3.0), (False, 2.0)):
        drawing = architecture(small_cnn, depth=1, color_by=Overlay("time", numbers, "µs", total=total))
        assert next(node.value for node in drawing.network.nodes if node.role == "group") == expected


@pytest.mark.parametrize(
    ("values", "logarithmic", "places"),
    [
        ([1.0, 10.0, 1000.0, 0.0], True, [0.0, 1 / 3, 1.0, 0.0]),
        ([1.0, 50.0], False, [0.02, 1.0]),
        ([-2.0, 2.0], False, [0.0, 1.0]),
        ([0.0, 0.0], False, [0.0, 0.0]),
        ([5.0], False, [1.0]),
        ([], False, []),
    ],
)
def test_scales(values: list[float], logarithmic: bool, places: list[float]) -> None:
    scale = Scale.of(values)
    assert scale.logarithmic is logarithmic
    assert [scale.place(value) for value in values] == pytest.approx(places)


def test_what_only_a_run_tells(small_cnn: ir.Model, tmp_path: Path) -> None:
    zeros = api.graph(small_cnn, color_by="zeros")
    values = {node.op_type: node.value for node in zeros.network.nodes if node.role == "node"}
    assert values["Conv"] == 0
    relu = values["Relu"]
    assert relu is not None
    assert 5 < relu < 95
    reach = {node.op_type: node.value for node in api.graph(small_cnn, color_by="range").network.nodes}
    assert (reach["Conv"] or 0) >= (reach["Relu"] or 0) > 0
    time = {node.op_type: node.value for node in api.graph(small_cnn, color_by="time").network.nodes}
    assert all(time[op] is not None for op in ("Conv", "Gemm"))


def test_numbers_from_a_file(small_cnn: ir.Model, tmp_path: Path) -> None:
    path = tmp_path / "drift.json"
    path.write_text(json.dumps({"conv1": 3, "r": 1.5}))
    drawing = api.graph(small_cnn, tmp_path / "g.svg", color_by=str(path))
    values = {node.op_type: node.value for node in drawing.network.nodes}
    assert (values["Conv"], values["Relu"], values["MaxPool"]) == (3, 1.5, None)
    svg = (tmp_path / "g.svg").read_text(encoding="utf-8")
    assert ">drift</text>" in svg
    assert "drift: 1.5</title>" in svg


@pytest.mark.parametrize(
    ("metric", "content", "message"),
    [("warmth", None, "no metric 'warmth'"), ("a.json", "[1]", "no numbers by name"), ("a.json", "{", "no readable JSON"),
     ("none.json", None, "no readable JSON")],
)  # fmt: skip
def test_metrics_that_are_none(
    metric: str, content: str | None, message: str, small_cnn: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(metric).write_text(content)
    with pytest.raises(InputError, match=message):
        api.graph(small_cnn, color_by=metric)


def test_what_is_not_finite_has_a_colour_of_its_own() -> None:
    overlay = Overlay("range", {"a": 1.0, "b": float("inf")}, total=False)
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] b) {a = Neg(x) b = Relu(a)}'
    )
    drawing = architecture(model, color_by=overlay)
    fills = {group.id: group.items[0].fill for group in drawing.scene.groups if group.role == "node"}  # type: ignore[union-attr]
    assert fills["node-b"] not in (fills["node-a"], Scale.of([1.0]).colour(1.0), Scale.of([1.0]).colour(None))
    assert any(text.text == "NaN or infinite" for text in drawing.scene.texts())
    assert [node.value for node in drawing.network.nodes if node.role == "node"] == [1.0, None]


def test_numbers_that_fit_nothing_are_refused() -> None:
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}')
    with pytest.raises(InputError, match="no number of drift fits a node"):
        architecture(model, color_by=Overlay("drift", {"elsewhere": 1.0}))


def test_a_scale_of_the_largest_numbers() -> None:
    scale = Scale.of([-1e308, 1e308])
    assert scale.place(0.0) == pytest.approx(0.5)


def test_a_long_legend_widens_a_narrow_drawing(small_cnn: ir.Model) -> None:
    title = "the share of what leaves the model that comes through a node, in % of all of it, over every sample"
    scene = architecture(
        small_cnn, color_by=Overlay(title, {str(next(iter(small_cnn.graph)).outputs[0].name): 1.0})
    ).scene
    legend = next(group for group in scene.groups if group.role == "legend")
    assert max(item.x + item.width for item in legend.items if isinstance(item, Text)) <= scene.width
