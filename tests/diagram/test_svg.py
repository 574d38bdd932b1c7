from __future__ import annotations

import xml.etree.ElementTree as ET

import onnx_ir as ir
import pytest

from onnxviz.diagram.architecture import architecture
from onnxviz.diagram.scene import Group, Path, Rect, Scene, Text
from onnxviz.diagram.svg import scene_to_svg

SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"quoted\" & 'single' <tag/>",
    "line\nbreak\ttab\x00nul\x1b[31m",
    "\u202eright to left\u202c",
    "عربي",
    "lone \ud800 surrogate \uffff",
    "]]> -->",
    "x" * 10_000,
    "",
]


def relu_named(name: str) -> ir.Model:
    op = name.encode("utf-8", "replace").decode()  # what a file can hold; lone surrogates come only from the API
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, name or None]))
    node = ir.node(op or "Op", inputs=[value], name=name, domain="d" + op, attributes={"a" + op: op})
    node.outputs[0].name = name + "_out"
    graph = ir.Graph([value], [node.outputs[0]], nodes=[node], opset_imports={"": 17, "d" + op: 1}, name=name)
    return ir.Model(graph, ir_version=8, producer_name=name)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    text = scene_to_svg(architecture(relu_named(name), title=name or None).scene)
    root = ET.fromstring(text.encode("utf-8"))
    allowed = {SVG + tag for tag in ("svg", "title", "g", "rect", "path", "text")}
    assert {element.tag for element in root.iter()} <= allowed
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(not attribute.startswith("on") for element in root.iter() for attribute in element.attrib)
    assert len(text) < 60_000


def test_text_stays_text_and_tooltips_hold_the_whole_name() -> None:
    name = "encoder.layer.11." * 12 + "weight"
    root = ET.fromstring(scene_to_svg(architecture(relu_named(name)).scene).encode())
    shown = [element.text for element in root.iter(SVG + "text")]
    assert any(text and "…" in text and text.startswith("encoder") for text in shown)
    assert any(element.text and name in element.text for element in root.iter(SVG + "title"))


def test_every_item_of_a_scene_is_written() -> None:
    items = (
        Rect(1.25, 2, 30, 10, "#ffffff", "#000000", 2.0, 3.0, dashed=True),
        Path(((0, 0), (1, 1), (2, 1), (3, 0), (3, 0)), "MCCCZ", stroke="#112233"),
        Text(5, 6, "a < b", 9.5, bold=True, anchor="middle"),
    )
    scene = Scene(40, 20, "t", (Group("g1", "node", "tip", items, kind="conv"),))
    root = ET.fromstring(scene_to_svg(scene, standalone=False))
    assert root.get("viewBox") == "0 0 40 20"
    group = root.find(SVG + "g")
    assert group is not None
    assert group.attrib == {"id": "g1", "class": "node kind-conv"}
    rect, path, text = group.find(SVG + "rect"), group.find(SVG + "path"), group.find(SVG + "text")
    assert rect is not None
    assert rect.attrib == {
        "x": "1.25", "y": "2", "width": "30", "height": "10", "rx": "3", "fill": "#ffffff", "stroke": "#000000",
        "stroke-width": "2", "stroke-dasharray": "4 3",
    }  # fmt: skip
    assert path is not None
    assert path.get("d") == "M0,0 C1,1 2,1 3,0 Z"
    assert text is not None
    assert (text.text, text.get("text-anchor"), text.get("font-weight")) == ("a < b", "middle", "bold")
