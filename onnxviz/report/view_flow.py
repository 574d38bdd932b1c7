"""The section on the flow through the depth: quantiles layer after layer, and the stretches to look at."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxviz.analysis.flow import QUANTILE_ERROR, Flow, FlowReader, activation_series, weight_series
from onnxviz.analysis.flow_marks import Thresholds, meaning
from onnxviz.analysis.flow_paths import key_paths, meeting_tensors
from onnxviz.analysis.flow_plan import FlowPlan, plan_flow
from onnxviz.analysis.gradient_flow import with_gradients
from onnxviz.errors import OnnxvizError, SelectionError, printable
from onnxviz.graph.model import model_name
from onnxviz.report.flow_chart import flow_svg, places_of
from onnxviz.report.formats import percent, short
from onnxviz.report.views import Card, Section, Seen, refusals
from onnxviz.runtime.record import Capture

__all__ = ["flow_of", "flow_section"]

_MOST_NODES, _MOST_VALUES, _MOST_LEARNED = 600, 50_000_000, 30_000_000  # up to which the page runs backward
_MARKS = 60  # stretches that are listed
_STEPS = 14  # tensors of a key path that are named
_LEAD = (
    "Layers from the inputs to the outputs, by depth. Ribbons: smallest to largest value, 1 to 99 %, 25 to 75 %; line: "
    "median; the axis is logarithmic on both sides of a linear middle; of gradients, magnitudes that are not 0. Below: "
    "root mean square (solid) and standard deviation (dotted), and a lane for each kind of stretch that passes a "
    "threshold. Point at a layer for its numbers."
)


def flow_section(seen: Seen) -> Section | None:
    """Return the flow through the depth of a run; None where the model has no layers to draw."""
    try:
        plan = plan_flow(seen.prepared.model)
    except SelectionError:
        return None
    flow, unseen = _with_gradients(flow_of(plan, seen.captured, model_name(seen.model)), plan, seen)
    count, places = len(flow.stages), places_of(len(flow.stages))
    samples = next((series.samples for series in flow.series if series.samples is not None), 1)
    captions = [
        f"{count:,} layers",
        f"{samples:,} sample{'s' * (samples != 1)}",
        f"quantiles between the ends are off by at most {QUANTILE_ERROR:.0%} of their magnitude",
    ]
    if places < count:
        captions.append(f"{places} places, each {-(-count // places)} layers: outermost ribbons, median of the lines")
    captions += _marks(flow)
    marked = sum(len(series.marks) for series in flow.series)
    size = "1 stretch passes a threshold" if marked == 1 else f"{marked or 'no'} stretches pass a threshold"
    title = "Activations and weights" if flow.gradients is None else "Activations, weights and gradients"
    cards = [Card(title, "all layers", size, (), captions, flow_svg(flow))]
    cards += _paths(flow, plan)
    notes = [*flow.notes, *unseen]
    if samples == 1:
        notes.append(
            "one sample cannot tell whether samples still differ (constant, low rank) or whether a channel is dead for "
            "others: onnxviz flow with a folder of inputs does"
        )
    return Section(_LEAD, cards, notes + refusals(flow.not_drawn))


def _with_gradients(flow: Flow, plan: FlowPlan, seen: Seen) -> tuple[Flow, list[str]]:
    """Return a flow with gradients where they are affordable, and why it has none."""
    if seen.backward is None:
        return flow, []
    said = "onnxviz flow --on gradients draws them"
    nodes = sum(1 for _ in plan.model.graph)
    values = sum(math.prod(record.shape) for record in seen.captured.values())
    learned = sum(weight.parameters for weight in seen.weights)
    for many, most, what in (
        (nodes, _MOST_NODES, "nodes"), (values, _MOST_VALUES, "values in all tensors"),
        (learned, _MOST_LEARNED, "learned values"),
    ):  # fmt: skip
        if many > most:
            return flow, [f"gradients are left out: {many:,} {what}, and up to {most:,} are run backward here; {said}"]
    try:
        return with_gradients(flow, plan, seen.backward()), []
    except OnnxvizError as error:
        return flow, [f"no gradients: {printable(error, 400)}; {said}"]


def flow_of(plan: FlowPlan, captured: Capture, name: str) -> Flow:
    """Return the flow of a run that kept its arrays.

    Args:
        plan: Of the model that was run, as :func:`onnxviz.report.prepare.prepare` gives it.
        captured: The run.
        name: Of the model.
    """
    reader = FlowReader(plan, meeting_tensors(plan))
    read = {
        key: replace(captured[key], statistics=reader(key, captured[key].array))
        for key in reader.tensors
        if key in captured
    }
    run = replace(captured, records={**captured.records, **read})
    thresholds = Thresholds()
    activations, lost = activation_series(plan, reader, run, thresholds, captured.samples)
    weights, unread = weight_series(plan)
    tallies = {key: record.statistics for key, record in read.items() if record.statistics.count}
    weight = {key: tally.energy / tally.count for key, tally in tallies.items()}
    paths = key_paths(plan, weight, {key: float(tally.count) for key, tally in tallies.items()})
    made_up = [record.name for record in captured.inputs if record.made_up]
    said = [f"random numbers for {', '.join(short(one, 40) for one in made_up[:3])}"] if made_up else []
    said += ["quantised layers are read as the numbers that their codes stand for"] if reader.codes else []
    notes = (*said, *plan.notes)
    return Flow(name, plan.stages, (activations, weights), thresholds, paths, (*lost, *unread), notes)


def _marks(flow: Flow) -> list[str]:
    """Return each stretch in words, the first ones of many."""
    names = [short(stage.layer, 60) for stage in flow.stages]
    found = []
    for series in flow.series:
        for mark in series.marks:
            where = names[mark.first] if mark.first == mark.last else f"{names[mark.first]} to {names[mark.last]}"
            found.append(f"{mark.kind} {series.name} ({meaning(mark.kind, series.name)}): {where}: {mark.text}")
    if not found:
        return ["no stretch passes a threshold"]
    more = len(found) - _MARKS
    return found[:_MARKS] + ([f"and {more} more stretches"] if more > 0 else [])


def _paths(flow: Flow, plan: FlowPlan) -> list[Card]:
    """Return a card for the best path to each output; none where nothing meets on the way."""
    if flow.paths is None:
        return []
    paths = [path for path in flow.paths.paths if path.meetings]
    cards = []
    for path in paths[:4]:
        steps = path.tensors
        if len(steps) > _STEPS:  # the middle is left out
            steps = (*steps[: _STEPS // 2], f"… {len(steps) - _STEPS} more …", *steps[-(_STEPS // 2) :])
        meetings = f"{path.meetings} meeting{'s' * (path.meetings != 1)}"
        captions = [
            f"product of its shares {percent(path.share)} over {meetings} ({flow.paths.measure})",
            " → ".join(short(step, 40) for step in steps),
        ]
        inside = f"{len(path.tensors)} tensors"
        cards.append(Card(f"Key path to {short(path.output, 60)}", "path", inside, path.tensors, captions))
    return cards
