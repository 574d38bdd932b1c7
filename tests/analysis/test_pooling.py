"""Pooling views: survivors and windows against a search by hand, in every layout that the operator knows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.analysis.paired import observable
from onnxviz.analysis.pooling import Pooling, PoolView, _survivors, is_pool, plan_pooling, pool_views
from onnxviz.errors import InputError, SelectionError
from onnxviz.runtime.capture import capture

RNG = np.random.default_rng(0)


def net(body: str, shape: tuple[int, ...], rank: int | None = None, kind: str = "float", weights: str = "") -> ir.Model:
    names = ", ".join("abcdef"[: rank or len(shape)])
    sizes = ", ".join(map(str, shape))
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g ({kind}[{sizes}] x) => ({kind}[{names}] y) '
        f"{weights} {{{body}}}"
    )


def pooled(model: ir.Model, x: np.ndarray, **options: Any) -> Pooling:
    opened = observable(model, is_pool)
    plan = plan_pooling(opened)
    captured = capture(opened, {"x": x}, plan.tensors, bodies=False, providers="cpu")
    return pool_views(plan, captured, **{"top": None, "by": "index"} | options)


def view(attributes: str, x: np.ndarray, **options: Any) -> PoolView:
    (found,) = pooled(net(f"y = MaxPool<{attributes}>(x)", x.shape), x, **options).views
    return found


def check(found: PoolView, x: np.ndarray, y: np.ndarray) -> int:
    """Search every window by hand; return how many had a single largest value."""
    assert found.windows is not None
    assert found.survivors is not None
    w, alone = found.windows, 0
    for channel, *at in np.ndindex(*y.shape):
        ranges = [
            [o * s - p + k * d for k in range(n) if 0 <= o * s - p + k * d < size]
            for o, s, p, n, d, size in zip(at, w.strides, w.pads, w.kernel, w.dilations, x.shape[1:], strict=True)
        ]
        values = {position: x[(channel, *position)] for position in itertools.product(*ranges)}
        top = max(values.values())
        best = [position for position, value in values.items() if value == top]
        assert y[(channel, *at)] == top
        told = tuple(found.survivors.positions[(channel, *at)].tolist())
        assert told in best
        assert found.survivors.tied[(channel, *at)] == (len(best) > 1)
        alone += len(best) == 1
    return alone


CASES = [
    ("kernel_shape = [2, 2], strides = [2, 2]", (1, 3, 6, 7)),
    ("kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]", (2, 3, 8, 9)),
    ("kernel_shape = [3, 2], strides = [1, 3], pads = [0, 1, 2, 0]", (1, 2, 7, 8)),
    ("kernel_shape = [2, 3], dilations = [2, 1]", (1, 2, 6, 6)),
    ("kernel_shape = [3, 2], strides = [2, 2], ceil_mode = 1", (1, 2, 8, 7)),
    ("kernel_shape = [2, 2], strides = [2, 2], storage_order = 1", (1, 3, 6, 8)),
    ('kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"', (1, 2, 8, 7)),
    ('kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_LOWER"', (1, 2, 8, 7)),
    ('kernel_shape = [3, 3], strides = [2, 2], auto_pad = "VALID"', (1, 2, 8, 7)),
    ("kernel_shape = [3], strides = [2], pads = [1, 1]", (1, 4, 11)),
    ("kernel_shape = [2, 2, 2], strides = [2, 2, 2]", (1, 2, 4, 6, 6)),
    ("kernel_shape = [3, 2, 2], strides = [1, 2, 1], pads = [1, 0, 0, 1, 0, 0]", (1, 2, 4, 6, 5)),
]


@pytest.mark.parametrize(("attributes", "shape"), CASES)
@pytest.mark.parametrize("tied", [False, True])
def test_survivors_against_a_search(attributes: str, shape: tuple[int, ...], tied: bool) -> None:
    x = RNG.normal(size=shape).astype(np.float32)
    x = np.maximum(np.round(x), 0) if tied else x
    sample = shape[0] - 1
    found = view(attributes, x, sample=sample)
    model = net(f"y = MaxPool<{attributes}>(x)", shape)
    y = capture(model, {"x": x}, providers="cpu")["y"].array
    alone = check(found, x[sample], y[sample])
    survivors = found.survivors
    assert survivors is not None
    assert survivors.differing == 0
    assert (alone == y[sample].size) is not tied
    distinct = {
        (c, *p)
        for c in range(len(y[sample]))
        for p in map(tuple, survivors.positions[c].reshape(-1, len(shape) - 2).tolist())
    }
    assert survivors.distinct == len(distinct)
    assert survivors.kept == len(distinct) / x[sample].size


def test_rows_and_columns_exchanged_would_be_noticed() -> None:
    from dataclasses import replace

    x = RNG.normal(size=(1, 2, 6, 6)).astype(np.float32)
    found = view("kernel_shape = [2, 2], strides = [2, 2]", x)
    assert found.survivors is not None
    y = x.reshape(1, 2, 3, 2, 3, 2).max(axis=(3, 5))
    check(found, x[0], y[0])
    wrong = replace(found, survivors=replace(found.survivors, positions=found.survivors.positions[..., ::-1]))
    with pytest.raises(AssertionError):
        check(wrong, x[0], y[0])


def test_indices_that_do_not_fit_are_counted() -> None:
    x = RNG.normal(size=(1, 1, 4, 4)).astype(np.float32)
    found = view("kernel_shape = [2, 2], strides = [2, 2]", x)
    y = x.reshape(1, 1, 2, 2, 2, 2).max(axis=(3, 5))
    told = np.array([[[[0, 2], [8, 10]]]])
    planted = _survivors(found, x, y, y, told)
    assert planted.differing == int(np.count_nonzero(x[..., ::2, ::2] != y))
    assert planted.differing > 0


def test_a_window_that_gives_nan_has_no_survivor() -> None:
    x = RNG.normal(size=(1, 1, 4, 4)).astype(np.float32)
    x[0, 0, :2, :2] = np.nan
    found = view("kernel_shape = [2, 2], strides = [2, 2]", x)
    assert found.survivors is not None
    assert np.isnan(found.after.maps[0, 0, 0])
    positions = found.survivors.positions[0].reshape(-1, 2)
    assert (positions[0] == -1).all()
    assert (positions[1:] >= 0).all()
    assert (found.survivors.differing, found.survivors.distinct) == (0, 3)
    assert found.nan == (4, 1)
    assert "4 NaN enter, 1 leave (hatched)" in found.captions()


def test_survivors_among_nan_are_not_called_different() -> None:
    x = RNG.normal(size=(1, 2, 12, 12)).astype(np.float32)
    x[RNG.random(x.shape) < 0.3] = np.nan
    found = view("kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]", x)
    assert found.survivors is not None
    told = found.survivors.positions[..., 0] >= 0
    assert not told[np.isnan(found.after.maps)].any()
    assert 0 < told.sum() < told.size
    assert found.survivors.differing == 0


@pytest.mark.parametrize(
    ("attributes", "outside"),
    [
        ('kernel_shape = [2], strides = [2], dilations = [2], auto_pad = "SAME_LOWER"', True),
        ('kernel_shape = [3], strides = [2], auto_pad = "SAME_UPPER"', False),
        ("kernel_shape = [3], strides = [2], dilations = [2], pads = [1, 1]", False),
    ],
)
def test_windows_that_onnxruntime_pads_otherwise_are_told(attributes: str, outside: bool) -> None:
    """With dilations, onnxruntime pads SAME as if there were none."""
    x = np.arange(7, dtype=np.float32)[::-1].reshape(1, 1, 7).copy()
    found = view(attributes, x)
    assert found.survivors is not None
    assert bool(found.survivors.outside) is outside
    assert ("onnxruntime's windows are not the standard's here, so none is framed" in found.captions()) is outside
    assert any("windows tied" in part for part in found.captions()) is not outside


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("kernel_shape = [8, 2], strides = [8, 2]", (1, 6, 8, 20)),
        ("kernel_shape = [4, 4]", (1, 6, 4, 4)),
        ("kernel_shape = [1, 2], strides = [1, 2]", (1, 6, 1, 20)),
        ("kernel_shape = [4, 1], strides = [4, 1]", (1, 6, 8, 1)),
        ("kernel_shape = [9]", (1, 6, 9)),
        ("kernel_shape = [4, 4, 4]", (1, 6, 4, 4, 4)),
    ],
)
def test_maps_keep_an_axis_of_size_1(attributes: str, shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape).astype(np.float32)
    found = view(attributes, x, top=4, by="energy")
    model = net(f"y = MaxPool<{attributes}>(x)", shape)
    y = capture(model, {"x": x}, providers="cpu")["y"].array
    energy = np.square(x[0].astype(float)).reshape(6, -1).mean(axis=1)
    strongest = tuple(np.argsort(-energy)[:4].tolist())
    if len(shape) == 3:
        assert (found.before.kind, found.after.kind, found.signals) == ("image", "image", strongest)
        np.testing.assert_array_equal(found.after.maps[0], y[0])
        return
    assert (found.before.kind, found.after.kind) == ("grid", "grid")
    if len(shape) == 5:
        strongest = found.before.channels  # by their middle slices
    assert found.before.channels == found.after.channels == strongest
    drawn = y[0][list(strongest)]
    np.testing.assert_array_equal(found.after.maps, drawn if drawn.ndim == 3 else drawn[:, 0])
    assert found.survivors is not None
    at = found.survivors.positions.reshape(4, -1, len(shape) - 2)
    for channel, places, values in zip(strongest, at, drawn.reshape(4, -1), strict=True):
        np.testing.assert_array_equal(x[0, channel][tuple(places.T)], values)


@pytest.mark.parametrize(("by", "signals"), [("index", (0, 1)), ("energy", (3, 1))])
def test_channels_of_signals_are_chosen_as_asked(by: Any, signals: tuple[int, ...]) -> None:
    x = np.ones((1, 4, 12), np.float32) * np.float32([1, 3, 2, 4])[:, None]
    assert view("kernel_shape = [2]", x, by=by, top=2).signals == signals


@pytest.mark.parametrize("body", ["y = GlobalMaxPool(x)", "y = ReduceMax<axes = [2, 3]>(x)"])
def test_where_a_global_maximum_lies(body: str) -> None:
    x = RNG.normal(size=(1, 5, 4, 6)).astype(np.float32)
    x[0, 2] = 1.5
    (found,) = pooled(net(body, x.shape), x).views
    assert found.survivors is not None
    expected = [np.unravel_index(int(channel.argmax()), (4, 6)) for channel in x[0]]
    np.testing.assert_array_equal(found.survivors.positions.reshape(5, 2), expected)
    assert found.survivors.tied.reshape(-1).tolist() == [False, False, True, False, False]
    assert "largest value tied in 20 % of channels" in found.captions()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("MaxPool<kernel_shape = [3, 3], strides = [2, 3], pads = [2, 0, 1, 2], ceil_mode = 1>",
         "3×3 windows, stride 2×3, pad 2×0 before and 1×2 after, sizes rounded up"),
        ("AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>",
         "3×3 windows, stride 1, pad 1, padding counts in the mean"),
        ("LpPool<kernel_shape = [2, 2], p = 3>", "2×2 windows, stride 1, p = 3: the p-norm of a window"),
    ],
)  # fmt: skip
def test_what_changes_the_numbers_is_told(body: str, text: str) -> None:
    x = RNG.normal(size=(1, 2, 8, 8)).astype(np.float32)
    (found,) = pooled(net(f"y = {body}(x)", x.shape), x).views
    assert found.captions()[0] == text


def test_any_sample_of_a_folder_can_be_drawn(models: Path, tmp_path: Path) -> None:
    numbers = []
    for sample in (0, 4):
        onnxviz.pooling(
            models / "digits_cnn.onnx", str(models / "samples"), data=tmp_path / "p.npz", sample=sample, providers="cpu"
        )
        with np.load(tmp_path / "p.npz") as data:
            numbers.append(data["0/before"])
            manifest = json.loads(str(data["__onnxviz__"]))
        assert manifest["note"].startswith(f"sample {sample} of ")
    assert not np.array_equal(*numbers)
    with pytest.raises(InputError, match=r"there is no sample 99"):
        onnxviz.pooling(models / "digits_cnn.onnx", str(models / "samples"), sample=99, providers="cpu")


def test_before_and_after_share_channels_and_scale() -> None:
    x = RNG.normal(size=(1, 9, 8, 8)).astype(np.float32)
    found = view("kernel_shape = [2, 2], strides = [2, 2]", x, top=4, by="energy")
    energy = np.square(x[0].astype(float)).mean(axis=(1, 2))
    assert found.before.channels == found.after.channels == tuple(np.argsort(-energy)[:4].tolist())
    assert found.before.scale == found.after.scale
    np.testing.assert_array_equal(
        found.after.maps, x[0].reshape(9, 4, 2, 4, 2).max(axis=(2, 4))[list(found.after.channels)]
    )
    assert found.survivors is not None
    assert found.survivors.positions.shape == (4, 4, 4, 2)


def test_a_volume_shows_the_slice_that_survives() -> None:
    x = RNG.normal(size=(1, 2, 4, 4, 4)).astype(np.float32)
    x[:, :, 3] += 9  # of the last window's two slices the second wins everywhere
    found = view("kernel_shape = [2, 2, 2], strides = [2, 2, 2]", x)
    assert found.slices == (3, 1)
    np.testing.assert_array_equal(found.before.maps, x[0, :, 3])
    assert "slice 3 of 4 before" in found.note


def test_average_pooling_shows_windows() -> None:
    x = RNG.normal(size=(1, 2, 6, 6)).astype(np.float32)
    body = "y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x)"
    (found,) = pooled(net(body, x.shape), x).views
    assert (found.method, found.survivors) == ("average", None)
    assert found.windows is not None
    assert found.windows.tiles
    np.testing.assert_allclose(found.after.maps, x[0].reshape(2, 3, 2, 3, 2).mean(axis=(2, 4)), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "rank", "what"),
    [
        ("y = GlobalAveragePool(x)", 4, np.mean),
        ("y = GlobalMaxPool(x)", 4, np.max),
        ("y = ReduceMean<axes = [2, 3], keepdims = 0>(x)", 2, np.mean),
        ("y = ReduceMax<axes = [-1, -2]>(x)", 4, np.max),
    ],
)
def test_global_pooling_gives_a_bar_a_channel(body: str, rank: int, what: Any) -> None:
    x = RNG.normal(size=(1, 5, 4, 6)).astype(np.float32)
    (found,) = pooled(net(body, x.shape, rank), x).views
    assert found.windows is None
    np.testing.assert_allclose(found.after.maps.reshape(-1), what(x[0], axis=(1, 2)), rtol=1e-5)
    assert found.spans is not None
    np.testing.assert_allclose(found.spans, np.stack([x[0].min(axis=(1, 2)), x[0].max(axis=(1, 2))], axis=1))


def test_a_mean_over_something_else_is_no_pooling() -> None:
    for body in ("y = ReduceMean<axes = [1]>(x)", "y = ReduceMean<axes = [3]>(x)", "y = ReduceMean(x)"):
        with pytest.raises(SelectionError, match="no pooling layer"):
            plan_pooling(observable(net(body, (1, 5, 4, 6)), is_pool))


def test_quantised_pooling() -> None:
    codes = RNG.integers(0, 256, (1, 3, 4, 4)).astype(np.uint8)
    (found,) = pooled(
        net("y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)", codes.shape, kind="uint8"), codes
    ).views
    assert found.note == "quantised codes (uint8)"
    check(found, codes[0].astype(np.float32), codes[0].reshape(3, 2, 2, 2, 2).max(axis=(2, 4)).astype(np.float32))
    weights = "<float a = {0.1}, uint8 b = {10}, float c = {0.2}, uint8 d = {5}>"
    body = "y = com.microsoft.QLinearGlobalAveragePool(x, a, b, c, d)"
    (mean,) = pooled(net(body, codes.shape, 4, "uint8", weights), codes).views
    x = (codes[0].astype(np.float64) - 10) * 0.1
    np.testing.assert_allclose(mean.before.maps, x, atol=1e-5)
    np.testing.assert_allclose(mean.after.maps.reshape(-1), x.mean(axis=(1, 2)), atol=0.11)


def test_codes_whose_scale_is_computed_are_refused() -> None:
    codes = RNG.integers(0, 256, (1, 3, 4, 4)).astype(np.uint8)
    weights = "<float h = {0.001}, uint8 b = {10}, float c = {0.2}, uint8 d = {5}>"
    body = """f = Cast<to = 1>(x) m = ReduceMax<keepdims = 0>(f) a = Mul(m, h)
      y = com.microsoft.QLinearGlobalAveragePool(x, a, b, c, d)"""
    with pytest.raises(SelectionError, match="their scale is computed in the graph"):
        pooled(net(body, codes.shape, 4, "uint8", weights), codes)


def test_what_cannot_be_shown_is_told_and_the_rest_is_drawn() -> None:
    told: list[str] = []
    model = net("p = MaxPool<kernel_shape = [2, 2]>(x) y = Relu(p)", (1, 2, 5, 5))
    onnxviz.pooling(model, None, ["p", "y"], tell=told.append, providers="cpu")
    assert told == ["not drawn: y: it leaves Relu, which is no pooling"]
    with pytest.raises(SelectionError, match="no pooling; leave --tensor out"):
        onnxviz.pooling(model, None, "y", providers="cpu")


def test_the_numbers_are_written(tmp_path: Path) -> None:
    x = RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)
    model = net("y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)", x.shape)
    onnxviz.pooling(model, {"x": x}, data=tmp_path / "p.npz", by="index", providers="cpu")
    with np.load(tmp_path / "p.npz") as data:
        (row,) = json.loads(str(data["__onnxviz__"]))["views"]
        assert (row["kernel"], row["survive"], row["tied"]) == ([2, 2], 0.25, 0.0)
        at = data["0/survivors"]
        channel = np.arange(3)[:, None, None]
        np.testing.assert_array_equal(data["0/before"][channel, at[..., 0], at[..., 1]], data["0/after"])


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "detector/blazeface_front_128.onnx", "generated/ort_resnet18_int8_qoperator.onnx",
        "generated/tv_r2plus1d_like_video_dynamo.onnx", "classifier/mnist-8-cntk.onnx", "light_zoo/light_inception_v2.onnx",
    ],
)  # fmt: skip
def test_real_models(corpus: Path, name: str) -> None:
    opened = observable(onnxviz.open_model(corpus / "models" / name), is_pool)
    plan = plan_pooling(opened)
    found = pool_views(plan, capture(opened, None, plan.tensors, bodies=False, providers="cpu"))
    maxima = [v for v in found.views if v.op_type == "MaxPool"]
    assert maxima
    for one in maxima:
        assert one.survivors is not None
        assert one.survivors.differing == 0
