"""Runs a model forward and backward over batches, and keeps statistics of its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.flow import FlowReader
from onnxviz.analysis.flow_plan import FlowPlan
from onnxviz.analysis.flow_tally import FlowTally
from onnxviz.analysis.gradient_plan import GradientPlan
from onnxviz.analysis.gradient_statistics import GradientStatistics, LayerGradient, WeightGradient
from onnxviz.analysis.gradient_tally import GradientSum
from onnxviz.analysis.numeric import to_float
from onnxviz.analysis.statistics import Summary
from onnxviz.analysis.weight_roles import orient
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import ModelError
from onnxviz.graph.model import model_name
from onnxviz.runtime.batches import Batches
from onnxviz.runtime.capture import capture
from onnxviz.runtime.record import Capture, Mergeable

__all__ = ["run_gradients"]

Array = npt.NDArray[Any]


class _Total(tuple[float, ...]):
    """A number a batch."""

    def merge(self, other: _Total) -> _Total:
        return _Total((*self, *other))


def run_gradients(
    plan: FlowPlan,
    wanted: GradientPlan,
    batches: Batches,
    reader: FlowReader | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    **run: Any,
) -> tuple[GradientStatistics, Capture]:
    """Run forward and backward, node by node: what nothing reads any more is dropped, as in any capture.

    What is kept is statistics of each layer and, for each learned tensor, one sum of its size (float64 twice from the
    second batch on).

    Args:
        plan: The layers.
        wanted: The gradients, as :func:`onnxviz.analysis.gradient_plan.plan_gradients` returns them.
        batches: What to feed, labels included where the target has any.
        reader: What makes tallies of the forward pass, where they are wanted in the same run.
        progress: Called after each batch with the number of batches that are done and of all.
        run: ``providers``, ``op_library``, ``max_memory``.

    Returns:
        The gradients, and the run, whose records hold the tallies of ``reader`` as ``statistics``.
    """
    reads = _Reads(plan, wanted, reader)
    captured = capture(
        wanted.model, batches, reads.tensors, bodies=False, keep=False, reduce=reads, progress=progress, **run
    )
    counts = _counts(batches, captured)
    tallies = {name: record.statistics for name, record in captured.items() if record.statistics is not None}
    layers = [
        LayerGradient(stage.name, stage.layer, tallies[wanted.layers[stage.name]], captured.samples)
        for stage in plan.stages
        if wanted.layers.get(stage.name) in tallies
    ]
    weights = [
        one for weight, name in wanted.weights if name in tallies for one in _weight(weight, tallies[name], counts)
    ]
    shares = {place: tuple(tallies[name]) for name, place in wanted.shares.items() if name in tallies}
    found = GradientStatistics(
        model_name(plan.model), wanted.target, wanted.said, captured.samples, tuple(layers), tuple(weights),
        wanted.missing, tuple(str(cut) for cut in wanted.cuts), shares,
    )  # fmt: skip
    own = set(reads.forward)
    return found, replace(captured, records={name: one for name, one in captured.items() if name in own})


class _Reads:
    """Makes of each tensor what is kept of it."""

    def __init__(self, plan: FlowPlan, wanted: GradientPlan, reader: FlowReader | None) -> None:
        there = {str(value.name) for node in wanted.model.graph for value in node.outputs}
        self._reader = reader
        self.forward = [name for name in reader.tensors if name in there] if reader is not None else []
        self._axes: dict[str, int | None] = {}
        known = reader or FlowReader(plan)
        for name, gradient in wanted.layers.items():
            axis, shape = known.channel_axis(name), plan.inferred[name].shape if name in plan.inferred else None
            fixed = axis is not None and shape is not None and isinstance(shape[axis], int)
            self._axes[gradient] = axis if fixed else None
        self._weights = {gradient for _, gradient in wanted.weights}
        self._shares = set(wanted.shares)

    @property
    def tensors(self) -> list[str]:
        """What is asked for."""
        return list(dict.fromkeys([*self.forward, *self._axes, *sorted(self._weights), *sorted(self._shares)]))

    def __call__(self, name: str, array: Array) -> Mergeable:
        """Return what is kept of one tensor of a batch."""
        if name in self._shares:
            return _Total((float(array),))
        if name in self._weights:
            return GradientSum.of(array)
        if name in self._axes:
            axis = self._axes[name]
            axis = axis if axis is not None and axis < array.ndim else None
            return Summary.of(array, channel_axis=axis, histograms=axis is not None)
        assert self._reader is not None
        tally: FlowTally = self._reader(name, array)
        return tally


def _counts(batches: Batches, captured: Capture) -> tuple[int, ...]:
    """Return the samples of the batches that were run."""
    found: list[int] = []
    for count in batches.counts:
        if sum(found) >= captured.samples:
            break
        found.append(count)
    return tuple(found)


def _weight(weight: LayerWeights, total: GradientSum, counts: tuple[int, ...]) -> list[WeightGradient]:
    """Return the gradient of a weight, its output channels first; nothing where the weight cannot be read."""
    form, node = weight.form, weight.node
    try:
        kernel = np.asarray(to_float(weight.kernel), np.float64).reshape(-1)
    except ModelError:
        return []
    turned = replace(
        total,
        total=orient(total.total, form, node),
        rest=None if total.rest is None else orient(total.rest, form, node),
    )
    shape = turned.total.shape
    outputs = (
        0 if not shape or weight.role == "embedding" else shape[0] * shape[1] if form.startswith("rnn") else shape[0]
    )
    read = node.inputs[weight.position]
    return [
        WeightGradient(
            weight.tensor, weight.layer,
            str(node.outputs[0].name), str(read.name if read is not None else weight.tensor), weight.role,
            math.sqrt(float(kernel @ kernel)), outputs, turned, counts,
        )
    ]  # fmt: skip
