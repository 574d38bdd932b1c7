"""Heat maps of layers: numbers, places on the input, what has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.placement import CellAxis, stretched
from onnxviz.analysis.spatial_heat import (
    HeatSheet,
    canvas_of,
    over_channels,
    overlay_data,
    resampled,
    spatial_heats,
)
from onnxviz.analysis.surroundings import Surroundings
from onnxviz.errors import SelectionError
from onnxviz.graph.io import as_model
from onnxviz.runtime.capture import capture
from onnxviz.runtime.inputs import load_inputs

RNG = np.random.default_rng(5)


def net(text: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> {text}')


def heats(model: ir.Model, feeds: dict[str, np.ndarray], tensors: Any = "*", **options: Any) -> HeatSheet:
    fed = load_inputs(model, feeds)
    captured = capture(model, fed, tensors, bodies=False, providers="cpu")
    around = Surroundings(model, captured)
    return spatial_heats(model, captured, canvas_of(around, fed), around=around, **options)


def reference(block: np.ndarray, by: str) -> np.ndarray:
    """The same with numpy's own functions that skip NaN."""
    finite = np.where(np.isfinite(block), block, np.nan).astype(np.float64)
    made: dict[str, Callable[[], np.ndarray]] = {
        "mean": lambda: np.nanmean(finite, axis=0),
        "max": lambda: np.nanmax(finite, axis=0),
        "energy": lambda: np.nanmean(finite**2, axis=0),
    }
    return made[by]()


@pytest.mark.parametrize("by", ["mean", "max", "energy"])
def test_channels_are_taken_together(by: Any) -> None:
    block = RNG.normal(size=(7, 4, 5)).astype(np.float32)
    block[0, 1, 1], block[3, 2, 2] = np.nan, np.inf
    np.testing.assert_allclose(over_channels(block, by), reference(block, by), rtol=1e-6)
    with pytest.raises(AssertionError):  # another reduction is noticed
        np.testing.assert_allclose(over_channels(block, by), reference(block, "max" if by != "max" else "mean"))


def test_a_position_without_finite_values_stays_empty() -> None:
    block = np.ones((2, 2, 2))
    block[:, 0, 1] = np.nan
    assert np.isnan(over_channels(block, "mean")).tolist() == [[False, True], [False, False]]


def by_scipy(heat: np.ndarray, rows: CellAxis, columns: CellAxis, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation between centres, as scipy has it, the outermost cells going on."""
    from scipy.interpolate import RegularGridInterpolator

    at = [axis.first + axis.step * np.arange(axis.count) for axis in (rows, columns)]
    inner = [np.clip(np.arange(n), c[0], c[-1]) for n, c in zip(size, at, strict=True)]
    grid = np.stack(np.meshgrid(*inner, indexing="ij"), axis=-1)
    found = RegularGridInterpolator(at, heat)(grid)
    for axis, (cells, n) in enumerate(zip((rows, columns), size, strict=True)):
        low, high = cells.ends
        out = (np.arange(n) < low) | (np.arange(n) > high)
        found[(out, slice(None)) if axis == 0 else (slice(None), out)] = np.nan
    return found


def test_upsampling_is_bilinear_between_the_centres() -> None:
    heat = RNG.normal(size=(4, 6)).astype(np.float32)
    rows, columns = CellAxis(3.5, 4.0, 4), CellAxis(0.0, 3.0, 6)
    found = resampled(heat, rows.cells(np.arange(20.0)), columns.cells(np.arange(20.0)))
    np.testing.assert_allclose(found, by_scipy(heat, rows, columns, (20, 20)), atol=1e-6)
    shifted = CellAxis(0.0, 4.0, 4)  # corner to corner, the usual mistake
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, by_scipy(heat, shifted, columns, (20, 20)), atol=1e-6)


def test_nan_stays_within_its_cell() -> None:
    heat = np.array([[1, 2, np.nan, 4]], np.float32)
    cells = stretched(4, 16)
    found = resampled(heat, np.zeros(1), cells.cells(np.arange(16.0)))[0]
    assert np.isnan(found[8:12]).all()
    assert np.isfinite(found[:8]).all()
    assert np.isfinite(found[12:]).all()
    np.testing.assert_allclose(found[12:], 4)


def blob_net() -> ir.Model:
    return net(
        """g (float[1, 1, 33, 33] x) => (float[1, 1, 5, 5] y)
        {c = AveragePool<kernel_shape = [5, 5], strides = [3, 3], pads = [2, 2, 2, 2]>(x)
         y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(c)}"""
    )


def centre_of_mass(heat: np.ndarray) -> np.ndarray:
    known = np.where(np.isfinite(heat), heat, 0.0)
    return np.array([(known.sum(axis=1 - a) * np.arange(known.shape[a])).sum() / known.sum() for a in (0, 1)])


def test_a_blob_is_seen_where_it_is() -> None:
    """Averaging moves nothing: the heat of a blob has its centre at the blob, whichever layer it is of."""
    y, x = np.mgrid[:33, :33]
    at = np.array([13.0, 16.0])
    picture = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 40).astype(np.float32)[None, None]
    sheet = heats(blob_net(), {"x": picture})
    assert [heat.name for heat in sheet.heats] == ["c", "y"]
    for heat in sheet.heats:
        assert heat.placement.aligned
        found = heat.at(np.arange(33.0), np.arange(33.0))
        np.testing.assert_allclose(centre_of_mass(found), at, atol=0.6)
        ends = (stretched(heat.heat.shape[0], 33), stretched(heat.heat.shape[1], 33))
        spread = resampled(heat.heat, *(axis.cells(np.arange(33.0)) for axis in ends))
        assert np.abs(centre_of_mass(spread) - at).max() > 0.6  # stretched, it would be shifted
    assert sheet.heats[1].placement.axes[0] == CellAxis(1.5, 6.0, 5)


def test_squeeze_and_excitation_does_not_hide_where_a_map_lies() -> None:
    model = net(
        """g (float[1, 2, 12, 12] x) => (float[1, 2, 6, 6] y) {
        p = GlobalAveragePool(x) s = Sigmoid(p) m = Mul(x, s)
        y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(m)}"""
    )
    sheet = heats(model, {"x": RNG.normal(size=(1, 2, 12, 12)).astype(np.float32)}, "y")
    (heat,) = sheet.heats
    assert heat.placement.axes == (CellAxis(0.5, 2.0, 6),) * 2
    assert heat.placement.note == "placed with gates left out"


def test_a_signal_has_one_axis_and_a_recurrence_is_placed_as_what_it_reads(models: Path) -> None:
    model = as_model(models / "signal_cnn_lstm.onnx")
    sheet = heats(model, {"signal": RNG.normal(size=(1, 1, 256)).astype(np.float32)}, ["pool1", "lstm/LSTM", "conv1"])
    found = {heat.name: heat for heat in sheet.heats}
    assert sheet.canvas.signal is not None
    assert found["conv1"].placement.axes == (CellAxis(0.0, 1.0, 256),)
    assert found["pool1"].placement.axes == (CellAxis(1.5, 4.0, 64),)
    assert found["lstm/LSTM"].placement.axes == (CellAxis(3.5, 8.0, 32),)
    assert found["lstm/LSTM"].placement.note == "placed as pool2"


def test_patches_lie_where_the_projection_saw_them(models: Path) -> None:
    model = as_model(models / "vit_digits.onnx")
    name = str(model.graph.inputs[0].name)
    fed = {name: RNG.normal(size=(1, 1, 28, 28)).astype(np.float32)}
    sheet = heats(model, fed, ["patches.projection", "blocks.0.norm1", "blocks.0.attention.softmax"], every=True)
    plane, tokens = sheet.heats
    assert plane.placement.axes == tokens.placement.axes == (CellAxis(1.5, 4.0, 7),) * 2
    array = capture(model, fed, "blocks.0.norm1", providers="cpu")["blocks.0.norm1"].array
    np.testing.assert_allclose(tokens.heat, array[0, 1:].mean(axis=-1).reshape(7, 7), atol=1e-6)  # CLS is the first
    assert [one.name for one in sheet.not_drawn] == ["blocks.0.attention.softmax"]


def test_codes_become_numbers() -> None:
    model = net(
        """g (float[1, 2, 4, 4] x) => (uint8[1, 2, 2, 2] y) <float s = {0.5}, uint8 z = {10}>
        {q = QuantizeLinear(x, s, z) y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(q)}"""
    )
    x = RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
    sheet = heats(model, {"x": x})
    codes = capture(model, {"x": x}, "y", providers="cpu")["y"].array.astype(np.float64)
    (heat,) = (one for one in sheet.heats if one.name == "y")
    np.testing.assert_allclose(heat.heat, ((codes[0] - 10) * 0.5).mean(axis=0), atol=1e-6)
    assert heat.note == "dequantised"
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(heat.heat, codes[0].mean(axis=0))


def test_what_has_no_positions_is_refused_with_those_that_have(small_cnn: ir.Model) -> None:
    x = {"x": RNG.normal(size=(1, 1, 8, 8)).astype(np.float32)}
    with pytest.raises(SelectionError, match=r"y of shape \(1, 3\) has no spatial axes; those that have are c, r, p"):
        heats(small_cnn, x, "y", every=True)
    with pytest.raises(SelectionError, match="no layer of the model has a map whose positions"):
        heats(small_cnn, x, "y")
    sheet = heats(small_cnn, x, ["y", "r"], every=True)
    assert [one.name for one in sheet.not_drawn] == ["y"]
    sheet = heats(small_cnn, x)
    assert (sheet.without, sheet.not_drawn) == (("y",), ())
    with pytest.raises(SelectionError, match="no overlay"):
        heats(small_cnn, x, by="median")
    words = net("g (int64[1, 3] x) => (int64[1, 3] y) {y = Neg(x)}")
    with pytest.raises(SelectionError, match="no input of the model is a picture or a signal"):
        heats(words, {"x": np.ones((1, 3), np.int64)})


def test_constant_nan_and_million_channel_layers_are_drawn() -> None:
    model = net("g (float[1, C, 2, 2] x) => (float[1, C, 2, 2] y) {y = LeakyRelu(x)}")
    nan = np.full((1, 3, 2, 2), np.nan, np.float32)
    for array in (np.zeros((1, 3, 2, 2), np.float32), nan):
        fed = load_inputs(model, {"x": array})
        captured = capture(model, fed, providers="cpu")
        around = Surroundings(model, captured)
        canvas = canvas_of(Surroundings(PICTURED, capture(PICTURED, PICTURE, providers="cpu")), PICTURE)
        (heat,) = spatial_heats(model, captured, canvas, layout="NCHW", around=around).heats
        assert heat.scale.constant
        assert heat.nonfinite == (12 if np.isnan(array).any() else 0)
    assert over_channels(np.ones((1_000_000, 2, 2), np.float32), "energy").tolist() == [[1, 1], [1, 1]]


PICTURED = net("g (float[1, 3, 2, 2] x) => (float[1, 3, 2, 2] y) {y = MaxPool<kernel_shape = [1, 1]>(x)}")
PICTURE = load_inputs(PICTURED, {"x": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)})


def test_a_tensor_becomes_the_picture_where_none_was_given() -> None:
    canvas = canvas_of(Surroundings(PICTURED, capture(PICTURED, PICTURE, providers="cpu")), PICTURE)
    assert canvas.picture is not None
    assert canvas.picture[0, 0].tolist() == [0, 93, 185]
    assert canvas.note == "input tensor from black (0) to white (11)"


def test_the_numbers_are_written_with_their_places() -> None:
    sheet = heats(blob_net(), {"x": np.ones((1, 1, 33, 33), np.float32)})
    arrays, manifest = overlay_data(sheet)
    assert set(arrays) == {"0/heat", "1/heat", "picture"}
    assert manifest["tensors"][1]["centres"] == [[1.5, 6.0], [1.5, 6.0]]
    assert manifest["by"] == "mean"


def test_maps_of_another_picture_are_not_laid_over_this_one() -> None:
    model = net("""g (float[1, 1, 9, 9] left, float[1, 1, 9, 9] right) => (float[1, 1, 7, 7] y)
        <float[1, 1, 3, 3] w = {1, 1, 1, 1, 1, 1, 1, 1, 1}> {
          l = Conv(left, w) r = Conv(right, w) y = Add(l, r) }""")
    picture = RNG.normal(size=(1, 1, 9, 9)).astype(np.float32)
    found = heats(model, {"left": picture, "right": picture}, every=True)
    assert [heat.name for heat in found.heats] == ["l", "y"]
    assert [(one.name, one.reason) for one in found.not_drawn] == [
        ("r", "does not depend on left, the input that is drawn")
    ]


def test_maps_without_an_axis_of_channels_are_placed() -> None:
    model = net("""g (float[1, 2, 8, 10] x) => (int64[1, 6, 8] y) <float[3, 2, 3, 3] w> {
        c = Conv(x, w) y = ArgMax<axis = 1, keepdims = 0>(c) }""")
    weight = next(v for node in model.graph for v in node.inputs if v is not None and v.name == "w")
    weight.const_value = ir.tensor(RNG.normal(size=(3, 2, 3, 3)).astype(np.float32), name="w")
    sheet = heats(model, {"x": RNG.normal(size=(1, 2, 8, 10)).astype(np.float32)}, every=True)
    above, classes = sheet.heats
    assert (classes.name, classes.heat.shape) == ("y", (6, 8))
    assert classes.placement == above.placement
    assert classes.placement.axes == (CellAxis(1.0, 1.0, 6), CellAxis(1.0, 1.0, 8))


def test_steps_of_a_recurrence_are_no_samples() -> None:
    model = net("""g (float[N, 1, 12] x) => (float[T, 1, N, 2] y) <float[1, 8, 1] w, float[1, 8, 2] r> {
        p = MaxPool<kernel_shape = [2], strides = [2]>(x) t = Transpose<perm = [2, 0, 1]>(p)
        y = LSTM<hidden_size = 2>(t, w, r) }""")
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.name in ("w", "r"):
                shape = tuple(int(n) for n in value.shape or ())
                value.const_value = ir.tensor(RNG.normal(size=shape).astype(np.float32), name=value.name)
    sheet = heats(model, {"x": RNG.normal(size=(3, 1, 12)).astype(np.float32)}, ["y"], sample=2)
    assert (sheet.sample, sheet.batch) == (2, 3)


def test_an_enlarged_map_lies_evenly_over_the_input() -> None:
    """A decoder: its cells see what begins left of them, as strides of padded kernels do, but show what lies there."""
    text = """g (float[1, 1, 32, 32] x) => (float[1, 1, 16, 16] y)
      <float[1, 1, 3, 3] w = {1, 1, 1, 1, 1, 1, 1, 1, 1}, float[4] by = {1, 1, 4, 4}> {
      a = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w) b = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(a, w)
      c = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(b, w)
      u = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(c, , by)
      y = Relu(u)
    }"""
    model = net(text)
    found = heats(model, {"x": RNG.random((1, 1, 32, 32), np.float32)}, ["c", "y"]).heats
    deep, enlarged = (next(heat for heat in found if heat.name == name) for name in ("c", "y"))
    assert deep.placement.axes[0] == CellAxis(0.0, 8.0, 4), "what it sees has its middle there"
    assert enlarged.placement.axes == (CellAxis(0.5, 2.0, 16),) * 2
    assert enlarged.placement.note == "enlarged on its way: cells lie evenly over the input"
