"""Where the time and the memory of a model go, node by node, measured by onnxruntime's own profiler."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import ExecutionError, InputError
from onnxviz.graph.liveness import activation_timeline
from onnxviz.graph.model import model_name
from onnxviz.runtime.events import NodeEvent, Recording, RunEvents, record
from onnxviz.runtime.executed import Tagged, lineage, tag_nodes
from onnxviz.runtime.inputs import Inputs, load_inputs
from onnxviz.runtime.observed import Cost, cost_of, match_events, observe, observed_bytes, set_feeds
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.profile_result import Execution, MemoryUse, NodeProfile, Profile
from onnxviz.runtime.providers import resolve_providers
from onnxviz.runtime.residence import measure_run
from onnxviz.runtime.session import Session

__all__ = ["profile"]

Key = tuple[str, str]


def profile(
    model: ir.Model,
    inputs: Inputs | Mapping[str, Any] | Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    *,
    runs: int = 10,
    warmup: int = 3,
    mode: Literal["production", "semantic"] = "production",
    providers: str | Sequence[str] = "auto",
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    op_library: str | os.PathLike[str] | None = None,
) -> Profile:
    """Measure how long each node of a model takes, and what it multiplies and moves.

    The model is run without the profiler first, for the time of a whole run, then under it. A run needs memory that is
    measured in a process of its own. Nothing is written but temporary files, which are gone at the end.

    Args:
        model: The model; it is not changed.
        inputs: As :func:`onnxviz.runtime.capture.capture` takes them; None feeds seeded random numbers.
        runs: Runs that are measured.
        warmup: Runs before them that are not.
        mode: ``"production"``: the optimised session, whose nodes are fused ones, joined to those of the model;
            ``"semantic"``: the nodes of the file, nothing fused.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        preprocessing, dims, seed: As :func:`onnxviz.runtime.inputs.load_inputs` takes them.
        op_library: A shared library with custom operators.

    Raises:
        InputError: ``runs`` is below 1, ``warmup`` below 0, there is no such mode, or an input does not fit.
        ProviderError, ExecutionError, ModelError: As :class:`onnxviz.runtime.session.Session`.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (float[2, 2] z)'
    ...     '<float[3, 2] w = {1, 2, 3, 4, 5, 6}> {y = MatMul(x, w) z = Relu(y)}'
    ... )
    >>> measured = profile(model, runs=2, warmup=1, mode="semantic", providers="cpu")
    >>> [(row.op_type, row.macs, row.calls) for row in measured.rows]
    [('MatMul', 12, 1), ('Relu', 0, 1)]
    """
    _check(runs, warmup, mode)
    if not isinstance(inputs, Inputs):
        sources = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs or ()
        inputs = load_inputs(model, sources, preprocessing=preprocessing, dims=dims, seed=seed)
    names, optimize = resolve_providers(providers), mode == "production"
    tagged = tag_nodes(model)
    try:
        plain = _plain_seconds(tagged.model, inputs.feeds, runs, warmup, providers, optimize, op_library)
        recording = record(
            tagged.model, inputs.feeds, warmup + runs, names, optimize=optimize, op_library=op_library
        )  # fmt: skip
    except ExecutionError as error:
        error.message = tagged.readable(error.message)
        if inputs.assumed:
            sizes = ", ".join(f"{name}={size}" for name, size in inputs.assumed.items())
            error.hint = f"sizes were assumed ({sizes}): set them with --dim NAME=N, or give --input"
        raise
    analysis = _Analysis(tagged, recording, warmup, inputs.feeds)
    resident = measure_run(tagged.model, inputs.feeds, names, optimize=optimize, op_library=op_library)
    totals = np.array([run.duration for run in analysis.runs], np.float64) / 1e6
    rows = analysis.rows(float(np.median(totals)))
    memory = replace(analysis.memory(), resident_bytes=resident.bytes, resident_method=resident.method)
    return Profile(
        model_name=model_name(model),
        mode=mode,
        providers=recording.providers,
        runs=len(analysis.runs),
        warmup=len(recording.runs) - len(analysis.runs),
        seconds=plain,
        profiled_seconds=float(np.median(totals)),
        unaccounted=analysis.unaccounted(totals),
        rows=rows,
        memory=memory,
        inputs=inputs.records,
        notes=(*recording.notes, *analysis.notes()),
        executions=analysis.executions(),
        run_seconds=analysis.median_run.duration / 1e6,
    )


def _check(runs: int, warmup: int, mode: str) -> None:
    if runs < 1:
        raise InputError(f"{runs} runs measure nothing", hint="give --runs 1 or more")
    if warmup < 0:
        raise InputError(f"there cannot be {warmup} warm-up runs", hint="give --warmup 0 or more")
    if mode not in ("production", "semantic"):
        raise InputError(f"there is no mode {mode!r}", hint="choose production or semantic")


def _plain_seconds(
    model: ir.Model,
    feeds: Mapping[str, Any],
    runs: int,
    warmup: int,
    providers: str | Sequence[str],
    optimize: bool,
    op_library: str | os.PathLike[str] | None,
) -> float:
    """Return the median time of a run without the profiler."""
    session = Session(model, providers, optimize=optimize, op_library=op_library)
    times = []
    for _ in range(warmup + runs):
        start = time.perf_counter()
        session.run(feeds)
        times.append(time.perf_counter() - start)
    return float(np.median(times[warmup:]))


class _Analysis:
    """Joins a recording to the graph that ran and to the model's nodes."""

    def __init__(self, tagged: Tagged, recording: Recording, warmup: int, feeds: Mapping[str, Any]) -> None:
        self.tagged = tagged
        self.first: RunEvents = recording.runs[0]
        self.runs: tuple[RunEvents, ...] = recording.runs[warmup:] or recording.runs[-1:]
        self.median_run = sorted(self.runs, key=lambda run: run.duration)[(len(self.runs) - 1) // 2]
        self.executed = tagged.model if recording.executed is None else recording.executed
        self.matched = match_events(self.executed, self.median_run.events)
        set_feeds(self.executed, feeds)
        observe(self.executed, self.matched, self.median_run.events)
        self.events: dict[Key, list[NodeEvent]] = {}
        for event in self.median_run.events:
            self.events.setdefault((event.name, event.op_type), []).append(event)
        self.lineage: dict[ir.Node, tuple[int, ...]] = {node: (number,) for number, node in enumerate(tagged.nodes)}
        if recording.executed is not None:
            self.lineage = lineage(tagged, self.executed)
        self.order = {key: place for place, key in enumerate(self.events)}
        self.times = self._own_times()

    def _own_times(self) -> npt.NDArray[np.float64]:
        """Return the seconds of each node in each run, (nodes, runs), without those of the nodes in its bodies."""
        times = np.zeros((len(self.order), len(self.runs)))
        parents = self._parents()
        for column, run in enumerate(self.runs):
            for event in run.events:
                key = (event.name, event.op_type)
                if (place := self.order.get(key)) is None:
                    continue
                times[place, column] += event.duration / 1e6
                if (parent := parents.get(key)) is not None:
                    times[parent, column] -= event.duration / 1e6
        return np.maximum(times, 0)

    def _parents(self) -> dict[Key, int]:
        """Return the row of the node whose body holds a node, for each node in a body."""
        places = {node: self.order[key] for key, node in self.matched.items() if key in self.order}
        holders = {}
        for node in self.executed.graph.all_nodes():
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                    holders[attribute.as_graph()] = node
        return {
            key: places[holders[node.graph]]
            for key, node in self.matched.items()
            if node.graph in holders and holders[node.graph] in places
        }

    def rows(self, total: float) -> tuple[NodeProfile, ...]:
        return tuple(self._row(key, events, self.times[self.order[key]], total) for key, events in self.events.items())

    def _row(self, key: Key, events: list[NodeEvent], times: npt.NDArray[np.float64], total: float) -> NodeProfile:
        node = self.matched.get(key)
        numbers = self.lineage.get(node, ()) if node is not None else ()
        cost, domain = Cost(None, None, None, None), ""
        outputs: tuple[str, ...] = ()
        if node is not None:
            cost = cost_of(node, events, [self.tagged.nodes[number] for number in numbers])
            outputs = tuple(self.tagged.readable(value.name) for value in node.outputs if value.name)
            domain = "" if node.domain == "ai.onnx" else node.domain
        low, seconds, high = (float(q) for q in np.percentile(times, (25, 50, 75)))
        name = self.tagged.readable(key[0]) if node is None or node.name else outputs[0] if outputs else key[0]
        return NodeProfile(
            name=name,
            op_type=key[1],
            domain=domain,
            provider=events[0].provider,
            calls=len(events),
            in_body=node is not None and node.graph is not self.executed.graph,
            seconds=seconds,
            low=low,
            high=high,
            fastest=float(times.min()),
            share=seconds / total if total else 0.0,
            macs=cost.macs,
            bytes_read=cost.read,
            weight_bytes=cost.weights,
            bytes_written=cost.written,
            output_shape=events[0].outputs[0][1] if events[0].outputs else None,
            outputs=outputs,
            originals=tuple(self.tagged.names[number] for number in numbers),
            original_ops=tuple(self.tagged.nodes[number].op_type for number in numbers),
        )

    def unaccounted(self, totals: npt.NDArray[np.float64]) -> float:
        """Return the median share of a run that lies in no node."""
        shares = 1 - self.times.sum(axis=0) / np.maximum(totals, 1e-12)
        return float(np.clip(np.median(shares), 0, 1))

    def memory(self) -> MemoryUse:
        """Return the activations alive during each node, in the order in which the nodes ran."""
        graph = self.executed.graph
        begun = {self.matched[key]: place for key, place in self.order.items() if key in self.matched}
        nodes = list(graph)
        place, last = {}, -1  # constants, and what could not be told apart, stay where they are
        for node in nodes:
            last = begun.get(node, last)
            place[node] = last
        graph.remove(nodes)
        graph.extend(sorted(nodes, key=place.__getitem__))
        timeline = activation_timeline(graph, observed_bytes(self.matched, self.median_run.events), inputs=False)
        order = list(graph)
        written = {value.name for node in self.matched.values() for value in node.outputs}  # other branches did not run
        readable = self.tagged.readable
        return MemoryUse(
            bytes=tuple(size for node, size in zip(order, timeline.bytes, strict=True) if node in begun),
            rows=tuple(begun[node] for node in order if node in begun),
            peak_bytes=timeline.peak,
            peak_row=None if timeline.peak_index is None else begun.get(order[timeline.peak_index]),
            alive=tuple(readable(name) for name in timeline.alive),
            unknown=tuple(readable(name) for name in timeline.unknown if name in written),
            allocator_bytes=_allocator_peak(self.first.events),
        )

    def executions(self) -> tuple[Execution, ...]:
        return tuple(
            Execution(self.order[event.name, event.op_type], event.start, event.duration, event.inputs, event.outputs)
            for event in self.median_run.events
        )

    def notes(self) -> list[str]:
        found = []
        if any(event.provider != "cpu" for event in self.median_run.events):
            found.append("devices work on their own: a node's time there is that of handing its work over")
        if strangers := [key for key in self.order if key not in self.matched]:
            found.append(f"{len(strangers)} executed nodes are not told apart in the graph: no MACs, bytes and lineage")
        return found


def _allocator_peak(events: tuple[NodeEvent, ...]) -> int | None:
    """Return the most that nodes of the first run held of the allocator; None where it does not tell.

    Later runs reuse one block that is as large as the first run needed.
    """
    told = [event for event in events if event.held is not None and event.change is not None]
    if not told or len({event.provider for event in told}) > 1:
        return None
    first = min(told, key=lambda event: event.start + event.duration)
    before = (first.held or 0) - (first.change or 0)
    return max(max(event.held or 0 for event in told) - before, 0)
