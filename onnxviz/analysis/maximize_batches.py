"""How many pictures are made at once, and what enters the inputs that are not made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.maximize_model import bound_model, picture_bytes
from onnxviz.errors import InputError, MemoryLimitError, listed, printable
from onnxviz.graph.shapes import model_inputs, shape_list
from onnxviz.runtime.inputs import Reader
from onnxviz.runtime.plan import bytes_text
from onnxviz.runtime.preprocess import Preprocessing

__all__ = ["batch_size", "other_inputs", "weights_digest"]

_MOST = 16  # pictures at once: more make no step a picture shorter, and the first ones later


def batch_size(
    model: ir.Model,
    canvas: Canvas,
    layers: Sequence[str],
    total: int,
    group: int,
    *,
    most: int | None,
    memory: int,
    dims: Mapping[str, int],
    area: float = 1.0,
) -> tuple[int, str]:
    """Return how many pictures are made at once, and a note where that is less than it could be.

    Args:
        model, canvas: The model and its input.
        layers: The tensors that are looked at.
        total: Number of pictures.
        group: How many have to be made together.
        most: The most that was asked for.
        memory: Bytes that a step may take.
        dims: Sizes of open dimensions.
        area: Size of a picture over that of the input.

    Raises:
        InputError: Pictures that have to be made together cannot be.
        MemoryLimitError: They do not fit.
    """
    if canvas.batch is not None:
        if group > canvas.batch or canvas.batch % group:
            raise InputError(
                f"the model takes {canvas.batch} picture{'s' if canvas.batch > 1 else ''} at once, and {group} that "
                "differ are made together",
                hint="export it with an open batch, or give --diversity 0",
            )
        if most is not None and most != canvas.batch:
            raise InputError(f"the model fixes the batch to {canvas.batch}; it cannot be {most}")
        return canvas.batch, ""
    each = picture_bytes(bound_model(model, canvas, 1, dims), layers)
    each += int(40 * canvas.channels * np.prod(canvas.size) * max(area, 1))
    fits = max(memory // max(each, 1), 0)
    if fits < group:
        raise MemoryLimitError(
            f"{group} picture{'s take' if group > 1 else ' takes'} about {bytes_text(group * each)} at once, and "
            f"{bytes_text(memory)} are allowed",
            hint="raise --max-memory, or lower --count or --resize",
        )
    limit = min(most if most is not None else _MOST, fits)
    limit = max(group, limit - limit % group)
    rounds = math.ceil(total / limit)
    size = math.ceil(total / rounds / group) * group
    note = f"{size} at once in {bytes_text(memory)}" if fits < min(total, most or _MOST) else ""
    return size, note


def other_inputs(
    model: ir.Model,
    bound: ir.Model,
    canvas: Canvas,
    batch: int,
    fixed: Sequence[str],
    dims: Mapping[str, int],
    seed: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what enters the other inputs, the same for each picture of a batch, and what is made up.

    Raises:
        InputError: A value does not fit.
    """
    single = bound if canvas.batch is not None or batch == 1 else bound_model(model, canvas, 1, dims)
    rows = canvas.batch if canvas.batch is not None else 1
    reader = Reader(single, Preprocessing(), seed)
    reader.add(canvas.name, np.zeros(canvas.shape(rows), np.float32), "made up here")
    for source in fixed:
        reader.read(source)
    inputs = reader.inputs({})
    shapes = {str(value.name): shape_list(value) or [] for value in model_inputs(bound)}
    found = {}
    for name, array in inputs.feeds.items():
        if name == canvas.name:
            continue
        if not isinstance(array, np.ndarray):
            raise InputError(f"input {name!r} takes a sequence", hint="export the model without it")
        wide = array.ndim and batch > 1 and shapes.get(name, [1])[0] == batch and len(array) == 1
        found[name] = np.repeat(array, batch, axis=0) if wide else array
    made_up = [printable(record.name, 40) for record in inputs.records if record.made_up]
    return found, [f"random numbers were fed to {listed(made_up, 3)} (--fix NAME=VALUE says else)"] if made_up else []


def weights_digest(model: ir.Model) -> int:
    """Return a checksum of a model's nodes and weights."""
    found = 0
    for node in model.graph:
        found = crc32(
            f"{node.op_type} {[None if v is None else v.name for v in node.inputs]}".encode(errors="replace"), found
        )
    for name, value in sorted(model.graph.initializers.items()):
        found = crc32(name.encode(errors="replace"), found)
        if value.const_value is not None:
            found = crc32(value.const_value.tobytes(), found)
    return found
