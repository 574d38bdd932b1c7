"""Keras 3 to ONNX: ``.keras`` and HDF5 files, factories, live models, on whichever backend Keras runs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxviz.converters.base import Array, Conversion, ConvertOptions, Source, comes_from
from onnxviz.converters.keras_files import check_trust, read_config
from onnxviz.converters.keras_signature import Signature, signature_of
from onnxviz.converters.keras_start import start_keras
from onnxviz.converters.naming import name_by_layer, name_weights, strip_paths
from onnxviz.converters.quiet import quiet
from onnxviz.errors import ConversionError
from onnxviz.graph.model import from_proto, summary_line

__all__ = ["KerasConverter"]

_SUFFIXES = (".keras", ".h5", ".hdf5")
_OPSET = 18  # the newest that tf2onnx writes


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
        export = _export_with_torch if backend == "torch" else _export_with_keras
        converted, exporter, notes = export(model, signature, options, _output_names(keras, model, len(outputs)))
        strip_paths(converted, source.folder)
        converted.graph.name = model.name
        missing = [value.name for value in converted.graph.inputs if value.name not in example]
        if missing:
            raise ConversionError(f"the exporter renamed inputs: {', '.join(map(str, missing))}")

        def reference(feeds: Mapping[str, Array]) -> list[Array]:
            return _run(keras, model, signature, {**example, **feeds}, source.label)

        return Conversion(
            converted, exporter, f"keras {keras.__version__} ({backend})", reference, example, tuple(notes)
        )


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


def _layers(model: Any, prefix: str = "") -> dict[str, Any]:
    """Return every layer by its path, those of nested models included, as in ``"backbone/conv1"``."""
    found = {}
    for layer in getattr(model, "layers", ()):
        found[prefix + layer.name] = layer
        found |= _layers(layer, f"{prefix}{layer.name}/")
    return found


def _export_with_keras(
    model: Any, signature: Signature, options: ConvertOptions, outputs: list[str]
) -> tuple[ir.Model, str, list[str]]:
    """Export on the TensorFlow (tf2onnx) or JAX (jax2onnx) backend."""
    import keras

    specs = [
        keras.InputSpec(shape=shape, dtype=dtype, name=name)
        for name, shape, dtype in zip(signature.names, signature.shapes, signature.dtypes, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "model.onnx")
        try:
            with quiet():
                model.export(
                    str(target), format="onnx", verbose=False, input_signature=signature.pack(specs),
                    opset_version=options.opset or _OPSET,
                )  # fmt: skip
            converted = from_proto(onnx.load(target))
        except Exception as error:
            raise ConversionError(f"Keras cannot export {model.name}: {summary_line(error)}") from error
    layer_of = _layer_finder(model)
    _replace_erfc(converted)
    _check_ops(converted, layer_of)
    for value in converted.graph.inputs:
        value.name = (value.name or "").removesuffix(":0")
    paths = _paths(converted, layer_of)
    name_by_layer(converted, paths.get, outputs)
    name_weights(converted, paths.get)
    _name_axes(converted, signature)
    converted.producer_version = (converted.producer_version or "").removesuffix(" None")  # of its git hash
    converted.graph.doc_string = None  # tf2onnx puts a counter of the session there
    library = "tf2onnx" if keras.backend.backend() == "tensorflow" else "jax2onnx"
    return converted, f"Keras model.export ({library})", []


def _layer_finder(model: Any) -> Callable[[ir.Node], str | None]:
    """Return a function that reads the layer out of a TensorFlow scope such as ``net_1/conv1_1/convolution``."""
    known = {part for path in _layers(model) for part in path.split("/")}

    def layer_of(node: ir.Node) -> str | None:
        root, *parts = (node.name or "").split("/")
        counter = root.removeprefix(model.name) if re.fullmatch(re.escape(model.name) + r"_\d+", root) else ""
        path: list[str] = []
        for part in parts:
            candidates = (part.removesuffix(counter), part, re.sub(r"_\d+$", "", part))
            name = next((c for c in candidates if c in known), None)
            if name is None:
                break
            path.append(name)
        return "/".join(path) or None

    return layer_of


def _paths(model: ir.Model, layer_of: Callable[[ir.Node], str | None]) -> dict[ir.Node, str | None]:
    """Find every node's layer; nodes that tf2onnx put in without a scope belong to the layer that feeds them."""
    paths: dict[ir.Node, str | None] = {}
    for node in model.graph:
        paths[node] = layer_of(node)
        if "/" not in (node.name or ""):
            producers = [value.producer() for value in node.inputs if value is not None]
            paths[node] = next((paths[p] for p in producers if p is not None and paths.get(p)), None)
    return paths


def _replace_erfc(model: ir.Model) -> None:
    """Replace TensorFlow's Erfc, which tf2onnx passes on though ONNX has none, by ``1 - Erf``; Keras's GELU has it."""
    for node in [n for n in model.graph if n.op_type == "Erfc" and n.domain == ""]:
        dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
        one = ir.node(
            "Constant",
            [],
            attributes={"value": ir.tensor(1.0, dtype=dtype or ir.DataType.FLOAT)},
            name=f"{node.name}/one",
        )
        erf = ir.node("Erf", [node.inputs[0]], name=f"{node.name}/erf")
        one.outputs[0].name, erf.outputs[0].name = f"{node.name}/one:0", f"{node.name}/erf:0"
        difference = ir.node("Sub", [one.outputs[0], erf.outputs[0]], name=node.name)
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [one, erf, difference], node.outputs, difference.outputs
        )


def _check_ops(model: ir.Model, layer_of: Callable[[ir.Node], str | None]) -> None:
    """Refuse what tf2onnx passes on unconverted: operators that ONNX does not have."""
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    for node in model.graph:
        if node.domain == "" and node.op_type not in known:
            where = layer_of(node) or node.name
            raise ConversionError(
                f"tf2onnx cannot convert the operator {node.op_type} of {where}",
                hint="set KERAS_BACKEND=torch and try again",
            )


def _name_axes(model: ir.Model, signature: Signature) -> None:
    """Name the dynamic axes, which tf2onnx numbers: ``batch``, and for others input and axis."""
    for value in model.graph.inputs:
        shape = signature.shapes[signature.names.index(value.name)] if value.name in signature.names else None
        if shape is not None:
            value.shape = ir.Shape([n or ("batch" if a == 0 else f"{value.name}_{a}") for a, n in enumerate(shape)])
    for value in model.graph.outputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape(["batch", *value.shape[1:]])


def _export_with_torch(
    model: Any, signature: Signature, options: ConvertOptions, outputs: list[str]
) -> tuple[ir.Model, str, list[str]]:
    """Export on the torch backend straight through torch.export, each layer registered so that its name survives."""
    import keras
    import torch

    from onnxviz.converters.torch_call import Call, with_batch
    from onnxviz.converters.torch_export import export_module
    from onnxviz.converters.torch_layers import layer_of

    layers = {f"onnxviz_layer_{i}": (path, layer) for i, (path, layer) in enumerate(_layers(model).items())}

    class Flat(torch.nn.Module):
        """The model called with a flat list of tensors; its layers are known to torch by name."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for key, (_, layer) in layers.items():
                self.add_module(key, layer)

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            return tuple(keras.tree.flatten(model(*signature.pack(inputs), training=False)))

    tensors = [keras.ops.convert_to_tensor(a) for a in signature.example(options.seed).values()]
    call = Call(tuple(tensors), {})
    if not options.static:
        call, _ = with_batch(call)
    exported = export_module(
        Flat(), call, static=options.static, opset=options.opset,
        input_names=signature.names, output_names=outputs,
    )  # fmt: skip

    def path_of(node: ir.Node) -> str | None:
        key, _, rest = (layer_of(node) or "").removeprefix("model.").partition(".")
        if key == "model":
            return None
        path = layers[key][0] if key in layers else key  # a subclassed model registers its layers itself, by attribute
        return "/".join(filter(None, (path, rest.replace(".", "/")))) or None

    if exported.exporter == "torch.export":
        paths = {node: path_of(node) for node in exported.model.graph}
        name_by_layer(exported.model, paths.get, outputs)
        name_weights(exported.model, paths.get)
    return exported.model, exported.exporter, list(exported.notes)
