from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxviz.analysis.scale import color_scale
from onnxviz.report.atlas import atlas, pooling_note


def unpack(data: dict[str, Any]) -> np.ndarray:
    """Read an atlas as the page does: (K, H, W) values, NaN where they were not finite."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["png"]))))
    width, height = data["tile"]
    tiles = []
    for position, (low, high) in enumerate(data["ranges"]):
        row, column = divmod(position, data["columns"])
        levels = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width].astype(float)
        values = np.full(levels.shape, np.nan) if low is None else low + (levels - 1) / 254 * (high - low)
        tiles.append(np.where(levels == 0, np.nan, values))
    return np.stack(tiles)


def pack(maps: np.ndarray, **options: Any) -> dict[str, Any]:
    return atlas(maps, [str(i) for i in range(len(maps))], color_scale(maps), **options)


def worst_error(maps: np.ndarray, data: dict[str, Any]) -> float:
    """Return the largest error of any value, in steps of its tile's range."""
    spans = np.ptp(maps.reshape(len(maps), -1), axis=1)[:, None, None]
    return float(np.max(np.abs(unpack(data) - maps) / (spans / 254)))


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_values_come_back_within_half_a_step_of_their_tiles_range(count: int) -> None:
    maps = np.random.default_rng(count).standard_normal((count, 9, 13)).astype(np.float32)
    maps *= np.logspace(-3, 3, count)[:, None, None].astype(np.float32)
    assert worst_error(maps, pack(maps)) <= 0.51


def test_the_round_trip_notices_tiles_in_the_wrong_place() -> None:
    maps = np.random.default_rng(0).standard_normal((6, 5, 5)).astype(np.float32)
    data = pack(maps)
    data["columns"] -= 1
    with pytest.raises((AssertionError, ValueError)):
        assert worst_error(maps, data) <= 0.51


def test_the_round_trip_notices_a_range_that_is_off() -> None:
    maps = np.random.default_rng(0).standard_normal((6, 5, 5)).astype(np.float32)
    data = pack(maps)
    data["ranges"][2][1] *= 1.05
    assert worst_error(maps, data) > 0.51


def test_values_that_are_not_finite_are_marked_and_the_others_kept() -> None:
    maps = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    maps[0, 0, 0], maps[0, 1, 1], maps[0, 2, 2], maps[1] = np.nan, np.inf, -np.inf, np.nan
    data = pack(maps)
    back = unpack(data)
    assert data["ranges"][1] == [None, None]
    assert np.array_equal(np.isnan(back), ~np.isfinite(maps))
    np.testing.assert_allclose(back[0][np.isfinite(maps[0])], maps[0][np.isfinite(maps[0])], atol=14 / 254)


def test_constant_and_single_valued_tiles_survive() -> None:
    data = pack(np.full((3, 2, 2), 4.0, np.float32))
    assert data["ranges"] == [[4.0, 4.0]] * 3
    assert unpack(data).min() == 4.0
    assert unpack(pack(np.full((1, 1, 1), -2.5, np.float32))).item() == -2.5


def test_large_maps_are_averaged_and_the_page_says_so() -> None:
    maps = np.arange(4 * 8, dtype=np.float32).reshape(1, 4, 8)
    data = pack(maps, side=4)
    assert (data["tile"], data["of"]) == ([4, 4], [8, 4])
    np.testing.assert_allclose(unpack(data)[0], maps[0].reshape(4, 4, 2).mean(axis=2), atol=31 / 254)
    assert pooling_note(data) == "each pixel is the mean of 1 × 2 values"


def test_averaging_infinities_of_both_signs_marks_the_block() -> None:
    maps = np.zeros((1, 2, 4), np.float32)
    maps[0, 0, :2] = np.inf, -np.inf
    assert np.isnan(unpack(pack(maps, side=2))[0]).tolist() == [[True, False], [False, False]]


def test_spatial_maps_keep_their_proportions() -> None:
    assert pack(np.ones((1, 120, 160), np.float32), side=64, keep_aspect=True)["tile"] == [64, 48]
    assert pack(np.ones((1, 1, 900), np.float32), side=64, keep_aspect=True)["tile"] == [64, 1]


def test_extreme_magnitudes_do_not_overflow() -> None:
    maps = np.array([[[-3e38, 3e38]]], np.float32)
    assert unpack(pack(maps)).ravel().tolist() == pytest.approx([-3e38, 3e38])
