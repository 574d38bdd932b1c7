"""Keras to ONNX on the torch backend, straight through torch.export."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from onnxviz.converters.base import ConvertOptions
from onnxviz.converters.keras_layers import layers_of, set_layers
from onnxviz.converters.keras_signature import Signature

__all__ = ["export_with_torch"]


def export_with_torch(
    model: Any, signature: Signature, options: ConvertOptions, outputs: list[str]
) -> tuple[ir.Model, str, list[str]]:
    """Export on the torch backend straight through torch.export, each layer registered so that its name survives."""
    import keras
    import torch

    from onnxviz.converters.torch_call import Call, with_batch
    from onnxviz.converters.torch_export import export_module

    layers = layers_of(model)

    class Flat(torch.nn.Module):
        """The model called with a flat list of tensors; its layers are known to torch by name."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for index, layer in enumerate(layers.values()):
                self.add_module(f"onnxviz_layer_{index}", layer)

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            return tuple(keras.tree.flatten(model(*signature.pack(inputs), training=False)))

    flat = Flat()
    tensors = [keras.ops.convert_to_tensor(a) for a in signature.example(options.seed).values()]
    call = Call(tuple(tensors), {})
    if not options.static:
        call, _ = with_batch(call)
    exported = export_module(
        flat, call, static=options.static, opset=options.opset,
        input_names=signature.names, output_names=outputs, dynamic=options.dynamic,
        keep_batchnorm=options.keep_batchnorm,
    )  # fmt: skip

    paths = {id(layer): path for path, layer in reversed(layers.items())}
    set_layers(exported.model, model, {node: _path_of(node, flat, paths) for node in exported.model.graph}.get)
    return exported.model, exported.exporter, list(exported.notes)


def _path_of(node: ir.Node, flat: Any, paths: Mapping[int, str]) -> str | None:
    """Return the path of the layer that a node came from.

    torch tells of each module that was being run under which attribute the one around it holds it. A layer that no
    attribute holds, as one in a list, goes by the name under which the outermost module holds it.
    """
    module, path = flat, None
    for scope in _scopes(node):
        name = scope.rpartition(".")[2].partition("@")[0]
        inner = getattr(module, "_modules", {}).get(name)
        module = flat._modules.get(name) if inner is None else inner
        path = paths.get(id(module), path)
    return path


def _scopes(node: ir.Node) -> list[str]:
    """Return the modules that a node was exported from, the outermost first: torch.export's note, or its own name."""
    recorded = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if recorded is not None:
        return [str(scope) for scope in ast.literal_eval(recorded)[1:-1]]
    return (node.name or "").split("/")[1:-1] if (node.name or "").startswith("/") else []
