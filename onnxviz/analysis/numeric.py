"""Which types hold numbers, and their values as floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["is_integer", "is_numeric", "smallest_normal", "to_float", "to_single"]


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds real numbers: booleans, integers, floats, and the small types of ``ml_dtypes``.

    >>> is_numeric(np.dtype("float16")), is_numeric(np.dtype("<U3"))
    (True, False)
    """
    return dtype.kind in "biuf" or (dtype.names is None and dtype.type.__module__.split(".")[0] == "ml_dtypes")


def to_float(array: npt.NDArray[Any], dtype: type[np.floating[Any]] = np.float32) -> npt.NDArray[Any]:
    """Return a numeric array as ``dtype``, without a copy where it already is; what overflows becomes Inf.

    >>> to_float(np.array([True, False])).tolist()
    [1.0, 0.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype, copy=False)


def to_single(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return values of a type that float32 holds exactly as float32; float16 is converted by its bits, as it is faster.

    A half is a float32 with the exponent moved by 112, once its bits are moved by 13; the product is exact for
    subnormals too.

    >>> to_single(np.array([1.5, -0.0, 6e-8, np.inf], np.float16)).tolist()
    [1.5, -0.0, 5.960464477539063e-08, inf]
    """
    if array.dtype != np.float16:
        return to_float(array)
    half = array.view(np.uint16).astype(np.uint32)
    magnitude = half & 0x7FFF
    finite = int(magnitude.max(initial=0)) < 0x7C00
    magnitude <<= 13
    if not finite:
        magnitude[magnitude >= 0x7C00 << 13] |= 0x7F800000
    single = magnitude.view(np.float32)
    with np.errstate(invalid="ignore"):
        single *= np.float32(2.0**112)
    half &= 0x8000
    half <<= 16
    magnitude |= half
    return single


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """Return the magnitude below which values of a type are subnormal; 0 where it has none.

    >>> smallest_normal(np.dtype("float16")) == 2**-14, smallest_normal(np.dtype("int8"))
    (True, 0.0)
    """
    if dtype.kind == "f" and dtype.type.__module__ == "numpy":
        return float(np.finfo(dtype if dtype.itemsize <= 8 else np.float64).smallest_normal)
    if is_integer(dtype):
        return 0.0
    import ml_dtypes

    finfo: Any = ml_dtypes.finfo
    return float(finfo(dtype).smallest_normal)


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Whether a numeric dtype holds whole numbers only, booleans included.

    >>> is_integer(np.dtype("bool")), is_integer(np.dtype("float32"))
    (True, False)
    """
    return dtype.kind in "biu" or (is_numeric(dtype) and "int" in dtype.name)
