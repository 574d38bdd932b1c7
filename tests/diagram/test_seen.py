"""Known, symbolic and observed shapes: told apart in looks, words and data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import networkx as nx
import numpy as np
import onnx_ir as ir
import PIL.Image
import pytest

from onnxviz.diagram.architecture import Architecture, architecture
from onnxviz.diagram.details import dims_text
from onnxviz.diagram.exchange import WRITERS
from onnxviz.diagram.scene import Group, Scene, Text
from onnxviz.diagram.scene import Path as Outline
from onnxviz.diagram.svg import scene_to_svg
from onnxviz.diagram.themes import THEMES
from onnxviz.graph.io import open_model
from onnxviz.runtime.capture import capture
from tests.diagram.scene_geometry import faults

MODEL = """<ir_version: 8, opset_import: ["": 17]> net (float[batch, 3, H, 20] x, float[6] k) => (float[batch, 3, c] z)
{
  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
  n = NonZero(k)
  s = Shape(n)
  g = Transpose<perm = [1, 0]>(n)
  m = ReduceMax<axes = [2], keepdims = 0>(p)
  z = Identity(m)
}"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(MODEL)


SEEN = {"x": (2, 3, 9, 20), "p": (2, 3, 4, 10), "n": (1, 5), "g": (5, 1), "m": (2, 3, 10)}


def written(drawing: Architecture, shape: str) -> Text:
    return next(text for text in drawing.scene.texts() if text.text == shape)


def legend(drawing: Architecture) -> list[str]:
    groups = [group for group in drawing.scene.groups if group.id == "shapes-legend"]
    return [item.text for group in groups for item in group.items if isinstance(item, Text)]


def test_symbolic_shapes_are_slanted_and_explained(model: ir.Model) -> None:
    drawing = architecture(model)
    symbolic, known = written(drawing, "batch×3×⌊H/2⌋×10"), written(drawing, "k")
    assert symbolic.italic
    assert symbolic.fill != known.fill
    assert not known.italic
    assert legend(drawing) == ["N×H", "depends on open dimensions"]
    assert 'font-style="italic"' in scene_to_svg(drawing.scene)
    assert not faults(drawing.scene)


def test_observed_shapes_stand_where_the_file_leaves_them_open(model: ir.Model) -> None:
    drawing = architecture(model, observed={**SEEN, "k": (7,)})
    shape = written(drawing, "2×3×4×10")
    group = next(group for group in drawing.scene.groups if shape in group.items)
    eye = group.items[group.items.index(shape) - 1]
    assert isinstance(eye, Outline)
    left, right = min(x for x, _ in eye.points), max(x for x, _ in eye.points)
    assert right < shape.x
    assert left > min(x for item in group.items if isinstance(item, Outline) for x, _ in item.points) + 1
    assert not shape.italic
    assert "float32 batch×3×⌊H/2⌋×10, observed 2×3×4×10" in group.tooltip
    assert legend(drawing)[-1] == "seen in a run"
    known = next(group for group in drawing.scene.groups if group.id == "input-k")
    assert "float32 6" in [item.text for item in known.items if isinstance(item, Text)]
    assert "float32 6, observed 7" in known.tooltip
    assert not faults(drawing.scene)


def test_what_nothing_tells_is_a_question_mark_and_no_symbol(model: ir.Model) -> None:
    drawing = architecture(model)
    assert not written(drawing, "int64 1×?").italic
    assert {edge.tensor: edge.shape_kind for edge in drawing.network.edges}["n"] == "unknown"


def test_known_shapes_look_as_ever() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (float[2, 3] z) {y = Relu(x) z = Exp(y)}'
    )
    plain, observed = architecture(model), architecture(model, observed={"y": (2, 3), "x": (2, 3)})
    assert plain.scene == observed.scene
    assert not legend(plain)
    assert not any(text.italic for text in plain.scene.texts())


def test_data_say_how_a_shape_is_known(model: ir.Model) -> None:
    network = architecture(model, observed={"p": (2, 3, 4, 10), "k": (6,)}).network
    edges = {edge["tensor"]: edge for edge in json.loads(WRITERS[".json"](network))["edges"]}
    kinds = {name: (edge["shape_kind"], edge["observed"]) for name, edge in edges.items()}
    assert kinds["p"] == ("observed", [2, 3, 4, 10])
    assert kinds["x"] == ("symbolic", None)
    assert kinds["k"] == ("known", [6])
    assert kinds["n"] == ("unknown", None)
    assert edges["p"]["shape"] == ["batch", 3, "floor(H/2)", 10]
    read = nx.parse_graphml(WRITERS[".graphml"](network))
    assert {data["tensor"]: data["observed"] for *_, data in read.edges(data=True)}["p"] == "2×3×4×10"
    graph = architecture(model, observed={"p": (2, 3, 4, 10)}).to_networkx()
    assert {data["tensor"]: data["shape_kind"] for *_, data in graph.edges(data=True)}["p"] == "observed"


@pytest.mark.parametrize("theme", THEMES)
def test_the_kinds_differ_without_colour(model: ir.Model, theme: str) -> None:
    drawing = architecture(model, observed={"x": SEEN["x"]}, theme=theme)
    assert written(drawing, "batch×3×⌊H/2⌋×10").italic
    assert not written(drawing, "float32 2×3×9×20").italic


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        ("floor((H + 1)/2)", "⌈H/2⌉"),
        ("floor((H + 3)/8) - 1", "(⌊(H+3)/8⌋−1)"),
        ("floor((floor(H/2) + 2)/3)", "⌈⌊H/2⌋/3⌉"),
        ("2*floor(W/2)", "2·⌊W/2⌋"),
        ("past + tokens", "(past+tokens)"),
        ("floor(", "floor("),
        ("input-0_dim1", "input-0_dim1"),
        ("min(tokens, 512)", "min(tokens, 512)"),
        ("unk__12", "?"),
    ],
)
def test_expressions_as_people_write_them(dim: str, text: str) -> None:
    assert dims_text([dim]) == text


@pytest.mark.parametrize("theme", THEMES)
def test_slanted_text_has_contrast(model: ir.Model, theme: str) -> None:
    from tests.diagram.test_themes import contrast

    drawing = architecture(model, observed={"x": SEEN["x"]}, theme=theme)
    for shape in ("batch×3×⌊H/2⌋×10", "float32 2×3×9×20"):
        assert contrast(drawing.scene.background, written(drawing, shape).fill) > 4.5


def test_slanted_text_is_slanted_in_pictures(tmp_path: Path) -> None:
    def pixels(italic: bool) -> np.ndarray:
        from onnxviz.diagram.raster import write_png

        group = Group("g", "node", "", (Text(5.0, 40.0, "NHlI", 36.0, italic=italic),))
        write_png(Scene(160.0, 50.0, "t", (group,)), tmp_path / "text.png")
        return np.asarray(PIL.Image.open(io.BytesIO((tmp_path / "text.png").read_bytes())).convert("L"), float)

    upright, slanted = pixels(italic=False), pixels(italic=True)
    assert (upright != slanted).any()
    stems = [(255 - image).sum(axis=0).max() for image in (upright, slanted)]
    assert stems[0] > stems[1], "upright stems stand in few columns"


@pytest.mark.corpus
def test_a_run_of_a_real_model_fills_in_what_is_open(corpus: Path) -> None:
    opened = open_model(corpus / "models" / "transformer" / "vespa-random_decoder.onnx")
    run = capture(opened, providers="cpu")
    observed = {name: record.shape for name, record in run.items()} | {r.name: r.shape for r in run.inputs}
    before, after = architecture(opened), architecture(opened, observed=observed)
    assert {edge.shape_kind for edge in before.network.edges} >= {"symbolic"}
    assert {edge.shape_kind for edge in after.network.edges} <= {"known", "observed"}
    assert not faults(before.scene)
    assert not faults(after.scene)
