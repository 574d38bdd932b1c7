"""The verb ``flow``: a model through its depth, and what its outputs come through."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnxviz.api.common import DATA, PICTURES, batches_for, check_outputs, save_view, tell_refused, write_numbers
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.flow import Flow, FlowReader, Series
    from onnxviz.analysis.flow_marks import Thresholds
    from onnxviz.analysis.flow_plan import FlowPlan
    from onnxviz.analysis.gradient_plan import GradientPlan
    from onnxviz.analysis.gradient_statistics import GradientStatistics
    from onnxviz.analysis.gradient_target import Labels
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import Feed
    from onnxviz.runtime.record import Capture

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["Subject", "flow", "flow_numbers", "gradient_statistics"]

Subject = Literal["activations", "weights", "both", "gradients"]
_MOST_PATHS = 8  # outputs whose key path is drawn
_DRAWINGS = (".svg", ".png", ".pdf", ".html", ".htm")


def flow_numbers(
    model: Model,
    inputs: Feed = None,
    *,
    on: Subject = "both",
    target: str | None = None,
    labels: Labels | None = None,
    straight_through: bool = False,
    allow_cut: bool = False,
    thresholds: Thresholds | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Flow:
    """Run a model over inputs and return what happens to its values, and to its gradients, layer by layer.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; a folder or a list is run in batches; None feeds seeded random numbers.
        on: ``"activations"``, ``"weights"`` (nothing is run), ``"both"`` of these, or ``"gradients"`` beside both.
        target, labels, straight_through, allow_cut: As :func:`gradient_statistics` takes them; with ``"gradients"``
            only.
        thresholds: From when a stretch is marked.
        batch: Samples a batch, where the model leaves that open.
        progress: Called after each batch with the number of batches that are done and of all.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Returns:
        The numbers; see :class:`onnxviz.analysis.flow.Flow`.

    Raises:
        SelectionError: The model has no layer whose values could be drawn.
        InputError: There is no such subject, or an input does not fit.
        GradientError: As :func:`gradient_statistics`.

    >>> import numpy as np, onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {2, 0, 0, 2}> {y = MatMul(x, w)}''')
    >>> found = flow_numbers(model, {"x": np.ones((3, 2), np.float32)}, providers="cpu")
    >>> [(series.name, [row and row.rms for row in series.layers]) for series in found.series]
    [('activations', [1.0, 2.0]), ('weights', [None, 1.4142135623730951])]
    """
    from onnxviz.analysis.flow import Flow, weight_series
    from onnxviz.analysis.flow_marks import Thresholds
    from onnxviz.analysis.flow_plan import plan_flow
    from onnxviz.analysis.paired import observable
    from onnxviz.errors import InputError
    from onnxviz.graph.model import model_name

    if on not in get_args(Subject):
        raise InputError(f"there is no flow of {on!r}", hint=f"choose {', '.join(get_args(Subject))}")
    if on != "gradients" and (target is not None or labels is not None or straight_through or allow_cut):
        raise InputError("a target, labels and cuts are those of gradients", hint="ask for them: --on gradients")
    opened = as_model(model)
    plan = plan_flow(observable(opened, lambda node: True))
    found = Flow(model_name(opened), plan.stages, (), thresholds or Thresholds(), notes=plan.notes)
    asked = None
    if on == "gradients":
        asked = _Asked(target, labels, straight_through, allow_cut)
    if on != "weights":
        found = _with_activations(found, plan, inputs, batch, progress, options, asked)
    if on != "activations":
        series, lost = weight_series(plan)
        found = replace(
            found, series=(*found.series[:1], series, *found.series[1:]), not_drawn=(*found.not_drawn, *lost)
        )
    return found


def gradient_statistics(
    model: Model,
    inputs: Feed = None,
    *,
    target: str | None = None,
    labels: Labels | None = None,
    straight_through: bool = False,
    allow_cut: bool = False,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> GradientStatistics:
    """Run a model forward and backward over inputs, and return statistics of the gradients of all layers and weights.

    Gradients of a layer are those of each sample's own target by its own values; gradients of weights are of the mean
    over all samples. Batches are run one by one; results of several runs :meth:`merge
    <onnxviz.analysis.gradient_statistics.GradientStatistics.merge>`, in any order.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; a folder or a list is run in batches; None feeds seeded random numbers.
        target: What is differentiated: an expression that gives a number for each sample, such as ``logits[:, 7]`` or
            ``cross_entropy(logits, labels)``; see :func:`onnxviz.gradient.targets.target_value`. By default each
            sample's largest class of the first output, before a softmax; with labels, the cross entropy.
        labels: The class of each sample: ``"folders"``, a ``.csv`` file, or ``(N,)`` integers.
        straight_through: Pass quantisation as if it did not round, where it does not clip.
        allow_cut: Go on without paths through operators that have no gradient rule.
        batch: Samples a batch, where the model leaves that open.
        progress: Called after each batch with the number of batches that are done and of all.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``, ``max_memory``.

    Raises:
        GradientError: No path leads back from the target, an operator has no rule, or the outputs do not tell which
            number is the answer.
        SelectionError: The model has no layers, or the target names no tensor.
        InputError: An input does not fit, or a sample has no label.

    >>> import numpy as np, onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 18]>
    ...   g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {3, 0, 0, 4}> {h = MatMul(x, w) y = Relu(h)}''')
    >>> found = gradient_statistics(model, {"x": np.float32([[1, 1], [-1, 1]])}, providers="cpu")
    >>> found.said, [(layer.layer, layer.rms) for layer in found.layers][0]
    ("each sample's largest class in 'y'", ('x', 2.8284271247461903))
    >>> found.weights[0].norm, found.weights[0].channel_norms.tolist()
    (1.0, [0.0, 1.0])
    """
    from onnxviz.analysis.flow_plan import plan_flow
    from onnxviz.analysis.gradient_run import run_gradients
    from onnxviz.analysis.paired import observable

    plan = plan_flow(observable(as_model(model), lambda node: True))
    asked = _Asked(target, labels, straight_through, allow_cut)
    wanted, batches, run = asked.made_ready(plan, inputs, batch, options, paths=False)
    return run_gradients(plan, wanted, batches, progress=progress, **run)[0]


@dataclass(frozen=True)
class _Asked:
    """How gradients are asked for."""

    target: str | None
    labels: Labels | None
    straight_through: bool
    allow_cut: bool

    def made_ready(
        self, plan: FlowPlan, inputs: Feed, batch: int | None, options: Mapping[str, Any], *, paths: bool = True
    ) -> tuple[GradientPlan, Batches, dict[str, Any]]:
        """Return the gradients to compute, what to feed, and the options of the run."""
        from onnxviz.analysis.gradient_plan import plan_gradients
        from onnxviz.analysis.gradient_target import class_indices, with_labels
        from onnxviz.errors import InputError

        wanted = plan_gradients(
            plan, self.target, labelled=self.labels is not None, straight_through=self.straight_through,
            allow_cut=self.allow_cut, paths=paths,
        )  # fmt: skip
        if self.labels is not None:
            if len(wanted.losses) != 1:
                raise InputError(
                    f"the target {wanted.target!r} takes no labels",
                    hint="leave --labels out, or write such as --target 'cross_entropy(logits, labels)'",
                )
            batches, run = batches_for(plan.model, inputs, batch, options)
            found, source = class_indices(self.labels, batches.names, batches.samples, wanted.classes)
            return wanted, with_labels(batches, wanted.losses[0], found, source), run
        batches, run = batches_for(wanted.model, inputs, batch, options)
        made_up = [one.name for one in batches.first().records if one.made_up and one.name in wanted.losses]
        if made_up:
            raise InputError(
                f"the target {wanted.target!r} needs {', '.join(made_up)}",
                hint=f"give --labels FILE.csv, or --input {made_up[0]}=FILE.npy",
            )
        return wanted, batches, run


def _with_activations(
    found: Flow,
    plan: FlowPlan,
    inputs: Feed,
    batch: int | None,
    progress: Callable[[int, int], None] | None,
    options: Mapping[str, Any],
    asked: _Asked | None,
) -> Flow:
    from onnxviz.analysis.flow import FlowReader, activation_series
    from onnxviz.analysis.flow_paths import key_paths, meeting_tensors
    from onnxviz.analysis.gradient_flow import with_gradients
    from onnxviz.analysis.gradient_run import run_gradients
    from onnxviz.runtime.capture import capture

    reader = FlowReader(plan, meeting_tensors(plan))
    gradients = None
    if asked is not None:
        wanted, batches, run = asked.made_ready(plan, inputs, batch, options)
        gradients, captured = run_gradients(plan, wanted, batches, reader, progress=progress, **run)
    else:
        batches, run = batches_for(plan.model, inputs, batch, options)
        captured = capture(
            plan.model, batches, reader.tensors, bodies=False, keep=False, reduce=reader, progress=progress, **run
        )
    series, lost = activation_series(plan, reader, captured, found.thresholds, captured.samples)
    weight, size = _energies(captured)
    made_up = [record.name for record in captured.inputs if record.made_up]
    said = [f"random numbers for {', '.join(made_up[:3])}"] if made_up else []
    said += ["stopped before the last batch"] if captured.interrupted else []
    notes = (*said, *captured.notes, *found.notes, *_told(plan, reader, series))
    paths = key_paths(plan, weight, size)
    found = replace(found, series=(series,), paths=paths, not_drawn=lost, notes=notes)
    return found if gradients is None else with_gradients(found, plan, gradients)


def _energies(captured: Capture) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean square and the number of values of each tensor that was read."""
    tallies = {name: record.statistics for name, record in captured.items() if record.statistics is not None}
    weight = {name: tally.energy / tally.count for name, tally in tallies.items() if tally.count}
    return weight, {name: float(tally.count) for name, tally in tallies.items()}


def _told(plan: FlowPlan, reader: FlowReader, series: Series) -> list[str]:
    """Return what a reader should know of how values were read."""
    codes = [stage for stage in plan.stages if stage.name in reader.codes]
    raw = [stage for stage in plan.stages if stage.op_type in ("ConvInteger", "MatMulInteger")]
    recurrent = [stage for stage in plan.stages if stage.kind == "recurrent"]
    told = [f"codes of {len(codes)} quantised layers as numbers"] if codes else []
    told += [f"{len(raw)} layers of whole numbers as they are"] if raw else []
    told += ["gates inside recurrent layers are not shown"] if recurrent else []
    return told + (["samples are not compared: there is one"] if series.samples == 1 else [])


def flow(
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    data: Path_ | None = None,
    architecture: Path_ | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw a model through its depth: quantiles of activations and weights layer after layer, and what goes wrong.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; a folder or a list is run in batches; None feeds seeded random numbers.
        output: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture.
        architecture: ``.svg``, ``.png``, ``.pdf`` or ``.html``: the architecture, its nodes coloured by the share of
            the outputs that comes through them, and the key paths as strong lines.
        tell: Called with a line for each layer that cannot be shown.
        options: ``on``, ``thresholds``, ``batch``, ``progress``, and those of the run: see :func:`flow_numbers`.

    Raises:
        SelectionError, InputError: As :func:`flow_numbers`; an architecture is asked for of weights alone.
    """
    from onnxviz.plots.flow import plot_flow

    check_outputs((output, PICTURES), (data, DATA), (architecture, _DRAWINGS))
    if architecture is not None and options.get("on") == "weights":
        from onnxviz.errors import InputError

        raise InputError("key paths are made of activations", hint="leave out --on weights, or --architecture")
    opened = as_model(model)
    found = flow_numbers(opened, inputs, **options)
    tell_refused(tell, found.not_drawn)
    if data is not None:
        from onnxviz.analysis.flow_data import flow_data

        write_numbers(data, *flow_data(found))
    if architecture is not None:
        _draw_architecture(opened, found, architecture)
    figure = plot_flow(found)
    save_view(figure, output)
    return figure


def _draw_architecture(model: ir.Model, found: Flow, path: Path_) -> None:
    from onnxviz.api.graphs import graph
    from onnxviz.diagram.overlay import Overlay

    assert found.paths is not None
    ways = found.paths.paths[:_MOST_PATHS]
    several = f"the best paths to {len(ways)} of {len(found.paths.paths)} outputs" if len(ways) > 1 else "the best path"
    title = f"% of the outputs through a node ({found.paths.measure}); strong lines: {several}"
    scores = {name: 100 * score for name, score in found.paths.scores.items()}
    graph(model, path, color_by=Overlay(title, scores, total=False, paths=tuple(way.tensors for way in ways)))
