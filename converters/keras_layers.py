"""The layers of a Keras model: what each gives in a run, and which nodes of the ONNX graph are whose."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import onnx_ir as ir

from onnxviz.converters.base import Array, LayerCall
from onnxviz.converters.keras_signature import Signature
from onnxviz.converters.naming import name_by_layer
from onnxviz.converters.recording import Recorder
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.runtime.quiet import quiet

__all__ = [
    "calling_lines",
    "class_name",
    "layers_of",
    "name_batchnorm_hosts",
    "name_lines",
    "record_model",
    "scope_finder",
    "set_layers",
]

_LIBRARIES = ("keras", "tensorflow", "torch", "jax", "onnxviz", "contextlib", "functools")
_TAKERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def layers_of(model: Any, prefix: str = "") -> dict[str, Any]:
    """Return every layer by its path, as in ``"backbone/conv1"``: those of nested models and of the user's own layers.

    What a layer of Keras's own is made of, such as the products in an attention, is left out. A second layer of the
    same path has ``_1`` behind it.
    """
    found: dict[str, Any] = {}
    for layer in _parts(model):
        path = next(p for p in _numbered(prefix + layer.name) if p not in found)
        found[path] = layer
        found |= {inner: part for inner, part in layers_of(layer, f"{path}/").items() if inner not in found}
    return found


def _parts(layer: Any) -> list[Any]:
    if hasattr(layer, "layers") or type(layer).__module__.partition(".")[0] == "keras":
        return list(getattr(layer, "layers", ()))
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _numbered(path: str) -> Iterator[str]:
    yield path
    yield from (f"{path}_{number}" for number in itertools.count(1))


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

    recorder = Recorder(keras.ops.convert_to_numpy)

    def note(path: str, layer: Any, taken: list[Any], given: list[Any]) -> None:
        recorder.add(path, class_name(layer), taken, given)

    _watch(model, signature, feeds, note)
    return recorder.calls


def calling_lines(model: Any, signature: Signature, feeds: Mapping[str, Array]) -> dict[str, str]:
    """Run a model and return for each layer the line of the user's code that first called it: ``"net.py:27"``.

    Layers of a Sequential or Functional model are called by Keras, so they have none.
    """
    lines: dict[str, str] = {}

    def note(path: str, *_: Any) -> None:
        frame = inspect.currentframe()
        while frame is not None and frame.f_code is not _watch.__code__:
            if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES:
                lines.setdefault(path, f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}")
                return
            frame = frame.f_back

    _watch(model, signature, feeds, note)
    return lines


def _watch(
    model: Any, signature: Signature, feeds: Mapping[str, Array],
    note: Callable[[str, Any, list[Any], list[Any]], None],
) -> None:  # fmt: skip
    """Run a model and call ``note`` with path, layer, inputs and outputs whenever a layer is done."""
    import keras

    paths = {id(layer): path for path, layer in reversed(layers_of(model).items())}
    original = keras.Layer.__call__

    def tensors(*trees: Any) -> list[Any]:
        return [leaf for leaf in keras.tree.flatten(trees) if keras.ops.is_tensor(leaf)]

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        path = paths.get(id(self))
        if path is not None:
            note(path, self, tensors(args, kwargs), tensors(result))
        return result

    keras.Layer.__call__ = watched
    try:
        with quiet():
            flat = [keras.ops.convert_to_tensor(feeds[name]) for name in signature.names]
            model(*signature.pack(flat), training=False)
    finally:
        keras.Layer.__call__ = original


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
    """Write on every node which layer it came from, of which class."""
    kinds = {path: class_name(layer) for path, layer in layers_of(model).items()}
    for node in converted.graph:
        path = path_of(node) or ""
        set_provenance(node, Provenance(path, kinds.get(path, "")))
    name_by_layer(converted, path_of)  # the clean-up finds nodes again by name


def name_lines(converted: ir.Model, lines: Mapping[str, str]) -> None:
    """Write on every node the line that called its layer, or the nearest layer around that one, in place."""
    for node in converted.graph:
        source = provenance_of(node)
        if source is not None and source.layer:
            parts = source.layer.split("/")
            around = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
            line = next((lines[path] for path in around if path in lines), "")
            set_provenance(node, replace(source, line=line))


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
