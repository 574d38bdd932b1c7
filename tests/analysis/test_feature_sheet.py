"""Feature maps of a run: channels by index, slices, patches, time, quantised codes, very many channels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.channel_scores import channel_ranges, hoyer_sparsity
from onnxviz.analysis.feature_maps import feature_maps
from onnxviz.analysis.feature_sheet import FeatureSheet, feature_sheet, features_data
from onnxviz.analysis.tokens import TokenBlock, Tokens
from onnxviz.errors import SelectionError
from onnxviz.graph.io import as_model
from onnxviz.graph.sequences import time_tensors
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.capture import capture

RNG = np.random.default_rng(1)
VOLUME = RNG.normal(size=(1, 3, 5, 6, 7)).astype(np.float32)


def sheet(model: ir.Model, feeds: dict[str, np.ndarray], tensors: Any = "*", **options: Any) -> FeatureSheet:
    return feature_sheet(model, capture(model, feeds, tensors, bodies=False, providers="cpu"), **options)


def test_channels_by_index_come_in_their_order() -> None:
    fm = feature_maps(VOLUME[:, :, 0], channels=[2, 0])
    np.testing.assert_array_equal(fm.maps, VOLUME[0, [2, 0], 0])
    assert (fm.channels, fm.by, fm.shown) == ((2, 0), "request", "2 of 3 channels, as asked for")
    with pytest.raises(SelectionError, match="has no channel 3; it has 3, 0 to 2"):
        feature_maps(VOLUME, channels=[3])
    signal = feature_maps(VOLUME[:, :, 0, 0], layout="NCHW", channels=[1])
    np.testing.assert_array_equal(signal.maps, VOLUME[:1, 1:2, 0, 0])
    vector = feature_maps(np.arange(5.0)[None], channels=[4, 1])
    assert vector.maps.reshape(-1).tolist() == [4, 1]


def test_slices_and_the_axis_that_is_cut() -> None:
    fm = feature_maps(VOLUME, by="index", slices=[0, 4])
    np.testing.assert_array_equal(fm.maps, VOLUME[0][:, [0, 4]].reshape(6, 6, 7))
    assert (fm.channels, fm.slices, fm.strip, fm.cut) == ((0, 0, 1, 1, 2, 2), (0, 4) * 3, 2, "slice")
    assert fm.note == "3-D volume, 2 of 5 slices a channel"
    wide = feature_maps(VOLUME, by="index", slices=6, along="width")
    np.testing.assert_array_equal(wide.maps, VOLUME[0, ..., 6])
    frames = feature_maps(VOLUME, layout="NCTHW", by="index", slices="strip")
    assert (frames.slices[:5], frames.cut) == ((0, 1, 2, 3, 4), "frame")
    np.testing.assert_array_equal(frames.maps, VOLUME[0].reshape(15, 6, 7))
    long = feature_maps(np.zeros((1, 1, 100, 2, 2)), slices="strip")
    assert (long.slices[0], long.slices[-1], len(long.slices)) == (0, 99, 8)
    for wrong in ({"slices": 5}, {"along": "time"}, {"slices": []}):
        with pytest.raises(SelectionError):
            feature_maps(VOLUME, **wrong)


def test_scores_and_scale_are_those_of_the_whole_volume() -> None:
    block = np.zeros((1, 2, 3, 2, 2), np.float32)
    block[0, 1, 0] = 5  # loud, but not in the middle slice
    block[0, 0, 1] = 1
    fm = feature_maps(block, top=1)
    assert fm.channels == (1,)
    assert fm.scale.vmax == 5


def patches() -> Tokens:
    return Tokens((TokenBlock("CLS", "learned", 0, 1), TokenBlock("image", "image", 1, 7, (2, 3))), ("CLS",) * 7)


def test_patches_are_a_grid_and_cls_is_set_aside() -> None:
    array = RNG.normal(size=(1, 7, 4)).astype(np.float32)
    array[0, 0] = 1000  # CLS may be far larger: it must not set the scale
    fm = feature_maps(array, tokens=patches(), by="index")
    np.testing.assert_array_equal(fm.maps, array[0, 1:].T.reshape(4, 2, 3))
    assert fm.scale.vmax < 10
    ((label, values),) = fm.aside
    assert (label, values.tolist()) == ("CLS", [1000] * 4)
    assert fm.note == "tokens as 2 × 3 patches, CLS set aside"


def test_the_grid_is_the_models_not_a_square_root(models: Path) -> None:
    model = as_model(models / "vit_digits.onnx")
    x = RNG.normal(size=(1, 1, 28, 28)).astype(np.float32)
    found = sheet(model, {str(model.graph.inputs[0].name): x}, ["blocks.0.norm1"], by="index")
    (fm,) = found.maps
    assert (fm.kind, fm.maps.shape[1:], [label for label, _ in fm.aside]) == ("grid", (7, 7), ["CLS"])
    array = capture(model, {str(model.graph.inputs[0].name): x}, "blocks.0.norm1", providers="cpu")["blocks.0.norm1"]
    np.testing.assert_array_equal(fm.maps[5], array.array[0, 1:, 5].reshape(7, 7))


def test_time_is_called_time(models: Path) -> None:
    model = as_model(models / "signal_cnn_lstm.onnx")
    found = sheet(model, {"signal": np.ones((1, 1, 256), np.float32)})
    said = {fm.name: fm.across for fm in found.maps if fm.kind == "image"}
    assert said["lstm/LSTM"] == said["conv1"] == said["pool2"] == "time"
    plain = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 2, 9] x) => (float[1, 2, 9] y) {y = Relu(x)}"""
    )
    assert [fm.across for fm in sheet(plain, {"x": np.ones((1, 2, 9), np.float32)}).maps] == ["position"]
    assert time_tensors(infer_shapes(plain)) == frozenset()


def test_lines_are_the_best_channels() -> None:
    signal = np.array([[1, 1, 1], [5, 5, 5], [0, 0, 0], [3, 3, 3]], np.float32)[None]
    assert feature_maps(signal, layout="NCHW").best(2) == (1, 3)
    assert feature_maps(signal, layout="NCHW", by="index").best(2) == (0, 1)
    assert feature_maps(signal, layout="NCHW", channels=[3, 2]).best(2) == (0, 1)


def test_of_several_tensors_each_shows_the_channels_it_has(small_cnn: ir.Model) -> None:
    x = {"x": RNG.normal(size=(1, 1, 8, 8)).astype(np.float32)}
    found = sheet(small_cnn, x, channels=[1, 2])
    assert [(fm.name, fm.channels) for fm in found.maps] == [("c", (1,)), ("r", (1,)), ("p", (1,)), ("y", (1, 2))]
    found = sheet(small_cnn, x, channels=[2])
    assert [one.name for one in found.not_drawn] == ["c", "r", "p"]
    assert "it has 2" in found.not_drawn[0].reason
    with pytest.raises(SelectionError, match="no three spatial axes"):
        sheet(small_cnn, x, slices=1)
    with pytest.raises(SelectionError, match="no sample 4"):
        sheet(small_cnn, x, sample=4)


def test_codes_are_shown_as_numbers() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 2, 3, 3] x) => (uint8[1, 2, 3, 3] y)
        <float s = {0.25}, uint8 z = {7}> {y = QuantizeLinear(x, s, z)}"""
    )
    x = RNG.normal(size=(1, 2, 3, 3)).astype(np.float32)
    (fm,) = sheet(model, {"x": x}, by="index").maps
    np.testing.assert_allclose(fm.maps, x[0], atol=0.126 + max(0.0, float(-1.75 - x.min())))
    assert (fm.note, fm.dtype) == ("dequantised", "uint8")


def by_channel(block: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Energy and range a channel at a time, as plainly as can be."""
    kept = [channel[np.isfinite(channel)].astype(np.float64) for channel in block.reshape(len(block), -1)]
    return (
        [float(np.mean(v**2)) if v.size else 0.0 for v in kept],
        [float(v.min()) if v.size else np.nan for v in kept],
        [float(v.max()) if v.size else np.nan for v in kept],
    )


def test_scores_agree_with_a_loop() -> None:
    block = RNG.normal(size=(9, 4, 4)).astype(np.float32)
    block[2], block[3, 0, 0], block[4, 1, 1] = np.nan, np.nan, np.inf
    for found, expected in zip(channel_ranges(block), by_channel(block), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(channel_ranges(block)[0], by_channel(np.nan_to_num(block, posinf=0))[0], rtol=1e-6)
    clean = hoyer_sparsity(block[5:])
    for i, channel in enumerate(block[5:].reshape(4, 16).astype(np.float64)):
        assert clean[i] == pytest.approx((4 - np.abs(channel).sum() / np.linalg.norm(channel)) / 3)


def test_a_million_channels_make_no_million_tiles() -> None:
    block = np.zeros((1, 1_000_000, 2, 2), np.float32)
    block[0, 123_456] = 1
    start = time.perf_counter()
    fm = feature_maps(block, top=8)
    assert (fm.channels[0], len(fm.maps), fm.total) == (123_456, 8, 1_000_000)
    assert fm.shown == "8 of 1000000 channels, by energy"
    image = feature_maps(block[..., 0], layout="NCHW", rows=4096)
    assert (image.maps.shape, 123_456 in image.channels) == ((1, 4096, 2), True)
    assert time.perf_counter() - start < 10


def test_the_numbers_are_named() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 3, 5, 6, 7] x) => (float[1, 3, 5, 6, 7] y) {y = Relu(x)}"""
    )
    arrays, manifest = features_data(sheet(model, {"x": VOLUME}, by="index", slices=[1, 2]))
    assert arrays["0/maps"].shape == (6, 6, 7)
    assert arrays["0/slices"].tolist() == [1, 2] * 3
    assert manifest["tensors"][0]["name"] == "y"


SEGMENTATION = """<ir_version: 8, opset_import: ["": 17]>
  g (float[1, 3, 12, 16] x) => (int64[1, 12, 16] classes, float[1, 12, 16] depth, float[1, 12, 16] soft)
  <float[1, 3, 1, 1] w = {1, -1, 2}, int64[3] to = {1, 12, 16}> {
    classes = ArgMax<axis = 1, keepdims = 0>(x) c = Conv(x, w) depth = Reshape(c, to) soft = Sigmoid(depth) }"""


def test_a_map_without_an_axis_of_channels_lies_as_the_picture_does() -> None:
    x = RNG.normal(size=(1, 3, 12, 16)).astype(np.float32)
    found = {fm.name: fm for fm in sheet(ir.from_onnx_text(SEGMENTATION), {"x": x}, every=True).maps}
    np.testing.assert_array_equal(found["classes"].maps[0], x[0].argmax(axis=0))
    depth = x[0, 0] - x[0, 1] + 2 * x[0, 2]
    np.testing.assert_allclose(found["depth"].maps[0], depth, atol=1e-5)
    np.testing.assert_allclose(found["soft"].maps[0], 1 / (1 + np.exp(-depth)), atol=1e-5)
    assert {name: fm.kind for name, fm in found.items()} == dict.fromkeys(found, "grid")


def test_a_depth_axis_is_not_taken_for_the_directions_of_a_recurrence() -> None:
    x = RNG.normal(size=(1, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(feature_maps(x, layout="NDC").maps[0], x[0].T)
    volume = RNG.normal(size=(1, 2, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(feature_maps(volume, layout="NTDC", by="index").maps, np.moveaxis(volume[0], 2, 0))


def test_letters_of_axes_may_be_small() -> None:
    x = RNG.normal(size=(1, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(feature_maps(x, layout="ntc").maps, feature_maps(x, layout="NTC").maps)
    np.testing.assert_array_equal(feature_maps(VOLUME, layout="ncdhw").maps, feature_maps(VOLUME).maps)


def test_parts_of_codes_are_numbers_as_well() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[1, 4, 3, 3] x) => (uint8[1, 2, 3, 3] y, uint8[1, 2, 3, 3] z)
        <float s = {0.25}, uint8 zero = {7}, int64[2] parts = {2, 2}> {
          q = QuantizeLinear(x, s, zero) y, z = Split<axis = 1>(q, parts) }""")
    x = RNG.integers(-7, 40, (1, 4, 3, 3)).astype(np.float32) / 4
    found = sheet(model, {"x": x}, ["y", "z"], every=True, by="index").maps
    np.testing.assert_array_equal(np.concatenate([fm.maps for fm in found]), x[0])
    assert [fm.note for fm in found] == ["dequantised"] * 2
