"""Gradients as a series of the flow through the depth: numbers a layer, their trend, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.flow import SHARES, Flow, LayerNumbers, Series
from onnxviz.analysis.flow_marks import KINDS_OF_MARKS, Mark, Thresholds, runs_of, trend_marks, value_marks
from onnxviz.analysis.flow_paths import KeyPaths, key_paths
from onnxviz.analysis.flow_plan import FlowPlan, Stage
from onnxviz.analysis.gradient_statistics import GradientStatistics, LayerGradient
from onnxviz.graph.extract import reads

__all__ = ["GRADIENT", "GradientTrend", "with_gradients"]

#: What the shares of key paths are of, where there are gradients.
GRADIENT = "gradient × activation at sums and joins"


@dataclass(frozen=True)
class GradientTrend:
    """How gradients change on their way back from the target, over the layers with learned kernels.

    Attributes:
        last: The layer next to the target.
        first: The layer next to the inputs.
        steps: Layers between them.
        rms: RMS of the gradient at ``first`` by that at ``last``.
        norm: The same of the L2 norm of a sample's gradient: what the number of values in a layer has no part in.
        slope: Decades of that norm that a layer adds on the way back (least squares over all of them).
    """

    last: str
    first: str
    steps: int
    rms: float
    norm: float
    slope: float

    def __str__(self) -> str:
        return (
            f"a sample's gradient from {self.last} back to {self.first}: L2 norm ×{self.norm:.2g}, "
            f"RMS ×{self.rms:.2g}, {self.slope:+.2f} decades a layer over {self.steps} layers"
        )


def _trunk(stages: Sequence[Stage], found: GradientStatistics) -> list[tuple[int, LayerGradient, float]]:
    """Return the layers with learned kernels and a gradient that is not 0, from the target to the inputs."""
    trunk = []
    for place, stage in enumerate(stages):
        layer = found.layer(stage.name)
        if layer is not None and stage.weighted and stage.depth and layer.norm:
            trunk.append((place, layer, layer.norm))
    return trunk[::-1]


def _trend(stages: Sequence[Stage], found: GradientStatistics) -> GradientTrend | None:
    """Return how gradients change from the target to the inputs; None where fewer than two layers have any.

    Args:
        stages: The layers of the model.
        found: Their gradients.
    """
    trunk = _trunk(stages, found)
    if len(trunk) < 2:
        return None
    levels = np.log10([norm for _, _, norm in trunk])
    slope = float(np.polyfit(np.arange(len(levels)), levels, 1)[0])
    (_, last, end), (_, first, begin) = trunk[0], trunk[-1]
    return GradientTrend(
        last.layer, first.layer, len(trunk) - 1, (first.rms or 0.0) / (last.rms or 1.0), begin / end, slope
    )


def _series(plan: FlowPlan, found: GradientStatistics, by: Thresholds) -> Series:
    """Return the gradients as a series: quantiles are of ``|g|`` over the values that are not 0.

    *Vanishing* and *exploding* follow the L2 norm of a sample's gradient from the target back to the inputs, through
    the layers with learned kernels, as :func:`onnxviz.analysis.flow_marks.activation_marks` follows the RMS of values
    forward (Hochreiter 1991; Glorot and Bengio 2010; Pascanu, Mikolov and Bengio 2013, "On the difficulty of training
    recurrent neural networks"). The norm, not the RMS: a feature map of many pixels shares one gradient out among all
    of them. A fall counts only as far as no layer further back, on any path, has more. *Dead*: channels whose gradient
    is exactly 0 for all samples at all positions, behind the last layer with weights left out, since a target of one
    class has no gradient by the others.

    Args:
        plan: The layers of the model.
        found: Their gradients.
        by: ``gradient_vanishing``, ``gradient_exploding``, ``steps``, ``gradient_dead``, ``observations``.
    """
    layers = [_numbers(found.layer(stage.name)) for stage in plan.stages]
    marks = [*value_marks(layers), *_trends(plan, found, by), *_dead(plan.stages, layers, by)]
    order = list(KINDS_OF_MARKS)
    marks.sort(key=lambda mark: (order.index(mark.kind), mark.first))
    return Series("gradients", tuple(layers), tuple(marks), found.samples)


def _numbers(layer: LayerGradient | None) -> LayerNumbers | None:
    if layer is None:
        return None
    one = layer.summary
    return LayerNumbers(
        one.count, layer.quantiles(SHARES), one.mean, one.std, layer.rms, one.nan, one.inf, layer.zero,
        dead=None if one.channels is None else len(layer.dead), channels=one.channels, observations=layer.observations,
    )  # fmt: skip


def _trends(plan: FlowPlan, found: GradientStatistics, by: Thresholds) -> list[Mark]:
    limits = replace(by, vanishing=by.gradient_vanishing, exploding=by.gradient_exploding)
    trunk = _trunk(plan.stages, found)
    marks = []
    for kind, better in (("vanishing", max), ("exploding", min)):
        reach = _reach(plan, {layer.name: layer for _, layer, _ in trunk}, better)
        levels = [(place, reach[layer.name]) for place, layer, _ in trunk]
        trends = trend_marks([(place, layer.norm or 0.0) for place, layer in levels], limits)
        marks += [_verdict(mark, dict(levels)) for mark in trends if mark.kind == kind]
    return marks


def _reach(
    plan: FlowPlan, layers: Mapping[str, LayerGradient], better: Callable[..., LayerGradient]
) -> dict[str, LayerGradient]:
    """Return for each layer the one with the largest (or smallest) norm among it and all layers before it.

    What a block loses has not vanished where a line around the block brings it to the layers before.
    """
    best: dict[ir.Value, LayerGradient] = {}
    found: dict[str, LayerGradient] = {}
    for node in plan.model.graph:
        some = [best[value] for value in reads(node) if value in best]
        own = next((layers[str(value.name)] for value in node.outputs if value.name in layers), None)
        some += [own] if own is not None else []
        if some:
            chosen = better(some, key=lambda layer: layer.norm or 0.0)
            best |= dict.fromkeys(node.outputs, chosen)
            if own is not None:
                found[own.name] = chosen
    return found


def _verdict(mark: Mark, layers: Mapping[int, LayerGradient]) -> Mark:
    """Return a stretch, whose layers run from the target back, in the order of the model and with its evidence."""
    steps = max(len([place for place in layers if mark.last <= place <= mark.first]) - 1, 1)
    slope = math.log10(mark.value) / steps if 0 < mark.value < math.inf else math.copysign(math.inf, mark.value - 1)
    end, begin = layers[mark.first].rms, layers[mark.last].rms
    rms = f", RMS ×{begin / end:.2g}" if begin and end else ""
    text = f"L2 norm ×{mark.value:.2g} over {steps} layers back{rms}, {slope:+.2f} decades a layer"
    return replace(mark, first=mark.last, last=mark.first, text=text)


def _dead(stages: Sequence[Stage], layers: Sequence[LayerNumbers | None], by: Thresholds) -> tuple[Mark, ...]:
    shares = [
        n.dead / n.channels
        if n is not None and n.dead is not None and n.channels and n.observations >= by.observations and not s.head
        and n.zero < 1
        else None
        for s, n in zip(stages, layers, strict=True)
    ]  # fmt: skip
    return runs_of("dead", shares, by.gradient_dead, "{:.0%} of channels without gradient", low=False)


def with_gradients(flow: Flow, plan: FlowPlan, found: GradientStatistics) -> Flow:
    """Return a flow with a series of gradients, and with key paths by gradient × activation.

    Args:
        flow: The forward pass.
        plan: Its layers.
        found: The gradients.
    """
    series = _series(plan, found, flow.thresholds)
    trend = _trend(plan.stages, found)
    notes = [f"gradients of {found.said}"]
    notes += [str(trend)] if trend is not None else []
    bad = [one for one in found.weights if one.not_finite]
    if bad:
        notes.append(
            f"gradients of {len(bad)} of {len(found.weights)} learned tensors have NaN or infinite entries, which are "
            f"left out of their norms: {bad[0].tensor} {bad[0].not_finite:.2%}"
            + (" and others" if len(bad) > 1 else "")
        )
    notes += [f"cut: {cut}" for cut in found.cuts[:3]]
    notes += [f"{len(found.cuts) - 3} more cuts"] if len(found.cuts) > 3 else []
    paths = _paths(plan, found) if flow.paths is not None else None
    return replace(
        flow, series=(*flow.series, series), paths=paths or flow.paths, not_drawn=(*flow.not_drawn, *found.missing),
        notes=(*notes, *flow.notes), gradients=found, trend=trend,
    )  # fmt: skip


def _paths(plan: FlowPlan, found: GradientStatistics) -> KeyPaths | None:
    """Return key paths by ``Σ |g · x|`` of each tensor as it is read where tensors meet; None where nothing meets.

    Where the target does not depend on a meeting, its shares are equal.
    """
    if not found.shares:
        return None

    def weight(node: ir.Node, value: ir.Value) -> float | None:
        parts = found.shares.get((str(node.outputs[0].name), str(value.name)))
        return None if parts is None else math.fsum(parts)

    return key_paths(plan, weight, measure=GRADIENT)
