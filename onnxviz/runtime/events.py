"""Runs of a model under onnxruntime's own profiler, read back as runs of node events."""

from __future__ import annotations

import json
import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import ExecutionError, ModelError
from onnxviz.graph.io import check_external_data, external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.executed import read_executed
from onnxviz.runtime.explain import explain_failure, explain_refusal
from onnxviz.runtime.options import new_options
from onnxviz.runtime.providers import short_name
from onnxviz.runtime.values import extended_dtypes, to_value

__all__ = ["EventTensor", "NodeEvent", "Recording", "RunEvents", "read_runs", "record"]

#: Node events that are kept at most; onnxruntime itself stops after a million, and each is a kilobyte of JSON.
MOST_EVENTS = 200_000
_MANY_NODES = 5_000  # from here on, and with loops, one run is counted before the others are recorded
_SUFFIX = "_kernel_time"

#: (element type as onnxruntime spells it, shape)
EventTensor = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class NodeEvent:
    """One execution of one node.

    Attributes:
        name: Of the executed node; ``OpType_index`` where it has none.
        op_type: Of the executed node.
        provider: Short name of the execution provider that ran it.
        start: Microseconds since the run began.
        duration: Microseconds; onnxruntime counts whole ones.
        inputs: Element types and shapes; weights that the kernel has packed for itself are missing.
        outputs: Element types and shapes.
        held: Bytes that nodes have asked the provider's allocator for and not given back, when this one ends; None
            where onnxruntime does not tell.
        change: How much that is more than when it began.
    """

    name: str
    op_type: str
    provider: str
    start: int
    duration: int
    inputs: tuple[EventTensor, ...]
    outputs: tuple[EventTensor, ...]
    held: int | None = None
    change: int | None = None


@dataclass(frozen=True)
class RunEvents:
    """One run: how long it took in microseconds, and its node events in the order in which the nodes began."""

    duration: int
    events: tuple[NodeEvent, ...]


@dataclass(frozen=True)
class Recording:
    """What the profiler saw.

    Attributes:
        runs: Every run, the warm-up first.
        providers: Short names of the session's execution providers.
        executed: The graph that the session ran; None where onnxruntime could not save it.
        notes: What a reader should know: runs that were left out, a graph that could not be saved.
    """

    runs: tuple[RunEvents, ...]
    providers: tuple[str, ...]
    executed: ir.Model | None
    notes: tuple[str, ...] = ()


def record(
    model: ir.Model,
    feeds: Mapping[str, Any],
    runs: int,
    providers: Sequence[str],
    *,
    optimize: bool,
    op_library: str | os.PathLike[str] | None = None,
) -> Recording:
    """Run a model under onnxruntime's profiler.

    Everything that onnxruntime writes goes to a temporary folder, which is gone when this returns or fails.

    Args:
        model: The model; names of its nodes must be safe (:func:`onnxviz.runtime.executed.tag_nodes`).
        feeds: Input name -> array.
        runs: How many; fewer where more events than :data:`MOST_EVENTS` would come, which a note says.
        providers: Full names of execution providers.
        optimize: Let onnxruntime fuse and rewrite the graph.
        op_library: A shared library of custom operators.

    Raises:
        ExecutionError: onnxruntime refuses the model or fails while running it.
        InputError: The feeds do not fit.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        make = _Maker(model, providers, optimize, op_library, Path(folder))
        if any(n.op_type in ("Loop", "Scan") for n in model.graph.all_nodes()) or model.graph.num_nodes() > _MANY_NODES:
            with make.session() as (session, _):
                events = sum(len(run.events) for run in _runs_of(session, feeds, 1))
            if events * runs > MOST_EVENTS:
                fewer = max(MOST_EVENTS // events, 1)
                notes.append(f"{fewer} of {runs} runs were recorded: each makes {events:,} events")
                runs = fewer
        with make.session(save=True) as (session, executed):
            found = _runs_of(session, feeds, runs)
            used = tuple(short_name(p) for p in session.get_providers())
    if not found:
        raise ExecutionError("onnxruntime's profiler recorded no run", hint="a run may make a million events at most")
    if len(found) < runs:
        notes.append(f"onnxruntime's profiler kept {len(found)} of {runs} runs")
    if executed is None:
        notes.append("onnxruntime could not save the graph that it ran: nodes that it made have no MACs and bytes")
    return Recording(tuple(found), used, executed, tuple(notes))


@dataclass(frozen=True)
class _Maker:
    """Makes profiled sessions of one model."""

    model: ir.Model
    providers: Sequence[str]
    optimize: bool
    op_library: str | os.PathLike[str] | None
    folder: Path

    @contextmanager
    def session(self, save: bool = False) -> Iterator[tuple[ort.InferenceSession, ir.Model | None]]:
        """Yield a session and the graph that it runs, where that was asked for and can be saved."""
        session = executed = None
        if save:
            with suppress(ExecutionError):  # whether saving or the model was the problem shows without saving
                session = self._create(save=True)
        saved = session is not None
        if session is None:
            session = self._create(save=False)
        try:
            if saved:
                with suppress(ModelError):
                    executed = read_executed(self.folder / "executed.onnx")
            yield session, executed
        finally:
            session.end_profiling()  # else the file is written, wherever, when the session is collected

    def _create(self, save: bool) -> ort.InferenceSession:
        options = new_options(optimize=self.optimize, op_library=self.op_library)
        options.enable_profiling = True
        options.profile_file_prefix = str(self.folder / "profile")
        entry = options.add_session_config_entry
        if save:
            options.optimized_model_filepath = str(self.folder / "executed.onnx")
            entry("session.optimized_model_external_initializers_file_name", "executed.bin")
            entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        check_external_data(self.model)
        folders = {os.path.realpath(os.fspath(t.base_dir)) for _, t in external_tensors(self.model)}
        source: bytes | str | None = model_bytes(self.model) if len(folders) < 2 else None
        if source is None:
            source = str(self.folder / "model.onnx")
            save_model(self.model, source, external_data=True)
        elif folders:
            entry("session.model_external_initializers_file_folder_path", folders.pop())
        try:
            return ort.InferenceSession(source, options, providers=list(self.providers))
        except Exception as error:
            raise explain_refusal(error) from error


def _runs_of(session: ort.InferenceSession, feeds: Mapping[str, Any], runs: int) -> list[RunEvents]:
    options = ort.RunOptions()
    options.log_severity_level = 4
    bits = extended_dtypes()
    values = None
    if any(isinstance(array, np.ndarray) and array.dtype in bits for array in feeds.values()):
        values = {name: to_value(name, array) for name, array in feeds.items()}
    names = [output.name for output in session.get_outputs()]
    try:
        for _ in range(runs):
            if values is None:
                session.run(names, dict(feeds), options)
            else:
                session.run_with_ort_values(names, values, options)
    except Exception as error:
        raise explain_failure(error) from error
    return read_runs(Path(session.end_profiling()))


def read_runs(path: Path) -> list[RunEvents]:
    """Read a profile of onnxruntime: node events, sorted into the runs in which they happened."""
    nodes: list[NodeEvent] = []
    spans: list[tuple[int, int]] = []
    for line in _lines(path):
        name, start, duration = line.get("name", ""), line["ts"], line["dur"]
        if line.get("cat") == "Node" and name.endswith(_SUFFIX):
            nodes.append(_node_event(name.removesuffix(_SUFFIX), start, duration, line.get("args", {})))
        elif name == "model_run":
            spans.append((start, duration))
    spans.sort()
    nodes.sort(key=lambda event: (event.start, -event.duration))
    starts = [start for start, _ in spans]
    events: list[list[NodeEvent]] = [[] for _ in spans]
    for event in nodes:
        place = bisect_right(starts, event.start) - 1
        if place >= 0:
            events[place].append(replace(event, start=event.start - starts[place]))
    return [RunEvents(duration, tuple(mine)) for (_, duration), mine in zip(spans, events, strict=True)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a profile, which has one a line; all of it at once may be a hundred megabytes."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.strip().rstrip(",")
            if text.startswith("{") and text.endswith("}"):
                yield json.loads(text)


def _node_event(name: str, start: int, duration: int, args: Mapping[str, Any]) -> NodeEvent:
    return NodeEvent(
        name,
        args.get("op_name", ""),
        short_name(args.get("provider", "")),
        start,
        duration,
        _tensors(args.get("input_type_shape")),
        _tensors(args.get("output_type_shape")),
        _count(args.get("mem_bytes_requested_in_use")),
        _count(args.get("mem_requested_in_use_delta")),
    )


def _tensors(shapes: Any) -> tuple[EventTensor, ...]:
    pairs = (pair for entry in shapes or () for pair in entry.items())
    return tuple((kind, tuple(int(size) for size in shape)) for kind, shape in pairs)


def _count(text: Any) -> int | None:
    return None if text is None else int(text)
