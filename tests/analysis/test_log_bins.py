"""Logarithmic bins: counts against numpy, octaves, merging, and quantiles within their bound."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnxviz.analysis.histogram import SYMLOG_EDGES, histogram, symlog_histogram
from onnxviz.analysis.leading_bits import LeadingBits
from onnxviz.analysis.log_bins import LogBins
from onnxviz.analysis.summary import Summary

RNG = np.random.default_rng(5)
WIDE = RNG.standard_normal(4000) * 10.0 ** RNG.uniform(-12, 12, 4000)
LIMITS = np.array([1.0, -1.0, 2.0, np.nextafter(2.0, 0), -2.0, 5e-324, -1.7e308, 2.0**-27, 2.0**27, -(2.0**27)])


@pytest.mark.parametrize("values", [WIDE, LIMITS, np.zeros(0), np.full(9, -0.3)])
def test_octaves_count_what_numpy_counts(values: np.ndarray) -> None:
    positive, negative = LogBins.of(values).octaves(-27, 27)
    edges = np.concatenate([[0.0], 2.0 ** np.arange(-27, 28), [np.inf]])
    for got, side in ((positive, values[values > 0]), (negative, -values[values < 0])):
        np.testing.assert_array_equal(got, np.histogram(side, edges)[0])


def test_fine_bins_fold_exactly_into_the_histogram() -> None:
    values = np.concatenate([WIDE, LIMITS, [0.0, -0.0, np.nan, np.inf]])
    direct, folded = histogram(values, scale="symlog"), Summary.of(values).histogram()
    np.testing.assert_array_equal(direct.counts, folded.counts)
    assert (direct.below, direct.above, direct.total) == (folded.below, folded.above, folded.total)
    middle = len(SYMLOG_EDGES) // 2 - 1
    assert direct.zero_bin == middle
    inside = np.abs(values) < 2.0**-27
    assert direct.counts[middle] == inside.sum()
    assert symlog_histogram(LogBins(), zero=3).counts[middle] == 3


def test_a_value_on_an_edge_lies_outward_on_both_sides() -> None:
    counts = histogram(np.array([1.0, 1.0, -1.0]), scale="symlog").counts
    one = int(np.searchsorted(SYMLOG_EDGES, 1.0))
    assert (counts[one], counts[len(counts) - 1 - one]) == (2, 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_fast_way_gives_the_same_bins(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for values in (RNG.standard_normal(9000), np.abs(RNG.standard_normal(9000)), np.maximum(WIDE, 0), WIDE * 1e-30):
        with np.errstate(over="ignore"):
            array = np.clip(values, -6e4, 6e4).astype(kind)
        floats = array.astype(np.float64)
        assert Summary.of(array).bins == LogBins.of(floats[floats != 0])


def test_a_table_of_other_bits_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxviz.analysis.leading_bits._BIAS", (1023 - 126) << 4)
    array = RNG.standard_normal(100).astype(np.float32)
    assert Summary.of(array).bins != LogBins.of(array.astype(np.float64))
    assert LeadingBits.below(2.0**-126) == 16


def test_bins_are_small_and_merge_to_the_whole() -> None:
    whole = LogBins.of(WIDE)
    merged = LogBins()
    for part in (WIDE[3000:], WIDE[:10], WIDE[10:3000]):
        merged = merged.merge(LogBins.of(part))
    assert merged == whole
    assert LogBins.from_state(whole.to_state()) == whole
    assert len(LogBins.of(RNG.standard_normal(10**5)).counts[0]) < 400


CASES = {
    "relu": np.where(RNG.random(5000) < 0.6, 0.0, np.abs(RNG.standard_normal(5000))),
    "constant": np.full(50, 0.37),
    "cauchy": RNG.standard_cauchy(5000),
    "negative": -np.exp(3 * RNG.standard_normal(3000)),
    "log-uniform": WIDE,
    "one": np.array([-2.5]),
    "two": np.array([-1e-3, 4e5]),
}


@pytest.mark.parametrize("what", CASES)
def test_every_order_statistic_is_within_a_sixteenth(what: str) -> None:
    values = np.sort(CASES[what])
    shares = np.linspace(0, 1, len(values)) if len(values) > 1 else np.array([0.0, 1.0])
    got = np.array(Summary.of(values).quantiles(shares))
    expected = np.quantile(values, shares, method="nearest")
    assert np.all(np.abs(got - expected) <= np.abs(expected) / 16 * (1 + 1e-9))
    assert (got[0], got[-1]) == (values[0], values[-1])
    with pytest.raises(AssertionError):  # the bound is no looser than it has to be believed
        assert np.all(np.abs(got * 1.1 + 1e-9 - expected) <= np.abs(expected) / 16)


def test_quantiles_between_order_statistics_are_interpolated_as_numpy_does() -> None:
    values = np.array([-4.0, 1.0])
    assert Summary.of(values).quantiles([0.25, 0.5]) == np.quantile(values, [0.25, 0.5]).tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, bool, ml_dtypes.int4])
def test_small_whole_numbers_are_exact(dtype: type) -> None:
    high = {np.dtype(bool): 2, np.dtype(ml_dtypes.int4): 8}.get(np.dtype(dtype), 33)
    values = RNG.integers(0, high, 2000)
    shares = np.linspace(0, 1, 2000)
    got = Summary.of(values.astype(dtype)).quantiles(shares)
    np.testing.assert_allclose(got, np.sort(values), rtol=1e-12)


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_bins_of_one_sign_keep_no_table_alive(sign: int) -> None:
    bins = Summary.of(sign * np.arange(1, 99, dtype=np.float32)).bins
    assert bins is not None
    assert all(row.base is None for row in bins.counts)
