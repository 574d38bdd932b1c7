"""Keras to ONNX on the TensorFlow backend, through tf2onnx, and on the JAX backend, through jax2onnx."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxviz.converters.base import Array, ConvertOptions
from onnxviz.converters.keras_layers import record_model, scope_finder, set_layers
from onnxviz.converters.keras_signature import Signature
from onnxviz.converters.matching import claim_by_value
from onnxviz.errors import ConversionError
from onnxviz.graph.model import from_proto, summary_line
from onnxviz.runtime.quiet import quiet

__all__ = ["OPSET", "captured_constants", "export_with_keras", "finish_tensorflow_graph"]

#: The newest that tf2onnx writes.
OPSET = 18


def export_with_keras(
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
            with quiet(), _watching_captures() as captured:
                model.export(
                    str(target), format="onnx", verbose=False, input_signature=signature.pack(specs),
                    opset_version=options.opset or OPSET,
                )  # fmt: skip
            converted = from_proto(onnx.load(target))
        except Exception as error:
            raise ConversionError(f"Keras cannot export {model.name}: {summary_line(error)}") from error
    layer_of = scope_finder(model)
    finish_tensorflow_graph(converted, captured, layer_of)
    set_layers(converted, model, layer_of)
    feed = signature.example(options.seed, batch=None if options.static else 2)
    claim_by_value(converted, record_model(model, signature, feed), feed)
    library = "tf2onnx" if keras.backend.backend() == "tensorflow" else "jax2onnx"
    return converted, f"Keras model.export ({library})", []


def finish_tensorflow_graph(
    converted: ir.Model, captured: Mapping[str, Array], layer_of: Callable[[ir.Node], str | None]
) -> None:
    """Put right what tf2onnx leaves wrong: operators that ONNX lacks, captured constants as inputs, odd names.

    Raises:
        ConversionError: It passed on an operator unconverted.
    """
    _replace_erfc(converted)
    _check_ops(converted, layer_of)
    for value in list(converted.graph.inputs):
        value.name = (value.name or "").removesuffix(":0")
        if value.name in captured:
            value.const_value = ir.tensor(captured[value.name], name=value.name)
            converted.graph.inputs.remove(value)
            converted.graph.register_initializer(value)
    converted.producer_version = (converted.producer_version or "").removesuffix(" None")  # of its git hash
    converted.graph.doc_string = None  # tf2onnx puts a counter of the session there


@contextmanager
def _watching_captures() -> Iterator[dict[str, Array]]:
    """Collect the constants that the exported TensorFlow function closes over, by the names of their inputs.

    tf2onnx freezes variables but not these: the mean of a Normalization layer would become an input of the model.
    """
    captured: dict[str, Array] = {}
    if find_spec("tf2onnx") is None:
        yield captured
        return
    import tf2onnx

    original = tf2onnx.convert.from_function

    def watched(function: Any, input_signature: Any = None, **options: Any) -> Any:
        captured.update(captured_constants(function.get_concrete_function(*input_signature)))
        return original(function, input_signature, **options)

    tf2onnx.convert.from_function = watched
    try:
        yield captured
    finally:
        tf2onnx.convert.from_function = original


def captured_constants(concrete: Any) -> dict[str, Array]:
    """Return the constants that a concrete function closes over, by the names of their inputs; variables are none."""
    import tensorflow as tf

    return {
        inner.name.removesuffix(":0"): outer.numpy()
        for outer, inner in concrete.graph.captures
        if hasattr(outer, "numpy") and inner.dtype != tf.resource
    }


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
