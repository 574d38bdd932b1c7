"""Activation functions at work: what enters, what leaves, how much is zeroed, and which channels are dead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.activation_curves import Curve, activation_curve, function_name
from onnxviz.analysis.channels import MOST_CHANNELS
from onnxviz.analysis.feature_maps import FeatureMaps, Score
from onnxviz.analysis.histogram import Histogram, histogram
from onnxviz.analysis.numeric import is_numeric
from onnxviz.analysis.paired import NotDrawn, asked_for, missing, paired_maps, shared_axes
from onnxviz.analysis.tally import Tallies, Tally, tally
from onnxviz.errors import ExecutionError, ModelError, SelectionError
from onnxviz.graph.activations import POINTWISE, ActivationSite, activation_sites
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.quantised import dequantizer
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.record import Capture

__all__ = ["ActivationView", "Activations", "Plan", "activation_views", "drawn_range", "over_all", "plan_activations"]

_BINS = 60
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ActivationView:
    """One activation function, before and after.

    Attributes:
        name: The tensor that leaves it.
        source: The tensor that enters it.
        function: What it is called: the operator, or the name of a pattern.
        shape: Of both tensors, for the first batch.
        before: What enters, for one sample; channels chosen by what enters.
        after: What leaves: the same channels on the same scale.
        curve: The function itself; None where it could not be run.
        entering: Histogram of all that enters, over all samples.
        samples: Number of samples that the counts below are over.
        values: Number of values that they are over.
        zeroed: Share of the values that leave it which are exactly 0.
        saturated: Share of the values that enter it where the function is flat (``|f'|`` below 1 % of its largest
            value, turning points left out); None where it has a parameter a channel, or no curve.
        dead: Channels that are never above 0 after a rectifier, over all samples; None where the function is no
            rectifier or the tensor has no channels.
        channels: Number of channels; None where it has none.
        axis: Which axis holds them.
        note: What a reader should know; empty where there is nothing.
        nan: Number of NaN that enter and that leave, over all samples.
        inf: Number of infinite values, likewise.
    """

    name: str
    source: str
    function: str
    shape: tuple[int, ...]
    before: FeatureMaps
    after: FeatureMaps
    curve: Curve | None
    entering: Histogram
    samples: int
    values: int
    zeroed: float
    saturated: float | None
    dead: tuple[int, ...] | None
    channels: int | None
    axis: int | None
    note: str
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)

    def captions(self) -> list[str]:
        """Return what was counted, in words."""
        parts = [f"{100 * self.zeroed:.3g} % zeroed"]
        if self.saturated is not None:
            parts.append(f"{100 * self.saturated:.3g} % saturated")
        over = f"over {self.samples} sample{'s' if self.samples != 1 else ''}"
        if self.dead is not None:
            parts.append(f"{len(self.dead)} of {self.channels} channels dead {over}")
        else:
            parts.append(over)
        for (enter, leave), what in ((self.nan, "NaN"), (self.inf, "Inf")):
            if enter or leave:
                share = 100 * max(enter, leave) / max(self.values, 1)
                parts.append(f"{enter} {what} enter, {leave} leave ({share:.2g} %, hatched)")
        return parts


@dataclass(frozen=True)
class Activations:
    """The activation functions of a model on its inputs.

    Attributes:
        model_name: Of the model.
        views: One a function, in the graph's order.
        not_drawn: What was asked for and cannot be shown.
        samples: Number of samples.
    """

    model_name: str
    views: tuple[ActivationView, ...]
    not_drawn: tuple[NotDrawn, ...]
    samples: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Which activation functions to look at, and what to capture for that.

    Attributes:
        model: The model that the sites are of.
        sites: The functions.
        not_drawn: Tensors that were asked for and leave no such function.
        layouts: Tensor name -> layout, where the graph tells.
    """

    model: ir.Model
    sites: tuple[ActivationSite, ...]
    not_drawn: tuple[NotDrawn, ...]
    layouts: dict[str, str]

    @property
    def tensors(self) -> list[str]:
        """Names of what enters and leaves, each once."""
        return list(dict.fromkeys(str(v.name) for site in self.sites for v in (site.source, site.output)))

    def reducer(self, views: Sequence[ActivationView]) -> Callable[[str, npt.NDArray[Any]], Tallies]:
        """Return what counts the values of a batch, into the bins and by the curves of views of a first one."""
        wanted: dict[str, list[tuple[str, Callable[[Array], Tally]]]] = {}
        sites = {str(site.output.name): site for site in self.sites}
        for view in views:
            entering, leaving = _readers(sites[view.name])
            wanted.setdefault(view.source, []).append((view.name, partial(_entering, view, entering)))
            wanted.setdefault(view.name, []).append(("", partial(_leaving, view, leaving)))
        return lambda name, array: Tallies({key: make(array) for key, make in wanted.get(name, ())})


def _entering(view: ActivationView, read: Callable[[Array], Array], array: Array) -> Tally:
    return tally(read(array), None, view.curve, view.entering.edges)


def _leaving(view: ActivationView, read: Callable[[Array], Array], array: Array) -> Tally:
    return tally(read(array), view.axis)


def plan_activations(model: ir.Model, tensors: str | Sequence[str] | None = None) -> Plan:
    """Find the activation functions to look at.

    Args:
        model: As :func:`onnxviz.analysis.paired.observable` returns it.
        tensors: Which, by what leaves or enters them; None for all.

    Raises:
        SelectionError: There is none.
    """
    sites = activation_sites(model)
    asked = asked_for(model, tensors)
    refused: list[NotDrawn] = []
    if asked is not None:
        inside = {value: site for site in sites for node in site.nodes for value in node.outputs}
        wanted = {inside[value] for value in asked if value in inside}
        refused = [_refused(value) for value in asked if value not in inside]
        refused.sort(key=lambda one: one.name)
        sites = [site for site in sites if site in wanted]
    if not sites:
        if refused:
            raise SelectionError(f"{refused[0].name}: {refused[0].reason}", hint="leave --tensor out to see all")
        for node in model.graph:
            if node.op_type in POINTWISE and node.op_type != "Erf" and node.outputs[0].name:
                why = _refused(node.outputs[0])
                raise SelectionError(f"no activation function can be shown: {why.name}: {why.reason}")
        raise SelectionError(
            "the model has no activation function as a node of its graph",
            hint="quantised models clip in QuantizeLinear, recurrent operators inside: see `features`",
        )
    return Plan(model, tuple(sites), tuple(refused), tensor_layouts(infer_shapes(model)))


def _refused(value: ir.Value) -> NotDrawn:
    node = value.producer()
    op = node.op_type if node is not None else "an input"
    if op in ("Softmax", "LogSoftmax", "Hardmax"):
        return NotDrawn(str(value.name), f"{op} mixes a whole axis, so it has no curve: see `features`")
    if op in KINDS["activation"]:
        return NotDrawn(str(value.name), f"what {op} does depends on another tensor that is not constant")
    return NotDrawn(str(value.name), f"it leaves {op}, which is no activation function")


def activation_views(
    plan: Plan,
    first: Capture,
    *,
    top: int | None = 8,
    by: Score = "energy",
    sample: int = 0,
    more: bool = False,
) -> Activations:
    """Return the activation functions of a plan on the first batch.

    Args:
        plan: What :func:`plan_activations` returned.
        first: The tensors of the plan, with their arrays.
        top: Most channels to show.
        by: How they are chosen, by what enters; see :func:`onnxviz.analysis.feature_maps.feature_maps`.
        sample: Which sample of the batch is shown; all of them are counted.
        more: Whether further batches will be counted: the histogram then has room for half as much again on each side.

    Raises:
        SelectionError: Not one can be shown.
    """
    views: list[ActivationView] = []
    refused = list(plan.not_drawn)
    known: dict[Any, Curve] = {}
    for site in plan.sites:
        name = str(site.output.name)
        try:
            lost = missing(first, str(site.source.name), name)
            if lost is None:
                views.append(_view(plan, site, first, top, by, sample, more, known))
            else:
                refused.append(lost)
        except SelectionError as error:
            refused.append(NotDrawn(name, str(error)))
    if not views:
        raise SelectionError(f"no activation function can be shown: {refused[0].name}: {refused[0].reason}")
    return Activations(first.model_name, tuple(views), tuple(refused), max(view.samples for view in views))


def _readers(site: ActivationSite) -> tuple[Callable[[npt.NDArray[Any]], Any], Callable[[npt.NDArray[Any]], Any]]:
    if site.op_type.startswith("QLinear"):
        return dequantizer(site.nodes[0], 1), dequantizer(site.nodes[0], 3)
    return (lambda array: array), (lambda array: array)


def _view(
    plan: Plan, site: ActivationSite, first: Capture, top: int | None, by: Score, sample: int, more: bool,
    known: dict[Any, Curve],
) -> ActivationView:  # fmt: skip
    source, name = str(site.source.name), str(site.output.name)
    enter, leave = _readers(site)
    if not is_numeric(first[source].array.dtype):
        raise SelectionError("it holds no numbers")
    before, after = enter(first[source].array), leave(first[name].array)
    layout = plan.layouts.get(source) or plan.layouts.get(name)
    records = first[source], first[name]
    axes = shared_axes(records, before.shape, layout)
    maps = paired_maps(before, after, records, layout=layout, top=top, by=by, sample=sample)
    edges = histogram(before, bins=_BINS, scale="linear").edges
    if more:
        room = (edges[-1] - edges[0]) / 2
        edges = np.linspace(edges[0] - room, edges[-1] + room, _BINS + 1)
    curve, note = None, ""
    try:
        low, high = drawn_range(edges)
        curve = activation_curve(plan.model, site, low, high, among=_most(before), known=known)
    except (ExecutionError, ModelError) as error:
        note = f"no curve: {error}"
    axis = _axis(axes, before.shape)
    samples = first.samples if axes is None or "N" in axes else 1
    entering = tally(before, None, curve, edges)
    return _counted(
        ActivationView(
            name, source, function_name(site, curve), tuple(before.shape), *maps, curve,
            entering.bins or histogram(before), samples, 0, 0.0, None, None,
            None if axis is None else before.shape[axis], axis, note,
        ),
        entering, tally(after, axis), samples,
    )  # fmt: skip


def drawn_range(edges: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the axis that a curve is drawn over: those of the histogram, and some of the other sign."""
    first, last = float(edges[0]), float(edges[-1])
    reach = 0.2 * max(abs(first), abs(last))
    return min(first, -reach), max(last, reach)


def _most(array: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return what 99.8 % of the finite values lie among; of large tensors, of every n-th."""
    values = array.reshape(-1)[:: max(1, array.size // 100_000)].astype(np.float64)
    values = values[np.isfinite(values)]
    return (float(np.percentile(values, 0.1)), float(np.percentile(values, 99.9))) if values.size else None


def _axis(axes: str | None, shape: tuple[int, ...]) -> int | None:
    """Return the axis of the channels; None where there is none, or both directions of an LSTM are channels."""
    if axes is None or len(shape) < 2 or "C" not in axes:
        return None
    if axes in ("TDNC", "DNC") and shape[axes.index("D")] > 1:
        return None
    axis = axes.index("C")
    return axis if 0 < shape[axis] <= MOST_CHANNELS else None


def _counted(view: ActivationView, entering: Tally, leaving: Tally, samples: int) -> ActivationView:
    rectifier = view.curve is not None and view.curve.zero_below and view.axis is not None
    most = view.curve.most_below if view.curve is not None else 0.0
    dead = np.flatnonzero(np.isfinite(leaving.high) & (leaving.high <= most)) if rectifier else None
    return replace(
        view,
        entering=entering.bins or view.entering,
        samples=samples,
        values=leaving.total,
        zeroed=leaving.zero / leaving.total if leaving.total else 0.0,
        saturated=None if entering.flat is None or not entering.total else entering.flat / entering.total,
        dead=None if dead is None else tuple(int(i) for i in dead),
        nan=(entering.nan, leaving.nan),
        inf=(entering.inf, leaving.inf),
    )


def over_all(found: Activations, every: Capture) -> Activations:
    """Return the same views, counted over all batches.

    Args:
        found: Of the first batch.
        every: A capture whose ``reduce`` was :meth:`Plan.reducer`.
    """
    views = []
    for view in found.views:
        entering = every[view.source].statistics.by_use[view.name]
        leaving = every[view.name].statistics.by_use[""]
        batched = len(view.shape) > 1  # else each batch is a sample
        samples = every.samples if batched else max(1, every.samples // max(found.samples, 1))
        views.append(_counted(view, entering, leaving, samples))
    return replace(found, views=tuple(views), samples=max(view.samples for view in views))
