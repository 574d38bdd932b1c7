from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxviz.diagram.architecture import Architecture, architecture
from onnxviz.diagram.scene import Group, Rect, Scene, Text
from onnxviz.errors import ModelError, OutputError
from onnxviz.graph.io import open_model
from tests.diagram.scene_geometry import covered_labels, crossed_boxes, faults, misfits, overlaps


def model_of(body: str, opset: int = 17, functions: str = "", **weights: tuple[int, ...]) -> ir.Model:
    """A model from ONNX text, with initializers of zeros of the given shapes."""
    text = f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]> g {body} {functions}'
    proto = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name))
    return ir.from_proto(proto)


def tiny_cnn(body: str = "") -> ir.Model:
    return model_of(body or CNN, w=(8, 3, 3, 3), b=(8,), wd=(8, 1, 3, 3), wf=(8, 10), bf=(10,))


CNN = """(float[N, 3, 32, 32] x) => (float[N, 10] y) <float half = {0.5}>
{
  a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)
  c = Relu(a)
  d = Conv <group = 8, pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (c, wd)
  e = Add(d, c)
  f = Mul(e, half)
  p = GlobalAveragePool(f)
  q = Flatten(p)
  y = Gemm(q, wf, bf)
}"""


def lines_of(group: Group) -> list[str]:
    return [item.text for item in group.items if isinstance(item, Text)]


def by_id(drawn: Architecture) -> dict[str, list[str]]:
    return {group.id: lines_of(group) for group in drawn.scene.groups}


def test_blocks_say_what_engineers_look_for() -> None:
    drawn = by_id(architecture(tiny_cnn(), title="tiny"))
    assert drawn["node-a"] == ["Conv", "224 params", "3×3 · stride 2 · pad 1", "W 8×3×3×3 · b 8"]
    assert drawn["node-d"][2] == "3×3 · pad 1 · depthwise"
    assert drawn["node-c"] == ["Relu"]
    assert drawn["node-e"] == ["Add"]
    assert drawn["node-f"] == ["Mul", "× 0.5"]
    assert drawn["node-y"] == ["Gemm", "90 params", "W 8×10 · b 10"]
    assert drawn["edge-a"] == ["N×8×16×16"]
    assert drawn["edge-q"] == ["N×8"]
    assert drawn["input-x"] == ["x", "float32 N×3×32×32"]
    assert drawn["output-y"] == ["y", "float32 N×10"]
    assert drawn["diagram-header"] == ["tiny", "opset 17 · local 1 · IR 8 · 386 parameters · 8 nodes"]
    assert drawn["diagram-legend"] == ["convolution", "linear", "activation", "pooling", "elementwise", "shape"]


def test_the_drawing_has_no_faults() -> None:
    assert faults(architecture(tiny_cnn()).scene) == []


def test_the_geometry_checks_catch_planted_errors() -> None:
    scene = architecture(tiny_cnn()).scene
    groups = {group.id: group for group in scene.groups}

    def planted(identity: str, **changes: object) -> Scene:
        changed = dataclasses.replace(groups[identity], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(scene, groups=tuple(changed if g.id == identity else g for g in scene.groups))

    conv, relu = groups["node-a"].box, groups["node-c"].box
    assert conv is not None
    assert relu is not None
    assert overlaps(list(planted("node-c", box=conv).boxes())) == ["node-a and node-c"]
    wide = Text(conv.x + 8, conv.y + 30, "W 64×64×64×64×64×64×64×64×64×64", 9.5)
    assert misfits(planted("node-a", items=(wide,)))
    label = Text(relu.x + 4, relu.y + 12, "1×8×16×16", 9.0)
    assert covered_labels(planted("edge-a", items=(label,)))
    skip = Rect(conv.x - 100, relu.y, conv.width + 200, relu.height)
    assert crossed_boxes(planted("node-d", box=dataclasses.replace(skip, y=relu.y + relu.height + 5)))


def test_constants_are_shown_in_their_consumers() -> None:
    drawn = by_id(
        architecture(
            model_of("""(float[2, 3, 4] x) => (float[2, 12] y) {
              s = Constant <value_ints = [2, -1]> ()
              one = Constant <value_float = 1.0> ()
              i = Identity(one)
              t = Sub(i, x)
              z = Transpose <perm = [0, 2, 1]> (t)
              y = Reshape(z, s)
            }""")
        )
    )
    assert sorted(k for k in drawn if k.startswith("node")) == ["node-t", "node-y", "node-z"]
    assert drawn["node-t"] == ["Sub", "1 −"]
    assert drawn["node-z"] == ["Transpose", "perm 0 2 1"]
    assert drawn["node-y"] == ["Reshape", "shape [2,-1]"]


def test_other_attributes_appear_unless_they_are_defaults() -> None:
    drawn = by_id(
        architecture(
            model_of("""(float[2, 8] x) => (float[2, 4] y) <int64[1] s = {0}, int64[1] e = {4}, int64[1] a = {1}> {
              b = LeakyRelu <alpha = 0.2> (x)
              c = LeakyRelu <alpha = 0.01> (b)
              d = Cast <to = 10> (c)
              f = Softmax <axis = 0> (d)
              y = Slice(f, s, e, a)
            }""")
        )
    )
    assert drawn["node-b"] == ["LeakyRelu", "alpha 0.2"]
    assert drawn["node-c"] == ["LeakyRelu"]
    assert drawn["node-d"] == ["Cast", "to float16"]
    assert drawn["node-f"] == ["Softmax", "axis 0"]
    assert drawn["node-y"] == ["Slice", "axis 1 [:4]"]


def test_bodies_are_one_block_fed_by_dashed_lines() -> None:
    model = model_of("""(bool c, float[2] x) => (float[2] y) {
      z = Exp(x)
      y = If (c) <
        then_branch = t () => (float[2] u) { u = Neg(z) },
        else_branch = e () => (float[2] v) { w = Neg(z) v = Abs(w) }
      >
    }""")
    drawn = architecture(model)
    assert by_id(drawn)["node-y"] == ["If", "then: 1 node · else: 2 nodes"]
    assert drawn.layout.edges.tolist() == [[1, 2], [0, 3], [2, 3], [3, 4]]
    edge = next(group for group in drawn.scene.groups if group.id == "edge-z")
    assert [getattr(item, "dashed", None) for item in edge.items[:2]] == [True, False]


def test_functions_are_one_block_with_their_name() -> None:
    model = model_of(
        "(float[2] x) => (float[2] y) { y = local.Swish(x) }",
        functions='<domain: "local", opset_import: ["": 17]> Swish (a) => (b) { s = Sigmoid(a) b = Mul(a, s) }',
    )
    drawn = architecture(model)
    group = next(group for group in drawn.scene.groups if group.id == "node-y")
    assert (group.kind, lines_of(group)) == ("function", ["Swish"])


def test_a_name_that_nothing_produces_is_a_marked_terminal() -> None:
    node = ir.node("Relu", inputs=[ir.Value(name="ghost")], name="r")
    node.outputs[0].name = "y"
    model = ir.Model(ir.Graph([], [node.outputs[0]], nodes=[node], opset_imports={"": 17}, name="g"), ir_version=8)
    drawn = architecture(model)
    assert by_id(drawn)["missing-ghost"] == ["ghost", "nothing produces this tensor"]
    assert faults(drawn.scene) == []


def test_outputs_without_work_are_wired() -> None:
    drawn = architecture(model_of("(float[2] x) => (float[2] x, float[3] w) <float[3] w = {1, 2, 3}> { z = Relu(x) }"))
    assert {"input-x", "output-x", "constant-w", "output-w", "node-z"} <= set(by_id(drawn))
    assert drawn.layout.edges.tolist() == [[0, 1], [0, 2], [4, 3]]


def test_several_outputs_get_a_port_and_a_label_each() -> None:
    drawn = architecture(
        model_of(
            """(float[6, 4] x) => (float[2, 4] p, float[2, 4] q, float[2, 4] r) {
          a, b, c = Split <axis = 0, num_outputs = 3> (x)
          p = Relu(a) q = Relu(b) r = Relu(c)
        }""",
            opset=18,
        )
    )
    texts = by_id(drawn)
    assert [texts[f"edge-{name}"] for name in "abc"] == [["2×4"]] * 3
    starts = [drawn.layout.path(i)[0, 0] for i in (1, 2, 3)]
    assert starts == sorted(starts)
    assert len(set(starts)) == 3
    assert faults(drawn.scene) == []


def test_long_edges_are_labelled_at_both_ends() -> None:
    chain = " ".join(f"t{i + 1} = Exp(t{i})" for i in range(60))
    drawn = architecture(
        model_of(
            f"(float[1, 1] mask, float[1, 4] x) => (float[1, 4] y){{ t0 = Add(x, mask) {chain} y = Add(t60, mask) }}"
        )
    )
    assert drawn.layout.stub.sum() == 1
    assert "mask" in by_id(drawn)["node-y"]
    assert by_id(drawn)["input-mask"][-1] == "mask"
    assert faults(drawn.scene) == []


def test_hubs_count_what_they_do_not_draw() -> None:
    uses = " ".join(f"o{i} = Exp(x)" for i in range(300))
    outputs = ", ".join(f"float[2] o{i}" for i in range(300))
    drawn = architecture(model_of(f"(float[2] x) => ({outputs}) {{ {uses} }}"))
    assert by_id(drawn)["input-x"][-1] == "x ×300"
    assert faults(drawn.scene) == []


def test_an_empty_graph_is_drawn() -> None:
    scene = architecture(ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=8)).scene
    assert [group.id for group in scene.groups] == ["diagram-header"]
    assert scene.height > 0


def test_the_model_is_left_alone_and_drawings_repeat() -> None:
    model = tiny_cnn()
    before = str(ir.to_proto(model))
    first, second = architecture(model), architecture(model)
    assert first.scene == second.scene
    assert first._repr_svg_() == second._repr_svg_()
    assert str(ir.to_proto(model)) == before


def test_ids_survive_a_change_elsewhere() -> None:
    first = {group.id for group in architecture(tiny_cnn()).scene.groups}
    changed = CNN.replace("c = Relu(a)", "c0 = Relu(a) c = Tanh(c0)")
    assert first <= {group.id for group in architecture(tiny_cnn(changed)).scene.groups}


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_files_repeat_byte_by_byte_and_leave_nothing_else(tmp_path: Path, ending: str) -> None:
    magic = {".svg": b"<?xml", ".png": b"\x89PNG\r\n", ".pdf": b"%PDF-1"}[ending]
    target = tmp_path / f"a{ending}"
    assert architecture(tiny_cnn()).save(target).note == ""
    first = target.read_bytes()
    architecture(tiny_cnn()).save(target)
    assert target.read_bytes() == first
    assert first.startswith(magic)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_picture_that_had_to_be_scaled_says_so(tmp_path: Path) -> None:
    chain = " ".join(f"t{i + 1} = Exp(t{i})" for i in range(900))
    drawn = architecture(model_of(f"(float[1] t0) => (float[1] t900) {{ {chain} }}"))
    assert "scaled" in drawn.save(tmp_path / "a.png").note
    assert drawn.save(tmp_path / "a.svg").note == ""


@pytest.mark.parametrize("name", ["a.gif", "a", "a.svg.gz"])
def test_unknown_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"use \.svg, \.png, \.pdf"):
        architecture(tiny_cnn()).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        architecture(tiny_cnn()).save(tmp_path / "none" / "a.svg")


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "classifier/SqueezeNet_fp32",
        "detector/ultraface-version-slim-320_simplified",
        "generated/hf_clip_vision_mini_dynamo",
        "generated/lstm_gru_dynamo",
        "audio/silero_vad_16k_op15",
        "generated/tv_ssdlite320_mobilenet_v3_legacy_op13",
        "transformer/TFBertForQuestionAnswering",
        "controlflow_functions/gh_issue_9671",
    ],
)
def test_real_models_are_drawn_without_faults(corpus: Path, name: str) -> None:
    assert faults(architecture(open_model(corpus / "models" / f"{name}.onnx")).scene) == []


@pytest.mark.corpus
def test_hostile_models_are_drawn_or_refused(corpus: Path) -> None:
    drawn = 0
    for path in sorted((corpus / "models" / "adversarial").glob("[!b]*.onnx")):  # b…: the big ones, see benchmarks
        try:
            model = open_model(path)
        except ModelError:
            continue
        assert faults(architecture(model).scene) == [], path.name
        drawn += 1
    assert drawn > 20
