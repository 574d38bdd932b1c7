"""The range of values that a picture's colours stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.statistics import is_numeric, to_float
from onnxviz.errors import SelectionError

__all__ = ["PERCENTILE", "ColorScale", "color_scale", "number"]

#: The percentile at which colours saturate.
PERCENTILE = 99.5


def number(value: float) -> str:
    """Return a value in three significant digits with a true minus sign, as axes and captions print it.

    >>> number(0.123456), number(-0.5), number(-0.0), number(1234567.0), number(1234.0)
    ('0.123', '−0.5', '0', '1.23e+06', '1234')
    """
    text = f"{value + 0.0:.3g}" if abs(value) < 1000 or abs(value) >= 1e5 else f"{value:.0f}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class ColorScale:
    """The range that colours span, and what lies outside of it.

    Attributes:
        kind: ``"sequential"`` (anchored at 0, for values that are never negative) or ``"diverging"`` (symmetric
            about 0, which is neutral).
        vmin: Value of the lowest colour: 0, or ``-vmax``.
        vmax: Value of the highest colour; always above ``vmin``.
        clipped: Share of the finite values outside of ``vmin … vmax``, between 0 and 1.
        nan: Number of NaN.
        inf: Number of infinite values.
        constant: Whether all finite values are equal (true where there are none).
        count: Number of finite values.
        percentile: The percentile of the magnitudes at which colours saturate.
    """

    kind: Literal["sequential", "diverging"]
    vmin: float
    vmax: float
    clipped: float
    nan: int
    inf: int
    constant: bool
    count: int
    percentile: float = PERCENTILE

    def caption(self) -> str:
        """Return the scale in words, as it stands under a picture.

        >>> color_scale(np.array([0.0, 1.5, 3.2])).caption()
        'scale 0 … 3.2 (99.5th percentile, nothing clipped)'
        """
        if not self.count:
            text = "no finite values"
        else:
            share = f"{100 * self.clipped:.1g} % clipped" if self.clipped else "nothing clipped"
            limit = f"{self.percentile:g}th percentile, {share}" if self.percentile < 100 else "full range"
            text = f"scale {number(self.vmin)} … {number(self.vmax)} ({limit})"
        for amount, what in ((self.nan, "NaN"), (self.inf, "Inf")):
            if amount:
                text += f" · {amount} {what} (hatched)"
        return text


def color_scale(array: npt.NDArray[Any], *, signed: bool | None = None, percentile: float = PERCENTILE) -> ColorScale:
    """Return the colour scale of a tensor, all its channels together.

    The limit is the 99.5th percentile of ``|x|`` over the finite values that are *not zero*: after a ReLU zeros can be
    most of the tensor, and would pull the percentile to 0 and clip everything that is alive. The percentile is a value
    that occurs (the next higher one), so fewer than 200 values are never clipped.

    Args:
        array: Numeric values of any shape.
        signed: Whether the scale is symmetric about 0. None decides by the values: any negative one makes it so.
        percentile: The percentile at which colours saturate; 100 for the full range.

    Raises:
        SelectionError: The tensor holds text or another type that has no colour.

    >>> color_scale(np.array([-2.0, 1.0])).vmin, color_scale(np.array([2.0, 1.0])).vmin
    (-2.0, 0.0)
    """
    array = np.asarray(array)
    if not is_numeric(array.dtype):
        raise SelectionError(f"a tensor of type {array.dtype} has no colour scale", hint="choose a numeric tensor")
    values = array.reshape(-1) if array.dtype == np.float64 else to_float(array).reshape(-1)
    finite = np.isfinite(values)
    count = int(np.count_nonzero(finite))
    nan = int(np.count_nonzero(np.isnan(values)))
    if count < values.size:
        values = values[finite]
    low, high = (float(values.min()), float(values.max())) if count else (0.0, 0.0)
    signed = low < 0 if signed is None else signed
    magnitude = np.abs(values) if signed else values
    alive = magnitude[magnitude > 0]
    limit = float(np.percentile(alive, percentile, method="higher")) if alive.size else 1.0
    vmin = -limit if signed else 0.0
    clipped = int(np.count_nonzero(magnitude > limit)) + (0 if signed else int(np.count_nonzero(values < 0)))
    return ColorScale(
        kind="diverging" if signed else "sequential",
        vmin=vmin,
        vmax=limit,
        clipped=clipped / count if count else 0.0,
        nan=nan,
        inf=int(array.size - count - nan),
        constant=low == high,
        count=count,
        percentile=percentile,
    )
