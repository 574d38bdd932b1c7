"""Histograms: outliers, NaN, zeros, grids of quantised values, merging."""

from __future__ import annotations

import numpy as np
import pytest

from onnxviz.analysis.histogram import SYMLOG_EDGES, histogram
from onnxviz.errors import SelectionError

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=10_000)


@pytest.mark.parametrize(
    "values",
    [
        NORMAL,
        np.append(NORMAL, [1e9, np.nan, np.inf, -np.inf]),
        np.zeros(5),
        np.ones(5),
        np.zeros(0),
        np.array([5e-324, 0.0]),
        np.array([1e308, -1e308]),
        10.0 ** RNG.uniform(-12, 12, 1000),
        np.array([-128, 127, 0], np.int8),
    ],
)
@pytest.mark.parametrize("scale", ["auto", "linear", "symlog"])
def test_no_value_is_lost(values: np.ndarray, scale: str) -> None:
    h = histogram(values, scale=scale)  # type: ignore[arg-type]
    assert h.counts.sum() + h.below + h.above + h.nan + h.inf == h.total == values.size
    assert np.all(np.diff(h.edges) > 0)


def test_bins_agree_with_numpy() -> None:
    h = histogram(NORMAL, bins=20, scale="linear")
    counts, edges = np.histogram(NORMAL, 20)
    np.testing.assert_array_equal(h.counts, counts)
    np.testing.assert_allclose(h.edges, edges)


def test_one_outlier_does_not_use_up_the_bins() -> None:
    values = np.append(NORMAL, 1e6)
    naive = np.histogram(values, 30)[0]
    assert np.count_nonzero(naive) == 2  # the mistake: everything in one bin, the outlier in another
    h = histogram(values, bins=30)
    assert h.scale == "linear"
    assert np.count_nonzero(h.counts) > 25
    assert h.above >= 1


def test_one_nan_does_not_empty_it() -> None:
    h = histogram(np.append(NORMAL, np.nan), bins=20)
    assert h.nan == 1
    assert h.counts.sum() == 10_000


def test_a_spike_of_zeros_keeps_the_bins_wide() -> None:
    values = np.zeros(100_000)
    values[:50] = NORMAL[:50]
    h = histogram(values)
    assert h.edges[0] <= values.min()
    assert h.edges[-1] >= values.max()
    assert h.zero == 99_950
    assert h.zero_bin is not None
    assert h.counts[h.zero_bin] >= h.zero


def test_zero_bin_is_where_zero_falls() -> None:
    assert histogram(np.array([1.0, 2.0])).zero_bin is None
    h = histogram(np.array([-2.0, 0.0]), bins=4)
    assert h.zero_bin == 3  # the last bin is closed
    assert histogram(np.array([0.0]), scale="symlog").zero_bin == len(SYMLOG_EDGES) // 2 - 1


def test_wide_ranges_are_logarithmic() -> None:
    assert histogram(10.0 ** RNG.uniform(-6, 6, 1000)).scale == "symlog"


def test_symlog_histograms_merge_in_any_split() -> None:
    values = np.append(NORMAL * 10.0 ** RNG.uniform(-9, 9, NORMAL.size), [0, np.nan, np.inf])
    whole = histogram(values, scale="symlog")
    parts = [histogram(part, scale="symlog") for part in np.split(values, [10, 700, 701])]
    merged = parts[3].merge(parts[1]).merge(parts[0]).merge(parts[2])
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert (merged.below, merged.above, merged.nan, merged.inf, merged.zero, merged.total) == (
        whole.below, whole.above, whole.nan, whole.inf, whole.zero, whole.total,
    )  # fmt: skip


def test_different_edges_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different edges"):
        histogram(NORMAL, scale="linear").merge(histogram(NORMAL * 2, scale="linear"))


def test_quantised_values_show_no_comb() -> None:
    levels = np.repeat(np.arange(-100, 101), 50)
    assert set(histogram(levels * 0.03).counts.tolist()) == {200, 250}  # the comb
    h = histogram(levels * 0.03, step=0.03)
    assert set(h.counts[:-1].tolist()) == {int(h.counts[0])}
    assert h.counts.sum() == levels.size


def test_text_has_no_histogram() -> None:
    with pytest.raises(SelectionError):
        histogram(np.array(["a"]))
