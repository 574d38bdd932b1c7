"""Types: which hold numbers, which whole numbers, and their values as floats."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from onnxviz.analysis.numeric import is_integer, is_numeric, smallest_normal, to_single
from onnxviz.analysis.summary import Summary


def test_every_half_becomes_the_same_float32() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    got = to_single(halves)
    assert got.dtype == np.float32
    with np.errstate(invalid="ignore"):
        expected = halves.astype(np.float32)
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "bfloat16"])
def test_every_small_float_is_summarised(name: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, name))
    count = 16 if "4_" in name else 1 << (8 * kind.itemsize)
    array = np.arange(count, dtype=f"uint{8 * kind.itemsize}").view(kind)
    with np.errstate(invalid="ignore"):
        values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    got = Summary.of(array)
    tiny = smallest_normal(kind)
    assert (got.count, got.nan, got.zero) == (finite.size, np.isnan(values).sum(), (finite == 0).sum())
    assert (got.min, got.max) == (finite.min(), finite.max())
    assert got.subnormal == ((np.abs(finite) < tiny) & (finite != 0)).sum()
    assert got.bins is not None
    assert got.bins.totals == ((finite > 0).sum(), (finite < 0).sum())
    assert got.l2 == pytest.approx(np.linalg.norm(finite.astype(np.longdouble)), rel=1e-12)


def test_kinds() -> None:
    assert is_integer(np.dtype(ml_dtypes.int4))
    assert not is_integer(np.dtype(ml_dtypes.bfloat16))
    assert not is_integer(np.dtype("<U3"))
    assert is_numeric(np.dtype(">f4"))
    assert smallest_normal(np.dtype(ml_dtypes.uint4)) == 0


def test_byte_order_and_long_doubles() -> None:
    values = np.array([1.5, -2.0, 1e30, 0.0])
    for dtype in (">f4", ">f8", np.longdouble, ">i8"):
        array = values.clip(-9, 9).astype(dtype)
        got = Summary.of(array)
        assert (got.min, got.max, got.count) == (array.min(), array.max(), 4)
        assert got.mean == pytest.approx(float(array.mean()), rel=1e-15)


@pytest.mark.parametrize(("value", "dtype"), [(2**63 - 1, "int64"), (2**64 - 1, "uint64"), (-(2**63), "int64")])
def test_whole_numbers_keep_all_digits(value: int, dtype: str) -> None:
    got = Summary.of(np.array([[value, value], [value, value]], dtype), channel_axis=1)
    assert (got.min, got.max) == (value, value)
    assert isinstance(got.min, int)
    assert got.channel_values()["max"] == [value, value]


@pytest.mark.parametrize("what", ["plain", "far from zero", "with NaN", "turned"])
def test_memory_is_bounded(what: str) -> None:
    array = np.random.default_rng(0).standard_normal((2, 16, 256, 256), np.float32)
    if what == "far from zero":
        array += 1e6
    elif what == "with NaN":
        array[:, :, ::7, ::3] = np.nan
    elif what == "turned":
        array = array.transpose(3, 0, 1, 2)
    tracemalloc.start()
    Summary.of(array, channel_axis=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
    assert array.nbytes > 8e6
