"""Keras 3 to ONNX: ``.keras`` and HDF5 files, factories, live models, on whichever backend Keras runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import onnx_ir as ir

from onnxviz.analysis.comparison import compare
from onnxviz.converters.base import Array, Conversion, ConvertOptions, LayerCall, Reference, Source, comes_from
from onnxviz.converters.cleanup import clean
from onnxviz.converters.keras_batchnorm import batchnorms_of, keeping_batchnorm
from onnxviz.converters.keras_files import check_trust, read_config
from onnxviz.converters.keras_layers import (
    calling_lines,
    class_name,
    layers_of,
    name_batchnorm_hosts,
    name_lines,
    record_model,
)
from onnxviz.converters.keras_signature import Signature, signature_of
from onnxviz.converters.keras_start import start_keras
from onnxviz.converters.keras_tensorflow import export_with_keras
from onnxviz.converters.keras_torch import export_with_torch
from onnxviz.converters.naming import name_by_layer, name_weights, strip_paths
from onnxviz.errors import ConversionError, OnnxvizError, listed
from onnxviz.graph.batchnorm import gather_batchnorms
from onnxviz.graph.inference import infer_in_place
from onnxviz.graph.model import summary_line
from onnxviz.graph.provenance import provenance_of
from onnxviz.runtime.quiet import quiet
from onnxviz.runtime.session import run_model

__all__ = ["KerasConverter"]

_COUNTED = re.compile(r"unk__\d+$|None$")  # sizes that tf2onnx numbers
_SUFFIXES = (".keras", ".h5", ".hdf5")


class KerasConverter:
    """Converts Keras 3 models: through tf2onnx on the TensorFlow backend, through torch.export on the torch backend.

    Takes ``.keras`` and HDF5 files, a factory (``file.py:function``), alone or with a weights file, and live models.
    The backend is the one that Keras already runs on or ``KERAS_BACKEND`` names, else the first installed of
    TensorFlow, torch and JAX.
    """

    name = "keras"
    takes = ".keras, .h5, file.py:function (with --weights FILE.weights.h5)"

    def accepts(self, source: Source) -> bool:
        """Say whether the source is a Keras object or has the ending of a Keras file."""
        if source.network is not None:
            return comes_from(source.network, "keras", "Layer")
        return source.path is not None and source.path.suffix.lower() in _SUFFIXES

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        """Convert a Keras model.

        Raises:
            ConversionError: The file is damaged or holds weights only, the model was never built and no input shape is
                given, or the exporter cannot do it.
            TrustError: The file brings Lambda layers or classes of its own and ``options.trust`` is not set.
            MissingDependencyError: Keras, its backend or the backend's exporter is not installed.
        """
        if source.network is None:
            assert source.path is not None
            config = read_config(source.path)
            if not options.trust:
                check_trust(source.path, config)
        keras = start_keras()
        model = _model(keras, source, options)
        signature = signature_of(model, options, source.label)
        example = signature.example(options.seed)
        outputs = _run(keras, model, signature, example, source.label)
        backend = keras.backend.backend()
        export = export_with_torch if backend == "torch" else export_with_keras
        names = _output_names(keras, model, len(outputs))
        keep = options.keep_batchnorm and backend == "tensorflow"
        with keeping_batchnorm(layers_of(model)) if keep else nullcontext():
            converted, exporter, notes = export(model, signature, options, names)
        converted, cleaning = _cleaned(model, signature, options, converted, names)
        strip_paths(converted, source.folder)
        converted.graph.name = model.name
        missing = [value.name for value in converted.graph.inputs if value.name not in example]
        if missing:
            raise ConversionError(f"the exporter renamed inputs: {', '.join(map(str, missing))}")

        def reference(feeds: Mapping[str, Array]) -> list[Array]:
            return _run(keras, model, signature, {**example, **feeds}, source.label)

        if signature.open_sizes:
            _check_open_sizes(signature, converted, reference, options)

        def record(feeds: Mapping[str, Array]) -> list[LayerCall]:
            return record_model(model, signature, {**example, **feeds})

        return Conversion(
            converted, exporter, f"keras {keras.__version__} ({backend})", reference, example, (*notes, *cleaning),
            record=record,
        )  # fmt: skip


def _cleaned(
    model: Any, signature: Signature, options: ConvertOptions, converted: ir.Model, outputs: list[str]
) -> tuple[ir.Model, tuple[str, ...]]:
    """Clean the graph up, name its nodes, tensors and weights after the layers, and write the layers on the nodes."""
    layers = layers_of(model)
    feeds = [signature.example(options.seed + 1, batch=None if options.static else 2)]
    if options.keep_batchnorm:
        converted, notes = _clean_but_batchnorm(converted, feeds, layers)
    else:
        converted, notes = clean(converted, feeds)
    if any(class_name(layer).endswith(".BatchNormalization") for layer in layers.values()):
        name_batchnorm_hosts(converted, layers, record_model(model, signature, feeds[0]))
    name_lines(converted, calling_lines(model, signature, feeds[0]))

    name_by_layer(converted, _layer_of, outputs)
    name_weights(converted, _layer_of)
    _name_axes(converted, signature)
    return converted, notes


def _clean_but_batchnorm(
    converted: ir.Model, feeds: Sequence[Mapping[str, Array]], layers: Mapping[str, Any]
) -> tuple[ir.Model, tuple[str, ...]]:
    """Clean a graph up, and make each BatchNorm layer one BatchNormalization."""
    norms = batchnorms_of(layers)

    def gather(changed: ir.Model) -> None:
        infer_in_place(changed)
        gather_batchnorms(changed, norms)

    last = [("gathering BatchNorm", gather)]
    converted, notes = clean(converted, feeds, foldable=lambda node: _layer_of(node) not in norms, last=last)
    kept = {_layer_of(node) for node in converted.graph if node.op_type == "BatchNormalization"}
    if lost := [path for path in norms if path not in kept]:
        notes = (*notes, f"no BatchNormalization in the graph stands for {listed(lost)}")
    return converted, notes


def _check_open_sizes(signature: Signature, converted: ir.Model, reference: Reference, options: ConvertOptions) -> None:
    """Compare source and ONNX model where the open axes are longer than in the example that was exported.

    Raises:
        ConversionError: They differ. Keras unrolls recurrent layers on the torch backend over the example's length.
    """
    feeds = signature.example(options.seed, stretch=2)
    try:
        expected = reference(feeds)
    except ConversionError:
        return  # the source itself takes no other size
    sizes = " and ".join(map(repr, signature.open_sizes))
    hint = "leave out --dynamic, or set KERAS_BACKEND=tensorflow if the network is recurrent"
    try:
        got = run_model(converted, feeds)
    except OnnxvizError as error:
        raise ConversionError(f"the converted model fixes {sizes}: {error.message}", hint=hint) from error
    for name, source in zip(got, expected, strict=True):
        problem = compare(name, source, got[name]).problem
        if problem:
            raise ConversionError(f"the converted model fixes {sizes}: output {name!r} {problem}", hint=hint)


def _layer_of(node: ir.Node) -> str | None:
    source = provenance_of(node)
    return source.layer or None if source is not None else None


def _model(keras: Any, source: Source, options: ConvertOptions) -> Any:
    model = source.network
    if model is None:
        try:
            with quiet():
                model = keras.saving.load_model(source.path, compile=False, safe_mode=not options.trust)
        except Exception as error:
            raise ConversionError(
                f"Keras {keras.__version__} cannot open {source.path}: {summary_line(error)}",
                hint="name the function that builds it and give the file as --weights",
            ) from error
    if not isinstance(model, keras.Model):
        raise ConversionError(
            f"{source.label} is a {type(model).__name__}, not a keras.Model", hint="put it into a Sequential"
        )
    if options.weights is not None:
        _load_weights(keras, model, source, options)
    return model


def _load_weights(keras: Any, model: Any, source: Source, options: ConvertOptions) -> None:
    if options.weights is None or not options.weights.is_file():
        raise ConversionError(f"there is no weights file {options.weights}")
    if not model.built:
        signature_of(model, options, source.label)  # builds it
    try:
        with quiet():
            model.load_weights(options.weights)
    except Exception as error:
        raise ConversionError(
            f"{options.weights} does not fit {source.label}: {summary_line(error)}",
            hint="give the factory that the weights were trained with",
        ) from error


def _run(keras: Any, model: Any, signature: Signature, feeds: Mapping[str, Array], label: str) -> list[Array]:
    try:
        with quiet():
            flat = [keras.ops.convert_to_tensor(feeds[name]) for name in signature.names]
            outputs = keras.tree.flatten(model(*signature.pack(flat), training=False))
            return [keras.ops.convert_to_numpy(output) for output in outputs]
    except Exception as error:
        shapes = ", ".join("×".join(map(str, feeds[name].shape)) for name in signature.names)
        raise ConversionError(f"{label} does not run on inputs of shape {shapes}: {summary_line(error)}") from error


def _output_names(keras: Any, model: Any, count: int) -> list[str]:
    """Name the outputs: keys of a dict, else the layers that make them."""
    names: list[str] = []
    if comes_from(model, "keras", "Functional"):
        names = sorted(model.output) if isinstance(model.output, dict) else list(model.output_names)
    elif isinstance(model, keras.Sequential) and model.layers:
        names = [model.layers[-1].name]
    if len(names) != count or len(set(names)) != count:
        names = ["output"] if count == 1 else [f"output_{i + 1}" for i in range(count)]
    return names


def _name_axes(model: ir.Model, signature: Signature) -> None:
    """Name the open axes, which tf2onnx numbers: ``batch``, and for others what was asked for."""
    for value in model.graph.inputs:
        if value.name in signature.names:
            place = signature.names.index(value.name)
            shape, labels = signature.shapes[place], signature.labels[place]
            value.shape = ir.Shape([labels[a] if n is None else n for a, n in enumerate(shape)])
    for value in model.graph.outputs:
        if value.shape is not None:
            sizes = list(value.shape)
            for axis, size in enumerate(sizes):
                if not isinstance(size, int) and (axis == 0 or _COUNTED.match(str(size.value))):
                    sizes[axis] = ir.SymbolicDim(f"{value.name}_axis_{axis}" if axis else "batch")
            value.shape = ir.Shape(sizes)
