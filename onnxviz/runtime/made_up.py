"""Values for inputs that nobody gave one: seeded random numbers of a usual size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.layouts import input_layout
from onnxviz.graph.shapes import bind_dims, dtype_name, model_inputs, open_dims, shape_list
from onnxviz.runtime.storage import numpy_type

__all__ = ["input_type", "random_array", "sized_inputs"]

_LIMIT = 2**28  # elements
_SEQUENCES = ("seq", "token", "time", "length", "len", "frame", "sample")


def input_type(value: ir.Value) -> np.dtype[Any]:
    """Return the numpy type of an input's array.

    Raises:
        InputError: It is a sequence, an optional or of a type without one, such as int4.
    """
    name = dtype_name(value) or "float32"
    if name.endswith("int4") or name.startswith(("float4", "sequence", "optional")):
        raise InputError(f"input {value.name!r} is {name}, which cannot be made up", hint="feed it from Python")
    return numpy_type(name)


def sized_inputs(
    model: ir.Model, dims: Mapping[str, int], given: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, ir.Value], dict[str, int]]:
    """Return the inputs with every open dimension set, and the sizes that were assumed.

    Args:
        model: The model; it is not changed.
        dims: Sizes by dimension, as :func:`onnxviz.graph.shapes.bind_dims` takes them.
        given: Shapes of the inputs that have a value: dimensions of the same name follow them.

    Raises:
        InputError: A dimension does not exist, or contradicts a shape that was given.
    """
    values = {str(v.name): v for v in model_inputs(model)}
    sizes: dict[str, int] = {}
    for name, shape in given.items():
        for axis, (dim, size) in enumerate(zip(shape_list(values[name]) or [], shape, strict=False)):
            key = f"{name}:{axis}" if dim is None else dim
            if isinstance(key, str) and dims.get(key, size) != size:
                raise InputError(f"--dim {key}={dims[key]} contradicts the shape {shape} of input {name!r}")
            if isinstance(dim, str):
                sizes[dim] = size
    assumed = {
        name: _usual_size(model, values[where], name, axis)
        for name, (where, axis) in open_dims(model).items()
        if name not in sizes and name not in dims and where not in given
    }
    sized = bind_dims(model, {**assumed, **sizes, **dims})
    return {str(v.name): v for v in model_inputs(sized)}, assumed


def _usual_size(model: ir.Model, value: ir.Value, name: str, axis: int) -> int:
    if axis == 0:
        return 1
    shape = shape_list(value) or []
    if len(shape) == 4 and (layout := input_layout(model, value)) is not None:
        return 3 if layout.index("C") == axis else 224
    if "past" in name.lower() or not any(word in name.lower() for word in _SEQUENCES):
        return 1
    waveform = len(shape) == 2 and "float" in (dtype_name(value) or "")
    return 512 if waveform else 16


def random_array(value: ir.Value, seed: int) -> np.ndarray:
    """Return standard normal floats, integers that are valid indices where they index a table, or fair coin flips.

    Args:
        value: A graph input whose shape is known; unknown sizes count as 1.
        seed: Not negative; each input has numbers of its own.

    Raises:
        InputError: It would be too large, or is of a type that cannot be made up.
    """
    shape = [dim if isinstance(dim, int) else 1 for dim in shape_list(value) or []]
    if math.prod(shape) > _LIMIT:
        raise InputError(f"input {value.name!r} would have {math.prod(shape):,} elements", hint="give --dim NAME=N")
    if seed < 0:
        raise InputError(f"the seed cannot be {seed}", hint="give one of 0 or more")
    rng = np.random.default_rng([seed, crc32(str(value.name).encode(errors="replace"))])
    dtype = input_type(value)
    if dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        top = 256 if dtype == np.uint8 else 128 if dtype == np.int8 else _table_rows(value)
        return np.asarray(rng.integers(0, top, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def _table_rows(value: ir.Value, depth: int = 3) -> int:
    """Return how many rows the smallest table has that an integer input indexes; 2 if it indexes none."""
    rows = []
    passing = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
    for node in value.consumers():
        if node.op_type == "Gather" and len(node.inputs) > 1 and node.inputs[1] is value:
            table = constant_tensor(node.inputs[0])
            if table is not None and len(table.shape) > 0 and isinstance(table.shape[0], int):
                rows.append(max(1, table.shape[0]))
        elif depth and node.op_type in passing and node.inputs[0] is value:
            rows.append(_table_rows(node.outputs[0], depth - 1))
    return min(rows, default=2)
