from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import InputError
from onnxviz.graph.io import open_model
from onnxviz.graph.position_maps import PositionMap, merge
from onnxviz.graph.receptive_field import ReceptiveField, receptive_fields
from onnxviz.graph.shapes import infer_shapes

SIZE = 24


def model_of(body: str, weights: dict[str, tuple[int, ...]], size: int = SIZE, opset: int = 17) -> onnx.ModelProto:
    """A net of one output ``y`` whose float weights are all positive."""
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[1, 1, {size}, {size}] x) => (float y) {body}'
    proto = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    proto.graph.output[0].type.Clear()
    return onnx.shape_inference.infer_shapes(proto)


def fields_of(proto: onnx.ModelProto) -> dict[str, ReceptiveField]:
    return receptive_fields(infer_shapes(ir.from_proto(proto)))


def seen(proto: onnx.ModelProto) -> list[dict[int, set[int]]]:
    """Ask onnxruntime: for rows and for columns, output position -> input positions that change it."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    size = proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    plain = np.ones((1, 1, size, size), np.float32)
    (before,) = session.run(None, {"x": plain})
    found: list[dict[int, set[int]]] = [{}, {}]
    for axis in (0, 1):
        for at in range(size):
            changed = plain.copy()
            changed[(0, 0, at) if axis == 0 else (0, 0, slice(None), at)] += 3.0
            (after,) = session.run(None, {"x": changed})
            for position in np.unique(np.nonzero(after != before)[2 + axis]).tolist():
                found[axis].setdefault(position, set()).add(at)
    return found


def clipped(field: ReceptiveField, axis: int, position: int, size: int) -> set[int]:
    interval = field.interval(axis, position)
    return set(range(size)) if interval is None else set(range(max(interval[0], 0), min(interval[1], size - 1) + 1))


def disagreements(proto: onnx.ModelProto, field: ReceptiveField) -> list[str]:
    """Compare first and last input position that are seen with what onnxruntime's answer reacts to."""
    size = proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    found = []
    for axis, positions in enumerate(seen(proto)):
        for position, truth in positions.items():
            told = clipped(field, axis, position, size)
            if not told or (min(told), max(told)) != (min(truth), max(truth)):
                found.append(f"axis {axis}, position {position}: {sorted(told)} for {sorted(truth)}")
    return found


W3, W5, W2 = {"w": (1, 1, 3, 3)}, {"w": (1, 1, 5, 5)}, {"w": (1, 1, 2, 2)}
NETS = {
    "chain": ("{a = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w) b = Relu(a) y = Conv<dilations = [2, 2]>(b, w)}", W3),
    "uneven": ("{a = Conv<strides = [2, 1], pads = [0, 1, 2, 1], dilations = [1, 3]>(x, w) y = Conv(a, w)}", W3),
    "same upper": ('{a = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w) y = Conv<auto_pad = "SAME_UPPER", strides = [3, 3]>(a, w)}', W3),
    "same lower": ('{a = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w) y = Conv<auto_pad = "SAME_LOWER">(a, w)}', W2),
    "valid": ('{y = Conv<auto_pad = "VALID">(x, w)}', W5),
    "pools": ("{a = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x) y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(a)}", {}),
    "residual": ("{a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Conv<pads = [1, 1, 1, 1]>(a, w) y = Add(b, x)}", W3),
    "inception": ("{a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(x, w) y = Concat<axis = 1>(a, b)}", W3),
    "upsample": ("{a = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) b = Upsample<mode = \"nearest\", scales = [1.0, 1.0, 2.0, 2.0]>(a) y = Conv<pads = [1, 1, 1, 1]>(b, w)}", W3),
    "transposed": (
        "{a = Conv<strides = [2, 2]>(x, w) b = ConvTranspose<strides = [2, 2]>(a, v) y = Conv(b, w)}",
        {"w": (1, 1, 3, 3), "v": (1, 1, 2, 2)},
    ),
    "transposed 2": ("{a = ConvTranspose<strides = [3, 3], pads = [1, 1, 1, 1]>(x, w) y = Conv<strides = [2, 2]>(a, w)}", W5),
    "u-net": ("{d = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) e = Conv<pads = [1, 1, 1, 1]>(d, w) u = ConvTranspose<strides = [2, 2]>(e, v) c = Concat<axis = 1>(u, x) y = Conv<pads = [1, 1, 1, 1]>(c, z)}",
              {"w": (1, 1, 3, 3), "v": (1, 1, 2, 2), "z": (1, 2, 3, 3)}),
    "shuffle": ("{a = SpaceToDepth<blocksize = 2>(x) b = Conv<pads = [1, 1, 1, 1]>(a, w) y = DepthToSpace<blocksize = 2>(b)}", {"w": (4, 4, 3, 3)}),
    "transpose": ("{a = Conv<strides = [2, 1]>(x, w) t = Transpose<perm = [0, 1, 3, 2]>(a) b = Conv(t, w) y = Transpose<perm = [0, 1, 3, 2]>(b)}", W3),
    "slice": ("<int64[2] s = {3, -9}, int64[2] e = {20, -1}, int64[2] a = {2, 3}, int64[2] st = {2, 1}> {b = Slice(x, s, e, a, st) y = Conv(b, w)}", W3),
    "pad": ("<int64[8] p = {0, 0, 2, 1, 0, 0, 0, 3}> {b = Pad(x, p) y = Conv<strides = [2, 2]>(b, w)}", W3),
    "global": ("{g = GlobalAveragePool(x) y = Mul(x, g)}", {}),
    "reduce": ("{y = ReduceMean<axes = [3], keepdims = 1>(x)}", {}),
    "grouped": ("{a = Concat<axis = 1>(x, x) y = Conv<group = 2>(a, w)}", {"w": (2, 1, 3, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_fields_are_what_the_runtime_reacts_to(name: str) -> None:
    body, weights = NETS[name]
    proto = model_of(body, weights, opset=8 if name == "upsample" else 12 if name == "reduce" else 17)
    assert disagreements(proto, fields_of(proto)["y"]) == []


RESIZES = [
    'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
    'mode = "nearest"',
    'mode = "linear"',
    'mode = "linear", coordinate_transformation_mode = "align_corners"',
    'mode = "cubic"',
]


@pytest.mark.parametrize("attributes", RESIZES)
@pytest.mark.parametrize("size", [12, 36, 48])
def test_resizing_inside_the_borders(attributes: str, size: int) -> None:
    proto = model_of(f"<float[4] s = {{1, 1, {size / SIZE}, {size / SIZE}}}> {{y = Resize<{attributes}>(x, , s)}}", {})
    field = fields_of(proto)["y"]
    border = size // 4
    for axis, positions in enumerate(seen(proto)):
        for position in range(border, size - border):
            told, truth = clipped(field, axis, position, SIZE), positions[position]
            assert (min(told), max(told)) == (min(truth), max(truth)), position


def test_the_comparison_catches_a_planted_error() -> None:
    body, weights = NETS["chain"]
    proto = model_of(body, weights)
    good = fields_of(proto)["y"]
    for change in (lambda m: (m.low[0] - 1, m.high[0]), lambda m: (m.low[0], m.high[0] + 1)):
        maps = tuple(_changed(entry, change) for entry in good.maps)
        assert disagreements(proto, ReceptiveField(good.axes, good.size, good.jump, good.centre, maps))


def _changed(entry: PositionMap | None, change: Callable[[PositionMap], tuple[int, int]]) -> PositionMap:
    assert entry is not None
    low, high = change(entry)
    return PositionMap(entry.axis, entry.period, entry.shift, (low,), (high,))


def test_size_jump_and_centre_of_a_vgg_stem() -> None:
    conv = "Conv<pads = [1, 1, 1, 1]>"
    pool = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"
    proto = model_of(f"{{a = {conv}(x, w) b = {conv}(a, w) c = {pool}(b) d = {conv}(c, w) y = {pool}(d)}}", W3)
    fields = fields_of(proto)
    assert {name: fields[name].size[0] for name in "xabcdy"} == {"x": 1, "a": 3, "b": 5, "c": 6, "d": 10, "y": 12}
    assert [fields["y"].jump[0], fields["y"].centre[0]] == [4, 1.5]
    assert fields["y"].whole == (False, False)


def test_sizes_of_published_networks() -> None:
    """Araujo et al. 2019, table of networks: AlexNet 195, VGG-16 212, ResNet-50 483 (strides at the end of a stage)."""
    alexnet = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
    vgg = [(3, 1), (3, 1), (2, 2)] * 2 + [(3, 1), (3, 1), (3, 1), (2, 2)] * 3
    bottlenecks = [(3, stride) for n in (3, 4, 6) for stride in [1] * (n - 1) + [2]] + [(3, 1)] * 3
    resnet = [(7, 2), (3, 2), *bottlenecks]
    for layers, size in ((alexnet, 195), (vgg, 212), (resnet, 483)):
        names = ["x", *(f"t{i}" for i in range(len(layers) - 1)), "y"]
        nodes = [
            f"{out} = MaxPool<kernel_shape = [{k}, {k}], strides = [{s}, {s}], pads = [1, 1, 1, 1]>({source})"
            for (k, s), source, out in zip(layers, names, names[1:], strict=False)
        ]
        assert fields_of(model_of("{" + "\n".join(nodes) + "}", {}, size=512))["y"].size == (size, size)


def test_channels_last_models_one_axis_and_open_sizes() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N, H, W, 1] x) => (float[N, 1, A, B] y)
    <float[1, 1, 3, 3] w> {t = Transpose<perm = [0, 3, 1, 2]>(x) y = Conv<strides = [2, 2], kernel_shape = [3, 3]>(t, w)}"""
    field = receptive_fields(infer_shapes(ir.from_onnx_text(text)))["y"]
    assert (field.axes, field.size, field.jump) == ((1, 2), (3, 3), (2, 2))
    sound = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 1, L] x) => (float[N, 1] y)
    <float[1, 1, 9] w> {c = Conv<dilations = [4], kernel_shape = [9]>(x, w) g = GlobalMaxPool(c) y = Flatten(g)}"""
    fields = receptive_fields(infer_shapes(ir.from_onnx_text(sound)))
    assert fields["c"].size == (33,)
    assert fields["y"].size == (None,)
    assert fields["y"].whole == (True,)


def test_models_without_maps_have_no_fields_and_unknown_inputs_are_refused() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y) {y = Relu(x)}'
    model = infer_shapes(ir.from_onnx_text(text))
    assert receptive_fields(model) == {}
    with pytest.raises(InputError, match="its inputs are x"):
        receptive_fields(model, "z")
    with pytest.raises(InputError, match="no axes known to be positions"):
        receptive_fields(model, "x")


def test_bodies_and_attention_see_everything() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 6] x, bool c) => (float[1, 4, 6] y, float[1, 6, 6] s)
    <float[4, 4, 1] w> {k = Conv<kernel_shape = [1]>(x, w) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(t, k)
      y = If(c) <then_branch = a () => (float[1, 4, 6] p) {p = Relu(k)}, else_branch = b () => (float[1, 4, 6] q) {q = Neg(k)}>}"""
    fields = receptive_fields(infer_shapes(ir.from_onnx_text(text)), "x")
    assert fields["k"].size == (1,)
    assert fields["s"].whole == (True,)
    assert fields["y"].whole == (True,)


def test_maps_that_do_not_run_in_step_do_not_merge() -> None:
    assert merge(PositionMap(2, 1, 1, (0,), (0,)), PositionMap(2, 1, 2, (0,), (0,))) is None
    assert merge(PositionMap(2, 2, 2, (0, 1), (0, -1)), PositionMap(2, 1, 1, (3,), (3,))) == PositionMap(
        2, 2, 2, (0, 4), (3, 4)
    )


@pytest.mark.corpus
def test_the_corpus_neither_crashes_nor_takes_long(corpus: object) -> None:
    from onnxviz.errors import ModelError

    found = 0
    for folder in ("adversarial", "classifier", "detector", "landmark", "superres"):
        for path in sorted((corpus / "models" / folder).glob("[!b]*.onnx")):  # type: ignore[operator]
            try:
                model = infer_shapes(open_model(path))
            except ModelError:
                continue
            found += len(receptive_fields(model)) > 0
    assert found > 15
