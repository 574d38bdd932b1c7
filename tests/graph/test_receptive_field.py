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
from onnxviz.graph.position_maps import PositionMap, bordered, identity_map, merge
from onnxviz.graph.receptive_field import ReceptiveField, receptive_fields
from onnxviz.graph.shapes import infer_shapes

SIZE = 24


def model_of(
    body: str, weights: dict[str, tuple[int, ...]], size: int = SIZE, opset: int = 17, channels: int = 1
) -> onnx.ModelProto:
    """A net of one output ``y`` whose float weights are all positive."""
    imports = f'"": {opset}, "com.microsoft": 1, "local": 1'
    text = f"<ir_version: 8, opset_import: [{imports}]> g (float[1, {channels}, {size}, {size}] x) => (float y) {body}"
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
    _, channels, size, _ = session.get_inputs()[0].shape
    plain = np.linspace(0.5, 1.5, channels * size * size, dtype=np.float32).reshape(1, channels, size, size)
    (before,) = session.run(None, {"x": plain})
    found: list[dict[int, set[int]]] = [{}, {}]
    for axis in (0, 1):
        for at in range(size):
            for change in (3.0, -0.3):
                changed = plain.copy()
                changed[(0, slice(None), at) if axis == 0 else (0, slice(None), slice(None), at)] += change
                (after,) = session.run(None, {"x": changed})
                for position in np.unique(np.nonzero(after != before)[axis - 2]).tolist():
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


def too_small(field: ReceptiveField, truths: list[dict[int, set[int]]]) -> list[tuple[int, int]]:
    """Return axis and output position of each interval that leaves out what onnxruntime's answer reacts to."""
    return [
        (axis, position)
        for axis, positions in enumerate(truths)
        for position, truth in positions.items()
        if not clipped(field, axis, position, SIZE) >= truth
    ]


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


# What opset they are of, how many channels come in; a field told too small, and why, stands in each name.
PASSED_ON = {
    "softmax over all axes behind one": (11, 3, "{y = Softmax<axis = 1>(x)}", {}),
    "softmax, default axis of old": (11, 3, "{y = LogSoftmax(x)}", {}),
    "softmax over one axis": (13, 3, "{a = Softmax<axis = 1>(x) y = Softmax<axis = -1>(a)}", {}),
    "axis of a sum is an input": (17, 1, "<int64 a = {2}> {y = CumSum(x, a)}", {}),
    "norm along positions": (17, 3, "{y = LpNormalization<axis = 2>(x)}", {}),
    "computed axes of a slice": (
        17, 1, "<int64[1] s = {4}, int64[1] e = {99}> {d = Shape(x) f = Gather(d, s0) a = Sub(f, n) y = Slice(x, s, e, a)}",
        {"s0": np.array([0]), "n": np.array([-2])},
    ),
    "rows of a transposed matrix": (
        17, 1, "<int64[2] a = {0, 1}> {s = Squeeze(x, a) g = Gemm<transA = 1>(s, w) t = Transpose(g) y = Unsqueeze(t, a)}",
        {"w": (24, 24)},
    ),
    "added matrix": (
        17, 1, "<int64[2] a = {0, 1}> {s = Squeeze(x, a) t = Transpose(s) g = Gemm(w, w, t) u = Transpose(g) y = Unsqueeze(u, a)}",
        {"w": (24, 24)},
    ),
    "product of transposes": (17, 1, "{g = com.microsoft.FusedMatMul<transA = 1>(x, w) y = Transpose<perm = [0, 1, 3, 2]>(g)}", {"w": (1, 1, 24, 24)}),
    "function named as an operator": (
        17, 1, '{y = local.Relu(x)} <domain: "local", opset_import: ["": 17]> Relu (a) => (b) {g = GlobalAveragePool(a) b = Mul(a, g)}', {},
    ),
    "mirrored": (17, 1, '<int64[8] p = {0, 0, 3, 2, 0, 0, 1, 3}> {a = Conv(x, w) b = Pad<mode = "reflect">(a, p) y = Conv<strides = [2, 1]>(b, w)}', W3),
    "repeated border": (17, 1, '<int64[8] p = {0, 0, 3, 2, 0, 0, 1, 3}> {a = Conv(x, w) b = Pad<mode = "edge">(a, p) y = Conv(b, w)}', W3),
    "from the other end": (19, 1, '<int64[8] p = {0, 0, 3, 2, 0, 0, 1, 3}> {b = Pad<mode = "wrap">(x, p) y = Conv(b, w)}', W3),
    "last window in the padding": (17, 1, "{a = MaxPool<kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1>(x) y = Conv(a, w)}", W3),
    "nearest below": (17, 1, '<float[4] s = {1, 1, 1.6, 0.4}> {y = Resize<mode = "nearest", nearest_mode = "floor">(x, , s)}', {}),
    "nearest above": (17, 1, '<float[4] s = {1, 1, 1.6, 0.4}> {y = Resize<mode = "nearest", nearest_mode = "ceil">(x, , s)}', {}),
    # What was needlessly said to see everything.
    "one channel": (17, 3, "<int64 i = {1}, int64[1] a = {1}> {b = Gather<axis = 1>(x, i) c = Unsqueeze(b, a) y = Conv(c, w)}", W3),
    "computed chunk": (
        17, 4, "<int64[1] o = {1}, int64[1] t = {2}, int64[1] z = {0}> {d = Shape(x) c = Gather(d, o) h = Div(c, t) b = Slice(x, z, h, o) e = Slice(x, h, c, o) f = Add(b, e) y = Conv(f, w)}",
        {"w": (1, 2, 3, 3)},
    ),
    "repeated rows": (
        17, 1, "<int64[5] r = {1, 1, 1, 2, 1}, int64[4] s = {1, 1, 48, 24}, int64[1] a = {3}> {u = Unsqueeze(x, a) t = Tile(u, r) b = Reshape(t, s) y = Conv(b, w)}", W3,
    ),
    "an axis of one moved by reshaping": (
        17, 1, "<int64[4] l = {1, 24, 24, 1}, int64[4] f = {1, 1, 24, 24}> {a = Reshape(x, l) b = Relu(a) c = Reshape(b, f) y = Conv(c, w)}", W3,
    ),
    "an axis of one put in and taken out": (
        17, 1, "<int64[6] l = {1, 1, 24, 1, 24, 1}, int64[4] f = {1, 1, 24, 24}> {a = Reshape(x, l) c = Reshape(a, f) y = Conv(c, w)}", W3,
    ),
    "transposed to a size": (17, 1, "{a = ConvTranspose<strides = [2, 3], output_shape = [48, 71]>(x, w) y = Conv(a, w)}", W3),
    "transposed to another size": (17, 1, "{y = ConvTranspose<strides = [2, 1], output_shape = [50, 24]>(x, w)}", W5),
    "transposed, the same below": (17, 1, '{y = ConvTranspose<strides = [2, 1], auto_pad = "SAME_LOWER">(x, w)}', W5),
    "transposed, the same above": (17, 1, '{y = ConvTranspose<strides = [2, 1], auto_pad = "SAME_UPPER">(x, w)}', {"w": (1, 1, 3, 4)}),
    "cropped": (6, 3, "{a = Crop<border = [1, 2, 3, 4]>(x) y = ImageScaler<bias = [0.0, 1.0, 2.0], scale = 2.0>(a)}", {}),
    "computed padding": (
        17, 1, "<int64[4] p = {0, 1, 2, 3}, int64[1] n = {4}, int64[2] two = {-1, 2}, int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] a = {0}>"
        "{z = ConstantOfShape<value = int64[1] {0}>(n) c = Concat<axis = 0>(p, z) r = Reshape(c, two) b = Slice(r, s, e, a, s)"
        "t = Transpose<perm = [1, 0]>(b) f = Reshape(t, s) i = Cast<to = 7>(f) q = Pad(x, i) y = Conv(q, w)}", W3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED_ON)
def test_fields_where_attributes_and_small_tensors_decide(name: str) -> None:
    opset, channels, body, weights = PASSED_ON[name]
    constants = {key: value for key, value in weights.items() if isinstance(value, np.ndarray)}
    proto = model_of(body, {k: v for k, v in weights.items() if k not in constants}, opset=opset, channels=channels)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in constants.items())
    field = fields_of(proto)["y"]
    truths = seen(proto)
    assert all(truths)
    assert too_small(field, truths) == []
    for axis, positions in enumerate(truths):
        for position, truth in positions.items():
            told = clipped(field, axis, position, SIZE)
            if name not in LARGER and not field.whole[axis]:
                assert (min(told), max(told)) == (min(truth), max(truth)), (axis, position)
    assert field.whole == WHOLE.get(name, (False, False))


LARGER = ("nearest below", "nearest above", "last window in the padding")
WHOLE = {
    "softmax over all axes behind one": (True, True),
    "softmax, default axis of old": (True, True),
    "softmax over one axis": (False, True),
    "axis of a sum is an input": (True, False),
    "norm along positions": (True, False),
    "rows of a transposed matrix": (True, False),
    "product of transposes": (True, False),
    "function named as an operator": (True, True),
}

RESIZES = [
    f'mode = "{mode}", coordinate_transformation_mode = "{how}"'
    for mode in ("nearest", "linear", "cubic")
    for how in (
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn",
    )
] + [
    'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
    'mode = "linear", antialias = 1',
    'mode = "cubic", antialias = 1',
]  # fmt: skip
SCALES = [0.25, 0.35, 0.5, 1.5, 2.0, 2.3]


def resized(attributes: str, given: str, opset: int = 19) -> tuple[ReceptiveField, list[dict[int, set[int]]]]:
    where = ", , s" if given.startswith("float") else ", , , s"
    proto = model_of(f"<{given}> {{y = Resize<{attributes}>(x{where})}}", {}, opset=opset)
    return fields_of(proto)["y"], seen(proto)


@pytest.mark.parametrize("attributes", RESIZES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("given", ["scales", "sizes", "axes"])
def test_resizing_is_never_told_too_small(attributes: str, scale: float, given: str) -> None:
    if given == "sizes":
        field, positions = resized(attributes, f"int64[4] s = {{1, 1, {int(SIZE * scale)}, 17}}")
    elif given == "axes":
        field, positions = resized(f"{attributes}, axes = [3, 2]", f"float[2] s = {{1.7, {scale}}}")
    else:
        field, positions = resized(attributes, f"float[4] s = {{1, 1, {scale}, 0.7}}")
    assert too_small(field, positions) == []
    for axis in (0, 1):
        for position, truth in positions[axis].items():
            told = clipped(field, axis, position, SIZE)
            # Floats may fall on either side of a boundary: no more than the two positions are added for it.
            spare = 2 if "antialias" in attributes else 3 if "cubic" in attributes else 2
            assert min(truth) - min(told) <= spare, (axis, position)
            assert max(told) - max(truth) <= spare, (axis, position)


@pytest.mark.parametrize("attributes", RESIZES)
@pytest.mark.parametrize("size", [12, 36, 48])
def test_resizing_by_even_scales_is_exact_inside_the_borders(attributes: str, size: int) -> None:
    field, seen_at = resized(attributes, f"float[4] s = {{1, 1, {size / SIZE}, {size / SIZE}}}")
    border = size // 4
    for axis, positions in enumerate(seen_at):
        for position in range(border, size - border):
            told, truth = clipped(field, axis, position, SIZE), positions[position]
            if "half_pixel_symmetric" in attributes:
                assert told >= truth
            else:
                assert (min(told), max(told)) == (min(truth), max(truth)), position


def test_resizing_that_cannot_be_told_sees_everything() -> None:
    kept, _ = resized(
        'mode = "linear", axes = [2, 3], keep_aspect_ratio_policy = "not_larger"', "int64[2] s = {10, 12}"
    )
    assert kept.whole == (True, True)
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, H, 8] x, float[4] s) => (float[1, 1, A, B] y)
    {r = Relu(x) p = MaxPool<kernel_shape = [1, 1]>(r) y = Resize<mode = "nearest">(p, , s)}"""
    assert receptive_fields(infer_shapes(ir.from_onnx_text(text)), "x")["y"].whole == (True, True)


def test_a_slice_along_an_open_axis_sees_everything() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 9, 8] x, int64[1] a) => (float[1, 1, A, B] y)
    <int64[1] s = {3}, int64[1] e = {5}> {p = MaxPool<kernel_shape = [1, 1]>(x) y = Slice(p, s, e, a)}"""
    assert receptive_fields(infer_shapes(ir.from_onnx_text(text)), "x")["y"].whole == (True, True)


def test_half_of_an_attention_score_that_is_summed_away_was_seen() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 4, 6] x) => (float[1, 6] y) <float[4, 4, 1] w>
    {k = Conv<kernel_shape = [1]>(x, w) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(t, k)
     y = ReduceMean<axes = [2], keepdims = 0>(s)}"""
    assert receptive_fields(infer_shapes(ir.from_onnx_text(text)), "x")["y"].whole == (True,)


def test_statistics_count_as_elementwise() -> None:
    for body in (
        "{y = InstanceNormalization(x, w, w)}",
        "{y = MeanVarianceNormalization<axes = [2, 3]>(x)}",
        "{q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)}",
    ):
        assert fields_of(model_of(f"{{p = MaxPool<kernel_shape = [1, 1]>(x) {body[1:]}", {"w": (1,)}))["y"].size == (
            1,
            1,
        )


def test_the_comparison_catches_a_planted_error() -> None:
    body, weights = NETS["chain"]
    proto = model_of(body, weights)
    good = fields_of(proto)["y"]
    for change in (lambda m: (m.low[0] - 1, m.high[0]), lambda m: (m.low[0], m.high[0] + 1)):
        maps = tuple(_changed(entry, change) for entry in good.maps)
        assert disagreements(proto, ReceptiveField(good.axes, good.size, good.jump, good.centre, maps))
    narrow = tuple(_changed(entry, lambda m: (m.low[0] + 1, m.high[0])) for entry in good.maps)
    assert too_small(ReceptiveField(good.axes, good.size, good.jump, good.centre, narrow), seen(proto))


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


@pytest.mark.parametrize(
    "node",
    [
        "Gather(p)", "Gather<axis = 9>(p, i)", "Slice(p)", "Slice<starts = [1, 2, 3, 4, 5]>(p)", "Tile(p)", "Pad(p)",
        'Upsample<scales = "four">(p)', "Upsample<scales = [0.0, -1.0, 1e30, 2.0]>(p)", "Resize(p)", "Split<axis = 7>(p)",
        "Squeeze<axes = [9]>(p)", "Transpose<perm = [0, 0]>(p)", "Softmax<axis = 5>(p)", "CumSum(p)", "Gemm(p)",
        "MatMul(p)", "Crop<border = [1]>(p)", "ConvTranspose<output_shape = [1], kernel_shape = [2, 2]>(p)",
        "ReduceMean<axes = [44]>(p)", "Reshape(p)", "Unsqueeze(p)", "DepthToSpace(p)", "Concat<axis = 8>(p, p)",
    ],
)  # fmt: skip
def test_malformed_nodes_see_everything_or_pass_on(node: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[1, 3, 8, 8] x, int64 i) => (float y)
    {{p = MaxPool<kernel_shape = [1, 1]>(x) y = {node}}}"""
    assert "y" in receptive_fields(infer_shapes(ir.from_onnx_text(text)), "x")


def test_maps_that_do_not_run_in_step_do_not_merge() -> None:
    assert merge(PositionMap(2, 1, 1, (0,), (0,)), PositionMap(2, 1, 2, (0,), (0,))) is None
    assert merge(PositionMap(2, 2, 2, (0, 1), (0, -1)), PositionMap(2, 1, 1, (3,), (3,))) == PositionMap(
        2, 2, 2, (0, 4), (3, 4)
    )


def test_borders_are_written_out_up_to_a_length() -> None:
    assert bordered(identity_map(2), 1, 1, lambda i: (0,), 1025) is None
    for size, told in ((600, (0, 1)), (3000, (-1, 1))):
        body = '<int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> {b = Pad<mode = "reflect">(x, p) y = Conv(b, w)}'
        field = fields_of(model_of(body, W3, size))["y"]
        assert (field.size, field.jump) == ((3, 3), (1, 1))
        assert field.interval(0, 0) == told


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
