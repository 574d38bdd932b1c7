"""The layers of a Keras model: what each gives in a run, and which nodes of the ONNX graph are whose."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxviz.converters.base import Array, LayerCall
from onnxviz.converters.keras_signature import Signature
from onnxviz.converters.naming import name_by_layer
from onnxviz.converters.quiet import quiet
from onnxviz.converters.recording import Recorder
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance

__all__ = ["class_name", "layers_of", "name_batchnorm_hosts", "record_model", "scope_finder", "set_layers"]

_TAKERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def layers_of(model: Any, prefix: str = "") -> dict[str, Any]:
    """Return every layer by its path, those of nested models included, as in ``"backbone/conv1"``."""
    found = {}
    for layer in getattr(model, "layers", ()):
        found[prefix + layer.name] = layer
        found |= layers_of(layer, f"{prefix}{layer.name}/")
    return found


def class_name(layer: Any) -> str:
    """Return a layer's class as one imports it: ``"keras.layers.Conv2D"``, or the module of a class of its own."""
    import keras

    kind = type(layer)
    if kind.__module__.partition(".")[0] == "keras":
        home = "keras.layers" if hasattr(keras.layers, kind.__name__) else "keras"
        return f"{home}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def record_model(model: Any, signature: Signature, feeds: Mapping[str, Array]) -> list[LayerCall]:
    """Run a model for inference and return what each of its layers gave."""
    import keras

    paths = {id(layer): path for path, layer in reversed(layers_of(model).items())}
    recorder = Recorder(keras.ops.convert_to_numpy)
    original = keras.Layer.__call__

    def tensors(*trees: Any) -> list[Any]:
        return [leaf for leaf in keras.tree.flatten(trees) if keras.ops.is_tensor(leaf)]

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        path = paths.get(id(self))
        if path is not None:
            recorder.add(path, class_name(self), tensors(args, kwargs), tensors(result))
        return result

    keras.Layer.__call__ = watched
    try:
        with quiet():
            flat = [keras.ops.convert_to_tensor(feeds[name]) for name in signature.names]
            model(*signature.pack(flat), training=False)
    finally:
        keras.Layer.__call__ = original
    return recorder.calls


def scope_finder(model: Any) -> Callable[[ir.Node], str | None]:
    """Return a function that reads the layer out of a TensorFlow scope such as ``net_1/conv1_1/convolution``."""
    known = {part for path in layers_of(model) for part in path.split("/")}

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


def set_layers(converted: ir.Model, model: Any, path_of: Callable[[ir.Node], str | None]) -> None:
    """Write on every node which layer it came from, of which class; lines stay where an exporter knew them."""
    kinds = {path: class_name(layer) for path, layer in layers_of(model).items()}
    for node in converted.graph:
        path, known = path_of(node) or "", provenance_of(node)
        set_provenance(node, Provenance(path, kinds.get(path, ""), known.line if known is not None else ""))
    name_by_layer(converted, path_of)  # the clean-up finds nodes again by name


def name_batchnorm_hosts(model: ir.Model, layers: Mapping[str, Any], calls: Sequence[LayerCall]) -> None:
    """Give a convolution that took in a BatchNorm back to its own layer, in place.

    TensorFlow folds the BatchNorm into the weights and calls the node after it. Which convolution it was is seen from
    whose output the BatchNorm took in a run.
    """
    hosts = {call.layer: calls[call.reads[0]].layer for call in calls if len(call.reads) == 1}
    for node in model.graph:
        source = provenance_of(node)
        if source is None or node.op_type not in _TAKERS or not source.class_name.endswith(".BatchNormalization"):
            continue
        host = hosts.get(source.layer)
        if host is not None and host in layers:
            folded = (source.layer, *source.folded)
            set_provenance(node, Provenance(host, class_name(layers[host]), source.line, folded))
