"""The layers of a flax.nnx module: what each gives in a run, and which nodes of the ONNX graph are whose."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir

from onnxviz.converters.base import LayerCall, comes_from
from onnxviz.converters.recording import Recorder
from onnxviz.graph.provenance import Provenance, set_provenance

__all__ = ["in_scopes", "inference_copy", "label_nodes", "nodes_in_scopes", "record_layers"]

_LIBRARIES = {"site-packages", "dist-packages", f"python{sys.version_info.major}.{sys.version_info.minor}"}
_SCOPE = re.compile(r"onnxviz:(\d+)")
Around = Callable[[int, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def inference_copy(network: Any) -> Any:
    """Return a module that computes as in inference (Dropout off, BatchNorm on its statistics), leaving it as it is."""
    if not comes_from(network, "flax", "Module") or not hasattr(network, "eval"):
        return network
    from flax import nnx

    copy = nnx.clone(network)
    copy.eval()
    return copy


def layers_of(network: Any) -> list[tuple[str, Any]]:
    """Return the modules inside a flax.nnx module, with their paths, such as ``"blocks.0.fc"``; nothing for others."""
    if not comes_from(network, "flax", "Module") or not hasattr(network, "eval"):
        return []
    from flax import nnx

    found = [(".".join(map(str, path)), module) for path, module in nnx.iter_modules(network) if path]
    return sorted(((path, m) for path, m in found if callable(m)), key=lambda entry: entry[0])


@contextmanager
def _watched(network: Any, around: Around) -> Iterator[None]:
    """Have ``around`` called with every call of a layer, and with what makes that call."""
    numbers = {id(module): number for number, (_, module) in enumerate(layers_of(network))}

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(self: Any, *args: Any, **kwargs: Any) -> Any:
            number = numbers.get(id(self))
            return call(self, *args, **kwargs) if number is None else around(number, self, call, args, kwargs)

        return calling

    kinds = {type(module): type(module).__call__ for _, module in layers_of(network)}
    before = {kind: vars(kind).get("__call__") for kind in kinds}
    try:
        for kind, call in kinds.items():
            kind.__call__ = wrap(call)
        yield
    finally:
        for kind, own in before.items():
            if own is None:
                del kind.__call__
            else:
                kind.__call__ = own


def in_scopes(network: Any) -> Callable[..., Any]:
    """Return a function that calls a network, each layer within a ``jax.named_scope`` of its own."""
    import jax

    def around(number: int, layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with jax.named_scope(f"onnxviz:{number}"):
            return call(layer, *args, **kwargs)

    def calling(*args: Any, **kwargs: Any) -> Any:
        with _watched(network, around):
            return network(*args, **kwargs)

    return calling


@contextmanager
def nodes_in_scopes() -> Iterator[None]:
    """While jax2onnx runs, write on every node the scope and the line of the JAX equation that it was written for."""
    from jax2onnx.converter import lowering_dispatch

    enter = lowering_dispatch.current_eqn_scope

    @contextmanager
    def entering(context: Any, equation: Any) -> Iterator[None]:
        before = len(context.builder.nodes)
        with enter(context, equation):
            yield
        scopes, line = _SCOPE.findall(str(equation.source_info.name_stack)), _line(equation.source_info.traceback)
        for node in context.builder.nodes[before:]:  # those of an equation inside this one have theirs already
            for key, text in (("onnxviz:scope", scopes[-1] if scopes else ""), ("onnxviz:line", line)):
                if text:
                    node.metadata_props.setdefault(key, text)

    with mock.patch.object(lowering_dispatch, "current_eqn_scope", entering):
        yield


def _line(traceback: Any) -> str:
    """Return the innermost line of the user's own code."""
    for frame in traceback.frames if traceback is not None else ():
        file = Path(frame.file_name)
        if not _LIBRARIES & set(file.parts) and file.parent != Path(__file__).parent and file.is_absolute():
            return f"{file.name}:{frame.line_num}"
    return ""


def label_nodes(model: ir.Model, network: Any) -> dict[ir.Node, str]:
    """Turn scopes into provenance, in place, and return the layer of every node."""
    layers = layers_of(network)
    found = {}
    for node in model.graph:
        scope = node.metadata_props.pop("onnxviz:scope", None)
        path, module = layers[int(scope)] if scope is not None else ("", None)
        line = node.metadata_props.pop("onnxviz:line", "")
        set_provenance(node, Provenance(path, "" if module is None else class_name(module), line))
        found[node] = path
    return found


def class_name(module: Any) -> str:
    """Return a layer's class as one imports it: ``"flax.nnx.Conv"``, or the module of a class of its own."""
    kind = type(module)
    home = "flax.nnx" if kind.__module__.startswith("flax.nnx") else kind.__module__
    return f"{home}.{kind.__qualname__}"


def record_layers(network: Any, run: Callable[[], object]) -> list[LayerCall]:
    """Run a network and return what each of its layers gave.

    Args:
        network: The network.
        run: Calls it.
    """
    import jax

    recorder, layers = Recorder(np.asarray), layers_of(network)

    def arrays(tree: Any) -> list[Any]:
        return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)]

    def around(number: int, layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = call(layer, *args, **kwargs)
        recorder.add(layers[number][0], class_name(layer), arrays((args, kwargs)), arrays(result))
        return result

    with _watched(network, around):
        run()
    return recorder.calls
