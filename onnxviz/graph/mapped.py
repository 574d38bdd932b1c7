"""Weights that stay in the .onnx file until they are read.

A file is parsed without the large ``raw_data`` of its initializers; each becomes a tensor over the mapped file, so that
opening a model takes no more memory than its graph. Source of the field numbers: onnx.proto of ONNX.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxviz.errors import ModelError

__all__ = ["MappedWeights", "map_weights"]

_SMALLEST_FILE = 16 << 20  # bytes from which it is worth while
_SMALLEST_TENSOR = 64 << 10
_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9  # ModelProto, GraphProto, TensorProto, TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Buffer = mmap.mmap


@dataclass
class MappedWeights:
    """A model file without its large weights, and where these lie.

    Attributes:
        rest: The serialised model without them.
        places: Name of an initializer -> offset and length of its bytes in the file.
    """

    rest: bytes
    places: dict[str, tuple[int, int]]
    _path: Path
    _file: int
    _stamp: tuple[int, int] = field(default=(0, 0))

    def __del__(self) -> None:
        os.close(self._file)

    def attach(self, model: ir.Model) -> bool:
        """Give a model that was parsed from ``rest`` its weights; False if a tensor's bytes do not fit its shape."""
        found = []
        for name, (offset, length) in self.places.items():
            value = model.graph.initializers.get(name)
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING:
                return False
            if tensor.nbytes != length:
                return False
            found.append((value, tensor, offset))
        for value, tensor, offset in found:
            value.const_value = self._tensor(tensor, offset)
        return True

    def _tensor(self, tensor: ir.TensorProtocol, offset: int) -> ir.LazyTensor:
        shape, dtype, name = ir.Shape(tensor.shape.numpy()), tensor.dtype, tensor.name

        def read() -> ir.TensorProtocol:
            state = os.fstat(self._file)
            if (state.st_size, state.st_mtime_ns) != self._stamp:
                raise ModelError(f"{self._path} was changed after it was opened", hint="open it again")
            sizes = tuple(shape.numpy())
            count = int(np.prod(sizes, dtype=object))
            page = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            length = offset - page + count * dtype.itemsize
            # A mapping of its own, so that its pages are given back with the array.
            own = mmap.mmap(self._file, int(length), access=mmap.ACCESS_READ, offset=page)
            array = np.frombuffer(own, dtype.numpy(), count, offset - page).reshape(sizes)
            return ir.Tensor(array, dtype=dtype, shape=shape, name=name)

        return ir.LazyTensor(read, dtype, shape, name=name, doc_string=tensor.doc_string)


def map_weights(path: Path) -> MappedWeights | None:
    """Map a file's weights; None where the file is small, is no plain ONNX file, or cannot be mapped.

    On Windows a mapped file could not be replaced or removed, so nothing is mapped there.
    """
    if sys.platform == "win32":
        return None
    try:
        file = os.open(path, os.O_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        state = os.fstat(file)
        if not _SMALLEST_FILE <= state.st_size < 2**31:
            raise ValueError("not worth while")
        with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as buffer:
            rest, places = _without_weights(buffer)
    except (OSError, ValueError, IndexError, UnicodeDecodeError):
        os.close(file)
        return None
    return MappedWeights(rest, places, path, file, (state.st_size, state.st_mtime_ns))


def _without_weights(buffer: Buffer) -> tuple[bytes, dict[str, tuple[int, int]]]:
    model: list[bytes] = []
    places: dict[str, tuple[int, int]] = {}
    graphs = 0
    for number, start, value, end in _fields(buffer, 0, len(buffer)):
        if number != _GRAPH:
            model.append(buffer[start:end])
            continue
        graphs += 1
        graph: list[bytes] = []
        for inner, inner_start, inner_value, inner_end in _fields(buffer, value, end):
            if inner == _INITIALIZER and inner_end - inner_value >= _SMALLEST_TENSOR:
                graph.append(_delimited(_INITIALIZER, _tensor_without_data(buffer, inner_value, inner_end, places)))
            else:
                graph.append(buffer[inner_start:inner_end])
        model.append(_delimited(_GRAPH, b"".join(graph)))
    if graphs != 1 or not places:
        raise ValueError("nothing to map")
    return b"".join(model), places


def _tensor_without_data(buffer: Buffer, start: int, end: int, places: dict[str, tuple[int, int]]) -> bytes:
    kept: list[bytes] = []
    name, raw = "", None
    for number, first, value, last in _fields(buffer, start, end):
        if number == _RAW_DATA and last - value >= _SMALLEST_TENSOR:
            raw = (value, last - value)
            continue
        if number == _NAME:
            name = buffer[value:last].decode()
        kept.append(buffer[first:last])
    if raw is not None:
        if not name or name in places:
            raise ValueError("weights without names of their own")
        places[name] = raw
    return b"".join(kept)


def _fields(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of each field of a message, and where its tag, its value and it itself begin and end."""
    at = start
    while at < end:
        first = at
        tag, at = _varint(buffer, at)
        kind = tag & 7
        if kind == _VARINT:
            value, (_, at) = at, _varint(buffer, at)
        elif kind == _BYTES:
            length, value = _varint(buffer, at)
            at = value + length
        elif kind in (_FIXED64, _FIXED32):
            value, at = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError("not a protobuf message")
        if at > end:
            raise ValueError("truncated")
        yield tag >> 3, first, value, at


def _varint(buffer: Buffer, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = buffer[at]
        result |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("not a protobuf message")


def _delimited(number: int, content: bytes) -> bytes:
    length, head = len(content), bytearray([number << 3 | _BYTES])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + content
