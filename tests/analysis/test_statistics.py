"""Statistics against numpy, and what merging, NaN, small types and empty tensors do to them."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxviz.analysis import statistics as module
from onnxviz.analysis.statistics import Moments, describe, is_numeric, statistics, to_float

FIELDS = ["name", "shape", "dtype", "min", "max", "mean", "std", "nan", "inf", "zero"]


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
    real = Moments.of
    off = lambda array: Moments(**{**vars(real(array)), "mean": real(array).mean * 1.001})  # noqa: E731
    monkeypatch.setattr(module.Moments, "of", staticmethod(off))
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
    assert got.std is None  # passes float64
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


@pytest.mark.parametrize("cuts", [[1], [500], [3, 3, 999], [10, 100, 600]])
def test_any_split_merges_to_the_whole(cuts: list[int]) -> None:
    array = np.random.default_rng(1).normal(1e4, 1e-2, 1000)
    array[[5, 700]] = np.nan, np.inf
    whole, parts = Moments.of(array), Moments()
    for part in reversed(np.split(array, cuts)):
        parts = parts.merge(Moments.of(part))
    assert (parts.count, parts.nan, parts.inf, parts.zero) == (998, 1, 1, 0)
    assert (parts.min, parts.max) == (whole.min, whole.max)
    assert parts.mean == pytest.approx(whole.mean, rel=1e-15)
    assert parts.std == pytest.approx(np.std(array[np.isfinite(array)]), rel=1e-6)


def test_a_naive_merge_of_variances_would_be_caught() -> None:
    a, b = Moments.of(np.zeros(10)), Moments.of(np.ones(10))
    assert a.merge(b).std == 0.5
    assert a.m2 + b.m2 == 0  # what a merge without the shift of means would give


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    whole = describe("t", array)
    monkeypatch.setattr(module, "_CHUNK", 7)
    pieces = describe("t", array)
    assert pieces.mean == pytest.approx(whole.mean)
    assert pieces.std == pytest.approx(whole.std)
    assert (pieces.min, pieces.max) == (whole.min, whole.max)


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
