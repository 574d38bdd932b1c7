"""What is kept of a layer's values while a model runs over many inputs: all of it merges over batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.activation_curves import Curve
from onnxviz.analysis.numeric import is_numeric, to_float
from onnxviz.analysis.statistics import Summary

__all__ = ["MOST_FEATURES", "FlowTally", "Reader", "Sketch"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Most values of one sample that samples are compared by.
MOST_FEATURES = 128


@dataclass(frozen=True, eq=False)
class Sketch:
    """How samples differ in a tensor, by at most :data:`MOST_FEATURES` of its values, the same of each sample.

    Attributes:
        size: Values of one sample.
        samples: Samples whose chosen values are all finite.
        total: ``(P,)`` float64: sum of each chosen value over the samples.
        products: ``(P, P)`` float64: sums of their products.
    """

    size: int
    samples: int
    total: Floats
    products: Floats

    @classmethod
    def of(cls, rows: Array) -> Sketch:
        """Return the sketch of samples, ``(N, D)``.

        The values are chosen by a generator with a fixed seed, so that every batch has the same, and channels that lie
        a fixed distance apart have no part in the choice.
        """
        chosen = np.asarray(to_float(rows[:, _columns(rows.shape[1])]), np.float64)
        chosen = chosen[np.isfinite(chosen).all(axis=1)]
        with np.errstate(over="ignore"):
            return cls(rows.shape[1], len(chosen), chosen.sum(axis=0), chosen.T @ chosen)

    def merge(self, other: Sketch) -> Sketch | None:
        """Return the sketch of both sets of samples; None where their sizes differ."""
        if self.size != other.size:
            return None
        with np.errstate(over="ignore"):
            return Sketch(
                self.size, self.samples + other.samples, self.total + other.total, self.products + other.products
            )

    def variation(self) -> float | None:
        """Return the part of the root mean square that differs between samples: ``sqrt(E|x - E x|² / E|x|²)``.

        0 where all samples are the same, 1 where their mean is 0. Rounding hides what lies below some 1e-7. None for
        fewer than two samples, and where all is 0 or not finite.

        >>> round(Sketch.of(np.array([[1.0, 0.0], [-1.0, 0.0]])).variation(), 6)
        1.0
        """
        energy = float(np.trace(self.products))
        if self.samples < 2 or not 0 < energy < np.inf:
            return None
        with np.errstate(over="ignore"):
            common = float(self.total @ self.total) / self.samples
        return float(np.sqrt(max(energy - common, 0.0) / energy))

    def effective_rank(self) -> float | None:
        """Return in how many directions samples differ: ``exp(-Σ p log p)``, p the covariance's eigenvalues by sum.

        Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (EUSIPCO 2007), of the covariance.
        At most :attr:`rank_limit`. None where samples do not differ, or are fewer than two.

        >>> round(Sketch.of(np.eye(3)).effective_rank(), 6)
        2.0
        """
        variation = self.variation()
        if variation is None or variation < 1e-6:
            return None
        mean = self.total / self.samples
        values = np.linalg.eigvalsh(self.products / self.samples - np.outer(mean, mean))
        values = values[values > values.max() * 1e-12]
        shares = values / values.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    @property
    def rank_limit(self) -> int:
        """The largest effective rank that there could be: one less than samples, or the number of chosen values."""
        return max(min(self.samples - 1, len(self.total)), 0)


def _columns(size: int) -> npt.NDArray[np.int64]:
    if size <= MOST_FEATURES:
        return np.arange(size)
    random = np.random.default_rng(0)
    if size <= 8 * MOST_FEATURES:
        return np.sort(random.permutation(size)[:MOST_FEATURES])
    return np.unique(random.integers(0, size, MOST_FEATURES))


@dataclass(frozen=True, eq=False)
class FlowTally:
    """What is kept of one tensor; two of them merge.

    Attributes:
        summary: Of its values; None where the tensor is no layer.
        high: ``(C,)`` float64: largest value of each channel, -Inf where there is none; None without channels.
        positions: Values of each channel.
        sketch: How samples differ; None where it is not known which axis holds them.
        tokens: Sum of squares about the mean of the tokens of each sample, and in all; None where there are no tokens.
        flat: Tensor that leaves a function -> values that enter it where it is flat, and values that enter.
        energy: Sum of squares of the finite values.
        count: Number of finite values.
    """

    summary: Summary | None
    high: Floats | None
    positions: int
    sketch: Sketch | None
    tokens: tuple[float, float] | None
    flat: dict[str, tuple[int, int]]
    energy: float
    count: int

    def merge(self, other: FlowTally) -> FlowTally:
        """Return what both sets of values give together; what does not fit together is left out."""
        fits = self.high is not None and other.high is not None and self.high.shape == other.high.shape
        return replace(
            self,
            summary=self.summary.merge(other.summary) if self.summary and other.summary else None,
            high=np.maximum(self.high, other.high) if fits else None,  # type: ignore[arg-type]
            positions=self.positions + other.positions,
            sketch=self.sketch.merge(other.sketch) if self.sketch and other.sketch else None,
            tokens=_added(self.tokens, other.tokens),
            flat={key: (a + other.flat[key][0], b + other.flat[key][1]) for key, (a, b) in self.flat.items()},
            energy=self.energy + other.energy,
            count=self.count + other.count,
        )


def _added(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if one is None or other is None else (one[0] + other[0], one[1] + other[1])


@dataclass(frozen=True, eq=False)
class Reader:
    """How one tensor is read.

    Attributes:
        layer: Whether it is a layer, so that all is kept of it.
        numbers: What turns its codes into numbers; None where they are numbers.
        sample_axis: Which axis holds the samples; None where that is not known, -1 where the tensor is one sample.
        channel_axis: Which axis holds the channels; None where there are none.
        tokens: Whether it holds a row a token, ``(N, tokens, features)``.
        curves: Tensor that leaves a function -> the function that this tensor enters.
    """

    layer: bool
    numbers: Callable[[Array], Array] | None
    sample_axis: int | None
    channel_axis: int | None
    tokens: bool
    curves: dict[str, Curve]

    def read(self, array: Array) -> FlowTally:
        """Return what is kept of the values of one batch."""
        if not is_numeric(array.dtype):
            return FlowTally(Summary.of(array) if self.layer else None, None, 0, None, None, {}, 0.0, 0)
        values = array if self.numbers is None else self.numbers(array)
        floats = to_float(values.reshape(-1))
        flat = {name: (int(np.count_nonzero(c.is_flat(floats))), floats.size) for name, c in self.curves.items()}
        if not self.layer:
            finite = floats[np.isfinite(floats)].astype(np.float64)
            with np.errstate(over="ignore"):
                energy = float(finite @ finite)
            return FlowTally(None, None, 0, None, None, flat, energy, finite.size)
        summary = Summary.of(values)
        energy = (math.inf if summary.l2 is None else summary.l2**2) if summary.count else 0.0
        return FlowTally(
            summary, *self._channels(values), self._sketch(values), self._spread(values), flat, energy, summary.count
        )

    def _channels(self, values: Array) -> tuple[Floats | None, int]:
        axis = self.channel_axis
        if axis is None or axis >= values.ndim or not values.size:
            return None, 0
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        high = np.fmax.reduce(to_float(rows), axis=1, initial=-np.inf).astype(np.float64)
        return high, rows.shape[1]

    def _sketch(self, values: Array) -> Sketch | None:
        axis = self.sample_axis
        if axis is None or not values.size or axis >= values.ndim:
            return None
        rows = values.reshape(1, -1) if axis < 0 else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        return Sketch.of(rows)

    def _spread(self, values: Array) -> tuple[float, float] | None:
        if not self.tokens or values.ndim != 3 or values.shape[1] < 2:
            return None
        own = total = 0.0
        for one in values:
            rows = np.asarray(to_float(one), np.float64)
            if np.isfinite(rows).all():
                with np.errstate(over="ignore", invalid="ignore"):
                    own += float(np.square(rows - rows.mean(axis=0)).sum())
                    total += float(np.square(rows).sum())
        return own, total
