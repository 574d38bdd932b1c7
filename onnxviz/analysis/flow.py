"""Activations and weights layer after layer through the depth of a model, as series on one axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.activation_curves import Curve, activation_curve, function_name, signature
from onnxviz.analysis.channels import channel_axis
from onnxviz.analysis.flow_marks import Mark, Thresholds, activation_marks, value_marks
from onnxviz.analysis.flow_paths import KeyPaths
from onnxviz.analysis.flow_plan import FlowPlan, Stage
from onnxviz.analysis.flow_tally import FlowTally, Reader
from onnxviz.analysis.paired import NotDrawn, missing
from onnxviz.analysis.statistics import Summary
from onnxviz.errors import ExecutionError, ModelError
from onnxviz.graph.activations import ActivationSite
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.quantised import codes_to_numbers
from onnxviz.runtime.record import Capture

if TYPE_CHECKING:
    from onnxviz.analysis.gradient_flow import GradientTrend
    from onnxviz.analysis.gradient_statistics import GradientStatistics

__all__ = [
    "QUANTILE_ERROR", "SHARES", "Flow", "FlowReader", "LayerNumbers", "Series", "activation_series", "layer_numbers",
    "weight_series",
]  # fmt: skip

#: Shares of the values that the ribbons are drawn between.
SHARES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
#: A quantile is off by at most this part of its magnitude; the smallest and the largest value are exact.
QUANTILE_ERROR = 1 / 16


@dataclass(frozen=True)
class LayerNumbers:
    """What is told of the values of one layer; None where it is not known.

    Of gradients, ``quantiles`` are of the magnitudes that are not 0, the first one as exact as the others, and ``dead``
    channels those whose gradient is 0 throughout.

    Attributes:
        count: Number of finite values.
        quantiles: Values below which :data:`SHARES` of the finite values lie; each off by at most
            :data:`QUANTILE_ERROR` of its magnitude, the first and last exact. Empty where no value is finite.
        mean: Mean of the finite values.
        std: Their standard deviation (divided by n).
        rms: Root of their mean square.
        nan: Number of NaN.
        inf: Number of infinite values.
        zero: Share of the values that are 0.
        flat: Share of the values that enter an activation function where it is flat (``|f'|`` below 1 % of its largest
            value, see :class:`onnxviz.analysis.activation_curves.Curve`).
        rectifier: Whether that function is one (ReLU, GELU, SiLU …), so that it is flat on one side only.
        dead: Number of channels that are never above 0 after a rectifier.
        channels: Number of channels.
        observations: Values that there are of each channel.
        variation: Part of the RMS that differs between samples, ``sqrt(E|x - E x|² / E|x|²)``, over at most 128 values
            of each sample.
        effective_rank: In how many directions samples differ: ``exp`` of the entropy of the eigenvalues of their
            covariance (Roy and Vetterli 2007).
        rank_limit: The largest it could be: samples - 1, or the number of values.
        token_spread: Part of the Frobenius norm that is left of each sample's tokens when their mean is taken off,
            ``|X - 1 x̄ᵀ| / |X|``: 0 where all tokens are the same (after Dong, Cordonnier and Loukas 2021).
        function: What the activation function is called; empty where the layer is none.
    """

    count: int
    quantiles: tuple[float, ...]
    mean: float | None
    std: float | None
    rms: float | None
    nan: int
    inf: int
    zero: float
    flat: float | None = None
    rectifier: bool = False
    dead: int | None = None
    channels: int | None = None
    observations: int = 0
    variation: float | None = None
    effective_rank: float | None = None
    rank_limit: int = 0
    token_spread: float | None = None
    function: str = ""


@dataclass(frozen=True)
class Series:
    """One kind of values through the depth.

    Attributes:
        name: ``"activations"``, ``"weights"`` or whatever else has a number a layer, such as gradients.
        layers: For each layer its numbers; None where it has no such values.
        marks: Stretches that a reader should look at, in order.
        samples: Samples that the numbers are over; None where they do not depend on samples.
    """

    name: str
    layers: tuple[LayerNumbers | None, ...]
    marks: tuple[Mark, ...]
    samples: int | None


@dataclass(frozen=True)
class Flow:
    """A model through its depth.

    Attributes:
        model_name: Of the model.
        stages: The layers, by depth and then in the graph's order.
        series: What there is of them, each with an entry a layer.
        thresholds: By which stretches were marked.
        paths: Shares of the outputs by node, and the best path to each output; None where they were not asked for.
        not_drawn: Layers without values, and why.
        notes: What a reader should know.
        gradients: All that was measured of the gradients; None where they were not asked for.
        trend: How gradients change from the target back to the inputs.
    """

    model_name: str
    stages: tuple[Stage, ...]
    series: tuple[Series, ...]
    thresholds: Thresholds
    paths: KeyPaths | None = None
    not_drawn: tuple[NotDrawn, ...] = ()
    notes: tuple[str, ...] = field(default=())
    gradients: GradientStatistics | None = None
    trend: GradientTrend | None = None


class FlowReader:
    """What makes tallies of the tensors of a plan while the model runs.

    Args:
        plan: What to look at.
        extra: Tensors whose energy is wanted beside the layers.
    """

    def __init__(self, plan: FlowPlan, extra: tuple[str, ...] = ()) -> None:
        self._plan = plan
        self.curves: dict[str, tuple[Curve, str]] = {}
        known: dict[Any, tuple[Curve, str] | None] = {}
        layers = {stage.name for stage in plan.stages}
        entering: dict[str, dict[str, Curve]] = {}
        for name, site in plan.sites.items():
            if name in layers and (found := _curve(plan.model, site, known)) is not None:
                self.curves[name] = found
                entering.setdefault(str(site.source.name), {})[name] = found[0]
        batch = _batch_size(plan.model)
        values = {str(v.name): v for node in plan.model.graph for v in node.outputs}
        self._readers = {
            name: self._reader(values[name], name in layers, batch, entering.get(name, {}))
            for name in dict.fromkeys([*layers, *entering, *extra])
            if name in values
        }

    @property
    def codes(self) -> set[str]:
        """The tensors whose codes are turned into numbers."""
        return {name for name, reader in self._readers.items() if reader.numbers is not None}

    @property
    def tensors(self) -> list[str]:
        """The tensors that are needed."""
        return list(self._readers)

    def channel_axis(self, name: str) -> int | None:
        """Return which axis of a layer holds its channels; None where there are none."""
        return self._readers[name].channel_axis if name in self._readers else None

    def __call__(self, name: str, array: npt.NDArray[Any]) -> FlowTally:
        """Return the tally of one tensor of a batch."""
        return self._readers[name].read(array)

    def _reader(self, value: ir.Value, layer: bool, batch: int | str | None, curves: dict[str, Curve]) -> Reader:
        name, node = str(value.name), value.producer()
        known = self._plan.inferred.get(name)
        shape = None if known is None or known.shape is None else list(known.shape)
        recurrent = node is not None and node.op_type in KINDS["recurrent"]
        axis = _sample_axis(shape, batch, node) if layer else None
        sizes = [dim if isinstance(dim, int) else 1 for dim in shape or ()]
        layout = self._plan.layouts.get(name)
        channels = None if recurrent else channel_axis(sizes, layout)
        tokens = len(sizes) == 3 and not recurrent and layout in (None, "NHWC") and axis == 0
        return Reader(layer, codes_to_numbers(value), axis, channels, tokens, curves)


def _curve(
    model: ir.Model, site: ActivationSite, known: dict[Any, tuple[Curve, str] | None]
) -> tuple[Curve, str] | None:
    """Return a function and its name; None where it has a parameter a channel or cannot be run."""
    key = signature(site) or site
    if key not in known:
        try:
            curve = activation_curve(model, site)
            known[key] = (curve, function_name(site, curve)) if len(curve.y) == 1 else None
        except (ExecutionError, ModelError):
            known[key] = None  # the layer is drawn all the same, without a share of what is flat
    return known[key]


def _batch_size(model: ir.Model) -> int | str | None:
    """Return the first size that all inputs share, as a number or by its name; None where they do not."""
    sizes = set()
    for value in model.graph.inputs:
        if not value.is_initializer() and value.shape is not None and len(value.shape):
            dim = value.shape[0]
            sizes.add(1 if _is_one_picture(value) else dim if isinstance(dim, int) else dim.value)
    return sizes.pop() if len(sizes) == 1 else None


def _is_one_picture(value: ir.Value) -> bool:
    """Whether an input is a picture without a batch: (3, H, W)."""
    return value.shape is not None and len(value.shape) == 3 and value.shape[0] == 3 and value.shape[2] != 3


def _sample_axis(shape: list[Any] | None, batch: int | str | None, node: ir.Node | None) -> int | None:
    """Return which axis of a tensor holds the samples, -1 where it is one sample as a whole; None where unknown."""
    if batch == 1:
        return -1
    if shape is None or batch is None:
        return 0 if node is None or node.op_type not in KINDS["recurrent"] else None
    named = [dim if isinstance(dim, int) else dim.value for dim in shape]
    if node is not None and node.op_type in KINDS["recurrent"] and "layout" not in node.attributes:
        return len(named) - 2 if len(named) > 2 else None
    fitting = [axis for axis, dim in enumerate(named) if dim == batch]
    if fitting:
        return 0 if 0 in fitting else fitting[0] if len(fitting) == 1 else None
    return 0 if named and named[0] is None else None


def layer_numbers(summary: Summary, **more: Any) -> LayerNumbers:
    """Return the numbers that a summary gives.

    >>> layer_numbers(Summary.of(np.array([2.0, -2.0]))).rms
    2.0
    """
    known = summary.bins is not None and summary.count > 0
    found = summary.quantiles(SHARES) if known else []
    rms = None if summary.l2 is None or not summary.count else summary.l2 / math.sqrt(summary.count)
    return LayerNumbers(
        summary.count, tuple(float(q) for q in found if q is not None), summary.mean, summary.std, rms, summary.nan,
        summary.inf, summary.zero / summary.size if summary.size else 0.0, **more,
    )  # fmt: skip


def _activation_numbers(name: str, tallies: dict[str, FlowTally], reader: FlowReader, source: str) -> LayerNumbers:
    tally = tallies[name]
    assert tally.summary is not None
    more: dict[str, Any] = {}
    if name in reader.curves:
        curve, more["function"] = reader.curves[name]
        more["rectifier"] = curve.zero_below
        entering = tallies[source].flat.get(name) if source in tallies else None
        more["flat"] = entering[0] / entering[1] if entering is not None and entering[1] else None
        if curve.zero_below and tally.high is not None:
            more["dead"] = int(np.count_nonzero(np.isfinite(tally.high) & (tally.high <= 0)))
            more["channels"], more["observations"] = len(tally.high), tally.positions
    if tally.sketch is not None:
        sketch = tally.sketch
        more["variation"], more["rank_limit"] = sketch.variation(), sketch.rank_limit
        more["effective_rank"] = sketch.effective_rank()
    if tally.tokens is not None and 0 < tally.tokens[1] < math.inf:
        more["token_spread"] = math.sqrt(tally.tokens[0] / tally.tokens[1])
    return layer_numbers(tally.summary, **more)


def activation_series(
    plan: FlowPlan, reader: FlowReader, captured: Capture, thresholds: Thresholds, samples: int
) -> tuple[Series, tuple[NotDrawn, ...]]:
    """Return the activations of a plan, and the layers that have none.

    Args:
        plan: What was looked at.
        reader: What made the tallies: the ``reduce`` of the capture.
        captured: The run.
        thresholds: From when a stretch is marked.
        samples: Number of samples that were run.
    """
    tallies = {name: record.statistics for name, record in captured.items() if record.statistics is not None}
    layers: list[LayerNumbers | None] = []
    lost = list(plan.not_drawn)
    for stage in plan.stages:
        tally = tallies.get(stage.name)
        if tally is None or tally.summary is None:
            layers.append(None)
            lost.append(missing(captured, stage.name) or NotDrawn(stage.name, "its values are no numbers of one type"))
            continue
        site = plan.sites.get(stage.name)
        source = str(site.source.name) if site is not None else ""
        layers.append(_activation_numbers(stage.name, tallies, reader, source))
    marks = activation_marks(plan.stages, layers, thresholds)
    return Series("activations", tuple(layers), marks, samples), tuple(lost)


def weight_series(
    plan: FlowPlan, tell: Callable[[int, int], None] | None = None
) -> tuple[Series, tuple[NotDrawn, ...]]:
    """Return the learned kernels, matrices, recurrences and embeddings of each layer, dequantised.

    Args:
        plan: What to look at.
        tell: Called with the number of layers that are done and of all.
    """
    layers: list[LayerNumbers | None] = []
    lost: list[NotDrawn] = []
    for place, weights in enumerate(plan.weights):
        whole: Summary | None = None
        for one in weights:
            try:
                found = Summary.of(one.kernel)
            except ModelError as error:
                lost.append(NotDrawn(one.tensor, str(error)))
                continue
            whole = found if whole is None else whole.merge(found)
        layers.append(None if whole is None else layer_numbers(whole))
        if tell is not None:
            tell(place + 1, len(plan.weights))
    return Series("weights", tuple(layers), value_marks(layers), None), tuple(lost)
