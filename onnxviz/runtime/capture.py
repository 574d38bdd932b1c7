"""Running a model and keeping its intermediate tensors, or statistics of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxviz.errors import ExecutionError, InputError, MemoryLimitError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.liveness import tensor_bytes
from onnxviz.graph.model import copy_model, model_name
from onnxviz.graph.select import all_tensors, select
from onnxviz.graph.shapes import infer_shapes, model_inputs, open_dims
from onnxviz.runtime.batches import Batches, load_batches
from onnxviz.runtime.collect import Collector, Reduce
from onnxviz.runtime.inputs import Inputs
from onnxviz.runtime.memory import resident, trim
from onnxviz.runtime.nodewise import Engine, Observation
from onnxviz.runtime.nonfinite import Found, NonFinite, StopOn, Watch
from onnxviz.runtime.plan import Plan, bytes_text, make_plan, parse_bytes
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.program import GROUP_BYTES
from onnxviz.runtime.providers import short_name
from onnxviz.runtime.record import Capture
from onnxviz.runtime.spill import Spill

__all__ = ["Feed", "batches_of", "capture", "plan"]

Mode = Literal["semantic", "production"]
Feed = (
    Inputs
    | Batches
    | Mapping[str, Any]
    | Sequence[Mapping[str, Any]]
    | Sequence[str | os.PathLike[str]]
    | str
    | os.PathLike[str]
    | None
)


def capture(
    model: ir.Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] = "*",
    *,
    mode: Mode = "semantic",
    keep: bool = True,
    reduce: Reduce | None = None,
    bodies: bool = True,
    iterations: int = 256,
    batch: int | None = None,
    max_memory: str | int | None = None,
    stop_on: StopOn | None = None,
    progress: Callable[[int, int], None] | None = None,
    providers: str | Sequence[str] = "auto",
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    op_library: str | os.PathLike[str] | None = None,
) -> Capture:
    """Run a model and return its intermediate tensors, or statistics of them.

    The model runs piece by piece with nothing fused, so every tensor is what the graph in the file says, and what
    nothing reads any more is dropped: memory is that of the values alive at once plus what is kept. Functions are
    inlined. Only what the asked tensors depend on is computed.

    Args:
        model: The model; it is not changed.
        inputs: Arrays by name; a path or a list of sources as :func:`onnxviz.runtime.batches.load_batches` takes them;
            a list of mappings, one a batch; None feeds seeded random numbers.
        tensors: Which, as :func:`onnxviz.graph.select.select` takes them.
        mode: ``"semantic"``: what the graph in the file says; ``"production"``: what the optimised session computes,
            for the tensors that survive optimisation. ``not_captured`` tells what became of the others.
        keep: Keep the arrays; those of several batches are joined along the first axis. Without, the records have
            statistics only (see ``reduce``).
        reduce: A function that makes something mergeable of a tensor's name and array; the records hold the result,
            merged over the batches, as ``statistics``. See :func:`onnxviz.api.capture`.
        bodies: Record tensors in the bodies of If, Loop and Scan too, a record an iteration.
        iterations: Iterations of a Loop or Scan that are recorded; how many are left out is in ``not_captured``.
        batch: Samples a batch, as :func:`onnxviz.runtime.batches.load_batches` takes it.
        max_memory: Most resident memory of the process, in bytes or as ``"2GB"``. Arrays go to disk where they do not
            fit, and weights are loaded piece by piece.
        stop_on: ``"nan"``, ``"inf"`` or ``"nonfinite"`` (both): stop at the first such value of any tensor, asked for
            or not; the result's ``nonfinite`` tells where it comes from.
        progress: Called after each batch with the number of batches that are done and of all.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        preprocessing, dims, seed: As :func:`onnxviz.runtime.inputs.load_inputs` takes them.
        op_library: A shared library with custom operators.

    Returns:
        The records. If Ctrl-C comes after the first batch, what is complete is returned, with ``interrupted`` set.

    Raises:
        SelectionError, InputError, ProviderError, ExecutionError, ModelError: As the functions named above.
        MemoryLimitError: The limit cannot be met; the text has the number that would do.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {y = Neg(x) z = Relu(y)}'
    ... )
    >>> captured = capture(model, {"x": np.float32([1, -2])}, providers="cpu")
    >>> {name: record.array.tolist() for name, record in captured.items()}
    {'y': [-1.0, 2.0], 'z': [0.0, 2.0]}
    """
    _choice("mode", mode, ("semantic", "production"))
    _choice("stop_on", stop_on, (None, "nan", "inf", "nonfinite"))
    batches = batches_of(model, inputs, batch, preprocessing, dims, seed)
    first = batches.first()
    job = _prepare(model, first, tensors, mode, bodies, stop_on is not None, providers, op_library)
    with _assumed(first), job.engine:
        made = job.plan(len(batches), keep, reduce is not None, max_memory)
        job.engine.keep = made.keeps_sessions
        spill = Spill() if made.keeps == "disk" else None
        queue = None if made.limit is None else max(1 << 20, made.limit - made.peak + (made.kept if not spill else 0))
        collector = Collector(job.names, keep=keep, reduce=reduce, iterations=iterations, spill=spill, queue=queue)
        watch = Watch(job.model, stop_on, job.every) if stop_on is not None else None
        run = _Run(job, collector, watch, made.limit)
        try:
            ended = run.through(batches, progress)
        finally:
            collector.close()
        records = collector.records(mode)
    return Capture(
        records,
        first.records,
        model_name(model),
        tuple(short_name(p) for p in job.engine.requested),
        tuple(str(output.name) for output in model.graph.outputs),
        {**job.missing, **collector.missing},
        mode,
        run.samples,
        run.fallbacks,
        not ended,
        tuple(_notes(job, batches)),
        run.finding,
    )


def plan(
    model: ir.Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] = "*",
    *,
    mode: Mode = "semantic",
    keep: bool = True,
    reduce: Reduce | bool | None = None,
    bodies: bool = True,
    batch: int | None = None,
    max_memory: str | int | None = None,
    providers: str | Sequence[str] = "auto",
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    op_library: str | os.PathLike[str] | None = None,
) -> Plan:
    """Tell what :func:`capture` with the same arguments would need, without running the model.

    Raises:
        SelectionError, InputError, ProviderError, ModelError, MemoryLimitError: As :func:`capture`.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1000] x) => (float[1000] z) {y = Neg(x) z = Relu(y)}'
    ... )
    >>> plan(model, providers="cpu").kept
    8000
    """
    batches = batches_of(model, inputs, batch, preprocessing, dims, seed)
    job = _prepare(model, batches.first(), tensors, mode, bodies, False, providers, op_library)
    with job.engine:
        return job.plan(len(batches), keep, bool(reduce), max_memory)


def _choice(what: str, given: object, known: Sequence[str | None]) -> None:
    if given not in known:
        raise InputError(f"{what} cannot be {given!r}", hint=f"choose {', '.join(k for k in known if k)}")


def batches_of(
    model: ir.Model,
    inputs: Feed = None,
    batch: int | None = None,
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Batches:
    """Return the batches that :func:`capture` runs, given the same arguments."""
    if isinstance(inputs, Batches):
        return inputs
    if isinstance(inputs, Inputs):
        return Batches.of(model, [inputs])
    options: dict[str, Any] = {"preprocessing": preprocessing, "dims": dims, "seed": seed}
    if isinstance(inputs, Sequence) and not isinstance(inputs, str) and inputs and isinstance(inputs[0], Mapping):
        parts = [load_batches(model, part, batch=batch, **options) for part in inputs]  # type: ignore[arg-type]
        return Batches.of(model, [one for part in parts for one, _ in part])
    given: Any = inputs  # whatever the annotation says
    if isinstance(given, np.ndarray):
        names = [str(value.name) for value in model_inputs(model)]
        raise InputError(
            "an array alone does not say which input it is", hint=f"give {{{names[0]!r}: array}}" if names else None
        )
    sources: Any = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs or ()
    return load_batches(model, sources, batch=batch, **options)


@dataclass(frozen=True)
class _Job:
    """A model made ready to run.

    Attributes:
        model: The copy that runs, functions inlined; in production mode the optimised one.
        engine: What runs it.
        names: Name of each tensor that is recorded.
        every: Name of each tensor that there is.
        sizes: Bytes of each value of one batch.
        twins: Each value -> itself with inferred type and shape.
        missing: What cannot be recorded -> why.
    """

    model: ir.Model
    engine: Engine
    names: dict[ir.Value, str]
    every: dict[ir.Value, str]
    sizes: dict[ir.Value, int | None]
    twins: dict[ir.Value, ir.Value]
    missing: dict[str, str]

    def plan(self, batches: int, keep: bool, reduces: bool, limit: str | int | None) -> Plan:
        """Return what running it needs."""
        return make_plan(
            self.engine.program, self.engine.constant, self.sizes, self.names, self.twins, batches=batches, keep=keep,
            reduces=reduces, limit=None if limit is None else parse_bytes(limit),
        )  # fmt: skip


def _prepare(
    model: ir.Model,
    first: Inputs,
    tensors: str | Sequence[str],
    mode: Mode,
    bodies: bool,
    watched: bool,
    providers: str | Sequence[str],
    op_library: str | os.PathLike[str] | None,
) -> _Job:
    flat = inline_functions(model)
    flat = copy_model(flat) if flat is model else flat
    missing: dict[str, str] = {}
    chosen = select(flat, tensors, bodies=bodies)
    if mode == "production":
        from onnxviz.graph.lineage import trace_lineage
        from onnxviz.runtime.production import not_in_production, optimized_model

        picked = set(chosen)
        asked = {name for value, name in all_tensors(flat).items() if value in picked}
        optimized = optimized_model(flat, providers, op_library=op_library)
        lost = not_in_production(trace_lineage(flat, optimized))
        missing = {name: reason for name, reason in lost.items() if name in asked}
        flat = optimized
        chosen = [value for value, name in all_tensors(flat).items() if name in asked - set(lost) or tensors == "*"]
    every = all_tensors(flat)
    missing |= _opaque(flat, every, chosen)
    chosen = [value for value in chosen if every[value] not in missing]
    recorded = set(chosen)
    names = {value: name for value, name in every.items() if value in recorded}
    twins = _twins(flat, first.feeds)
    sizes = {value: tensor_bytes(twin) for value, twin in twins.items()}
    wanted = [value for value, name in every.items() if name not in missing] if watched else chosen
    engine = Engine(
        flat, wanted, providers, op_library=op_library, keep=False, sizes=sizes,
        group_bytes=0 if watched else GROUP_BYTES,
    )  # fmt: skip
    return _Job(flat, engine, names, every, sizes, twins, missing)


def _opaque(model: ir.Model, every: Mapping[ir.Value, str], chosen: Sequence[ir.Value]) -> dict[str, str]:
    """Return the tensors of bodies that are not run one by one: those of Scan as it was before opset 9."""
    if model.opset_imports.get("", 1) >= 9:
        return {}
    inside = {value for node in model.graph if node.op_type == "Scan" for body in _graphs(node) for value in body}
    return {every[value]: "it lies in the body of a Scan of opset 8" for value in chosen if value in inside}


def _graphs(node: ir.Node) -> list[list[ir.Value]]:
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    every = [graph for body in bodies for graph in (body, *body.subgraphs())]
    return [[value for inner in graph for value in inner.outputs] for graph in every]


def _twins(model: ir.Model, feeds: Mapping[str, Any]) -> dict[ir.Value, ir.Value]:
    """Return every value -> its twin with the type and shape that follow from what is fed."""
    dims = {
        name: feeds[value].shape[axis]
        for name, (value, axis) in open_dims(model).items()
        if isinstance(feeds.get(value), np.ndarray)
    }
    inferred = infer_shapes(model, dims)
    twins = dict(zip(all_tensors(model), all_tensors(inferred), strict=True))
    twins |= dict(zip(model.graph.inputs, inferred.graph.inputs, strict=True))
    for value, twin in twins.items():
        if isinstance(array := feeds.get(str(value.name)), np.ndarray) and value.producer() is None:
            twin.shape = ir.Shape(array.shape)
    return twins


class _Run:
    """One run through all batches.

    Attributes:
        samples: Samples of the batches that are complete.
        finding: Where the run was stopped; None if it was not.
        fallbacks: Node -> provider, of nodes that the preferred provider did not take.
    """

    def __init__(self, job: _Job, collector: Collector, watch: Watch | None, limit: int | None) -> None:
        self._job = job
        self._collector = collector
        self._watch = watch
        self._limit = limit
        self.samples = 0
        self.finding: NonFinite | None = None
        self.fallbacks: dict[str, str] = {}

    def through(self, batches: Batches, progress: Callable[[int, int], None] | None) -> bool:
        """Run all batches; False if it was interrupted after one at least was complete."""
        done = 0
        try:
            for inputs, samples in batches:
                if self._watch is not None:
                    self._watch.batch = done
                    self._watch.check_inputs(inputs)
                self._job.engine.run(inputs.feeds, self._observe)
                self._collector.commit(samples)
                self.samples += samples
                done += 1
                if progress is not None:
                    progress(done, len(batches))
        except Found as found:
            self.finding = found.finding
            self._collector.commit(0)
        except KeyboardInterrupt:
            if not done:
                raise
            return False
        return True

    def _observe(self, seen: Observation) -> None:
        preferred = self._job.engine.requested[0]
        if seen.provider not in (None, preferred):
            self.fallbacks[seen.node.name or seen.node.op_type] = short_name(str(seen.provider))
        if seen.value in self._job.names:
            self._collector(seen)
        if self._watch is not None:
            self._watch.check(seen)
        if self._limit is not None:
            self._check_memory()

    def _check_memory(self) -> None:
        """Stop where sizes that no plan could know pass the limit."""
        assert self._limit is not None
        if resident() > self._limit:
            trim()
            if (now := resident()) > self._limit:
                raise MemoryLimitError(
                    f"the run has reached {bytes_text(now)} and {bytes_text(self._limit)} are allowed: sizes that only "
                    "the run tells are larger than planned",
                    hint="give a higher --max-memory, or ask for fewer tensors with --tensor",
                )


class _assumed:  # noqa: N801 - reads as a word in a with statement
    """Adds to an error of the run which sizes were taken for open dimensions."""

    def __init__(self, inputs: Inputs) -> None:
        self._sizes = inputs.assumed

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, (ExecutionError, InputError)) and self._sizes and error.hint is None:
            sizes = ", ".join(f"{name}={size}" for name, size in self._sizes.items())
            error.hint = f"sizes were assumed ({sizes}): set them with --dim NAME=N, or give --input"


def _notes(job: _Job, batches: Batches) -> list[str]:
    notes = []
    if batches.left_over:
        notes.append(f"{batches.left_over} samples fill no batch of the model and were not run")
    halves = any(v.dtype == ir.DataType.FLOAT16 for v in job.twins.values())
    if halves and "CPUExecutionProvider" in job.engine.requested[:1]:
        notes.append(
            "float16 on the CPU: every tensor is rounded to float16 as the graph says; a session of the whole graph "
            "keeps some in float32 between nodes, so its last bits may differ"
        )
    return notes
