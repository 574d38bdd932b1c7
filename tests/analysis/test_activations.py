"""Activation views: curves, shares and dead channels against numpy, over one batch and over many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.analysis.activations import Activations, ActivationView, activation_views, over_all, plan_activations
from onnxviz.analysis.paired import observable
from onnxviz.analysis.tally import tally
from onnxviz.errors import SelectionError
from onnxviz.runtime.capture import capture

RNG = np.random.default_rng(0)
X = (3 * RNG.normal(size=(2, 5, 7, 6))).astype(np.float32)


def net(body: str, shape: str = "N, 5, 7, 6", weights: str = "", kind: str = "float") -> ir.Model:
    names = "abcdef"[: shape.count(",") + 1]
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 20, "com.microsoft": 1]> g ({kind}[{shape}] x) => '
        f"({kind}[{', '.join(names)}] y) {weights} {{{body}}}"
    )


def views(model: ir.Model, x: np.ndarray, **options: Any) -> Activations:
    opened = observable(model, lambda node: True)
    plan = plan_activations(opened)
    return activation_views(plan, capture(opened, {"x": x}, plan.tensors, providers="cpu"), **options)


def view(body: str, x: np.ndarray = X, **options: Any) -> ActivationView:
    (found,) = views(net(body, ", ".join(map(str, ("N", *x.shape[1:]))), **options), x).views
    return found


def check_curve(found: ActivationView, function: Any) -> None:
    assert found.curve is not None
    np.testing.assert_allclose(found.curve.y[0], function(found.curve.x), rtol=1e-4, atol=1e-5)


CURVES = {
    "y = Relu(x)": lambda x: np.maximum(x, 0),
    "y = LeakyRelu<alpha = 0.3>(x)": lambda x: np.where(x < 0, 0.3 * x, x),
    "y = Elu<alpha = 2.0>(x)": lambda x: np.where(x < 0, 2 * np.expm1(np.minimum(x, 0)), x),
    "y = Tanh(x)": np.tanh,
    "y = Softplus(x)": lambda x: np.logaddexp(0, x),
    "y = HardSwish(x)": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "s = Sigmoid(x) y = Mul(x, s)": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("body", CURVES)
def test_the_curve_is_the_function(body: str) -> None:
    check_curve(view(body), CURVES[body])


def test_an_attribute_that_is_left_out_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        check_curve(view("y = LeakyRelu<alpha = 0.3>(x)"), lambda x: np.where(x < 0, 0.01 * x, x))


def test_patterns_are_named_by_their_values_alone() -> None:
    assert view("s = Sigmoid(x) y = Mul(x, s)").function == "SiLU (Sigmoid · Mul)"
    weights = "<float r = {1.4142135}, float o = {1}, float h = {0.5}>"
    gelu = "d = Div(x, r) e = Erf(d) a = Add(e, o) m = Mul(x, a) y = Mul(m, h)"
    assert view(gelu, weights=weights).function.startswith("GELU (")
    assert view(gelu, weights=weights.replace("1.4142135", "1.9")).function == "Div · Erf · Add · Mul"


def near(values: np.ndarray, *edges: float) -> np.ndarray:
    """Move values away from the edges of flat stretches, where the grid decides."""
    for edge in edges:
        values = np.where(np.abs(values - edge) < 0.05, np.float32(edge + 0.1), values)
    return values


@pytest.mark.parametrize(
    ("body", "flat", "edges"),
    [
        ("y = Relu(x)", lambda x: x < 0, (0,)),
        ("y = LeakyRelu(x)", lambda x: np.zeros(x.shape, bool), ()),
        ("y = Tanh(x)", lambda x: 1 - np.tanh(x) ** 2 < 0.01, (2.993, -2.993)),
        ("y = Sigmoid(x)", lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2 < 0.0025, (5.98, -5.98)),
        ("y = HardSigmoid(x)", lambda x: np.abs(x) > 2.5, (2.5, -2.5)),
        ("y = Clip(x, o, s)", lambda x: (x < 0) | (x > 6), (0, 6)),
        ("y = Gelu(x)", lambda x: x < -3.03, (-3.03,)),
    ],
)
def test_saturated_and_zeroed_against_numpy(body: str, flat: Any, edges: tuple[float, ...]) -> None:
    x = near(X, *edges)
    found = view(body, x, weights="<float o = {0}, float s = {6}>")
    assert found.saturated == pytest.approx(np.mean(flat(x.astype(np.float64))))
    assert found.values == x.size
    if "Relu(x)" in body or "Clip" in body:
        assert found.zeroed == np.mean(x <= 0) * ("Leaky" not in body)


def test_the_histogram_holds_all_that_enters() -> None:
    found = view("y = Relu(x)")
    h = found.entering
    assert h.total == X.size
    assert h.counts.sum() + h.below + h.above == X.size
    np.testing.assert_array_equal(h.counts, np.histogram(X.astype(np.float64), h.edges)[0])


def test_the_maps_are_of_the_same_channels_on_one_scale() -> None:
    found = view("y = Relu(x)")
    assert found.before.channels == found.after.channels
    assert found.before.scale == found.after.scale
    channels = list(found.before.channels)
    np.testing.assert_array_equal(found.before.maps, X[0][channels])
    np.testing.assert_array_equal(found.after.maps, np.maximum(X[0], 0)[channels])
    swapped = np.maximum(X[0], 0)[channels[::-1]]
    assert not np.array_equal(found.after.maps, swapped)


def test_a_parameter_a_channel_gives_a_curve_each() -> None:
    slopes = [0.0, 0.1, 0.25, 0.5, 0.5]
    values = ", ".join(map(str, slopes))
    found = view("y = PRelu(x, a)", weights=f"<float[5, 1, 1] a = {{{values}}}>")
    assert found.curve is not None
    assert found.curve.y.shape[0] == 4
    at = int(np.searchsorted(found.curve.x, -10.0))
    np.testing.assert_allclose(np.sort(found.curve.y[:, at]), [-5, -2.5, -1, 0], atol=1e-5)
    assert found.saturated is None


def test_dead_is_counted_over_all_samples() -> None:
    x = -np.abs(RNG.normal(size=(6, 3, 4, 4))).astype(np.float32) - 0.1
    x[:, 0] *= -1
    x[5, 2, 1, 1] = 2.0  # alive in the last sample alone
    model = observable(net("y = Relu(x)", "2, 3, 4, 4"), lambda node: node.op_type == "Relu")
    plan = plan_activations(model)
    parts = [{"x": x[i : i + 2]} for i in (0, 2, 4)]
    first = activation_views(plan, capture(model, parts[0], plan.tensors, providers="cpu"), more=True)
    assert first.views[0].dead == (1, 2)
    reduce = plan.reducer(first.views)
    every = over_all(first, capture(model, parts, plan.tensors, keep=False, reduce=reduce, providers="cpu"))
    (found,) = every.views
    assert (found.dead, found.samples, found.values) == ((1,), 6, x.size)
    assert found.zeroed == np.mean(x <= 0)
    assert found.saturated == np.mean(x < 0)
    np.testing.assert_array_equal(found.entering.counts, np.histogram(x.astype(np.float64), found.entering.edges)[0])
    assert found.captions()[-1] == "1 of 3 channels dead over 6 samples"


@pytest.mark.parametrize(("parts", "batch"), [(1, None), (3, None), (6, 1), (6, 4)])
def test_samples_are_counted_however_they_come(parts: int, batch: int | None) -> None:
    x = RNG.normal(size=(6, 3, 4, 4)).astype(np.float32)
    feed: Any = [{"x": part} for part in np.split(x, parts)] if batch is None else {"x": x}
    figure = onnxviz.activations(net("y = Relu(x)", "N, 3, 4, 4"), feed, batch=batch, providers="cpu")
    assert any("channels dead over 6 samples" in text.get_text() for text in figure.texts)


def test_dead_belongs_to_rectifiers() -> None:
    x = np.full((1, 3, 4, 4), -9, np.float32)
    assert view("y = Relu(x)", x).dead == (0, 1, 2)
    assert view("y = Gelu(x)", x).dead == (0, 1, 2)
    for body in ("y = Tanh(x)", "y = Sigmoid(x)", "y = Softplus(x)", "y = Softsign(x)"):
        assert view(body, x).dead is None


def test_not_a_number_is_counted_and_kills_no_channel() -> None:
    x = np.float32(RNG.normal(size=(1, 3, 4, 4)))
    x[0, 1] = np.nan
    x[0, 2, 0, 0] = np.inf
    found = view("y = Relu(x)", x)
    assert (found.entering.nan, found.entering.inf) == (16, 1)
    assert found.dead == ()
    assert (found.nan, found.inf) == ((16, 16), (1, 1))
    assert found.captions()[-2:] == ["16 NaN enter, 16 leave (33 %, hatched)", "1 Inf enter, 1 leave (2.1 %, hatched)"]


def test_not_a_number_in_samples_that_are_not_drawn_is_told() -> None:
    x = np.float32(RNG.normal(size=(4, 3, 4, 4)))
    x[1:, 0] = np.nan
    found = view("y = Relu(x)", x)
    assert found.before.scale.nan == 0
    assert "48 NaN enter, 48 leave (25 %, hatched)" in found.captions()


W = ", ".join(f"{v:.3f}" for v in RNG.normal(size=48))
R = ", ".join(f"{v:.3f}" for v in RNG.normal(size=64))


@pytest.mark.parametrize(
    ("body", "shape", "function"),
    [
        ("a = Add(x, x) y = PRelu(a, s)", (1, 6, 40), lambda x: np.where(x < 0, 0.25 * x, x)),
        ("a, h, c = LSTM<hidden_size = 4>(x, w, r) y = Tanh(a)", (5, 2, 3), np.tanh),
        ("a, h, c = LSTM<hidden_size = 4>(x, w, r) y = Tanh(h)", (5, 2, 3), np.tanh),
        ("a = Transpose<perm = [0, 2, 1]>(x) y = PRelu(a, t)", (1, 40, 6), lambda x: np.where(x < 0, 0.25 * x, x)),
    ],
)
@pytest.mark.parametrize("sample", [0, 1])
def test_before_and_after_have_the_same_axes(body: str, shape: tuple[int, ...], function: Any, sample: int) -> None:
    weights = f"<float[6, 1] s = {{{', '.join(['0.25'] * 6)}}}, float t = {{0.25}}, float[1, 16, 3] w = {{{W}}}, float[1, 16, 4] r = {{{R}}}>"
    x = RNG.normal(size=shape).astype(np.float32)
    opened = observable(net(body, ", ".join(map(str, shape)), weights), lambda node: True)
    plan = plan_activations(opened)
    captured = capture(opened, {"x": x}, plan.tensors, providers="cpu")
    if sample and "LSTM" not in body:
        return
    (found,) = activation_views(plan, captured, sample=sample).views
    assert found.before.maps.shape == found.after.maps.shape
    np.testing.assert_allclose(function(found.before.maps), found.after.maps, atol=1e-5)
    if "LSTM" in body:
        assert (found.before.batch, found.before.sample) == (2, sample)
        states = captured[found.source].array.take(sample, axis=-2)
        assert np.isin(found.before.maps, states).all()


def test_numbers_without_a_batch_are_one_sample() -> None:
    found = views(net("y = Relu(x)", "5"), np.float32([-1, 2, 3, -4, 5]))
    assert found.samples == 1
    assert "over 1 sample" in found.views[0].captions()[-1]


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Gelu(x)", ""),
        ('y = Gelu<approximate = "tanh">(x)', ""),
        ("s = Sigmoid(x) y = Mul(x, s)", ""),
        ("y = Mish(x)", ""),
        ("y = Max(x, z)", "<float z = {0}>"),
    ],
)
def test_a_kernel_that_rounds_is_a_rectifier_all_the_same(body: str, weights: str) -> None:
    """onnxruntime's Gelu with tanh gives +3e-7 at -5.1."""
    x = np.full((1, 3, 4, 4), 2, np.float32)
    x[:, 1] = -5.1
    assert view(body, x, weights=weights).dead == (1,)


@pytest.mark.parametrize(
    ("top", "body"), [(0.004, "y = Clip(x, o, s)"), (4e-6, "y = Clip(x, o, s)"), (4e-6, "m = Min(x, s) y = Relu(m)")]
)
def test_knots_nearer_than_the_grid_are_seen(top: float, body: str) -> None:
    x = np.linspace(0, 2 * top, 96, dtype=np.float32).reshape(1, 1, 8, 12) + np.float32(top / 1000)
    (found, *_) = views(net(body, "1, 1, 8, 12", f"<float o = {{0}}, float s = {{{top:.9f}}}>"), x).views
    if "Clip" in body:
        assert found.saturated == pytest.approx(np.mean(x > top), abs=0.02)
    else:
        assert found.saturated == 0  # the Min is no part of the ReLU


def test_equal_functions_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxviz.analysis.activation_curves as module

    runs: list[str] = []
    real = module.run_piece

    def counted(model: ir.Model, nodes: Any, source: ir.Value, *rest: Any, **more: Any) -> Any:
        runs.append(str(source.name))
        return real(model, nodes, source, *rest, **more)

    monkeypatch.setattr(module, "run_piece", counted)
    body = "a = Relu(x) b = LeakyRelu<alpha = 0.1>(a) c = LeakyRelu<alpha = 0.2>(b) d = LeakyRelu<alpha = 0.1>(c) y = Relu(d)"
    found = views(net(body), np.abs(X))
    assert len(found.views) == 5
    assert len(runs) == 3
    slopes = [v.curve.y[0, 0] / v.curve.x[0] for v in found.views if v.curve is not None]
    np.testing.assert_allclose(slopes, [0, 0.1, 0.2, 0.1, 0], atol=1e-6)


def test_rounding_does_not_make_slopes() -> None:
    """Sigmoid of values near 0 is 0.5 and a little: over steps of 1e-9 float32 has no slope, and nothing saturates."""
    found = view("y = Sigmoid(x)", RNG.normal(size=(1, 1, 6, 6)).astype(np.float32) * np.float32(1e-6))
    assert found.saturated == 0
    assert found.curve is not None
    assert len(found.curve.x) <= 4100


def test_the_curve_reaches_as_far_as_its_axis() -> None:
    found = view("y = Relu(x)", X * np.float32(1e30))
    assert found.curve is not None
    assert found.curve.x[-1] >= np.float32(0.999) * X.max() * 1e30
    np.testing.assert_allclose(found.curve.y[0], np.maximum(found.curve.x, 0), rtol=1e-6)


@pytest.mark.parametrize("split", [1, 3])
def test_tallies_merge(split: int) -> None:
    edges = np.linspace(-4, 4, 20)
    whole = tally(X, 1, None, edges)
    rows = np.split(X.reshape(2 * 5, 1, 7, 6), 10)
    parts = [tally(part, None, None, edges) for part in rows[::split] + [r for i, r in enumerate(rows) if i % split]]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert (merged.zero, merged.total, merged.high.max()) == (whole.zero, whole.total, whole.high.max())
    assert merged.bins is not None
    assert whole.bins is not None
    np.testing.assert_array_equal(merged.bins.counts, whole.bins.counts)


def test_tokens_and_vectors_have_their_channels_last() -> None:
    x = RNG.normal(size=(2, 9, 4)).astype(np.float32)
    x[..., 3] = -1
    found = view("y = Relu(x)", x)
    assert (found.before.kind, found.channels, found.dead) == ("image", 4, (3,))
    flat = view("y = Relu(x)", x[:, 0])
    assert (flat.before.kind, flat.dead is not None and 3 in flat.dead) == ("vector", True)


def test_half_precision_runs_its_curve_in_single() -> None:
    found = view("y = Gelu(x)", X.astype(np.float16), kind="float16")
    assert found.before.dtype == "float16"
    assert found.curve is not None
    assert np.abs(np.diff(found.curve.y[0], 2)).max() < 1e-3  # no steps of half precision


def test_quantised_values_are_shown_as_numbers() -> None:
    codes = RNG.integers(0, 256, (1, 3, 4, 4)).astype(np.uint8)
    weights = "<float a = {0.05}, uint8 b = {128}, float c = {0.00390625}, uint8 d = {0}>"
    body = "y = com.microsoft.QLinearSigmoid(x, a, b, c, d)"
    found = view(body, codes, kind="uint8", weights=weights)
    x = (codes.astype(np.float64) - 128) * 0.05
    np.testing.assert_allclose(found.before.maps, x[0][list(found.before.channels)], atol=1e-6)
    np.testing.assert_allclose(found.after.maps, 1 / (1 + np.exp(-found.before.maps)), atol=0.004)
    assert found.curve is not None
    np.testing.assert_allclose(found.curve.y[0], 1 / (1 + np.exp(-found.curve.x)), atol=0.004)


def test_what_cannot_be_shown_is_told_and_the_rest_is_drawn() -> None:
    told: list[str] = []
    model = net("c = Relu(x) s = Softmax(c) m = ReduceMax<keepdims = 0>(s) y = Clip(s, , m)")
    onnxviz.activations(model, {"x": X}, ["c", "s", "y", "m"], tell=told.append, providers="cpu")
    assert [line.split(":")[1].strip() for line in told] == ["m", "s", "y"]
    assert "mixes a whole axis" in told[1]
    assert "not constant" in told[2]
    with pytest.raises(SelectionError, match="mixes a whole axis"):
        onnxviz.activations(model, {"x": X}, "s", providers="cpu")
    with pytest.raises(SelectionError, match="no activation function"):
        onnxviz.activations(net("y = Exp(x)"), {"x": X}, providers="cpu")
    with pytest.raises(SelectionError, match="no sample 9"):
        onnxviz.activations(model, {"x": X}, sample=9, providers="cpu")


def test_the_numbers_are_written(tmp_path: Path) -> None:
    onnxviz.activations(net("y = Relu(x)"), {"x": X}, data=tmp_path / "a.npz", providers="cpu")
    with np.load(tmp_path / "a.npz") as data:
        manifest = json.loads(str(data["__onnxviz__"]))
        (row,) = manifest["views"]
        assert (row["name"], row["function"], row["zeroed"]) == ("y", "Relu", np.mean(X <= 0))
        np.testing.assert_array_equal(data["0/after"], np.maximum(data["0/before"], 0))
        np.testing.assert_allclose(data["0/curve_y"][0], np.maximum(data["0/curve_x"], 0))


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "count", "function"),
    [
        ("generated/hf_clip_vision_mini_dynamo.onnx", 4, "quick GELU (Mul · Sigmoid)"),
        ("detector/mtcnn-pnet.onnx", 3, "PRelu"),
        ("generated/ort_mobilenet_v3_small_fp16_keepio.onnx", 42, "HardSwish"),
        ("landmark/mediapipe-hand_landmark.onnx", 35, "ReLU6 (Clip)"),
    ],
)
def test_real_models(corpus: Path, name: str, count: int, function: str) -> None:
    model = onnxviz.open_model(corpus / "models" / name)
    opened = observable(model, lambda node: True)
    plan = plan_activations(opened)
    found = activation_views(plan, capture(opened, None, plan.tensors, bodies=False, providers="cpu"))
    assert len(found.views) == count
    assert function in {v.function for v in found.views}
    assert all(v.curve is not None for v in found.views)


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "opset_sweep/burn-opset_09.onnx", "audio/silero_vad_16k_op15.onnx", "detector/mtcnn-pnet.onnx",
        "generated/hf_wav2vec2_mini_dynamo.onnx", "light_zoo/light_squeezenet.onnx",
    ],
)  # fmt: skip
def test_what_leaves_is_the_curve_of_what_enters(corpus: Path, name: str) -> None:
    """On real models: maps before and after are of one shape, and the curve maps the one to the other."""
    opened = observable(onnxviz.open_model(corpus / "models" / name), lambda node: True)
    plan = plan_activations(opened)
    found = activation_views(plan, capture(opened, None, plan.tensors, bodies=False, providers="cpu"))
    checked = 0
    for one in found.views:
        assert one.before.maps.shape == one.after.maps.shape, one.name
        assert one.curve is not None
        if len(one.curve.y) == 1:
            at, leaves = one.before.maps.astype(np.float64), one.after.maps
            inside = (at >= one.curve.x[0]) & (at <= one.curve.x[-1])
            told = np.interp(at, one.curve.x, one.curve.y[0])
            assert np.abs(told - leaves)[inside].max(initial=0) <= 0.02 * max(np.abs(leaves).max(), 1e-3), one.name
            checked += 1
    assert checked or "mtcnn" in name
