from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxviz.diagram.result import FORMATS, Architecture
from onnxviz.diagram.scene import Group, Rect, Scene, Text
from onnxviz.diagram.scene import Path as Stroke
from onnxviz.diagram.svg import scene_to_svg
from onnxviz.diagram.volume_scale import Axis
from onnxviz.diagram.volumes import volumes
from onnxviz.errors import InputError, ModelError
from onnxviz.graph.io import open_model
from tests.diagram.volume_geometry import crossed, faults, jogs, outside

CONV = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
POOL = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"


def model_of(body: str, functions: str = "", opset: int = 17, **weights: tuple[int, ...]) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]> g {body} {functions}')
    for name, shape in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name))
    return ir.from_proto(proto)


def lenet() -> ir.Model:
    return model_of(
        """(float[N, 1, 32, 32] image) => (float[N, 10] digit) {
          c1 = Conv(image, w1, b1) t1 = Tanh(c1)
          s2 = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(t1)
          c3 = Conv(s2, w3) t3 = Tanh(c3)
          s4 = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(t3)
          f = Flatten(s4) d5 = Gemm(f, w5) t5 = Tanh(d5) digit = Gemm(t5, w6)
        }""",
        w1=(6, 1, 5, 5), b1=(6,), w3=(16, 6, 5, 5), w5=(400, 84), w6=(84, 10),
    )  # fmt: skip


def unet(levels: int = 3) -> ir.Model:
    """Two convolutions a level, pooling down, transposed convolution up, concatenation across."""
    lines, weights, kept = [], {}, []

    def conv(out: str, source: str, before: int, after: int) -> None:
        weights[f"w_{out}"] = (after, before, 3, 3)
        lines.append(f"p{out} = Conv<{CONV}>({source}, w_{out}) {out} = Relu(p{out})")

    at, channels = "x", 3
    for level in range(levels):
        conv(f"a{level}", at, channels, 8 << level)
        conv(f"b{level}", f"a{level}", 8 << level, 8 << level)
        at, channels = f"b{level}", 8 << level
        if level < levels - 1:
            kept.append(at)
            lines.append(f"d{level} = {POOL}({at})")
            at = f"d{level}"
    for level in reversed(range(levels - 1)):
        weights[f"u_{level}"] = (channels, channels // 2, 2, 2)
        lines.append(f"u{level} = ConvTranspose<strides = [2, 2]>({at}, u_{level})")
        lines.append(f"k{level} = Concat<axis = 1>({kept[level]}, u{level})")
        conv(f"e{level}", f"k{level}", channels, channels // 2)
        at, channels = f"e{level}", channels // 2
    lines.append(f"y = Sigmoid({at})")
    return model_of("(float[1, 3, 64, 64] x) => (float[1, 8, 64, 64] y) {" + "\n".join(lines) + "}", **weights)


def resnet(blocks: int) -> ir.Model:
    lines = [f"r0 = Conv<{CONV}>(x, w0)"]
    for at in range(blocks):
        lines.append(f"a{at} = Conv<{CONV}>(r{at}, w) i{at} = Relu(a{at}) b{at} = Conv<{CONV}>(i{at}, w)")
        lines.append(f"s{at} = Add(b{at}, r{at}) r{at + 1} = Relu(s{at})")
    lines.append(f"g = GlobalAveragePool(r{blocks}) y = Flatten(g)")
    body = "(float[1, 3, 16, 16] x) => (float[1, 8] y) {" + "\n".join(lines) + "}"
    return model_of(body, w0=(8, 3, 3, 3), w=(8, 8, 3, 3))


def inception() -> ir.Model:
    return model_of(
        f"""(float[1, 8, 28, 28] x) => (float[1, 24, 28, 28] y) {{
          a = Conv(x, w1) b = Conv<{CONV}>(x, w3) c = Conv<{CONV}>(b, w3)
          p = MaxPool<{CONV}>(x) d = Conv(p, w1) y = Concat<axis = 1>(a, c, d)
        }}""",
        w1=(8, 8, 1, 1), w3=(8, 8, 3, 3),
    )  # fmt: skip


def by_id(drawn: Architecture) -> dict[str, Group]:
    return {group.id: group for group in drawn.scene.groups}


def boxes_of(drawn: Architecture) -> dict[str, Rect]:
    return dict(drawn.scene.boxes())


def words(drawn: Architecture) -> list[str]:
    return [text.text for text in drawn.scene.texts()]


def test_lenet_has_a_volume_for_each_published_layer() -> None:
    drawn = volumes(lenet(), title="LeNet-5")
    assert list(boxes_of(drawn)) == [
        "input-image", "node-c1", "node-s2", "node-c3", "node-s4", "node-d5", "node-digit", "output-digit",
    ]  # fmt: skip
    told = words(drawn)
    for expected in (
        "LeNet-5",
        "1@32×32",
        "6@28×28",
        "conv 5×5",
        "16@5×5",
        "avg pool 2×2",
        "84",
        "FC",
        "RF 5",
        "RF 16",
    ):
        assert expected in told
    assert faults(drawn.scene) == []
    tooltip = by_id(drawn)["node-c1"].tooltip.split("\n")
    assert tooltip[0] == "Conv"
    assert "156 parameters" in tooltip
    assert "then Tanh" in tooltip
    assert tooltip[-1] == "receptive field 5×5, jump 1×1, first centre at 2, 2"


def test_sides_are_to_scale_where_they_fit() -> None:
    boxes = boxes_of(volumes(lenet()))
    heights = {name: boxes[f"node-{name}"].height for name in ("c1", "s2", "c3", "s4")}
    assert heights["c1"] / heights["s2"] == pytest.approx(2.0)
    assert heights["c3"] / heights["s4"] == pytest.approx(2.0)
    assert boxes["node-c3"].width / boxes["node-c1"].width == pytest.approx(16 / 6)
    assert any("∝ size, 5 to 32" in text for text in words(volumes(lenet())))


def test_large_ranges_get_another_scale_and_say_so() -> None:
    assert [Axis.of([1, high], 13.0, 150.0).how for high in (8, 224, 10**6)] == ["linear"] * 3  # one size only
    assert [Axis.of([7, high], 13.0, 150.0).how for high in (28, 224, 10**6)] == ["linear", "sqrt", "log"]
    axis = Axis.of([3, 2048], 4.0, 30.0)
    assert axis.clamped
    assert axis.px(3) == 4.0
    assert axis.px(2048) == 30.0
    assert axis.px(512) == pytest.approx(15.0)


def test_convolutions_of_one_size_stand_close_together() -> None:
    drawn = volumes(resnet(1))
    boxes = boxes_of(drawn)
    assert boxes["node-b0"].x - (boxes["node-a0"].x + boxes["node-a0"].width) == pytest.approx(3.0)
    assert "2 × conv 3×3" in words(drawn)
    assert faults(drawn.scene) == []


def test_shortcuts_run_over_the_boxes() -> None:
    drawn = volumes(resnet(1))
    boxes = boxes_of(drawn)
    lines = [e for e in drawn.network.edges if (e.source, e.target) == ("node-r0", "node-s0")]
    assert len(lines) == 1
    assert min(y for _, y in lines[0].points) < boxes["node-a0"].y


def test_equal_blocks_are_drawn_once() -> None:
    drawn = volumes(resnet(9))
    assert "×9" in words(drawn)
    assert [name for name in boxes_of(drawn) if name.startswith("node")] == [
        "node-r0",
        "node-a0",
        "node-b0",
        "node-s0",
        "node-g",
    ]
    assert faults(drawn.scene) == []
    assert "9 times" in by_id(drawn)["node-a0"].tooltip
    assert {e.source for e in drawn.network.edges if e.target == "node-g"} == {"node-s0"}


def test_blocks_that_others_read_from_are_not_folded() -> None:
    model = resnet(9)
    taps = [node for node in model.graph if node.outputs[0].name in ("i2", "i5")]
    extra = ir.node("Concat", [taps[0].outputs[0], taps[1].outputs[0]], {"axis": 1})
    extra.outputs[0].name = "z"
    model.graph.append(extra)
    model.graph.outputs.append(extra.outputs[0])
    drawn = volumes(model)
    assert {"node-a2", "node-a5"} <= set(boxes_of(drawn))
    assert faults(drawn.scene) == []


def test_branches_stand_in_lanes() -> None:
    boxes = boxes_of(volumes(inception()))
    middles = {round(boxes[f"node-{name}"].y + boxes[f"node-{name}"].height / 2) for name in ("a", "b", "p")}
    assert len(middles) == 3
    assert faults(volumes(inception()).scene) == []


def test_an_encoder_and_its_decoder_form_a_u() -> None:
    drawn = volumes(unet())
    boxes = boxes_of(drawn)
    middle = {name: box.y + box.height / 2 for name, box in boxes.items()}
    assert middle["node-pa0"] < middle["node-pa1"] < middle["node-pa2"]
    assert middle["node-k1"] < middle["node-pa2"]
    across = [e for e in drawn.network.edges if (e.source, e.target) == ("node-pb0", "node-k0")]
    assert len({y for _, y in across[0].points}) == 1
    assert faults(drawn.scene) == []


def test_gates_fold_into_the_map_that_they_scale() -> None:
    model = model_of(
        """(float[1, 8, 16, 16] x) => (float[1, 8, 16, 16] y) {
          a = Conv(x, w) g = GlobalAveragePool(a) s = Conv(g, w) t = Sigmoid(s) y = Mul(a, t)
        }""",
        w=(8, 8, 1, 1),
    )
    drawn = volumes(model)
    assert list(boxes_of(drawn)) == ["input-x", "node-a", "output-y"]
    assert "then GlobalAveragePool, Conv, Sigmoid, Mul" in by_id(drawn)["node-a"].tooltip


def test_tokens_vectors_and_embeddings() -> None:
    model = model_of(
        """(int64[N, T] ids) => (float[N, T, 16] y) {
          e = Gather(table, ids) a = MatMul(e, w) r = Relu(a) b = MatMul(r, v) y = Add(b, e)
        }""",
        table=(100, 16), w=(16, 64), v=(64, 16),
    )  # fmt: skip
    drawn = volumes(model)
    assert {"T", "T×16", "T×64", "embedding", "linear"} <= set(words(drawn))
    assert any("Open sizes are drawn as if fixed: T as 64" in text for text in words(drawn))
    assert faults(drawn.scene) == []


def test_open_sizes_are_told_as_parts_of_the_input() -> None:
    model = model_of(
        f"(float[N, 3, H, W] x) => (float[N, 8, A, B] y) {{ c = Conv<{CONV}>(x, w) p = {POOL}(c) y = Relu(p) }}",
        w=(8, 3, 3, 3),
    )
    assert {"3@H×W", "8@H×W", "8@H/2×W/2"} <= set(words(volumes(model)))


def test_channels_last_models() -> None:
    model = model_of(
        f"""(float[1, 32, 32, 3] x) => (float[1, 16, 16, 8] y) {{
          t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv<{CONV}>(t, w) p = {POOL}(c) y = Transpose<perm = [0, 2, 3, 1]>(p)
        }}""",
        w=(8, 3, 3, 3),
    )
    drawn = volumes(model)
    assert {"3@32×32", "8@32×32", "8@16×16"} <= set(words(drawn))
    assert "RF 4" in words(drawn)


def test_bodies_and_functions_are_one_box() -> None:
    model = model_of(
        """(float[1, 4, 8, 8] x, bool c) => (float[1, 4, 8, 8] z) {
          y = If(c) <then_branch = a () => (float[1, 4, 8, 8] p) {p = Relu(x)}, else_branch = b () => (float[1, 4, 8, 8] q) {q = Neg(x)}>
          z = local.twice(y)
        }""",
        '<domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }',
    )
    drawn = volumes(model)
    assert [name for name in boxes_of(drawn) if name.startswith("node")] == ["node-y", "node-z"]
    assert {"input-x", "input-c"} <= {e.source for e in drawn.network.edges if e.target == "node-y"}


def test_nothing_to_show_is_refused_with_the_way_out() -> None:
    model = model_of("(float[1] x) => (float[1] y) { y = Relu(x) }")
    model.graph.inputs[0].shape = model.graph.outputs[0].shape = None
    with pytest.raises(InputError, match="use --style graph"):
        volumes(model)


def test_too_large_models_are_refused() -> None:
    lines = [f"t{i + 1} = {'Neg' if i % 2 else 'Relu'}(t{i})" for i in range(30_001)]
    model = model_of("(float[4] t0) => (float[4] t30001) {" + "\n".join(lines) + "}")
    with pytest.raises(InputError, match="30,001 nodes"):
        volumes(model)


def test_unknown_themes_are_refused_and_known_ones_keep_the_geometry() -> None:
    with pytest.raises(InputError, match="themes are"):
        volumes(lenet(), theme="neon")
    light, grey = volumes(lenet()), volumes(lenet(), theme="print")
    assert boxes_of(light) == boxes_of(grey)
    fills = {item.fill for group in grey.scene.groups for item in group.items if item.fill}
    assert all(fill[1:3] == fill[3:5] == fill[5:7] for fill in fills)


@pytest.mark.parametrize("ending", [ending for ending in FORMATS if ending != ".html"])
def test_every_format_is_written_alike_twice(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        volumes(lenet(), title="LeNet-5").save(tmp_path / f"{name}{ending}")
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert (tmp_path / f"a{ending}").stat().st_size > 500


def test_hostile_names_are_escaped() -> None:
    model = lenet()
    model.graph.inputs[0].name = '</svg><script>"\n' + "x" * 10_000
    model.graph.node(0).outputs[0].name = "\u202egnp.exe"
    drawn = volumes(model, title="<b>&</b>")
    assert "<script" not in scene_to_svg(drawn.scene)
    assert faults(drawn.scene) == []


def test_the_geometry_checks_catch_planted_errors() -> None:
    scene = volumes(resnet(1)).scene
    groups = {group.id: group for group in scene.groups}

    def planted(identity: str, **changes: object) -> Scene:
        changed = dataclasses.replace(groups[identity], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(scene, groups=tuple(changed if g.id == identity else g for g in scene.groups))

    first, second = groups["node-r0"].box, groups["node-a0"].box
    assert first is not None
    assert second is not None
    assert any("fronts: node-r0 and node-a0" in fault for fault in faults(planted("node-a0", box=first)))
    label = next(group for group in scene.groups if group.role == "label")
    text = next(item for item in label.items if isinstance(item, Text))
    on_box = dataclasses.replace(text, x=second.x + 5, y=second.y + 30)
    assert any("label on volume" in fault for fault in faults(planted(label.id, items=(on_box,))))
    assert any("labels:" in fault for fault in faults(planted(label.id, items=(text, text))))
    assert any("small" in fault for fault in faults(planted(label.id, items=(dataclasses.replace(text, size=6.0),))))
    assert outside(planted(label.id, items=(dataclasses.replace(text, x=-10.0),)))
    assert crossed(scene) == []
    line = next(item for item in groups["edge-r1"].items if isinstance(item, Stroke))
    through = dataclasses.replace(line, points=((0.0, second.y + 10), (scene.width, second.y + 10)), codes="ML")
    assert crossed(planted("edge-r1", items=(through,)))
    network = volumes(resnet(1)).network
    bent = dataclasses.replace(network.edges[0], points=((0.0, 5.0), (9.0, 5.0), (9.0, 6.0), (20.0, 6.0)))
    assert jogs(network) == []
    assert jogs(dataclasses.replace(network, edges=(bent,)))


@pytest.mark.corpus
@pytest.mark.slow
def test_every_model_of_the_corpus_is_drawn_without_faults_or_refused(corpus: Path) -> None:
    drawn = 0
    paths = [p for p in sorted((corpus / "models").glob("*/*.onnx")) if "opset_sweep" not in p.parts]
    for path in paths:
        if path.name.startswith("big_"):
            continue
        try:
            figure = volumes(open_model(path))
        except (ModelError, InputError):
            continue
        assert faults(figure.scene) == [], path.name
        assert jogs(figure.network) == [], path.name
        drawn += 1
    assert drawn > 100


@pytest.mark.corpus
def test_huge_models_are_drawn_or_refused_at_once(corpus: Path) -> None:
    refusals = []
    for path in sorted((corpus / "models" / "adversarial").glob("big_*.onnx")):
        try:
            volumes(open_model(path))
        except InputError as error:
            refusals.append(str(error))
    assert refusals
    assert all("use --style graph" in refusal for refusal in refusals)
