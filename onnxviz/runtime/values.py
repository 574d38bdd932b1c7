"""OrtValue to numpy and back, for every element type that onnxruntime has."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import InputError, ModelError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.options import new_options

__all__ = [
    "constant_array",
    "extended_dtypes",
    "plain_type",
    "sequence_value",
    "tensor_value",
    "to_array",
    "to_value",
    "type_proto",
]

#: Element types that numpy lacks -> type of ml_dtypes, and how many elements fill a byte.
_EXTENDED: dict[str, tuple[np.dtype[Any], int]] = {
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 1),
    "float8e4m3fn": (np.dtype(ml_dtypes.float8_e4m3fn), 1),
    "float8e4m3fnuz": (np.dtype(ml_dtypes.float8_e4m3fnuz), 1),
    "float8e5m2": (np.dtype(ml_dtypes.float8_e5m2), 1),
    "float8e5m2fnuz": (np.dtype(ml_dtypes.float8_e5m2fnuz), 1),
    "int4": (np.dtype(ml_dtypes.int4), 2),
    "uint4": (np.dtype(ml_dtypes.uint4), 2),
    "int2": (np.dtype(ml_dtypes.int2), 4),
    "uint2": (np.dtype(ml_dtypes.uint2), 4),
    "float4e2m1": (np.dtype(ml_dtypes.float4_e2m1fn), 2),
}
_CODES = {dtype: int(ir.DataType.from_numpy(dtype)) for dtype, packed in _EXTENDED.values() if packed == 1}
#: onnxruntime's name of an element type -> ONNX's code
_ELEMENTS = {
    **{t.name.lower(): int(t) for t in ir.DataType},
    **{name: int(ir.DataType.from_numpy(dtype)) for name, (dtype, _) in _EXTENDED.items()},
}


def extended_dtypes() -> frozenset[np.dtype[Any]]:
    """Return the types of ml_dtypes that onnxruntime takes as bits."""
    return frozenset(_CODES)


def plain_type(kind: str) -> bool:
    """Whether numpy has the element type that onnxruntime's name of a type (``"tensor(float)"``) speaks of."""
    return kind.removeprefix("tensor(").removesuffix(")") not in _EXTENDED


def type_proto(kind: str, rank: int | None = None) -> onnx.TypeProto:
    """Return the ONNX type of an onnxruntime type name such as ``"seq(tensor(float))"``.

    Args:
        kind: The name.
        rank: Number of dimensions of a tensor, its sizes left open; None leaves the shape away.

    >>> type_proto("seq(tensor(int64))").sequence_type.elem_type.tensor_type.elem_type
    7
    """
    proto = onnx.TypeProto()
    outer, _, inner = kind.partition("(")
    inner = inner.removesuffix(")")
    if outer == "tensor":
        proto.tensor_type.elem_type = _ELEMENTS[inner]
        for _ in range(rank or 0):
            proto.tensor_type.shape.dim.add()
        if rank == 0:
            proto.tensor_type.shape.SetInParent()
    elif outer == "seq":
        proto.sequence_type.elem_type.CopyFrom(type_proto(inner))
    elif outer == "optional":
        proto.optional_type.elem_type.CopyFrom(type_proto(inner))
    elif outer == "map":
        key, value = inner.split(",", 1)
        proto.map_type.key_type = _ELEMENTS[key.strip()]
        proto.map_type.value_type.CopyFrom(type_proto(value.strip()))
    else:
        raise ValueError(f"onnxruntime's type {kind!r}")
    return proto


def to_value(name: str, array: Any) -> ort.OrtValue:
    """Return an array as an OrtValue that shares its memory; bfloat16 and float8 go in as bits.

    Raises:
        InputError: It is no array, such as a sequence.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(f"input {name!r} is a sequence, which cannot be fed node by node")
    array = np.asarray(array, order="C")
    if array.dtype.kind in "OUS":
        return _string_value(array)
    if array.dtype in _CODES:
        bits = array.view(f"u{array.itemsize}")
        value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _CODES[array.dtype])
    else:
        try:
            value = ort.OrtValue.ortvalue_from_numpy(array)
        except RuntimeError as error:
            raise InputError(f"onnxruntime takes no {array.dtype}, as input {name!r} is") from error
    value.onnxviz_array = array  # whose memory it is: a view of the OrtValue alone would not keep it alive
    return value


def _string_value(array: np.ndarray) -> ort.OrtValue:
    """Return text as an OrtValue; onnxruntime makes none from numpy, so a model does that holds the text."""
    text = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.STRING, dims=array.shape, string_data=text)
    return _made(onnx.helper.make_node("Constant", [], ["y"], value=tensor), {})


def _made(node: onnx.NodeProto, feeds: dict[str, ort.OrtValue]) -> ort.OrtValue:
    """Return the one output of a node."""
    inputs = [
        onnx.ValueInfoProto(name=name, type=type_proto(v.data_type(), len(v.shape()))) for name, v in feeds.items()
    ]
    graph = onnx.helper.make_graph([node], "value", inputs, [onnx.ValueInfoProto(name="y")])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = new_options(threads=1)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: ort.OrtValue = session.run_with_ort_values(["y"], feeds)[0]
    return result


def _mapped(tensor: ir.ExternalTensor) -> np.ndarray:
    """Return external data as an array that maps the file only as long as it is used; onnx_ir would keep it mapped."""
    shape = tuple(tensor.shape.numpy())
    if tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING or 0 in shape:
        return tensor.numpy()
    return np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, shape)


def constant_array(tensor: ir.TensorProtocol) -> np.ndarray:
    """Return a constant of a model as an array; strings as Python objects, as onnxruntime has them.

    Raises:
        ModelError: Its data does not fit its shape or type.
    """
    try:
        array: np.ndarray = _mapped(tensor) if isinstance(tensor, ir.ExternalTensor) else tensor.numpy()
    except (ValueError, AssertionError, TypeError, OSError) as error:
        raise ModelError(f"the constant {tensor.name!r} is damaged: {summary_line(error)}") from error
    if tensor.dtype != ir.DataType.STRING:
        return array.view()
    items = [s.decode() if isinstance(s, bytes) else s for s in array.reshape(-1).tolist()]
    return np.asarray(items, object).reshape(array.shape)


def tensor_value(tensor: ir.TensorProtocol) -> ort.OrtValue | None:
    """Return a constant of a model as an OrtValue; None for types that pack several elements into a byte."""
    return None if tensor.dtype.bitwidth < 8 else to_value(tensor.name or "", constant_array(tensor))


def to_array(value: ort.OrtValue) -> Any:
    """Return a tensor as an array, sharing memory where numpy has the type; None for anything that is no tensor.

    The array keeps the OrtValue's memory alive.
    """
    if not value.has_value() or not value.is_tensor():
        return None
    if (array := getattr(value, "onnxviz_array", None)) is not None:
        return array.view()
    kind = value.data_type().removeprefix("tensor(").removesuffix(")")
    if kind not in _EXTENDED:
        return value.numpy()
    dtype, packed = _EXTENDED[kind]
    shape = tuple(value.shape())
    count = math.prod(shape)
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), -(-count * dtype.itemsize // packed)), np.uint8)
    return (raw if packed == 1 else _unpacked(raw, packed, count)).view(dtype).reshape(shape)


def _unpacked(raw: np.ndarray, packed: int, count: int) -> np.ndarray:
    """Spread packed elements over a byte each, the first in the lowest bits, as ONNX stores them."""
    bits = 8 // packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    spread = (raw[:, None] >> shifts) & np.uint8(2**bits - 1)
    return np.asarray(spread.reshape(-1)[:count], np.uint8)


def sequence_value(arrays: Sequence[np.ndarray], dtype: np.dtype[Any] | None = None) -> ort.OrtValue:
    """Return a list of arrays of one type as an OrtValue that is a sequence; an empty one needs ``dtype``."""
    if not len(arrays):
        element = int(ir.DataType.from_numpy(np.dtype(np.float32) if dtype is None else dtype))
        return _made(onnx.helper.make_node("SequenceEmpty", [], ["y"], dtype=element), {})
    feeds = {f"x{i}": to_value(f"x{i}", np.asarray(array)) for i, array in enumerate(arrays)}
    return _made(onnx.helper.make_node("SequenceConstruct", list(feeds), ["y"]), feeds)
