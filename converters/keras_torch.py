"""Keras to ONNX on the torch backend, straight through torch.export."""

from __future__ import annotations

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
    from onnxviz.converters.torch_layers import layer_of

    layers = {f"onnxviz_layer_{i}": (path, layer) for i, (path, layer) in enumerate(layers_of(model).items())}

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
        input_names=signature.names, output_names=outputs, dynamic=options.dynamic,
        keep_batchnorm=options.keep_batchnorm,
    )  # fmt: skip

    def path_of(node: ir.Node) -> str | None:
        key, _, rest = (layer_of(node) or "").removeprefix("model.").partition(".")
        if key == "model":
            return None
        path = layers[key][0] if key in layers else key  # a subclassed model registers its layers itself, by attribute
        return "/".join(filter(None, (path, rest.replace(".", "/")))) or None

    set_layers(exported.model, model, {node: path_of(node) for node in exported.model.graph}.get)
    return exported.model, exported.exporter, list(exported.notes)
