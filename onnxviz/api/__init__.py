"""The verbs of onnxviz as functions: what the command line calls, and what ``onnxviz.<verb>`` gives in Python.

Each takes a path or an opened model, and writes a file where ``output`` names one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxviz.api.attention import attention, attention_weights
from onnxviz.api.attribution import attribute, attribution_methods
from onnxviz.api.attribution_model import attribution_model
from onnxviz.api.check import check, mend
from onnxviz.api.common import PICTURES, batches_for, check_outputs, reducer, save_json, save_view
from onnxviz.api.compare import compare
from onnxviz.api.explain import explain
from onnxviz.api.features import features
from onnxviz.api.flow import flow, flow_numbers, gradient_statistics
from onnxviz.api.gradient import gradient
from onnxviz.api.graphs import graph, graph_diff
from onnxviz.api.maximize import maximize, maximized
from onnxviz.api.neurons import neuron_views, neurons
from onnxviz.api.project import project, projection
from onnxviz.api.readiness import readiness
from onnxviz.api.sweep import sweep
from onnxviz.api.views import activations, pooling
from onnxviz.api.weights import weight_table, weights
from onnxviz.graph.files import atomic_write
from onnxviz.graph.io import as_model, open_model, save_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.analysis.gradient_statistics import GradientStatistics
    from onnxviz.converters.parity import Parity
    from onnxviz.converters.registry import ConversionResult
    from onnxviz.graph.expose import Rewritten
    from onnxviz.graph.summary import ModelSummary
    from onnxviz.report.page import Report
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import Feed
    from onnxviz.runtime.diagnosis import Diagnosis
    from onnxviz.runtime.inputs import Inputs
    from onnxviz.runtime.plan import Plan
    from onnxviz.runtime.preprocess import Preprocessing
    from onnxviz.runtime.profile_result import Profile
    from onnxviz.runtime.record import Capture

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = [
    "activations", "attention", "attention_weights", "attribute", "attribution_methods", "attribution_model",
    "capture", "check", "compare", "convert", "doctor", "explain", "expose", "features", "flow", "flow_numbers",
    "gradient", "gradient_statistics", "graph", "graph_diff", "inspect", "maximize", "maximized", "mend",
    "neuron_views", "neurons", "open_model", "plan", "pooling", "profile", "project", "projection", "readiness",
    "report", "save_model", "sweep", "weight_table", "weights",
]  # fmt: skip


def inspect(model: Model, *, dims: Mapping[str, int] | None = None) -> ModelSummary:
    """Summarise a model: see :func:`onnxviz.graph.summary.inspect_model`."""
    from onnxviz.graph.summary import inspect_model

    return inspect_model(as_model(model), dims)


def convert(
    source: Any,
    output: Path_ | None = None,
    *,
    parity_file: Path_ | Sequence[Path_] | None = None,
    timeout: float | None = 1800.0,
    max_memory: str | int | None = None,
    **options: Any,
) -> ConversionResult:
    """Convert a PyTorch or Keras network: see :func:`onnxviz.converters.registry.convert`, which takes ``options``.

    ``parity_file`` receives the comparison, also where outputs differ and no model is written: as JSON, or drawn as
    PNG, SVG or PDF; one file or several. A source that brings code is converted in a process of its own, without a
    network, in at most ``timeout`` seconds and ``max_memory`` (bytes, or ``"8GB"``; by default 80 % of the machine's).
    """
    from onnxviz.converters.registry import convert as convert_network
    from onnxviz.converters.sandbox import convert_isolated, executes_code
    from onnxviz.errors import InputError, ParityError
    from onnxviz.runtime.plan import parse_bytes

    files = [parity_file] if isinstance(parity_file, (str, os.PathLike)) else list(parity_file or ())
    if not options.get("parity", True) and (files or options.get("precisions")):
        raise InputError(
            "without a comparison there is nothing to write or to compare in another precision",
            hint="leave out --no-parity, or --parity and --precision",
        )
    check_outputs((output, (".onnx",)), *((file, (".json", *PICTURES)) for file in files))
    try:
        if executes_code(source):
            memory = None if max_memory is None else parse_bytes(max_memory)
            result = convert_isolated(source, timeout=timeout, memory=memory, **options)
        else:
            result = convert_network(source, **options)
    except ParityError as error:
        _write_parity([file for file in files if error.parity.layers or _is_json(file)], error.parity)
        raise
    pictures = [os.fspath(file) for file in files if not _is_json(file)]
    if pictures and result.parity is not None and not any(c.layers for c in result.parity.layers):
        raise InputError(f"no layer was compared, so {pictures[0]} would be empty", hint="ask for the .json instead")
    _write_parity(files, result.parity)
    if output is not None:
        save_model(result.model, output)
    return result


def _is_json(path: Path_) -> bool:
    return os.fspath(path).lower().endswith(".json")


def _write_parity(files: Sequence[Path_], parity: Parity | None) -> None:
    for path in files if parity is not None else ():
        assert parity is not None
        if _is_json(path):
            atomic_write(path, json.dumps(parity.to_dict(), indent=1, allow_nan=False) + "\n")
        else:
            from onnxviz.plots.parity import plot_parity

            save_view(plot_parity(parity.layers), path)


def expose(model: Model, tensors: str | Sequence[str] | None = None, output: Path_ | None = None) -> Rewritten:
    """Make intermediate tensors outputs: see :func:`onnxviz.graph.expose.expose`."""
    from onnxviz.graph.expose import expose as expose_tensors

    check_outputs((output, (".onnx",)))
    rewritten = expose_tensors(as_model(model), tensors)
    if output is not None:
        save_model(rewritten.model, output)
    return rewritten


def capture(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] = "*",
    output: Path_ | None = None,
    stats: Path_ | None = None,
    *,
    keep: bool = True,
    per_channel: bool = False,
    repro: Path_ | None = None,
    isolated: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> Capture:
    """Run a model and keep its tensors, their statistics, or both: see :func:`onnxviz.runtime.capture.capture`.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers; a folder or a list is run in batches.
        tensors: Which tensors.
        output: Where to write the arrays, ``.safetensors`` or ``.npz``.
        stats: Where to write the statistics as JSON, a list with an object a tensor:
            :meth:`onnxviz.analysis.statistics.TensorStatistics.to_dict`.
        keep: Keep the arrays. Without, statistics are made while the model runs, and no array is kept.
        per_channel: Make statistics of each channel too.
        repro: Where to write the model that shows the first NaN or Inf (with ``stop_on``); its inputs go beside it.
        isolated: Run in a process of its own, so that a crash of the runtime is an error like any other.
        timeout: Seconds after which an isolated run is stopped.
        options: ``mode``, ``bodies``, ``iterations``, ``batch``, ``max_memory``, ``stop_on``, ``progress``,
            ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.runtime.capture import capture as capture_tensors

    check_outputs((output, (".safetensors", ".npz")), (stats, (".json",)), (repro, (".onnx",)))
    if isolated:
        options |= {"keep": keep, "per_channel": per_channel}
        captured: Capture = _capture_apart(model, inputs, tensors, timeout, **options)
    else:
        opened = as_model(model)
        reduce = None if keep and stats is None and not per_channel else reducer(opened, per_channel)
        captured = capture_tensors(opened, inputs, tensors, keep=keep, reduce=reduce, **options)
    if output is not None:
        captured.save(output)
    if stats is not None:
        write_statistics(captured, stats)
    if repro is not None and captured.nonfinite is not None:
        captured.nonfinite.save_repro(repro)
    return captured


def write_statistics(captured: Capture, path: Path_) -> None:
    """Write the statistics of a capture as JSON: a list with an object a tensor."""
    from onnxviz.analysis.statistics import statistics

    rows = [row.to_dict() for row in statistics(captured)]
    atomic_write(path, json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _capture_apart(
    model: Model, inputs: Feed, tensors: str | Sequence[str], timeout: float | None, **options: Any
) -> Any:
    """Run :func:`capture` in a process of its own; a model in memory goes there as a file."""
    import tempfile

    from onnxviz.graph.model import model_name
    from onnxviz.runtime.isolated import isolated

    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        path = model
        if not isinstance(model, (str, os.PathLike)):
            path = Path(folder) / f"{model_name(model)}.onnx"
            save_model(model, path)
        limit = options.get("max_memory")
        memory = None
        if limit is not None:
            from onnxviz.runtime.plan import parse_bytes

            memory = parse_bytes(limit)
        seconds = 300.0 if timeout is None else timeout
        return isolated(capture, path, inputs, tensors, timeout=seconds, memory=memory, **options)


def plan(model: Model, inputs: Feed = None, tensors: str | Sequence[str] = "*", **options: Any) -> Plan:
    """Tell what :func:`capture` would need, without running: see :func:`onnxviz.runtime.capture.plan`."""
    from onnxviz.runtime.capture import plan as plan_capture

    return plan_capture(as_model(model), inputs, tensors, **options)


def report(
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    labels: Sequence[str] | Path_ | None = None,
    **options: Any,
) -> Report:
    """Build the report: one self-contained HTML page with the model card, architecture, feature maps, views, weights.

    The model is run once for all of it, and once more, backward too, where it is small enough for gradients.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers.
        output: The ``.html`` file.
        labels: Class names, or a file with one a line (or a JSON list or object); a ``.csv`` file names the class of
            each of several samples, which neurons and projections show.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.analysis.classification import load_labels
    from onnxviz.api.attribution import answer_maps
    from onnxviz.report.page import build_report
    from onnxviz.report.prepare import prepare

    check_outputs((output, (".html", ".htm")))
    opened = as_model(model)
    file = labels if isinstance(labels, (str, os.PathLike)) else None
    classes = file if file is not None and os.fspath(file).lower().endswith(".csv") else None
    names: Sequence[str] | None = None
    if classes is None:
        names = load_labels(labels) if isinstance(labels, (str, os.PathLike)) else labels
    prepared = prepare(opened)
    batches, run = batches_for(opened, inputs, None, options)
    captured = prepared.run(opened, lambda model: capture(model, batches, bodies=False, **run))
    several = batches if batches.samples > 1 and batches.names else None
    page = build_report(
        opened, captured, labels=names, prepared=prepared, batches=several, sample_classes=classes,
        backward=lambda: _backward(opened, batches, run), attribute=lambda: answer_maps(opened, batches, names, run),
    )  # fmt: skip
    if output is not None:
        page.save(output)
    return page


def _backward(model: ir.Model, batches: Batches, run: Mapping[str, Any]) -> GradientStatistics:
    """Return the gradients of the default target over batches."""
    from onnxviz.analysis.flow_plan import plan_flow
    from onnxviz.analysis.gradient_plan import plan_gradients
    from onnxviz.analysis.gradient_run import run_gradients
    from onnxviz.analysis.paired import observable

    plan = plan_flow(observable(model, lambda node: True))
    return run_gradients(plan, plan_gradients(plan), batches, **run)[0]


def profile(
    model: Model,
    inputs: Inputs | Mapping[str, Any] | Sequence[Path_] | Path_ | None = None,
    output: Path_ | Sequence[Path_] | None = None,
    *,
    trace: Path_ | None = None,
    **options: Any,
) -> Profile:
    """Measure where time and memory go: see :func:`onnxviz.runtime.profile.profile`, which takes ``options``.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers.
        output: One or several files: all numbers as ``.json``, or the picture as ``.png``, ``.svg`` or ``.pdf``.
        trace: Where to write one run as Chrome trace event JSON, which Perfetto opens.
        options: ``runs``, ``warmup``, ``mode``, ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.runtime.profile import profile as profile_model

    files = [] if output is None else [output] if isinstance(output, (str, os.PathLike)) else list(output)
    check_outputs(*((file, (".json", *PICTURES)) for file in files), (trace, (".json",)))
    _check_distinct([*files, *([] if trace is None else [trace])])
    measured = profile_model(as_model(model), inputs, **options)
    for file in files:
        if not save_json(measured, file):
            from onnxviz.plots.profile import plot_profile

            save_view(plot_profile(measured), file)
    if trace is not None:
        from onnxviz.runtime.trace import save_trace

        save_trace(measured, trace)
    return measured


def _check_distinct(files: Sequence[Path_]) -> None:
    """Refuse outputs of which one would overwrite another."""
    from onnxviz.errors import OutputError

    seen: set[str] = set()
    for file in files:
        real = os.path.realpath(file)
        if real in seen:
            raise OutputError(f"{os.fspath(file)} is named twice", hint="name a file for each output")
        seen.add(real)


def doctor() -> Diagnosis:
    """Examine the installation: see :func:`onnxviz.runtime.diagnosis.diagnose`."""
    from onnxviz.runtime.diagnosis import diagnose

    return diagnose()


def preprocessing(preset: str | None = None, **changes: Any) -> Preprocessing:
    """Return how a picture becomes a tensor: a preset of :data:`onnxviz.runtime.preprocess.PRESETS`, changed."""
    from onnxviz.errors import InputError
    from onnxviz.runtime.preprocess import PRESETS, Preprocessing

    if preset is not None and preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}", hint=f"choose {', '.join(PRESETS)}")
    return (PRESETS[preset] if preset else Preprocessing()).replace(**changes)
