"""Finding the converter for a source, and the one function that converts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxviz.converters.base import Converter, ConvertOptions, Source
from onnxviz.converters.loading import load_source
from onnxviz.converters.parity import Parity, check_parity
from onnxviz.errors import ConversionError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.precision import PRECISIONS

__all__ = ["GROUP", "ConversionResult", "convert", "converters"]

#: Entry-point group in which converters are registered.
GROUP = "onnxviz.converters"


@dataclass(frozen=True)
class ConversionResult:
    """A converted network.

    Attributes:
        model: The ONNX model; its ``metadata_props`` record source, framework and exporter.
        exporter: What wrote it, such as ``"torch.export"`` or ``"TorchScript (fallback: <reason>)"``.
        framework: Name and version of the framework it came from.
        converter: The converter's name.
        source: How the source was named, without folders.
        parity: How closely the outputs agree; None where that was not checked.
        notes: What the user should know, one line each.
    """

    model: ir.Model
    exporter: str
    framework: str
    converter: str
    source: str
    parity: Parity | None
    notes: tuple[str, ...]


def converters() -> tuple[Converter, ...]:
    """Return every converter that is installed and whole, by name of its entry point; frameworks are not imported.

    >>> [converter.name for converter in converters() if converter.name in ("keras", "torch")]
    ['keras', 'torch']
    """
    return _load()[0]


def _load() -> tuple[tuple[Converter, ...], tuple[str, ...]]:
    """Load the converters, and say of each that cannot be loaded why."""
    found, broken = [], []
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        try:
            converter = point.load()()
        except (ImportError, AttributeError, TypeError) as error:
            broken.append(f"the converter {point.name!r} ({point.value}) cannot be loaded: {summary_line(error)}")
            continue
        if isinstance(converter, Converter):
            found.append(converter)
        else:
            broken.append(f"the converter {point.name!r} ({point.value}) lacks name, takes, accepts or convert")
    return tuple(found), tuple(broken)


def convert(
    source: str | os.PathLike[str] | object,
    *,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    weights: str | os.PathLike[str] | None = None,
    static: bool = False,
    opset: int | None = None,
    trust: bool = False,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    keep_batchnorm: bool = False,
    parity: bool = True,
    precisions: Sequence[str] = (),
    seed: int = 0,
) -> ConversionResult:
    """Convert a network to ONNX and check that outputs and layers agree.

    Args:
        source: ``file.py:function`` (called with no arguments; it returns the network or
            ``(network, example_inputs)``), a file or folder that a converter takes (``.pt2``, ``.keras``, ``.joblib``,
            a SavedModel, …), or a live network, alone or as ``(network, example_inputs)``.
        input_shape: One shape, batch included, or one shape an input; needed where the source knows none.
        weights: A state dict (``.pt``, ``.pth``, ``.safetensors``) or Keras weights file for the factory's network.
        static: Keep the batch size of the example; by default the batch axis is dynamic and called ``batch``.
        opset: The ONNX opset; by default the exporter's.
        trust: Run code that the source brings: a Python file, a pickle, a Lambda layer.
        dynamic: Further axes that stay open: input name -> axis -> name of its size.
        keep_batchnorm: Leave BatchNorm beside the convolution before it instead of folding it in.
        parity: Run source and ONNX model on seeded inputs (batches of 1, 2 and 5) and compare all outputs and layers.
        precisions: Compare the layers after conversion to ``"float16"`` or ``"int8"`` too; the model itself stays.
        seed: Seed of example inputs, parity inputs and the weights of an untrained factory.

    Returns:
        The model, what wrote it, and how closely it agrees with its source.

    Raises:
        ConversionError: The source cannot be converted as asked.
        TrustError: The source would run code and ``trust`` is not set.
        ParityError: The converted model's outputs differ from the source's.
        MissingDependencyError: The framework is not installed.

    >>> import torch
    >>> result = convert(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()), input_shape=(1, 4))
    >>> result.exporter, [node.op_type for node in result.model.graph], result.parity.passed
    ('torch.export', ['Gemm', 'Relu'], True)
    """
    options = ConvertOptions(
        input_shapes=_shapes(input_shape),
        weights=None if weights is None else Path(weights),
        static=static,
        opset=opset,
        trust=trust,
        seed=seed,
        dynamic=dynamic or {},
        keep_batchnorm=keep_batchnorm,
    )
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise ConversionError(f"there is no precision {unknown[0]!r}", hint=f"there are {' and '.join(PRECISIONS)}")
    loaded = load_source(source, trust=trust, seed=seed)
    converter = _converter_for(loaded)
    conversion = converter.convert(loaded, options)
    written = conversion.model.opset_imports.get("")
    if opset is not None and written != opset:
        raise ConversionError(
            f"the exporter writes opset {written}, not {opset}", hint="leave out --opset, or try another"
        )
    _record(conversion.model, loaded, conversion.exporter, conversion.framework)
    compared = check_parity(conversion, precisions=precisions, seed=seed) if parity else None
    notes = conversion.notes + (() if compared is None else _parity_notes(compared))
    return ConversionResult(
        model=conversion.model,
        exporter=conversion.exporter,
        framework=conversion.framework,
        converter=converter.name,
        source=loaded.label,
        parity=compared,
        notes=notes,
    )


def _parity_notes(parity: Parity) -> tuple[str, ...]:
    notes = []
    if parity.constant:
        notes.append(f"the agreement of {', '.join(parity.constant)} proves little: it is the same for every input")
    first = parity.layers[0].first if parity.layers else None
    if first is not None:
        notes.append(f"the layer {first} {first.problem}, though the outputs agree")
    return tuple(notes)


def _shapes(given: Sequence[int] | Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...]:
    if given is None or len(given) == 0:
        return ()
    shapes: Sequence[Any] = [given] if isinstance(given[0], int) else given
    result = tuple(tuple(int(size) for size in shape) for shape in shapes)
    if any(size < 1 for shape in result for size in shape):
        raise ConversionError("an input shape has a size below 1", hint="give the batch as 1: 1,3,224,224")
    return result


def _converter_for(source: Source) -> Converter:
    installed, broken = _load()
    for converter in installed:
        if converter.accepts(source):
            return converter
    what = source.label if source.network is None else f"{source.label} (a {type(source.network).__name__})"
    takes = [f"{c.name} takes {c.takes}" for c in installed] or ["none is installed: pip install onnxviz again"]
    raise ConversionError(f"no converter takes {what}", hint="; ".join([*takes, *broken]))


def _record(model: ir.Model, source: Source, exporter: str, framework: str) -> None:
    """Write into the model where it came from; names only, no folders."""
    model.metadata_props["onnxviz.source"] = source.label
    model.metadata_props["onnxviz.framework"] = framework
    model.metadata_props["onnxviz.exporter"] = exporter
    if source.network is not None and model.graph.name in (None, "", "main_graph", "tf2onnx"):
        model.graph.name = source.factory or type(source.network).__name__
