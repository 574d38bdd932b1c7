"""What a figure of volumes says, held against the model itself: frames, receptive fields, labels, scales."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from onnxviz.diagram.scene import Scene, Text
from onnxviz.diagram.volume_gates import without_gates
from onnxviz.diagram.volume_stages import Stage, collect_stages
from onnxviz.diagram.volume_units import Block, collect_units, fold_repeats
from onnxviz.diagram.volumes import volumes
from onnxviz.errors import InputError, ModelError
from onnxviz.graph.io import open_model
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.receptive_field import ReceptiveField, receptive_fields
from onnxviz.graph.shapes import infer_shapes, model_inputs, shape_list
from tests.diagram.test_volumes import inception, lenet, model_of, resnet, unet

SCALE = re.compile(r"of a map \((∝ size|∝ √size)(?:, the smallest enlarged)?, (\d+) to (\d+)\)")
SIZE = re.compile(r"\d+@(\d+)×\d+")


def inner_sizes(stage: Stage) -> list[object]:
    """Operators and the shapes of their constants, read from the model."""
    return [
        (node.op_type, [shape_list(v) for v in node.inputs if v is not None and v.is_initializer()])
        for node in stage.nodes
        if kind_of(node) not in ("shape", "embedding") or node is stage.node
    ]


def unequal(stages: Sequence[Stage], blocks: Sequence[Block]) -> list[str]:
    """Name the stages that a frame stands for although they differ from the one that is drawn."""
    found = []
    for block in blocks:
        start, period = stages.index(block.stages[0]), len(block.stages)
        for copy in range(block.times):
            for offset, drawn in enumerate(block.stages):
                other = stages[start + copy * period + offset]
                if inner_sizes(other) != inner_sizes(drawn) or other.extent != drawn.extent:
                    found.append(str(other.value.name))
    return found


def corpus_models(corpus: Path) -> Iterator[tuple[str, ir.Model]]:
    for path in sorted((corpus / "models").glob("*/*.onnx")):
        if path.parent.name in ("opset_sweep", "adversarial", "generated"):
            continue
        try:
            yield path.name, infer_shapes(open_model(path))
        except (ModelError, InputError):
            continue


def folded(model: ir.Model) -> tuple[list[Stage], list[Stage], list[Block]]:
    stages = without_gates(collect_stages(model))
    return (stages, *fold_repeats(stages))


@pytest.mark.corpus
def test_every_frame_of_the_corpus_holds_equal_blocks(corpus: Path) -> None:
    frames = 0
    for name, model in corpus_models(corpus):
        stages, _, blocks = folded(model)
        assert unequal(stages, blocks) == [], name
        frames += len(blocks)
    assert frames > 10


def test_unequal_blocks_are_caught() -> None:
    stages, _, blocks = folded(infer_shapes(resnet(9)))
    assert unequal(stages, blocks) == []
    assert unequal(stages, [Block(stages[2:4], 2)]) != []  # two convolutions, a sum and a convolution


def wrong_fields(scene: Scene, model: ir.Model, fields: Mapping[str, ReceptiveField]) -> list[str]:
    """Name the labels whose receptive field is not that of the last copy of what they stand under."""
    stages, kept, blocks = folded(model)
    last: dict[Stage, Stage] = {}
    for block in blocks:
        at = stages.index(block.stages[0]) + (block.times - 1) * len(block.stages)
        last |= {stage: stages[at + offset] for offset, stage in enumerate(block.stages)}
    found = []
    units = collect_units(kept, blocks)
    for group in scene.groups:
        told = [item.text for item in group.items if isinstance(item, Text) and item.text.startswith("RF ")]
        if group.role != "label" or not told:
            continue
        stage = units[int(group.id.removeprefix("label-"))].last
        field = fields[str(last.get(stage, stage).value.name)]
        sizes = ["all" if whole else str(size) for size, whole in zip(field.size, field.whole, strict=True)]
        if told[0] != "RF " + (sizes[0] if len(set(sizes)) == 1 else "×".join(sizes)):
            found.append(f"{stage.value.name}: {told[0]}, not {sizes}")
    return found


@pytest.mark.corpus
def test_every_printed_receptive_field_is_that_of_the_last_block(corpus: Path) -> None:
    told = 0
    for name, model in corpus_models(corpus):
        if sum(len(shape_list(value) or []) > 2 for value in model_inputs(model)) != 1:
            continue
        try:
            scene = volumes(model).scene
        except InputError:
            continue
        assert wrong_fields(scene, model, receptive_fields(model)) == [], name
        told += sum(text.text.startswith("RF ") for text in scene.texts())
    assert told > 50


def test_wrong_receptive_fields_are_caught() -> None:
    model = infer_shapes(resnet(9))
    scene, fields = volumes(model).scene, receptive_fields(model)
    assert wrong_fields(scene, model, fields) == []
    larger = {n: dataclasses.replace(f, size=tuple((s or 0) + 1 for s in f.size)) for n, f in fields.items()}
    assert wrong_fields(scene, model, larger) != []


def pixel_shuffle() -> ir.Model:
    return model_of(
        """(float[1, 3, 16, 16] x) => (float[1, 4, 32, 32] y) {
          a = Conv(x, w) d = DepthToSpace<blocksize = 2>(a) t = ConvTranspose<strides = [2, 2]>(d, u)
          y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(t)
        }""",
        w=(16, 3, 1, 1), u=(4, 4, 2, 2),
    )  # fmt: skip


def misnamed(model: ir.Model, stages: Sequence[Stage]) -> list[str]:
    """Name the stages whose sides are not those that the runtime computes."""
    proto = ir.to_proto(model)
    made = [stage for stage in stages if stage.role == "node"]
    outputs = {output.name for output in proto.graph.output}
    for stage in made:
        if stage.value.name not in outputs:
            proto.graph.output.add().name = str(stage.value.name)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {
        value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape], np.float32)
        for value in session.get_inputs()
    }
    names = [str(stage.value.name) for stage in made]
    found = []
    for stage, value in zip(made, session.run(names, feeds), strict=True):
        extent = stage.extent
        sides = (extent.channels, *extent.spatial)
        if sides != tuple(value.shape[1:]):
            found.append(f"{stage.value.name}: {sides}, not {value.shape}")
    return found


@pytest.mark.parametrize("model", [lenet(), unet(), inception(), resnet(2), pixel_shuffle()])
def test_sides_are_those_that_the_runtime_computes(model: ir.Model) -> None:
    stages = collect_stages(infer_shapes(model))
    assert misnamed(model, stages) == []
    planted = next(stage for stage in stages if stage.role == "node")
    planted.extent = dataclasses.replace(planted.extent, channels=7)
    assert len(misnamed(model, stages)) == 1


def off_scale(scene: Scene) -> list[str]:
    """Name the boxes whose height is not what label and legend say; maps alone, one box to a label."""
    legend = SCALE.search(" ".join(text.text for text in scene.texts()))
    assert legend is not None
    how, low, high = legend[1], int(legend[2]), int(legend[3])
    boxes = dict(scene.boxes())
    tallest = max(box.height for box in boxes.values())
    found = []
    for group in scene.groups:
        if group.role != "label":
            continue
        rows = [SIZE.fullmatch(item.text) for item in group.items if isinstance(item, Text)]
        size = next((int(match[1]) for match in rows if match), 0)
        if not size:
            continue
        x, top = group.items[0].x, group.items[0].y  # type: ignore[union-attr]
        box = max(
            (b for b in boxes.values() if b.x - 60 < x < b.x + b.width + 60 and b.y + b.height < top),
            key=lambda b: (b.y + b.height, -abs(b.x - x)),
        )
        part = size / high
        expected = tallest * (part if how == "∝ size" else part**0.5)
        if not low <= size <= high or abs(box.height - expected) > 0.5:
            found.append(f"{size}: {box.height:.1f}, not {expected:.1f}")
    return found


@pytest.mark.parametrize("model", [lenet(), unet(), unet(5), pixel_shuffle()])
def test_heights_are_what_the_legend_says(model: ir.Model) -> None:
    scene = volumes(model).scene
    assert off_scale(scene) == []


def test_heights_off_the_scale_are_caught() -> None:
    scene = volumes(lenet()).scene
    group = next(group for group in scene.groups if group.id == "node-s2")
    assert group.box is not None
    smaller = dataclasses.replace(group, box=dataclasses.replace(group.box, height=group.box.height - 5))
    changed = dataclasses.replace(scene, groups=tuple(smaller if g is group else g for g in scene.groups))
    assert len(off_scale(changed)) == 1
