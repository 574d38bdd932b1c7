"""The verbs of onnxviz as functions: what the command line calls, and what ``onnxviz.<verb>`` gives in Python.

Each takes a path or an opened model, and writes a file where ``output`` names one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from onnxviz.graph.files import atomic_write, check_output
from onnxviz.graph.io import as_model, open_model, save_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.feature_maps import Score
    from onnxviz.converters.parity import Parity
    from onnxviz.converters.registry import ConversionResult
    from onnxviz.diagram.architecture import Architecture
    from onnxviz.graph.expose import Rewritten
    from onnxviz.graph.summary import ModelSummary
    from onnxviz.report.page import Report
    from onnxviz.runtime.diagnosis import Diagnosis
    from onnxviz.runtime.inputs import Inputs
    from onnxviz.runtime.preprocess import Preprocessing
    from onnxviz.runtime.record import Capture

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]
    Feed = Inputs | Mapping[str, Any] | Sequence[Path_] | Path_ | None

__all__ = [
    "capture", "convert", "doctor", "expose", "features", "graph", "inspect", "open_model", "report", "save_model",
    "weights",
]  # fmt: skip

_PICTURES = (".png", ".svg", ".pdf")


def inspect(model: Model, *, dims: Mapping[str, int] | None = None) -> ModelSummary:
    """Summarise a model: see :func:`onnxviz.graph.summary.inspect_model`."""
    from onnxviz.graph.summary import inspect_model

    return inspect_model(as_model(model), dims)


def convert(
    source: Any, output: Path_ | None = None, *, parity_file: Path_ | None = None, **options: Any
) -> ConversionResult:
    """Convert a PyTorch or Keras network: see :func:`onnxviz.converters.registry.convert`, which takes ``options``.

    ``parity_file`` receives the comparison of the outputs as JSON, also where they differ and no model is written.
    """
    from onnxviz.converters.registry import convert as convert_network
    from onnxviz.errors import ParityError

    _check((output, (".onnx",)), (parity_file, (".json",)))
    try:
        result = convert_network(source, **options)
    except ParityError as error:
        _write_parity(parity_file, error.parity)
        raise
    _write_parity(parity_file, result.parity)
    if output is not None:
        save_model(result.model, output)
    return result


def _write_parity(path: Path_ | None, parity: Parity | None) -> None:
    if path is not None and parity is not None:
        atomic_write(path, json.dumps(parity.to_dict(), indent=1, allow_nan=False) + "\n")


def expose(model: Model, tensors: str | Sequence[str] | None = None, output: Path_ | None = None) -> Rewritten:
    """Make intermediate tensors outputs: see :func:`onnxviz.graph.expose.expose`."""
    from onnxviz.graph.expose import expose as expose_tensors

    _check((output, (".onnx",)))
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
    **options: Any,
) -> Capture:
    """Run a model once and keep its tensors: see :func:`onnxviz.runtime.capture.capture`, which takes ``options``.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers.
        tensors: Which tensors.
        output: Where to write the arrays, ``.safetensors`` or ``.npz``.
        stats: Where to write the statistics as JSON: a list of
            ``{name, shape, dtype, min, max, mean, std, nan, inf, zero}``.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.analysis.statistics import statistics
    from onnxviz.runtime.capture import capture as capture_tensors

    _check((output, (".safetensors", ".npz")), (stats, (".json",)))
    captured = capture_tensors(as_model(model), inputs, tensors, **options)
    if output is not None:
        captured.save(output)
    if stats is not None:
        rows = [row.to_dict() for row in statistics(captured)]
        atomic_write(stats, json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return captured


def graph(model: Model, output: Path_ | None = None, *, title: str | None = None) -> Architecture:
    """Draw the architecture: see :func:`onnxviz.diagram.architecture.architecture`.

    ``output`` ends in ``.svg``, ``.png`` or ``.pdf``. What a reader of the file should know, such as that a huge PNG
    was scaled down, is in the result's ``note``.
    """
    from onnxviz.diagram.architecture import architecture

    _check((output, _PICTURES))
    drawing = architecture(as_model(model), title=title)
    return drawing if output is None else drawing.save(output)


def features(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    top: int = 64,
    by: Score = "energy",
    scale: Literal["shared", "channel"] = "shared",
    **options: Any,
) -> Figure:
    """Draw feature maps: a grid of one tensor's channels, or a sheet with a row a layer for several.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers.
        tensors: Which tensors; by default those of the layers (convolution, pooling, activation, …).
        output: ``.png``, ``.svg`` or ``.pdf``.
        top: Most channels of a grid.
        by: How channels are chosen: ``"energy"``, ``"sparsity"`` or ``"index"``.
        scale: One colour scale for a grid, or one a channel.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.analysis.layers import layer_feature_maps
    from onnxviz.plots.feature_maps import plot_feature_maps, plot_feature_sheet

    _check((output, _PICTURES))
    opened = as_model(model)
    captured = capture(opened, inputs, "*" if tensors is None else tensors, **options)
    maps = layer_feature_maps(opened, captured, every=tensors is not None, top=top, by=by)
    if len(maps) == 1:
        figure = plot_feature_maps(maps[0], scale=scale)
    else:
        title = f"Feature maps of {captured.model_name}"
        figure = plot_feature_sheet(maps, picture=captured.picture, title=title)
    _save_figure(figure, output)
    return figure


def weights(model: Model, output: Path_ | None = None, layers: str | Sequence[str] | None = None) -> Figure:
    """Draw the weights, a row a layer: kernels or matrix, histogram, range.

    Args:
        model: A path or an opened model.
        output: ``.png``, ``.svg`` or ``.pdf``.
        layers: Names or globs of layers or weight tensors, ``op:TYPE``; by default all, biases and norms left out.
    """
    from onnxviz.analysis.layers import select_weights
    from onnxviz.analysis.weights import layer_weights
    from onnxviz.graph.model import model_name
    from onnxviz.plots.weight_sheet import plot_weight_sheet

    _check((output, _PICTURES))
    opened = as_model(model)
    chosen = select_weights(layer_weights(opened), layers)
    figure = plot_weight_sheet(chosen, title=f"Weights of {model_name(opened)}")
    _save_figure(figure, output)
    return figure


def _check(*outputs: tuple[Path_ | None, Sequence[str]]) -> None:
    """Refuse what cannot be written before the work that it would hold."""
    for path, endings in outputs:
        if path is not None:
            check_output(path, endings)


def _save_figure(figure: Figure, output: Path_ | None) -> None:
    if output is not None:
        from onnxviz.plots.save import save_figure

        save_figure(figure, output)


def report(
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    labels: Sequence[str] | Path_ | None = None,
    **options: Any,
) -> Report:
    """Build the report: one self-contained HTML page with the model card, architecture, feature maps and weights.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers.
        output: The ``.html`` file.
        labels: Class names, or a file with one a line (or a JSON list or object).
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.
    """
    from onnxviz.analysis.classification import load_labels
    from onnxviz.report.page import build_report

    _check((output, (".html", ".htm")))
    opened = as_model(model)
    names = load_labels(labels) if isinstance(labels, (str, os.PathLike)) else labels
    page = build_report(opened, capture(opened, inputs, **options), labels=names)
    if output is not None:
        page.save(output)
    return page


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
