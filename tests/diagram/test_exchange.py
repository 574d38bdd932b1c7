"""Diagrams as data: every format is read back by somebody else's reader."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import networkx as nx
import onnx_ir as ir
import pytest

from onnxviz.diagram.architecture import architecture
from onnxviz.diagram.exchange import WRITERS
from onnxviz.diagram.svg import scene_to_svg

HOSTILE = 'a"b\\N\n</script><b>$x$ #amp; \u202e\u05d0 \ud800 \x00' + "n" * 20_000


def hostile() -> ir.Model:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
      g (float[n, 2] x, bool c) => (float[n, 2] z) {
        y = Relu(x)
        z = If(c) <then_branch = t () => (float[n, 2] p) { p = Neg(y) },
                   else_branch = e () => (float[n, 2] q) { q = Abs(y) }>
      }""")
    model.graph.name = HOSTILE
    model.graph[0].name = HOSTILE
    model.graph[0].outputs[0].name = HOSTILE
    model.graph.inputs[0].name = HOSTILE + "in"
    model.graph[1].op_type = 'Odd"Op\\'
    model.graph[1].domain = "somebody's"
    return model


@pytest.fixture
def lenet(models: Path) -> ir.Model:
    from onnxviz.graph.io import open_model

    return open_model(models / "lenet5.onnx")


def test_json_has_every_box_and_line_where_the_svg_draws_it(lenet: ir.Model) -> None:
    drawing = architecture(lenet)
    data = json.loads(WRITERS[".json"](drawing.network))
    boxes = {group.id: group.box for group in drawing.scene.groups if group.box is not None}
    assert [node["id"] for node in data["nodes"]] == list(boxes)
    for node in data["nodes"]:
        box = boxes[node["id"]]
        assert (node["x"], node["y"], node["width"]) == pytest.approx((box.x, box.y, box.width), abs=0.01)
    conv = next(node for node in data["nodes"] if node["op_type"] == "Conv")
    assert conv["parameters"] == 156
    assert "5×5" in conv["lines"]
    edge = data["edges"][0]
    assert (edge["tensor"], edge["dtype"], edge["shape"]) == ("image", "float32", ["batch", 1, 32, 32])
    ends = {node["id"]: node for node in data["nodes"]}
    for edge in data["edges"]:
        source, target = ends[edge["source"]], ends[edge["target"]]
        (x0, y0), (x1, y1) = edge["points"][0], edge["points"][-1]
        assert source["x"] <= x0 <= source["x"] + source["width"]
        assert y0 == pytest.approx(source["y"] + source["height"], abs=0.02)
        assert target["x"] <= x1 <= target["x"] + target["width"]
        assert y1 == pytest.approx(target["y"], abs=0.02)


def test_networkx_gets_plain_values(lenet: ir.Model) -> None:
    graph = architecture(lenet).to_networkx()
    order = [graph.nodes[node]["op_type"] for node in nx.topological_sort(graph)]
    assert order[1:3] == ["Conv", "Tanh"]
    assert nx.is_directed_acyclic_graph(graph)
    assert sum(data["parameters"] for _, data in graph.nodes(data=True)) == 61706


@pytest.mark.parametrize("make", ["hostile", "lenet"])
def test_graphml_comes_back_whole(make: str, lenet: ir.Model) -> None:
    network = architecture(hostile() if make == "hostile" else lenet).network
    graph = nx.parse_graphml(WRITERS[".graphml"](network), force_multigraph=True)
    assert list(graph) == [node.id for node in network.nodes]
    assert graph.number_of_edges() == len(network.edges)
    assert [data["op_type"] for _, data in graph.nodes(data=True)] == [node.op_type for node in network.nodes]


@pytest.mark.parametrize("make", ["hostile", "lenet"])
def test_graphviz_reads_dot(make: str, lenet: ir.Model) -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    network = architecture(hostile() if make == "hostile" else lenet).network
    text = WRITERS[".dot"](network).encode("utf-8")
    read = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, check=False, timeout=60)
    assert (read.returncode, read.stderr) == (0, b"")
    plain = read.stdout.decode()
    assert plain.count("\nnode ") == len(network.nodes)
    assert plain.count("\nedge ") == len(network.edges)


def test_mermaid_labels_hold_no_markup() -> None:
    text = WRITERS[".mmd"](architecture(hostile()).network)
    assert "</script>" not in text
    assert "\x00" not in text
    body = text.split("---\n")[2].splitlines()
    assert body[0] == "flowchart TD"
    assert (
        sum(line.startswith("  n") and '"' in line and "-->" not in line and "-.->" not in line for line in body) == 5
    )
    assert all(line.count('"') % 2 == 0 for line in body)


@pytest.mark.parametrize("ending", sorted(WRITERS))
def test_the_same_bytes_each_time_and_ids_as_in_the_svg(ending: str, lenet: ir.Model, tmp_path: Path) -> None:
    first, second = architecture(lenet), architecture(lenet)
    path = tmp_path / f"net{ending}"
    first.save(path)
    assert path.read_text(encoding="utf-8") == WRITERS[ending](second.network)
    ids = [node.id for node in first.network.nodes]
    assert all(f'id="{identity}"' in scene_to_svg(first.scene) for identity in ids)
    architecture(hostile()).save(path)
