"""Activation maximization as a whole: known optima, PyTorch step by step, trained models, what is random, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.maximize import MadePicture, Settings, Subject
from onnxviz.analysis.maximize_canvas import find_canvas
from onnxviz.analysis.maximize_graph import ascent_model, step_rates
from onnxviz.analysis.maximize_model import Plan, bound_model
from onnxviz.analysis.maximize_parameters import Parameters, color_matrix, frequency_scale
from onnxviz.analysis.maximize_run import maximize_subjects
from onnxviz.analysis.maximize_terms import Goal
from onnxviz.analysis.maximize_views import Views
from onnxviz.errors import GradientError, InputError, SelectionError
from onnxviz.gradient.registry import standard_table
from onnxviz.graph.io import open_model
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.stateful import StatefulSession
from tests.conftest import make_small_cnn


def model_of(text: str, **weights: np.ndarray) -> ir.Model:
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    for name, array in weights.items():
        value = model.graph.initializers[name]
        value.const_value, value.shape = ir.Tensor(array.astype(np.float32), name=name), ir.Shape(array.shape)
    return infer_shapes(model)


def made(
    model: ir.Model, goals: Sequence[Goal], settings: Settings, **options: Any
) -> tuple[tuple[MadePicture, ...], int, bool, tuple[str, ...]]:
    canvas = find_canvas(model)
    subjects = [Subject(f"channel {goal.channel}", (goal,), goal.channel) for goal in goals]
    return maximize_subjects(model, canvas, subjects, settings, providers="cpu", **options)


def classes(models: Path, name: str = "digits_cnn") -> tuple[ir.Model, list[Goal]]:
    from onnxviz.graph.class_scores import class_scores

    model = infer_shapes(open_model(models / f"{name}.onnx"))
    return model, [Goal(str(class_scores(model).name), channel=k) for k in range(10)]


# what is known


def test_of_a_linear_net_the_optimum_is_the_corner() -> None:
    weights = np.random.default_rng(0).standard_normal((12, 2))
    model = model_of("g (float[n, 12] x) => (float[n, 2] y) <float[12, 2] w = {0}> {y = MatMul(x, w)}", w=weights)
    (first, second), size, interrupted, notes = made(
        model, [Goal("y", channel=k) for k in (0, 1)], Settings(steps=300, rate=0.2)
    )
    assert (size, interrupted, notes) == (2, False, ())
    for picture, column in zip((first, second), weights.T, strict=True):
        np.testing.assert_array_equal(picture.values[0] > 0.5, column > 0)
        assert picture.score == pytest.approx(np.abs(column).sum(), rel=0.01)
        assert picture.score < np.abs(column).sum()
        assert picture.start == pytest.approx(0, abs=0.1)


def test_of_a_filter_the_spectrum_finds_the_corner_too() -> None:
    weights = np.random.default_rng(1).standard_normal((64, 1))
    text = """g (float[n, 1, 8, 8] x) => (float[n, 1] y) <float[64, 1] w = {0}> {f = Flatten(x) y = MatMul(f, w)}"""
    settings = Settings(steps=400, views=Views.none())
    (picture,), *_ = made(model_of(text, w=weights), [Goal("y", channel=0)], settings)
    assert picture.score == pytest.approx(np.maximum(weights, 0).sum(), rel=0.05)
    clear = np.abs(weights[:, 0]) > 0.3
    assert np.mean(((picture.values.reshape(-1) > 0.5) == (weights[:, 0] > 0))[clear]) > 0.98


# PyTorch, step by step


class _Torch:
    """The same in PyTorch: spectrum, colours, view, a small network, Adam."""

    def __init__(self, numbers: np.ndarray, model: ir.Model, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        import torch

        self.torch = torch
        self.numbers = torch.nn.Parameter(torch.from_numpy(numbers.copy()))
        self.adam = torch.optim.Adam([self.numbers], lr=0.05, betas=betas, maximize=True)
        weight, bias = (model.graph.initializers[name].const_value.numpy() for name in "wb")  # type: ignore[union-attr]
        self.weight, self.bias = torch.from_numpy(weight), torch.from_numpy(bias)

    def step(self, matrices: np.ndarray, channels: list[int]) -> np.ndarray:
        torch, size = self.torch, (12, 10)
        scale = torch.from_numpy(frequency_scale(size).astype(np.float32))
        half = self.numbers.shape[-2] // 2
        spectrum = torch.complex(self.numbers[..., :half, :] * scale, self.numbers[..., half:, :] * scale)
        values = torch.fft.irfft2(spectrum, s=size) / 4
        matrix = torch.from_numpy(color_matrix("rgb").astype(np.float32))  # type: ignore[union-attr]
        values = torch.sigmoid(torch.einsum("ck,nkhw->nchw", matrix, values))
        theta = torch.from_numpy(matrices).transpose(1, 2)
        grid = torch.nn.functional.affine_grid(theta, values.shape, align_corners=False)
        seen = torch.nn.functional.grid_sample(values - 0.5, grid, align_corners=False) + 0.5
        found = torch.relu(torch.nn.functional.conv2d((seen - 0.4) / 0.2, self.weight, self.bias)).mean(dim=(2, 3))
        scores = found[range(len(channels)), channels]
        self.adam.zero_grad()
        scores.sum().backward()
        self.adam.step()
        return np.asarray(scores.detach().numpy())


CONV = """g (float[n, 3, 12, 10] x) => (float[n, 4, 10, 8] y)
  <float[4, 3, 3, 3] w = {0}, float[4] b = {0}> {c = Conv(x, w, b) y = Relu(c)}"""


def ours_and_torchs(steps: int, table: Any = None, betas: tuple[float, float] = (0.9, 0.999)) -> tuple[float, float]:
    """Return the largest differences of scores and of numbers over some steps."""
    from onnxviz.runtime.preprocess import Preprocessing

    rng = np.random.default_rng(0)
    model = model_of(CONV, w=rng.standard_normal((4, 3, 3, 3)), b=rng.standard_normal(4))
    canvas = find_canvas(model, preprocessing=Preprocessing(mean=(0.4,), std=(0.2,)))
    parameters, views, channels = Parameters("fft", 3, (12, 10), "rgb"), Views(pad=30, jitter=(60, 30)), [0, 2]
    plan = Plan(canvas, 2, (Goal("y"),), (True,), (12, 10), True)
    ascent = ascent_model(bound_model(model, canvas, 2, {}), plan, parameters, table=table)
    numbers = np.stack([parameters.random(rng) for _ in range(2)])
    target = np.stack([Goal("y", channel=c).target(ascent.layers[0]) for c in channels])
    session = StatefulSession(ascent.model, ascent.state, "cpu")
    zeros = {name: np.zeros_like(numbers) for name in ascent.state}
    session.hold(
        {**zeros, ascent.numbers: numbers, str(ascent.targets[0]): target, ascent.weights[0]: np.ones(2, np.float32)}
    )
    other, scores, moved = _Torch(numbers, model, betas), 0.0, 0.0
    for step in range(steps):
        matrices = np.stack([views.draw(rng, (12, 10)) for _ in range(2)])
        found = session.step({ascent.rates: step_rates(step, 0.05), str(ascent.view): matrices}, [ascent.score])
        wanted = other.step(matrices, channels)
        scores = max(scores, float(np.abs(found[ascent.score] - wanted).max()))
        moved = float(np.abs(session.value(ascent.numbers) - other.numbers.detach().numpy()).max())
    return scores, moved


def test_every_step_is_that_of_pytorch() -> None:
    pytest.importorskip("torch")
    scores, moved = ours_and_torchs(8)
    assert scores < 1e-4
    assert moved < 1e-3


def test_wrong_steps_are_caught() -> None:
    pytest.importorskip("torch")
    assert ours_and_torchs(8, betas=(0.9, 0.99))[1] > 1e-3

    def wrong(s: Any, dy: ir.Value) -> ir.Value:
        return s.ops.Mul(dy, s.ops.cast(s.ops.Less(s.y, s.ops.scalar(0.5, dy)), dy))

    assert ours_and_torchs(8, table=standard_table().changed({("", "Relu"): wrong}))[1] > 1e-3


# trained models


@pytest.mark.parametrize("name", ["lenet5", "digits_cnn", "vit_digits"])
def test_scores_rise_and_beat_random_pictures_and_real_ones(models: Path, name: str) -> None:
    import onnxviz

    model, goals = classes(models, name)
    views = Views.none() if name == "vit_digits" else Views()  # whose patches have their places
    pictures, *_ = made(model, goals, Settings(steps=128, views=views))
    canvas = find_canvas(model)
    random = np.random.default_rng(0).random((200, 1, *canvas.size)).astype(np.float32)
    feeds = {canvas.name: random.transpose([("NCHW").index(letter) for letter in canvas.order])}
    layer = goals[0].layer
    noise = np.asarray(onnxviz.capture(model, feeds, layer)[layer].array).reshape(200, 10)
    digits = sorted((models / "samples").glob("*.png"))
    real = np.asarray(onnxviz.capture(models / f"{name}.onnx", digits, layer)[layer].array).reshape(len(digits), 10)
    for picture in pictures:
        assert picture.history[-24:].mean() > picture.history[24:48].mean() > picture.history[:12].mean()
        assert picture.score > noise[:, picture.unit].max()
        most = 0.95 if name == "vit_digits" else 1.0  # whose scores end at about 5, the norm before them
        assert picture.score > most * real[:, picture.unit].max()


def test_signals_are_made_for_their_class(models: Path) -> None:
    model, goals = classes(models, "signal_cnn_lstm")
    pictures, *_ = made(model, goals[:4], Settings(steps=64, rate=0.1))
    for picture in pictures:
        assert picture.values.shape == (1, 256)
        assert picture.score > picture.start + 0.9
        assert picture.history[-16:].mean() > picture.history[:16].mean()


def test_pictures_of_one_channel_differ_where_likeness_costs(models: Path) -> None:
    import onnxviz

    model = infer_shapes(open_model(models / "digits_cnn.onnx"))

    def likeness(diversity: float) -> float:
        pictures, size, *_ = made(
            model, [Goal("conv2/Relu", channel=5)], Settings(steps=96, count=4, diversity=diversity)
        )
        assert [one.copy for one in pictures] == [0, 1, 2, 3]
        feeds = {"image": np.stack([one.values for one in pictures]).reshape(4, 28, 28, 1)}
        block = np.asarray(onnxviz.capture(model, feeds, "conv2/Relu")["conv2/Relu"].array)
        gram = np.einsum("ncp,ndp->ncd", *[block.reshape(4, block.shape[1], -1)] * 2).reshape(4, -1)
        unit = gram / np.linalg.norm(gram, axis=1, keepdims=True)
        assert size == 4
        return float((unit @ unit.T)[~np.eye(4, dtype=bool)].mean())

    assert likeness(2.0) < likeness(0.0) - 0.02


def test_several_terms_are_added_with_their_weights(models: Path) -> None:
    model, goals = classes(models)
    canvas = find_canvas(model)
    terms = (goals[3], Goal("conv1/Relu", channel=2, weight=-4.0))
    (picture,), *_ = maximize_subjects(model, canvas, [Subject("both", terms)], Settings(steps=40), providers="cpu")
    alone = [made(model, [goal], Settings(steps=1))[0][0].start for goal in (goals[3], Goal("conv1/Relu", channel=2))]
    (both,), *_ = maximize_subjects(model, canvas, [Subject("channel 3", terms)], Settings(steps=1), providers="cpu")
    (second,), *_ = maximize_subjects(
        model, canvas, [Subject("channel 3", terms[1:])], Settings(steps=1), providers="cpu"
    )
    assert both.start == pytest.approx(alone[0] + second.start, rel=1e-4)
    assert picture.score > picture.start


def test_a_caricature_comes_nearer_to_what_the_layer_holds(models: Path) -> None:
    import onnxviz
    from onnxviz.runtime.preprocess import picture_values

    model = infer_shapes(open_model(models / "digits_cnn.onnx"))
    reference = picture_values(models / "samples" / "digit_3.png", "gray", (28, 28))
    subject = Subject("caricature", (Goal("conv2/Relu", reference=True, cosine=2),), reference=reference)
    (picture,), *_ = maximize_subjects(model, find_canvas(model), [subject], Settings(steps=64), providers="cpu")

    def layer(values: np.ndarray) -> np.ndarray:
        feeds = {"image": values.reshape(1, 28, 28, 1)}
        return np.asarray(onnxviz.capture(model, feeds, "conv2/Relu")["conv2/Relu"].array).reshape(-1)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    noise = layer(np.random.default_rng(0).random((28, 28)).astype(np.float32))
    assert cosine(layer(picture.values), layer(reference)) > cosine(noise, layer(reference)) + 0.1
    assert layer(picture.values) @ layer(reference) > layer(reference) @ layer(reference)


def test_a_dream_begins_with_its_picture(models: Path) -> None:
    from onnxviz.runtime.preprocess import picture_values

    model = infer_shapes(open_model(models / "digits_cnn.onnx"))
    start = picture_values(models / "samples" / "digit_3.png", "gray", (56, 56))
    subject = Subject("dream", (Goal("conv2/Relu", "energy"),), start=start)
    settings = Settings(steps=24, rate=0.02, views=Views(octaves=2, ratio=2))
    found = maximize_subjects(model, find_canvas(model), [subject], settings, picture=(56, 56), providers="cpu")
    picture = found[0][0]
    assert picture.values.shape == (1, 56, 56)
    assert picture.score > picture.start
    assert np.corrcoef(picture.values.reshape(-1), start.reshape(-1))[0, 1] > 0.5


# what is random


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(models: Path) -> None:
    model, goals = classes(models)
    first, again, other = (made(model, goals[:2], Settings(steps=12, seed=seed))[0] for seed in (3, 3, 4))
    for a, b, c in zip(first, again, other, strict=True):
        assert a.values.tobytes() == b.values.tobytes()
        assert a.history.tobytes() == b.history.tobytes()
        assert a.values.tobytes() != c.values.tobytes()


def test_a_picture_does_not_depend_on_its_neighbours(models: Path) -> None:
    model, goals = classes(models)
    together = made(model, goals[:5], Settings(steps=8))[0]
    (alone,) = made(model, goals[2:3], Settings(steps=8))[0]
    single = made(model, goals[:5], Settings(steps=8), batch=1)[0]
    np.testing.assert_allclose(together[2].values, alone.values, atol=2e-3)
    np.testing.assert_allclose(together[2].values, single[2].values, atol=2e-3)


# what is kept


def stopped(after: int) -> Any:
    def progress(done: int, of: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("after", [5, 16, 27, 39])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(models: Path, tmp_path: Path, after: int) -> None:
    model, goals = classes(models)
    settings = Settings(steps=20, count=2)
    options: dict[str, Any] = {"batch": 2, "checkpoint": tmp_path / "c.npz", "every": 8}
    whole = made(model, goals[:2], settings, batch=2)[0]
    part, _, interrupted, _ = made(model, goals[:2], settings, **options, progress=stopped(after))
    assert interrupted
    assert [len(one.history) for one in part] == ([after, after] if after <= 20 else [20, 20, after - 20, after - 20])
    resumed, _, interrupted, notes = made(model, goals[:2], settings, **options)
    assert not interrupted
    assert notes == ("went on from c.npz",)
    for a, b in zip(whole, resumed, strict=True):
        assert a.values.tobytes() == b.values.tobytes()
        assert a.history.tobytes() == b.history.tobytes()
        assert (a.label, a.copy, a.score, a.start) == (b.label, b.copy, b.score, b.start)
    finished = made(model, goals[:2], settings, **options)[0]
    assert [one.score for one in finished] == [one.score for one in whole]


def test_a_checkpoint_of_another_run_is_refused(models: Path, tmp_path: Path) -> None:
    model, goals = classes(models)
    made(model, goals[:1], Settings(steps=2), checkpoint=tmp_path / "c.npz")
    for other in (Settings(steps=3), Settings(steps=2, seed=1)):
        with pytest.raises(InputError, match="another run"):
            made(model, goals[:1], other, checkpoint=tmp_path / "c.npz")
    with pytest.raises(InputError, match="another run"):
        made(model, goals[1:2], Settings(steps=2), checkpoint=tmp_path / "c.npz")
    other_model = infer_shapes(make_small_cnn())
    with pytest.raises(InputError, match="another run"):
        made(other_model, [Goal("y", channel=0)], Settings(steps=2), checkpoint=tmp_path / "c.npz")


# bad input


def test_layers_without_a_path_say_so() -> None:
    text = "g (float[n, 2] x, float[n, 2] z) => (float[n, 2] y) {a = Relu(x) b = Neg(z) y = Add(a, b)}"
    with pytest.raises(GradientError, match=r"from b to the input 'x': b does not depend on it; name another input"):
        made(model_of(text), [Goal("b", channel=0)], Settings(steps=2))
    text = "g (float[n, 2] x) => (float[n, 2] y) {r = Round(x) y = Neg(r)}"
    with pytest.raises(GradientError, match=r"from y to the input 'x': all paths are cut \(Round"):
        made(model_of(text), [Goal("y", channel=0)], Settings(steps=2))


QUANTISED = """g (float[n, 2] x) => (float[n, 2] y) <float s = {0.1}, uint8 z = {128}>
  {q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)}"""


def test_quantised_models_are_refused_with_the_way_out() -> None:
    with pytest.raises(GradientError, match="--straight-through passes it as if it did not round"):
        made(model_of(QUANTISED), [Goal("y", channel=0)], Settings(steps=2))
    (picture,), *_ = made(
        model_of(QUANTISED), [Goal("y", channel=0)], Settings(steps=60, rate=0.2), straight_through=True
    )
    assert picture.score == pytest.approx(1, abs=0.1)
    with pytest.raises(SelectionError, match="uint8, not floating point"):
        made(model_of(QUANTISED), [Goal("q", channel=0)], Settings(steps=2))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="--steps cannot be 0"):
        Settings(steps=0)
    with pytest.raises(InputError, match="step size cannot be 0"):
        Settings(rate=0)
    with pytest.raises(InputError, match="no parametrization 'cppn'"):
        Settings(parameters="cppn")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="nothing is maximized"):
        made(infer_shapes(make_small_cnn()), [], Settings())
    fixed = infer_shapes(
        ir.from_onnx_text('<ir_version: 8, opset_import: ["": 18]> g (float[1, 2] x) => (float[1, 2] y) {y = Relu(x)}')
    )
    with pytest.raises(InputError, match=r"takes 1 picture at once, and 2 that differ.*--diversity 0"):
        made(fixed, [Goal("y", channel=0)], Settings(steps=2, count=2))
    assert len(made(fixed, [Goal("y", channel=0)], Settings(steps=2, count=2, diversity=0))[0]) == 2


def test_half_precision_is_followed() -> None:
    text = "g (float16[n, 6] x) => (float16[n, 1] y) <float[6, 1] w = {0}> {h = Cast<to = 10>(w) y = MatMul(x, h)}"
    model = model_of(text, w=np.array([[1, -1, 2, -2, 0.001, -0.001]]).T)
    (picture,), *_ = made(model, [Goal("y", channel=0)], Settings(steps=200, rate=0.2))
    np.testing.assert_array_equal(picture.values[0] > 0.5, [True, False] * 3)


def test_a_dead_rectifier_is_told() -> None:
    text = "g (float[n, 2] x) => (float[n, 2] y) <float[2] b = {-9, 9}> {a = Add(x, b) y = Relu(a)}"
    first, second = made(model_of(text), [Goal("y", channel=k) for k in (0, 1)], Settings(steps=4))[0]
    assert first.stuck
    assert not second.stuck


def test_a_size_given_for_the_batch_fixes_it() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 3))
    for dim, key in (("n", "n"), ("", "x:0")):
        text = (
            f"g (float[{dim or 'k'}, 4] x) => (float[{dim or 'k'}, 3] y) <float[4, 3] w = {{0}}> {{y = MatMul(x, w)}}"
        )
        model = model_of(text, w=weights)
        if not dim:
            model.graph.inputs[0].shape = ir.Shape([None, 4])
        canvas = find_canvas(model, dims={key: 2})
        assert (canvas.batch, find_canvas(model).batch) == (2, None)
        subjects = [Subject(f"channel {k}", (Goal("y", channel=k),), k) for k in range(3)]
        found, size, _, _ = maximize_subjects(
            model, canvas, subjects, Settings(steps=4), dims={key: 2}, providers="cpu"
        )
        assert (size, [one.unit for one in found]) == (2, [0, 1, 2])


@pytest.mark.corpus
def test_branches_that_give_other_axes_are_gone_through(corpus: Path) -> None:
    """A voice detector whose If squeezes an axis in one branch and not in the other."""
    model = infer_shapes(open_model(corpus / "models" / "audio" / "silero_vad_16k_op15.onnx"))
    canvas = find_canvas(model, dims={"sequence": 512})
    subject = Subject("speech", (Goal("output", channel=0),), 0)
    (one,), _, _, _ = maximize_subjects(
        model, canvas, [subject], Settings(steps=12), dims={"sequence": 512}, fixed=["sr=16000"], providers="cpu"
    )
    assert one.score > one.start


@pytest.mark.corpus
def test_an_imagenet_class_is_recognised_by_the_model_it_was_made_for(corpus: Path) -> None:
    from onnxviz.runtime.preprocess import PRESETS
    from onnxviz.runtime.session import run_model

    model = infer_shapes(open_model(corpus / "models" / "classifier" / "SqueezeNet_fp32.onnx"))
    canvas = find_canvas(model, preprocessing=PRESETS["keras-caffe"])
    subject = Subject("class 1", (Goal("pool10_1", channel=1),), 1)
    (picture,), *_ = maximize_subjects(model, canvas, [subject], Settings(steps=32), providers="cpu")
    fed = picture.values[None] * canvas.scale[:, None, None] + canvas.shift[:, None, None]
    answer = run_model(model, {canvas.name: fed.astype(np.float32)})["softmaxout_1"]
    assert answer.reshape(-1).argmax() == 1


def test_shapes_that_only_a_run_tells_are_measured() -> None:
    text = """g (float[n, 4] x) => (float[a, b] y) <float[4, 3] w = {0}, float z = {0}>
      {s = Shape(x) o = ConstantOfShape(s) i = NonZero(o) r = Shape(i) u = Slice(r, z0, z1) h = MatMul(x, w)
       k = Shape(h) y = Reshape(h, k)}""".replace("float z = {0}", "int64[1] z0 = {0}, int64[1] z1 = {1}")
    model = model_of(text, w=np.random.default_rng(0).standard_normal((4, 3)))
    for value in (value for node in model.graph for value in node.outputs):
        value.shape = None
    (picture,), *_ = made(model, [Goal("y", channel=2)], Settings(steps=40, rate=0.2))
    assert picture.score > picture.start + 0.5


def test_models_of_other_domains_alone_are_taken() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["com.microsoft": 1]> g (float[n, 3] x) => (float[n, 3] y) {y = com.microsoft.QuickGelu(x)}'
    )
    (picture,), *_ = made(infer_shapes(model), [Goal("y", channel=1)], Settings(steps=30, rate=0.2))
    assert picture.values[0, 1] > 0.9


def test_models_that_only_say_that_their_batch_is_open_are_run_one_by_one() -> None:
    text = "g (float[n, 4] x) => (float[m, 4] y) <int64[2] one = {1, 4}> {r = Reshape(x, one) y = Tanh(r)}"
    goals = [Goal("y", channel=k) for k in range(3)]
    pictures, size, _, notes = made(model_of(text), goals, Settings(steps=20, rate=0.2))
    assert (len(pictures), size) == (3, 1)
    assert "one at once, more do not fit the model" in notes[0]
    assert all(one.score > one.start for one in pictures)


def test_open_sizes_are_those_that_are_asked_for() -> None:
    from onnxviz.runtime.preprocess import Preprocessing

    text = CONV.replace("float[n, 3, 12, 10] x", "float[n, 3, h, w] x").replace(
        "float[n, 4, 10, 8] y", "float[n, 4, a, b] y"
    )
    rng = np.random.default_rng(0)
    model = model_of(text, w=rng.standard_normal((4, 3, 3, 3)), b=rng.standard_normal(4))
    canvas = find_canvas(model, preprocessing=Preprocessing(size=(20, 14)))
    assert (canvas.size, canvas.batch) == ((20, 14), None)
    subject = Subject("channel 1", (Goal("y", channel=1, position=(-1, 0)),), 1)
    (picture,), *_ = maximize_subjects(model, canvas, [subject], Settings(steps=30), providers="cpu")
    assert picture.values.shape == (3, 20, 14)
    assert picture.score > picture.start
    assert find_canvas(model, dims={"h": 9, "w": 8}).size == (9, 8)
    assert find_canvas(model).size == (224, 224)


def test_scores_that_are_not_finite_are_told() -> None:
    import onnxviz

    model = model_of("g (float[n, 2] x) => (float[n, 2] y) <float[2] b = {-9, -9}> {a = Add(x, b) y = Sqrt(a)}")
    found = onnxviz.maximized(model, "y", settings={"steps": 3})
    assert found.pictures == ()
    assert [(one.name, one.reason) for one in found.not_drawn] == [
        (f"channel {k}", "its score is not finite") for k in (0, 1)
    ]


def test_dead_rectifiers_are_revived_by_redirected_gradients_which_are_the_default() -> None:
    import onnxviz

    text = "g (float[n, 2] x) => (float[n, 2] y) <float[2] b = {-0.8, 0.8}> {a = Add(x, b) y = Relu(a)}"
    found = onnxviz.maximized(model_of(text), "y", settings={"steps": 60, "rate": 0.2})
    assert found.rules == "gradients redirected at dead rectifiers"
    assert [one.score for one in found.pictures] == pytest.approx([0.2, 1.8], abs=0.05)
    true = onnxviz.maximized(model_of(text), "y", settings={"steps": 60, "rate": 0.2}, rules="gradient")
    assert [one.stuck for one in true.pictures] == [True, False]
    assert "channel 0: stays at 0" in true.notes[0]
