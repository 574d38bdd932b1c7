"""The colour rules: anchors, symmetry, percentile, clipping."""

from __future__ import annotations

import numpy as np
import pytest

from onnxviz.analysis.scale import color_scale, number
from onnxviz.errors import SelectionError


def test_non_negative_is_anchored_at_zero() -> None:
    values = np.linspace(5, 10, 10_001)
    scale = color_scale(values)
    assert (scale.kind, scale.vmin) == ("sequential", 0)
    assert scale.vmax == pytest.approx(np.percentile(values, 99.5), rel=1e-3)
    assert scale.clipped == pytest.approx(0.005, abs=1e-3)


def test_signed_is_symmetric_about_zero() -> None:
    values = np.random.default_rng(0).normal(3, 1, 10_000)
    scale = color_scale(values)
    assert scale.kind == "diverging"
    assert scale.vmin == -scale.vmax
    assert scale.vmax == pytest.approx(np.percentile(np.abs(values), 99.5), rel=1e-3)
    assert scale.clipped == np.mean(np.abs(values) > scale.vmax)


def test_one_outlier_does_not_set_the_scale() -> None:
    values = np.append(np.random.default_rng(0).random(10_000), 1e9)
    assert color_scale(values).vmax < 1


def test_zeros_after_relu_do_not_pull_the_scale_down() -> None:
    values = np.zeros(100_000)
    values[:100] = np.linspace(1, 2, 100)  # 99.9 % zeros: the plain percentile is 0
    assert np.percentile(values, 99.5) == 0
    assert color_scale(values).vmax == 2


def test_few_values_are_never_clipped() -> None:
    scale = color_scale(np.array([0.01] * 9 + [0.9]))
    assert (scale.vmax, scale.clipped) == (0.9, 0)


def test_nan_and_inf_are_counted_and_left_out() -> None:
    scale = color_scale(np.array([1.0, np.nan, np.inf, -np.inf, 2.0]))
    assert (scale.nan, scale.inf, scale.count, scale.vmax, scale.kind) == (1, 2, 2, 2, "sequential")
    assert "1 NaN (hatched) · 2 Inf (hatched)" in scale.caption()


@pytest.mark.parametrize("values", [np.zeros(4), np.full(4, 3.0), np.full(4, -3.0), np.full(4, np.nan), np.zeros(0)])
def test_constant_tensors_have_a_range(values: np.ndarray) -> None:
    scale = color_scale(values)
    assert scale.constant
    assert scale.vmin < scale.vmax


def test_asking_for_unsigned_counts_what_is_lost() -> None:
    assert color_scale(np.array([-1.0, 1.0, 1.0, 1.0]), signed=False).clipped == 0.25
    assert color_scale(np.array([1.0]), signed=True).vmin == -1


def test_percentile_100_is_the_full_range() -> None:
    values = np.append(np.ones(1000), 50.0)
    scale = color_scale(values, percentile=100)
    assert scale.vmax == 50
    assert "full range" in scale.caption()


def test_caption_says_how_much_is_clipped() -> None:
    assert "0.5 % clipped" in color_scale(np.arange(10_000.0)).caption()


def test_small_and_narrow_types() -> None:
    assert color_scale(np.array([True, False])).vmax == 1
    assert color_scale(np.array([0, 200], np.uint8)).vmax == 200
    assert color_scale(np.array([-128, 3], np.int8)).vmax == 128
    assert color_scale(np.array([1e308, -1e308])).vmax == 1e308


def test_text_has_no_scale() -> None:
    with pytest.raises(SelectionError, match="no colour scale"):
        color_scale(np.array(["a"]))


def test_numbers_read_like_numbers() -> None:
    assert [number(v) for v in (0.0, -1e-7, 12345.0, 1e5)] == ["0", "−1e−07", "12345", "1e+05"]
