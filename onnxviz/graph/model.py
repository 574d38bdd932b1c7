"""A model in memory: from and to protobuf, copied, named.

onnx_ir has no map types and no sparse initializers. Both occur in real files (classifiers exported from scikit-learn
return a sequence of maps), so types that it lacks are kept aside in ``value.meta`` and come back when the model is
serialised, and sparse initializers become dense ones.
"""

from __future__ import annotations

import logging
from pathlib import Path

import google.protobuf.message
import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.errors import ModelError

__all__ = ["copy_model", "from_proto", "model_bytes", "model_name", "summary_line", "to_proto", "weight_bytes"]

#: Inline weights beyond this size in all (bytes) are not serialised into one message; protobuf's limit is 2 GB.
INLINE_LIMIT = 1_800_000_000

_OPAQUE = "onnxviz.type"
# What onnx_ir says about a damaged graph is judged here, not printed by logging's last resort.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


def summary_line(error: BaseException, limit: int = 240) -> str:
    """Return the first sentence of the innermost cause of an error."""
    error = _root(error)
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def from_proto(proto: onnx.ModelProto, name: str = "the model") -> ir.Model:
    """Turn a protobuf model into an onnx_ir model with its nodes in topological order; ``proto`` is used up.

    Raises:
        ModelError: The graph is damaged: a value is written twice, a type or tensor is malformed.
    """
    try:
        types = _set_types_aside(proto.graph)
        _densify(proto.graph)
        if proto.ir_version < 2:
            _type_attributes(proto.graph)
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        if isinstance(_root(error), NotImplementedError):
            what = summary_line(error).split(". ")[0]
            raise ModelError(f"{name} uses what onnxviz cannot hold in memory: {what}") from error
        raise ModelError(f"{name} is a damaged ONNX model: {summary_line(error)}") from error
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.UNDEFINED:
            raise ModelError(f"{name} is a damaged ONNX model: initializer {value.name!r} has no data type")
    if types:
        for value in (v for v in _values(model.graph) if v.name in types):
            value.meta[_OPAQUE] = types[str(value.name)]
    if not _is_sorted(model.graph):
        try:
            model.graph.sort()
            model.meta["was_unsorted"] = True
        except ValueError as error:
            model.meta["cyclic"] = summary_line(error)
    return model


def _has_map(kind: onnx.TypeProto) -> bool:
    if kind.HasField("sequence_type"):
        return _has_map(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return _has_map(kind.optional_type.elem_type)
    return bool(kind.HasField("map_type"))


def _set_types_aside(graph: onnx.GraphProto) -> dict[str, bytes]:
    aside = {}
    for info in (*graph.input, *graph.output, *graph.value_info):
        if _has_map(info.type):
            aside[info.name] = info.type.SerializeToString()
            info.ClearField("type")
    return aside


def _densify(graph: onnx.GraphProto, limit: int = 2**28) -> None:
    for sparse in graph.sparse_initializer:
        shape, size = tuple(sparse.dims), int(np.prod(sparse.dims, dtype=object))
        if not 0 <= size <= limit:
            raise ValueError(f"sparse initializer {sparse.values.name!r} has {size} elements")
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices)
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
        dense = np.zeros(size, values.dtype)
        dense[flat] = values
        graph.initializer.append(onnx.numpy_helper.from_array(dense.reshape(shape), sparse.values.name))
    graph.ClearField("sparse_initializer")


def _type_attributes(graph: onnx.GraphProto) -> None:
    """Write down the types of attributes, which IR version 1 left to be told from the field that is set."""
    kinds = onnx.AttributeProto
    fields = {
        "f": kinds.FLOAT, "i": kinds.INT, "s": kinds.STRING, "t": kinds.TENSOR, "g": kinds.GRAPH,
        "floats": kinds.FLOATS, "ints": kinds.INTS, "strings": kinds.STRINGS,
    }  # fmt: skip
    for node in graph.node:
        for attribute in node.attribute:
            present = [field.name for field, _ in attribute.ListFields() if field.name in fields]
            if attribute.type == kinds.UNDEFINED and len(present) == 1:
                attribute.type = fields[present[0]]


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(output for node in graph for output in node.outputs)]


def _is_sorted(graph: ir.Graph) -> bool:
    seen: set[ir.Node] = set()
    for node in graph:
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer.graph is graph and producer not in seen:
                return False
        seen.add(node)
    return True


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Serialise a model, types that were set aside included; external tensors stay external."""
    proto: onnx.ModelProto = ir.serde.serialize_model(model)
    aside = {v.name: v.meta[_OPAQUE] for v in _values(model.graph) if _OPAQUE in v.meta}
    if aside:
        for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
            if info.name in aside and not info.HasField("type"):
                info.type.ParseFromString(aside[info.name])
    return proto


def model_bytes(model: ir.Model) -> bytes | None:
    """Serialise a model to bytes; None where its inline weights or its graph pass protobuf's 2 GB.

    Raises:
        ModelError: The graph cannot be written, such as a tensor whose data is missing.
    """
    if weight_bytes(model) > INLINE_LIMIT:
        return None
    try:
        data: bytes = to_proto(model).SerializeToString()
    except google.protobuf.message.EncodeError:
        return None
    except Exception as error:
        raise ModelError(f"the model cannot be serialised: {summary_line(error)}") from error
    return data


def weight_bytes(model: ir.Model) -> int:
    """Return the size of the weights that are not external, in bytes; nothing is loaded."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(t.nbytes for t in tensors if t is not None and not isinstance(t, ir.ExternalTensor))


def copy_model(model: ir.Model) -> ir.Model:
    """Return a copy that shares only the (immutable) tensors with the original.

    Raises:
        ModelError: The graph has a cycle.
    """
    if "cyclic" in model.meta:
        raise ModelError(f"the model's graph has a cycle: {model.meta['cyclic']}", hint="no runtime can execute it")
    copy = ir.Model(
        _clone(model),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=[function.clone() for function in model.functions.values()],
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )
    copy.meta.update(model.meta)
    return copy


def _clone(model: ir.Model) -> ir.Graph:
    """Clone the main graph, with outputs that nothing produces, which a damaged file may declare."""
    lacking: list[tuple[ir.Graph, list[ir.Value]]] = []
    for graph in model.graphs():
        outputs = list(graph.outputs)
        if any(_is_unmade(value) for value in outputs):
            lacking.append((graph, outputs))
    if not lacking:
        return model.graph.clone(allow_outer_scope_values=True)
    places = [position for position, graph in enumerate(model.graphs()) if any(graph is g for g, _ in lacking)]
    try:
        for graph, outputs in lacking:
            graph.outputs[:] = [value for value in outputs if not _is_unmade(value)]
        clone = model.graph.clone(allow_outer_scope_values=True)
    finally:
        for graph, outputs in lacking:
            graph.outputs[:] = outputs
    clones = list(ir.Model(clone, ir_version=model.ir_version or 0).graphs())
    for position, (_, outputs) in zip(places, lacking, strict=True):
        for index, value in enumerate(outputs):
            if _is_unmade(value):
                clones[position].outputs.insert(index, ir.Value(name=value.name, type=value.type, shape=value.shape))
    return clone


def _is_unmade(value: ir.Value) -> bool:
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def model_name(model: ir.Model) -> str:
    """Return what to call a model: its file's stem, else its graph's name, else ``"model"``."""
    path = model.meta.get("path")
    return Path(path).stem if path else model.graph.name or "model"
