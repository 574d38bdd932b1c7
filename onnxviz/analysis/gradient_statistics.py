"""Gradients of a model layer by layer, channel by channel and weight by weight, over any number of batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.gradient_tally import Floats, GradientSum, magnitude_quantiles
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.statistics import Summary
from onnxviz.errors import InputError, printable

__all__ = ["GradientStatistics", "LayerGradient", "WeightGradient"]


@dataclass(frozen=True, eq=False)
class LayerGradient:
    """The gradient of the target by the values that leave one layer: each sample's own target by its own values.

    Attributes:
        name: The tensor.
        layer: What the layer is called.
        summary: Of all values; with a histogram a channel where the tensor has channels. It merges exactly.
        samples: Samples that were run.
    """

    name: str
    layer: str
    summary: Summary = field(repr=False)
    samples: int

    @property
    def rms(self) -> float | None:
        """Root mean square of the finite values, zeros included."""
        found = self.summary
        return None if found.l2 is None or not found.count else found.l2 / math.sqrt(found.count)

    @property
    def norm(self) -> float | None:
        """Euclidean length of a sample's gradient (root mean square over samples), whatever the number of values."""
        found = self.summary.l2
        return None if found is None or not self.summary.count else found / math.sqrt(max(self.samples, 1))

    @property
    def zero(self) -> float:
        """Share of the values that are exactly 0."""
        return self.summary.zero / self.summary.size if self.summary.size else 0.0

    @property
    def not_finite(self) -> float:
        """Share of the values that are NaN or infinite."""
        return (self.summary.nan + self.summary.inf) / self.summary.size if self.summary.size else 0.0

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Return quantiles of ``|g|`` over the values that are not 0, off by at most 1/16; empty where all are 0."""
        return magnitude_quantiles(self.summary, shares)

    def channel_quantiles(self, shares: Sequence[float]) -> npt.NDArray[np.float64]:
        """Return quantiles of ``|g|`` of each channel, ``(channels, len(shares))``; NaN for a channel that is all 0."""
        rows = [magnitude_quantiles(one, shares) for one in self.summary.per_channel()]
        return np.array([row or (math.nan,) * len(shares) for row in rows], np.float64).reshape(-1, len(shares))

    @cached_property
    def dead(self) -> tuple[int, ...]:
        """The channels whose gradient is exactly 0 for every sample at every position: what feeds them cannot learn."""
        if self.summary.channels is None or not self.summary.size:
            return ()
        rows = self.summary.channel_values()
        each = self.summary.size // self.summary.channels
        return tuple(index for index, zero in enumerate(rows["zero"]) if zero == each)

    @property
    def observations(self) -> int:
        """Values of each channel."""
        return self.summary.size // self.summary.channels if self.summary.channels else 0

    def merge(self, other: LayerGradient) -> LayerGradient:
        """Return what both sets of samples give."""
        return replace(self, summary=self.summary.merge(other.summary), samples=self.samples + other.samples)


@dataclass(frozen=True, eq=False)
class WeightGradient:
    """The gradient of the mean target of all samples by one learned tensor.

    Attributes:
        tensor: The stored tensor.
        layer: The node that uses it.
        leaving: The tensor that leaves that node.
        name: The tensor whose gradient it is: the stored one, or what a cast or transposition makes of it.
        role: ``"weight"``, ``"bias"``, ``"scale"`` …
        weight_norm: Euclidean length of the weight.
        outputs: Output channels; 0 where the weight has none.
        sum: What the batches added up to.
        counts: Samples of each batch, in the order of ``sum.squares``.
    """

    tensor: str
    layer: str
    leaving: str
    name: str
    role: str
    weight_norm: float
    outputs: int
    sum: GradientSum = field(repr=False)
    counts: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Samples that were run."""
        return max(sum(self.counts), 1)

    @property
    def gradient(self) -> Floats:
        """The gradient itself, output channels first where there are any: the mean over samples."""
        return self.sum.total / self.samples

    @cached_property
    def norm(self) -> float:
        """Euclidean length of the gradient, of its finite entries."""
        flat = self.sum.total.reshape(-1).astype(np.float64)
        return math.sqrt(float(flat @ flat)) / self.samples

    @property
    def ratio(self) -> float | None:
        """Length of the gradient by length of the weight; None where the weight is 0."""
        return self.norm / self.weight_norm if self.weight_norm else None

    @property
    def not_finite(self) -> float:
        """Share of the entries that were NaN or infinite, over all batches; they are left out of all else."""
        return self.sum.bad / (self.sum.total.size * len(self.counts)) if self.sum.total.size and self.counts else 0.0

    @cached_property
    def channel_norms(self) -> npt.NDArray[np.float64]:
        """Length of the gradient of each output channel's part, ``(outputs,)``; empty without channels."""
        rows = self.sum.total.reshape(self.outputs, -1).astype(np.float64) if self.outputs else np.zeros((0, 1))
        found: npt.NDArray[np.float64] = np.sqrt(np.square(rows).sum(axis=1)) / self.samples
        return found

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the gradient between batches, as a length; None for one batch.

        ``sqrt(Σ n_b |g_b - g|² / Σ n_b)``, g_b the mean gradient of batch b of n_b samples.
        """
        if len(self.counts) < 2:
            return None
        pairs = zip(self.sum.squares, self.counts, strict=True)
        second = math.fsum(square / max(count, 1) for square, count in pairs) / self.samples
        return math.sqrt(max(second - self.norm**2, 0.0))

    @property
    def noise(self) -> float | None:
        """Deviation between batches by length of the mean gradient: above 1, one batch says little about the next.

        The square, times the size of a batch, is the simple noise scale of McCandlish et al. 2018 ("An empirical model
        of large-batch training", appendix A). None for one batch, or where the mean is 0.
        """
        return None if self.deviation is None or not self.norm else self.deviation / self.norm

    def merge(self, other: WeightGradient) -> WeightGradient:
        """Return what both sets of batches give."""
        return replace(self, sum=self.sum.merge(other.sum), counts=(*self.counts, *other.counts))


@dataclass(frozen=True, eq=False)
class GradientStatistics:
    """Gradients of a model over samples. Two of them merge, in any order, to what one run over all batches gives.

    Attributes:
        model_name: Of the model.
        target: The expression that was differentiated.
        said: The target in words.
        samples: Samples that were run.
        layers: The layers with a gradient, in the order of the model.
        weights: The learned tensors with a gradient, in the order of the model.
        missing: Layers without one, and why: cut, aside of the target, or of whole numbers.
        cuts: Where paths to the target end, one line each.
        shares: ``(first output of a node, tensor)`` -> Σ ``|g · x|`` of the tensor as that node reads it, where several
            meet; a number a batch.
        notes: What a reader should know.
    """

    model_name: str
    target: str
    said: str
    samples: int
    layers: tuple[LayerGradient, ...]
    weights: tuple[WeightGradient, ...]
    missing: tuple[NotDrawn, ...] = ()
    cuts: tuple[str, ...] = ()
    shares: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    def merge(self, other: GradientStatistics) -> GradientStatistics:
        """Return the statistics of both sets of samples.

        Raises:
            InputError: They are of different models or targets.
        """
        mine, its = ([(x.target, [r.name for r in x.layers], [w.name for w in x.weights])] for x in (self, other))
        if mine != its:
            raise InputError("gradients of different models or targets cannot be merged", hint="use the same --target")
        return replace(
            self,
            samples=self.samples + other.samples,
            layers=tuple(a.merge(b) for a, b in zip(self.layers, other.layers, strict=True)),
            weights=tuple(a.merge(b) for a, b in zip(self.weights, other.weights, strict=True)),
            shares={key: value + other.shares.get(key, ()) for key, value in self.shares.items()},
        )

    def layer(self, name: str) -> LayerGradient | None:
        """Return the gradient of a layer by its tensor; None where it has none."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, LayerGradient]:
        return {layer.name: layer for layer in self.layers}

    def _repr_html_(self) -> str:
        """Return a table of the layers, and one of the weights."""
        layers = [
            (one.layer, _short(one.rms), _short(one.norm), f"{one.zero:.1%}", _dead(one), f"{one.not_finite:.1%}")
            for one in self.layers
        ]
        weights = [
            (one.tensor, one.layer, _short(one.norm), _short(one.ratio), _short(one.noise), f"{one.not_finite:.1%}")
            for one in self.weights
        ]
        samples = f"{self.samples:,} sample{'s' * (self.samples != 1)}"
        return (
            f"<p>Gradients of {escape(printable(self.said, 200))}, {samples}</p>"
            + _table(("layer", "RMS", "norm", "exactly 0", "dead channels", "not finite"), layers)
            + _table(
                ("weight", "layer", "norm of the gradient", "by that of the weight", "noise", "not finite"), weights
            )
        )


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _dead(layer: LayerGradient) -> str:
    return "" if layer.summary.channels is None else f"{len(layer.dead)} of {layer.summary.channels}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in HTML, its first 400 rows."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = ["<tr>" + "".join(f"<td>{escape(printable(cell, 80))}</td>" for cell in row) + "</tr>" for row in rows[:400]]
    more = f"<p>and {len(rows) - 400} more</p>" if len(rows) > 400 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{more}"
