"""Feature maps: axes, scores, what is shown of what, and tensors that have none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxviz.analysis.feature_maps import feature_maps, hoyer_sparsity
from onnxviz.errors import SelectionError

RNG = np.random.default_rng(0)
NCHW = RNG.normal(size=(2, 6, 4, 5)).astype(np.float32)


def record(array: np.ndarray, op_type: str) -> Any:
    return SimpleNamespace(name="t", array=array, shape=array.shape, dtype=str(array.dtype), op_type=op_type)


def test_channels_first_and_last_agree() -> None:
    first = feature_maps(NCHW, by="index", sample=1)
    last = feature_maps(NCHW.transpose(0, 2, 3, 1), layout="NHWC", by="index", sample=1)
    np.testing.assert_array_equal(first.maps, NCHW[1])
    np.testing.assert_array_equal(last.maps, first.maps)
    assert (first.kind, first.total, first.batch, first.sample) == ("grid", 6, 2, 1)
    wrong = feature_maps(NCHW.transpose(0, 2, 3, 1), by="index", sample=1)
    assert wrong.maps.shape != first.maps.shape  # the wrong layout shows


def test_energy_is_the_mean_square_and_orders_the_tiles() -> None:
    fm = feature_maps(NCHW, top=4)
    energy = np.square(NCHW[0].astype(float)).mean(axis=(1, 2))
    assert fm.channels == tuple(np.argsort(-energy)[:4].tolist())
    np.testing.assert_allclose(fm.scores, np.sort(energy)[::-1][:4])
    np.testing.assert_array_equal(fm.maps, NCHW[0][list(fm.channels)])
    assert fm.shown == "4 of 6 channels, by energy"


def test_a_wrong_order_is_noticed() -> None:
    fm = feature_maps(NCHW, top=4, by="index")
    energy = np.square(NCHW[0].astype(float)).mean(axis=(1, 2))
    assert fm.channels != tuple(np.argsort(-energy)[:4].tolist())
    assert fm.shown == "4 of 6 channels, in index order"


def test_forty_channels_are_forty() -> None:
    fm = feature_maps(np.ones((1, 40, 3, 3)))
    assert len(fm.maps) == fm.total == len(fm.channels) == 40
    assert fm.shown == "all 40 channels"


def test_hoyer_sparsity_by_its_formula() -> None:
    block = np.abs(RNG.normal(size=(3, 7, 7)))
    flat = block.reshape(3, -1)
    root = np.sqrt(flat.shape[1])
    expected = (root - np.abs(flat).sum(1) / np.sqrt((flat**2).sum(1))) / (root - 1)
    np.testing.assert_allclose(hoyer_sparsity(block), expected)
    spike = np.zeros((1, 2, 3, 3), np.float32)
    spike[0, 0], spike[0, 1, 1, 1] = 1, 1
    assert feature_maps(spike, by="sparsity").channels == (1, 0)


def test_a_dead_channel_stays_a_number() -> None:
    array = NCHW.copy()
    array[0, 2] = 0
    for by in ("energy", "sparsity"):
        fm = feature_maps(array, by=by)
        assert np.isfinite(fm.scores).all()
        assert fm.channels[-1] == 2
    assert fm.constant[-1]
    assert fm.constant_total == 1
    assert "1 constant" in fm.captions()


def test_a_nan_channel_does_not_spoil_the_others() -> None:
    array = NCHW.copy()
    array[0, 3] = np.nan
    array[0, 4, 0, 0] = np.inf
    fm = feature_maps(array, by="index")
    assert (fm.scale.nan, fm.scale.inf) == (20, 1)
    assert np.isnan(fm.ranges[3]).all()
    assert np.isfinite(fm.ranges[[0, 1, 2, 4, 5]]).all()
    assert fm.constant == (False, False, False, True, False, False)


def test_the_scale_is_that_of_all_channels() -> None:
    array = np.ones((1, 3, 20, 20), np.float32)
    array[0, 2] = -0.5
    assert feature_maps(array, top=1).scale.kind == "diverging"  # though the shown channel is positive


def test_volumes_show_the_middle_slice() -> None:
    array = RNG.normal(size=(1, 2, 7, 4, 5)).astype(np.float32)
    fm = feature_maps(array, by="index")
    np.testing.assert_array_equal(fm.maps, array[0, :, 3])
    assert fm.note == "3-D volume, middle slice 3 of 7"
    last = feature_maps(np.moveaxis(array, 1, -1), layout="NHWC", by="index")
    np.testing.assert_array_equal(last.maps, fm.maps)


def test_signals_are_one_image_with_channels_down() -> None:
    signal = RNG.normal(size=(1, 3, 50)).astype(np.float32)
    for fm in (
        feature_maps(signal, layout="NCHW"),
        feature_maps(record(signal, "Conv")),
        feature_maps(signal.transpose(0, 2, 1)),  # tokens: time, then channels
        feature_maps(signal[:, :, None, :]),
    ):
        assert fm.kind == "image"
        np.testing.assert_array_equal(fm.maps, signal)
        assert fm.channels == (0, 1, 2)


def test_vectors_are_one_row_and_never_an_image() -> None:
    logits = RNG.normal(size=(1, 16)).astype(np.float32)
    for array in (logits, logits[0], logits[:, :, None, None], logits[:, :, None, None, None]):
        fm = feature_maps(array)
        assert (fm.kind, fm.maps.shape, fm.total) == ("vector", (1, 1, 16), 16)
        assert fm.scale.clipped == 0
    assert feature_maps(logits[0]).maps[0, 0].tolist() == logits[0].tolist()


def test_recurrent_outputs_are_time_first() -> None:
    y = RNG.normal(size=(9, 2, 1, 4)).astype(np.float32)
    fm = feature_maps(record(y, "LSTM"))
    assert fm.maps.shape == (1, 8, 9)
    np.testing.assert_array_equal(fm.maps[0], y[:, :, 0].reshape(9, 8).T)
    state = feature_maps(record(y[0], "GRU"))
    assert (state.kind, state.total) == ("vector", 8)


@pytest.mark.parametrize(
    ("layout", "shape"), [("CHW", (6, 4, 5)), ("HWC", (4, 5, 6)), ("HW", (4, 5)), ("WCNH", (5, 6, 2, 4))]
)
def test_layouts_by_letter(layout: str, shape: tuple[int, ...]) -> None:
    fm = feature_maps(np.ones(shape), layout=layout)
    assert fm.kind == "grid"
    assert fm.total == (1 if layout == "HW" else 6)
    assert sorted(fm.maps.shape[1:]) == [4, 5]


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.array(1.0), {}, "is a scalar"),
        (np.array(["a", "b"]), {}, "no feature maps"),
        (np.zeros((1, 0, 3, 3)), {}, "is empty"),
        (np.zeros((1, 2, 3, 4, 5, 6)), {}, "6 axes"),
        (np.zeros((1, 2, 3)), {"layout": "NCW2"}, "does not fit"),
        (np.zeros((1, 2, 3)), {"layout": "HW"}, "does not fit"),
        (np.zeros((2, 3)), {"sample": 2}, "no sample 2"),
        (np.zeros((2, 3)), {"by": "beauty"}, "cannot be chosen by"),
        (np.zeros((2, 3)), {"top": 0}, "are none"),
        (np.zeros((2, 3), complex), {}, "no feature maps"),
    ],
)
def test_what_has_no_feature_maps_is_told(array: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        feature_maps(array, **options)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "float64"])
def test_any_numeric_type_becomes_float32(dtype: str) -> None:
    fm = feature_maps(np.ones((1, 2, 3, 3), dtype))
    assert fm.maps.dtype == np.float32
    assert fm.dtype == dtype
    assert not fm.maps.flags.writeable


def test_the_array_given_stays_writeable() -> None:
    array = np.ones((1, 1, 3, 3), np.float32)
    feature_maps(array, by="index", top=None)
    array[0] = 2
