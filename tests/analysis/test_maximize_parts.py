"""The parts of activation maximization, each against a second implementation: numpy, PyTorch, the definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.maximize_batches import batch_size, other_inputs
from onnxviz.analysis.maximize_canvas import find_canvas
from onnxviz.analysis.maximize_graph import step_rates
from onnxviz.analysis.maximize_model import Plan, answers_model, bound_model
from onnxviz.analysis.maximize_parameters import Parameters, color_matrix, frequency_scale
from onnxviz.analysis.maximize_resume import Checkpoint, Done, Running
from onnxviz.analysis.maximize_terms import Goal, Layer, layer_of, write_diversity, write_goal
from onnxviz.analysis.maximize_views import Views, view_matrix, write_views
from onnxviz.errors import InputError, MemoryLimitError, SelectionError
from onnxviz.gradient.ops import Ops
from onnxviz.graph.io import open_model
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.preprocess import PRESETS, Preprocessing
from onnxviz.runtime.session import Session


def ran(write, feeds: dict[str, np.ndarray], opset: int = 18) -> np.ndarray:
    """Run the one output of nodes that a function writes."""
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(array.shape))
        for name, array in feeds.items()
    ]
    graph = ir.Graph(list(inputs), [], nodes=[], name="g", opset_imports={"": opset})
    graph.outputs.append(write(Ops(graph, {*feeds}, "t"), *inputs))
    graph.outputs[0].dtype = ir.DataType.FLOAT
    model = ir.Model(graph, ir_version=9)
    return np.asarray(next(iter(Session(model, "cpu").run(feeds).values())))


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# the spectrum


def by_numpy(parameters: Parameters, numbers: np.ndarray) -> np.ndarray:
    """What the numbers stand for, by numpy's transform."""
    values = numbers.astype(np.float64)
    if parameters.kind == "fft":
        half = values.shape[-2 if len(parameters.size) == 2 else -1] // 2
        parts = np.split(values, [half], axis=-2 if len(parameters.size) == 2 else -1)
        spectrum = (parts[0] + 1j * parts[1]) * frequency_scale(parameters.whole, parameters.decay)
        axes = tuple(range(-len(parameters.size), 0))
        values = np.fft.irfftn(spectrum, parameters.whole, axes=axes)[..., : parameters.size[-1]] / 4
    matrix = color_matrix(parameters.color)
    if matrix is not None:
        values = np.einsum("ck,nk...->nc...", matrix, values)
    return 1 / (1 + np.exp(-values))


CASES = [
    Parameters("fft", 3, (8, 10), "rgb"), Parameters("fft", 3, (9, 7), "bgr"), Parameters("fft", 1, (28, 28)),
    Parameters("fft", 2, (16,)), Parameters("fft", 1, (15,), decay=0.5), Parameters("fft", 2, (4099,)),
    Parameters("fft", 1, (4100,)), Parameters("pixel", 3, (5, 6), "rgb"), Parameters("pixel", 1, (7,)),
]  # fmt: skip


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("parameters", CASES, ids=str)
def test_numbers_become_pictures_as_numpy_has_it(parameters: Parameters, opset: int) -> None:
    numbers = 20 * np.stack([parameters.random(np.random.default_rng(i)) for i in range(2)])
    made = ran(lambda ops, x: parameters.write(ops, x, 2, opset), {"x": numbers}, opset)
    np.testing.assert_allclose(made, by_numpy(parameters, numbers), atol=3e-5)


def test_a_wrong_scale_is_caught() -> None:
    numbers = 20 * CASES[0].random(np.random.default_rng(0))[None]
    made = ran(lambda ops, x: Parameters("fft", 3, (8, 10), "rgb", 1.01).write(ops, x, 1, 18), {"x": numbers})
    assert np.abs(made - by_numpy(CASES[0], numbers)).max() > 1e-4


@pytest.mark.parametrize("parameters", CASES, ids=str)
def test_a_picture_is_encoded_and_comes_back(parameters: Parameters) -> None:
    values = np.random.default_rng(0).uniform(0.05, 0.95, (parameters.channels, *parameters.size))
    np.testing.assert_allclose(by_numpy(parameters, parameters.encode(values)[None])[0], values, atol=2e-4)
    with pytest.raises(InputError, match="is not of shape"):
        parameters.encode(values[..., 1:])


def test_the_spectrum_of_noise_falls_as_one_over_f() -> None:
    parameters = Parameters("fft", 1, (64, 64))
    numbers = np.stack([parameters.random(np.random.default_rng(i)) for i in range(64)])
    values = np.log(1 / (1 / by_numpy(parameters, numbers) - 1))
    power = np.abs(np.fft.rfft2(values)).mean(axis=(0, 1))
    assert power[4, 0] / power[16, 0] == pytest.approx(4, rel=0.35)


# views


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize(("picture", "model"), [((9, 12), (9, 12)), ((20, 14), (8, 10))])
def test_views_are_read_as_pytorch_reads_them(picture: tuple[int, int], model: tuple[int, int], opset: int) -> None:
    torch = pytest.importorskip("torch")
    views = Views(pad=20, jitter=(60, 30), rotate=25)
    matrices = np.stack([views.draw(np.random.default_rng(i), picture) for i in range(3)])
    pictures = np.random.default_rng(0).random((3, 2, *picture)).astype(np.float32)
    made = ran(
        lambda ops, x, m: write_views(ops, x, m, (3, 2, *picture), model, opset), {"x": pictures, "m": matrices}, opset
    )
    theta = torch.from_numpy(matrices).transpose(1, 2)
    grid = torch.nn.functional.affine_grid(theta, (3, 2, *model), align_corners=False)
    read = torch.nn.functional.grid_sample(torch.from_numpy(pictures) - 0.5, grid, align_corners=False) + 0.5
    np.testing.assert_allclose(made, read.numpy(), atol=1e-5)


def test_views_of_signals_are_interpolated() -> None:
    signal = np.random.default_rng(0).random((1, 2, 40)).astype(np.float32)
    matrix = view_matrix((40,), [3.0], [0.5], [0.8])
    made = ran(lambda ops, x, m: write_views(ops, x, m, (1, 2, 40), (40,), 18), {"x": signal, "m": matrix[None]})
    places = (np.arange(40) - 19.5) * 0.8 + 3.5 + 19.5
    for row in range(2):
        expected = np.interp(places, np.arange(-1, 41), np.concatenate([[0.5], signal[0, row], [0.5]]))
        np.testing.assert_allclose(made[0, row], expected, atol=1e-5)


def seen(pictures: np.ndarray, **how: object) -> np.ndarray:
    size = pictures.shape[1:]
    matrix = view_matrix(size, **how)[None]  # type: ignore[arg-type]
    shape = (1, *pictures.shape)
    return ran(lambda ops, x, m: write_views(ops, x, m, shape, size, 18), {"x": pictures[None], "m": matrix})[0]


def test_views_go_where_they_are_said_to_go() -> None:
    picture = np.random.default_rng(0).random((1, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(seen(picture), picture, atol=1e-6)
    down = seen(picture, shift=(2, 0))
    np.testing.assert_allclose(down[:, :4], picture[:, 2:], atol=1e-5)
    np.testing.assert_allclose(down[:, 4:], 0.5, atol=1e-5)
    turned = seen(picture, angle=math.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(picture, axes=(1, 2)), atol=1e-5)
    # the late shift is turned with the window, so a step down reads a step to the left
    np.testing.assert_allclose(seen(picture, angle=math.pi / 2, late=(1, 0))[:, :5], turned[:, 1:], atol=1e-5)


def test_views_stay_in_their_ranges_and_do_not_depend_on_one_another() -> None:
    views = Views()
    draws = [views.draw(np.random.default_rng([0, i]), (224, 224)) for i in range(400)]
    scale = np.array([np.sqrt(abs(np.linalg.det(d[:2]))) for d in draws])
    assert 1.05 / 1.1 < scale.min() < 0.97
    assert 1.15 < scale.max() < 1.06 / 0.9
    angles = np.degrees([np.arctan2(d[0, 1], d[0, 0]) for d in draws])
    assert angles.min() == pytest.approx(-10, abs=0.3)
    assert angles.max() == pytest.approx(10, abs=0.3)
    shifts = np.array([d[2] * 112 for d in draws])
    assert np.abs(shifts).max() < 4 + 2 * 1.3
    np.testing.assert_array_equal(Views.none().draw(np.random.default_rng(0), (9, 9)), view_matrix((9, 9)))
    assert Views.none().still
    assert not views.still


def test_octaves_look_closer_and_stay_inside() -> None:
    views = Views(pad=0, jitter=(0, 0), scale=(1, 1), rotate=0, octaves=3, ratio=2)
    for octave, window in enumerate((1, 0.5, 0.25)):
        for i in range(50):
            matrix = views.draw(np.random.default_rng(i), (64, 48), octave)
            np.testing.assert_allclose(np.diag(matrix[:2]), window)
            assert np.abs(matrix[2]).max() <= 1 - window + 1e-6


# terms


LAYER = Layer("layer", "Conv", "NCHW", 5, (3, 4))


def scored(goal: Goal, block: np.ndarray, layer: Layer = LAYER) -> np.ndarray:
    if goal.kind == "energy":
        return ran(lambda ops, b: write_goal(ops, b, goal, None, True), {"b": block})
    target = np.repeat(goal.target(layer)[None], len(block), axis=0)
    return ran(lambda ops, b, t: write_goal(ops, b, goal, t, goal.everywhere), {"b": block, "t": target})


def test_terms_are_what_they_are_defined_as() -> None:
    block = floats(2, 5, 12)
    full = block.reshape(2, 5, 3, 4)
    np.testing.assert_allclose(scored(Goal("layer", channel=3), block), full[:, 3].mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(scored(Goal("layer", channel=3, position=()), block), full[:, 3, 1, 2], atol=1e-6)
    np.testing.assert_allclose(scored(Goal("layer", channel=1, position=(-1, 0)), block), full[:, 1, 2, 0], atol=1e-6)
    np.testing.assert_allclose(scored(Goal("layer", "energy"), block), np.square(block).mean(axis=(1, 2)), atol=1e-6)
    way = floats(5, seed=1)
    dots = np.einsum("ncp,c->np", block, way)
    np.testing.assert_allclose(scored(Goal("layer", direction=way), block), dots.mean(axis=1), atol=1e-6)
    lengths = np.linalg.norm(block, axis=1) * np.linalg.norm(way)
    wanted = (dots * np.maximum(dots / lengths, 0.1) ** 2).mean(axis=1)
    np.testing.assert_allclose(scored(Goal("layer", direction=way, cosine=2), block), wanted, atol=1e-5)
    each = floats(5, 12, seed=2)
    np.testing.assert_allclose(scored(Goal("layer", direction=each), block), (block * each).sum(1).mean(1), atol=1e-6)


def test_likeness_is_the_cosine_of_gram_matrices() -> None:
    block, mates = floats(3, 4, 6), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    gram = np.einsum("ncp,ndp->ncd", block, block).reshape(3, -1)
    unit = gram / np.linalg.norm(gram, axis=1, keepdims=True)
    made = ran(lambda ops, b, m: write_diversity(ops, b, m, 3), {"b": block, "m": mates})
    np.testing.assert_allclose(made, [unit[0] @ unit[1], unit[0] @ unit[1], 0], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "op", "layout", "axes", "channels", "places"),
    [
        ((2, 5, 3, 4), "Conv", "NCHW", "NCHW", 5, (3, 4)), ((2, 3, 4, 5), "Conv", "NHWC", "NHWC", 5, (3, 4)),
        ((2, 7, 5), "MatMul", None, "NWC", 5, (7,)), ((2, 5), "Gemm", None, "NC", 5, ()),
        ((7, 2, 2, 5), "LSTM", None, "TdNC", 10, (7,)), ((2, 2, 5), "LSTM", None, "dNC", 10, ()),
    ],
)  # fmt: skip
def test_layers_are_channels_over_positions(
    shape: tuple[int, ...], op: str, layout: str | None, axes: str, channels: int, places: tuple[int, ...]
) -> None:
    node = ir.node(op, [ir.Value(name="x")])
    value = node.outputs[0]
    value.name, value.type, value.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    layer = layer_of(value, 2, layout)
    assert (layer.axes, layer.channels, layer.places) == (axes, channels, places)
    array = floats(*shape)
    made = ran(lambda ops, x: layer.write(ops, x, 2), {"x": array})
    letters = axes.lower().replace("t", "p").replace("h", "p").replace("w", "q" if "H" in axes else "p")
    order = (
        "n" + ("d" if "d" in letters else "") + "c" + ("p" if "p" in letters else "") + ("q" if "q" in letters else "")
    )
    np.testing.assert_array_equal(made, np.einsum(f"{letters}->{order}", array).reshape(2, channels, -1))


def test_layers_that_have_none_are_refused() -> None:
    node = ir.node("Conv", [ir.Value(name="x")])
    value = node.outputs[0]
    value.name, value.type, value.shape = "y", ir.TensorType(ir.DataType.INT8), ir.Shape([2, 3])
    with pytest.raises(SelectionError, match="int8, not floating point"):
        layer_of(value, 2, None)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    with pytest.raises(SelectionError, match="has no axis of the 4 pictures"):
        layer_of(value, 4, None)
    value.shape = None
    with pytest.raises(SelectionError, match="not known before the model runs"):
        layer_of(value, 4, None)
    with pytest.raises(SelectionError, match=r"no position 5,0; it has 3×4 positions"):
        LAYER.place((5, 0))
    with pytest.raises(SelectionError, match="has 5 numbers, one a channel"):
        Goal("layer", direction=np.ones(4)).target(LAYER)
    with pytest.raises(SelectionError, match="NaN"):
        Goal("layer", direction=np.full(5, np.nan)).target(LAYER)


# the input


def text_model(inputs: str, body: str = "y = Relu(x)", outputs: str = "float[?] y") -> ir.Model:
    return infer_shapes(
        ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 18]> g ({inputs}) => ({outputs}) {{{body}}}')
    )


@pytest.mark.parametrize(
    ("inputs", "kind", "order", "channels", "size", "batch"),
    [
        ("float[n, 3, 8, 9] x", "picture", "NCHW", 3, (8, 9), None),
        ("float[1, 8, 9, 3] x", "picture", "NHWC", 3, (8, 9), 1),
        ("float[3, 8, 9] x", "picture", "CHW", 3, (8, 9), 1),
        ("float[n, 9, 8, 9] x", "map", "NCHW", 9, (8, 9), None),
        ("float[n, 300] x", "signal", "NL", 1, (300,), None),
        ("float[n, 30] x", "vector", "NL", 1, (30,), None),
        ("float[7] x", "vector", "L", 1, (7,), 1),
        ("float[n, 50, 6] x", "signal", "NLC", 6, (50,), None),
        ("float[n, 1, 257] x", "signal", "NCL", 1, (257,), None),
    ],
)
def test_inputs_are_told_apart(
    inputs: str, kind: str, order: str, channels: int, size: tuple[int, ...], batch: int | None
) -> None:
    canvas = find_canvas(text_model(inputs))
    assert (canvas.kind, canvas.order, canvas.channels, canvas.size, canvas.batch) == (
        kind,
        order,
        channels,
        size,
        batch,
    )
    values = np.random.default_rng(0).random((1, channels, *size)).astype(np.float32)
    made = ran(lambda ops, x: canvas.write(ops, x, 1, ir.DataType.FLOAT), {"x": values})
    assert made.shape == canvas.shape(1)
    column = (1, channels, *(1 for _ in size))
    wanted = values * canvas.scale.reshape(column) + canvas.shift.reshape(column)
    letters = "nchw" if len(size) == 2 else "ncl"
    kept = "".join(letter for letter in letters if letter.upper() in order)
    squeezed = wanted.reshape([dict(zip(letters, values.shape, strict=True))[letter] for letter in kept])
    np.testing.assert_allclose(made, np.einsum(f"{kept}->{order.lower()}", squeezed), rtol=1e-6)


def test_signals_before_a_convolution_have_their_channels_first() -> None:
    model = text_model("float[n, 1, 64] x, float[2, 1, 3] w", "y = Conv(x, w)")
    canvas = find_canvas(model)
    assert (canvas.kind, canvas.order, canvas.size) == ("signal", "NCL", (64,))


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pictures_enter_as_they_do_from_a_file(preset: str | None, layout: str, tmp_path: Path) -> None:
    from PIL import Image

    from onnxviz.runtime.inputs import load_inputs
    from onnxviz.runtime.preprocess import picture_values

    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    model = text_model("float[1, 3, 6, 7] x" if layout == "NCHW" else "float[1, 6, 7, 3] x")
    how = PRESETS[preset] if preset else Preprocessing()
    canvas = find_canvas(model, preprocessing=how)
    values = picture_values(tmp_path / "p.png", canvas.color, (6, 7))
    made = ran(lambda ops, x: canvas.write(ops, x, 1, ir.DataType.FLOAT), {"x": values[None]})
    wanted = load_inputs(model, [str(tmp_path / "p.png")], preprocessing=how).feeds["x"]
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=2e-5)
    assert ("assumed" in canvas.notes[0]) == (preset is None)


def test_inputs_that_cannot_be_made_up_are_refused() -> None:
    with pytest.raises(InputError, match=r"no input is of floating point.*ids int64.*cut the model behind"):
        find_canvas(text_model("int64[n, 8] ids", "y = Neg(ids)", "int64[?] y"))
    with pytest.raises(InputError, match="there is no input|has no input 'z'; its inputs are x float32"):
        find_canvas(text_model("float[2] x"), "z")
    with pytest.raises(InputError, match="gradients lead to floating point alone"):
        find_canvas(text_model("float[2] x, int64[2] i"), "i")
    with pytest.raises(InputError, match="has 5 axes"):
        find_canvas(text_model("float[1, 3, 4, 8, 8] x"))
    with pytest.raises(InputError, match="values cannot be from 1 to 0"):
        find_canvas(text_model("float[n, 30] x"), bounds=(1, 0))


# how many at once


def test_batches_keep_to_memory_and_groups(models: Path) -> None:
    model = infer_shapes(open_model(models / "lenet5.onnx"))
    canvas = find_canvas(model)

    def size(total: int, group: int = 1, most: int | None = None, memory: int = 10**9) -> int:
        return batch_size(model, canvas, ["output"], total, group, most=most, memory=memory, dims={})[0]

    assert size(10) == 10
    assert size(20) == 10  # two even rounds, not 16 and 4
    assert size(20, most=3) == 3
    assert size(20, group=4) == 12
    few = size(20, memory=1_000_000)
    assert 1 <= few < 10
    with pytest.raises(MemoryLimitError, match="raise --max-memory"):
        size(20, memory=1000)


def test_other_inputs_are_repeated_and_told(models: Path) -> None:
    model = infer_shapes(open_model(models / "picture_question.onnx"))
    canvas = find_canvas(model)
    bound = bound_model(model, canvas, 3, {})
    found, notes = other_inputs(model, bound, canvas, 3, ["tokens=[[1, 2, 3, 4, 5, 0, 0]]"], {}, 0)
    np.testing.assert_array_equal(found["tokens"], [[1, 2, 3, 4, 5, 0, 0]] * 3)
    assert notes == []
    found, notes = other_inputs(model, bound, canvas, 3, [], {}, 0)
    assert found["tokens"].shape == (3, 7)
    assert "random numbers were fed to tokens" in notes[0]


def test_answers_are_what_the_model_gives(models: Path) -> None:
    model = infer_shapes(open_model(models / "digits_cnn.onnx"))
    canvas = find_canvas(model)
    forms = (Goal("conv2/Relu"), Goal("fc1/Relu"))
    plan = Plan(canvas, 2, forms, (True, True), canvas.size, False)
    made = answers_model(bound_model(model, canvas, 2, {}), plan)
    pictures = np.random.default_rng(0).random((2, 1, 28, 28)).astype(np.float32)
    found = Session(made.model, "cpu").run({made.picture: pictures})
    import onnxviz

    captured = onnxviz.capture(models / "digits_cnn.onnx", {"image": pictures.reshape(2, 28, 28, 1)}, "*Relu")
    for goal, block, layer in zip(forms, made.blocks, made.layers, strict=True):
        wanted = np.asarray(captured[goal.layer].array)
        assert found[block].shape == (2, layer.channels, layer.positions)
        np.testing.assert_allclose(found[block].reshape(2, -1), wanted.reshape(2, -1), atol=1e-5)


# what is kept


def test_rates_correct_the_means() -> None:
    np.testing.assert_allclose(step_rates(9, 0.1), [0.1 / (1 - 0.9**10), 1 / math.sqrt(1 - 0.999**10)], rtol=1e-6)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "c.npz", "f", 64)
    assert file.load() == ([], None)
    assert [file.due(step, 128) for step in (63, 64, 128)] == [False, True, False]
    done = [Done(1, 0, floats(3, 4), 1.5, 0.1, floats(8))]
    running = Running((floats(2, 3), floats(2, 3, seed=1)), floats(5, 2), floats(2))
    file.save(done, running)
    (one,), again = Checkpoint(tmp_path / "c.npz", "f", 64).load()
    assert (one.subject, one.copy, one.score, one.start) == (1, 0, 1.5, 0.1)
    np.testing.assert_array_equal(one.values, done[0].values)
    assert again is not None
    for a, b in zip(
        (*again.state, again.history, again.first), (*running.state, running.history, running.first), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="checkpoint of another run"):
        Checkpoint(tmp_path / "c.npz", "g", 64).load()
    (tmp_path / "c.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        file.load()
