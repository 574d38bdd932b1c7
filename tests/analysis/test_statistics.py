"""Statistics against numpy, and what merging, NaN, small types and empty tensors do to them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxviz.analysis import blocks
from onnxviz.analysis.statistics import Summary, describe, is_numeric, merge_all, statistics, to_float

FIELDS = [
    "name", "shape", "dtype", "min", "max", "mean", "std", "nan", "inf", "zero", "l2", "subnormal", "quantiles",
    "histogram",
]  # fmt: skip
RNG = np.random.default_rng(7)
AWKWARD = {
    "normal": RNG.standard_normal((6, 4, 50, 31)).astype(np.float32),
    "relu": np.maximum(RNG.standard_normal((6, 4, 50, 31)), 0).astype(np.float32),
    "heavy tails": (RNG.standard_cauchy((5, 3, 700)) * 1e-3).astype(np.float32),
    "far from zero": (1e6 + RNG.standard_normal((4, 3, 500))).astype(np.float32),
    "constant": np.full((3, 2, 40), 0.1, np.float32),
    "negative": -RNG.random((4, 2, 300)).astype(np.float32),
    "halves": RNG.standard_normal((4, 3, 200)).astype(np.float16),
    "doubles": RNG.standard_normal((4, 3, 200)) * 10.0 ** RNG.uniform(-200, 200, (4, 3, 200)),
    "whole numbers": RNG.integers(-(2**62), 2**62, (5, 2, 30)),
    "with NaN and Inf": np.where(RNG.random((6, 2, 90)) < 0.1, np.nan, RNG.standard_normal((6, 2, 90))).astype(
        np.float32
    ),
    "subnormal": (RNG.standard_normal((3, 2, 80)) * 1e-40).astype(np.float32),
}


def check_against_numpy(array: np.ndarray) -> None:
    got = describe("t", array)
    values = array.astype(np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    assert got.min == finite.min()
    assert got.max == finite.max()
    assert got.mean == pytest.approx(finite.mean(), rel=1e-12, abs=1e-12)
    assert got.std == pytest.approx(finite.std(), rel=1e-9, abs=1e-12)
    assert (got.nan, got.inf, got.zero) == (np.isnan(values).sum(), np.isinf(values).sum(), (values == 0).sum())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "uint8", "int64", "bool", "bfloat16"])
def test_agree_with_numpy(dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    check_against_numpy((np.random.default_rng(0).normal(size=(3, 5, 7)) * 40).astype(np.int16).astype(kind))


def test_the_oracle_notices_a_wrong_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Summary.mean.fget
    assert real is not None
    monkeypatch.setattr(Summary, "mean", property(lambda self: real(self) * 1.001))
    with pytest.raises(AssertionError):
        check_against_numpy(np.arange(1.0, 9.0))


def test_only_finite_values_count() -> None:
    check_against_numpy(np.array([1.0, np.nan, 3.0, np.inf, -np.inf, 0.0, -0.0], np.float32))


def test_nothing_finite_gives_none() -> None:
    for array in (np.full((2, 2), np.nan), np.array([np.inf]), np.zeros((0, 4), np.float32)):
        got = describe("t", array)
        assert (got.min, got.max, got.mean, got.std) == (None, None, None, None)
    assert describe("t", np.full(3, np.nan)).nan == 3


def test_float16_does_not_overflow() -> None:
    got = describe("t", np.full(10_000, 60_000, np.float16))
    assert got.mean == 60_000
    assert got.std == 0


def test_float64_near_its_limit() -> None:
    got = describe("t", np.array([1.7e308, 1.7e308, 1.6e308]))
    assert got.mean == pytest.approx(1.6666666666e308)
    assert got.std == pytest.approx(4.714045e306)
    assert got.l2 is None  # passes float64
    json.dumps(got.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "int4", "uint4"])
def test_small_types(name: str) -> None:
    got = describe("t", np.array([1, 2, 4], np.float32).astype(getattr(ml_dtypes, name)))
    assert (got.min, got.max, got.dtype) == (1, 4, name)


def test_text_and_complex_have_no_numbers() -> None:
    for array in (np.array(["a", "b"]), np.array(["a"], object)):
        got = describe("t", array)
        assert (got.dtype, got.min, got.mean, got.nan) == ("string", None, None, 0)
    assert describe("t", np.array([1j])).mean is None


def test_json_fields_are_exactly_those_of_the_interface() -> None:
    data = describe("t", np.ones((2, 3), np.float32)).to_dict()
    assert list(data) == FIELDS
    assert data["shape"] == [2, 3]
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize("what", AWKWARD)
@pytest.mark.parametrize("axis", [None, 1])
def test_any_split_of_the_samples_in_any_order_gives_the_same_bits(what: str, axis: int | None) -> None:
    array = AWKWARD[what]
    whole = Summary.of(array, channel_axis=axis)
    for seed in range(12):
        random = np.random.default_rng(seed)
        order = random.permutation(len(array))
        cuts = np.sort(random.integers(0, len(array) + 1, 3))
        parts = [Summary.of(part, channel_axis=axis) for part in np.split(array[order], cuts) if len(part)]
        random.shuffle(parts)
        assert merge_all(parts).to_state() == whole.to_state()
    assert Summary.from_state(json.loads(json.dumps(whole.to_state()))) == whole


@pytest.mark.parametrize("what", AWKWARD)
def test_any_split_of_the_elements_counts_the_same(what: str) -> None:
    flat = AWKWARD[what].reshape(-1)
    whole = Summary.of(flat[None])
    for cuts in ([1], [len(flat) // 3, len(flat) // 2], [5, 6, 7]):
        merged = merge_all(Summary.of(part[None]) for part in reversed(np.split(flat, cuts)))
        assert (merged.min, merged.max, merged.count) == (whole.min, whole.max, whole.count)
        assert merged.tallies.tolist() == whole.tallies.tolist()
        assert merged.quantiles() == whole.quantiles()
        assert merged.mean == pytest.approx(whole.mean, rel=1e-12, abs=1e-12 * float(whole.l2 or 0))
        assert merged.std == pytest.approx(whole.std, rel=1e-9)
        assert merged.l2 == pytest.approx(whole.l2, rel=1e-12)


@pytest.mark.parametrize("what", AWKWARD)
def test_sums_against_exact_fractions(what: str) -> None:
    array = AWKWARD[what]
    values = [Fraction(v) for v in array.reshape(-1).tolist() if math.isfinite(v)]
    mean = sum(values, Fraction()) / len(values)
    variance = sum((v * v for v in values), Fraction()) / len(values) - mean * mean
    got = Summary.of(array)
    scale = max(abs(float(v)) for v in values)
    assert got.mean == pytest.approx(float(mean), rel=1e-13, abs=1e-15 * scale)
    root = (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()
    assert got.std == pytest.approx(float(root), rel=1e-9, abs=1e-150)


def test_naive_sums_would_be_caught() -> None:
    """What the textbook formula gives where the mean is large: the tests above must not pass with it."""
    values = AWKWARD["far from zero"].astype(np.float32)
    naive = float(np.mean(values * values, dtype=np.float32)) - float(np.mean(values, dtype=np.float32)) ** 2
    assert abs(naive - np.var(values.astype(np.float64))) > 1
    assert Summary.of(values).std == pytest.approx(np.std(values.astype(np.float64)), rel=1e-9)


@pytest.mark.parametrize("what", AWKWARD)
def test_quantiles_are_within_their_bound(what: str) -> None:
    values = AWKWARD[what].astype(np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    shares = np.array([0, 0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1])
    got = Summary.of(AWKWARD[what]).quantiles(shares)
    below = np.quantile(values, shares, method="lower")
    above = np.quantile(values, shares, method="higher")
    for share, low, high, found in zip(shares, below, above, got, strict=True):
        assert found is not None
        slack = 1 / 16 + 1e-9
        assert low - abs(low) * slack <= found <= high + abs(high) * slack, share
    assert got[0] == values.min()
    assert got[-1] == values.max()


def test_subnormals_are_relative_to_the_type() -> None:
    for dtype, tiny in (("float32", 1e-40), ("float16", 1e-6), ("float64", 1e-310)):
        got = Summary.of(np.array([0, tiny, -tiny, 1], dtype))
        assert (got.subnormal, got.zero) == (2, 1)
    assert Summary.of(np.array([1e-40], np.float64)).subnormal == 0


def test_channels_against_numpy() -> None:
    array = AWKWARD["with NaN and Inf"]
    for axis in (1, 2):
        for index, got in enumerate(Summary.of(array, channel_axis=axis).per_channel()):
            check = describe("t", np.take(array, index, axis))
            assert (got.min, got.max, got.nan, got.zero) == (check.min, check.max, check.nan, check.zero)
            assert got.mean == pytest.approx(check.mean, rel=1e-12)
            assert got.std == pytest.approx(check.std, rel=1e-9)


def test_a_merge_that_forgets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    array = AWKWARD["relu"]
    whole = Summary.of(array)
    real = Summary.merge

    def forgetful(self: Summary, other: Summary) -> Summary:
        merged = real(self, other)
        merged.tallies[4] = self.tallies[4]  # zeros
        return merged

    monkeypatch.setattr(Summary, "merge", forgetful)
    assert merge_all(Summary.of(part) for part in np.split(array, 3)) != whole


def test_what_does_not_fit_is_not_merged() -> None:
    with pytest.raises(ValueError, match="different types"):
        Summary.of(np.ones(2)).merge(Summary.of(np.ones(2, np.float32)))
    with pytest.raises(ValueError, match="different channels"):
        Summary.of(np.ones((1, 2)), channel_axis=1).merge(Summary.of(np.ones((1, 3)), channel_axis=1))


def test_blocks_do_not_show_in_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    array = RNG.standard_normal((3, 1000)).astype(np.float32)
    whole = Summary.of(array)
    monkeypatch.setattr(blocks, "BLOCK", 64)
    pieces = Summary.of(array)
    assert pieces.mean == pytest.approx(whole.mean, rel=1e-12)
    assert pieces.quantiles() == whole.quantiles()
    assert (pieces.min, pieces.max, pieces.std) == (whole.min, whole.max, pytest.approx(whole.std, rel=1e-12))


def test_a_capture_keeps_its_order_and_types() -> None:
    capture: dict[str, Any] = {}
    for i, name in enumerate(("z", "a", "m")):
        array = np.full((1, i + 1), i, np.float32)
        capture[name] = SimpleNamespace(name=name, array=array, shape=array.shape, dtype="float32")
    got = statistics(capture)
    assert [s.name for s in got] == ["z", "a", "m"]
    assert [s.max for s in got] == [0, 1, 2]


def test_views_and_strides_are_read_right() -> None:
    check_against_numpy(np.arange(24.0).reshape(4, 6).T[::2])


def test_is_numeric_and_to_float() -> None:
    assert not is_numeric(np.dtype("O"))
    assert not is_numeric(np.dtype([("a", "f4")]))
    assert to_float(np.array([1e300])).tolist() == [np.inf]


def test_analysis_needs_no_matplotlib_and_no_onnxruntime() -> None:
    names = "classification feature_maps histogram scale statistics weights"
    code = (
        f"import sys, importlib\nfor name in '{names}'.split(): importlib.import_module('onnxviz.analysis.' + name)\n"
        "assert not {'matplotlib', 'onnxruntime', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
