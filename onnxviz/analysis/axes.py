"""Which axes of the inputs are open, which of them count samples, and feeds of other sizes along them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.shapes import model_inputs, shape_list

__all__ = [
    "Dimension", "batch_dimension", "dimensions", "free_dimensions", "row_axis", "rows_of", "sample_axis", "sized",
    "varied",
]  # fmt: skip

Array = npt.NDArray[Any]
_BATCH = re.compile(r"(n|b|bs|bsz|.*batch.*)", re.IGNORECASE)
_OTHER = re.compile(r"seq|len|time|token|frame|past|head|[^\w.:/-]", re.IGNORECASE)
_NAMELESS = re.compile(r"unk_.*|.*:\d+|dim_?\d*|\?|None|_+", re.IGNORECASE)


@dataclass(frozen=True)
class Dimension:
    """A size that a caller may choose.

    Attributes:
        name: As the model calls it, or ``"input:axis"``.
        axes: Input -> the axis that has this size.
        guessed: Its name does not say that it counts samples.
    """

    name: str
    axes: Mapping[str, int]
    guessed: bool = False

    def size(self, feeds: Mapping[str, Any]) -> int:
        """Return the size that it has in what is fed."""
        return next(int(np.shape(feeds[name])[axis]) for name, axis in self.axes.items())


def dimensions(model: ir.Model) -> list[Dimension]:
    """Return the open dimensions of the inputs, those of one name together.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4, ?] x) => (float[n, 4, ?] y) {y = Relu(x)}'
    ... )
    >>> dimensions(model)
    [Dimension(name='n', axes={'x': 0}, guessed=False), Dimension(name='x:2', axes={'x': 2}, guessed=False)]
    """
    found: dict[str, dict[str, int]] = {}
    for value in model_inputs(model):
        if not isinstance(value.type, (ir.TensorType, type(None))):
            continue
        for axis, dim in enumerate(shape_list(value) or []):
            if not isinstance(dim, int):
                found.setdefault(dim or f"{value.name}:{axis}", {}).setdefault(str(value.name), axis)
    return [Dimension(name, axes) for name, axes in found.items()]


def batch_dimension(model: ir.Model) -> Dimension | None:
    """Return the open dimension that counts samples; None where none does, or it cannot be told which.

    It is the one whose name says so; else the first axis, where all inputs have it open under one name or none.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[5, batch] x) => (float[5, batch] y) {y = Relu(x)}'
    ... )
    >>> batch_dimension(model)
    Dimension(name='batch', axes={'x': 1}, guessed=False)
    """
    every = dimensions(model)
    named = [d for d in every if _BATCH.fullmatch(d.name) and not _OTHER.search(d.name)]
    if len(named) == 1:
        return named[0]
    if named:
        axes = {name: axis for d in named for name, axis in d.axes.items()}
        return Dimension(named[0].name, axes) if len(axes) == sum(len(d.axes) for d in named) else None
    first = [d for d in every if set(d.axes.values()) == {0}]
    tensors = [v for v in model_inputs(model) if len(shape_list(v) or []) > 1]
    covered = {name for d in first for name in d.axes}
    if not first or not tensors or any(str(v.name) not in covered for v in tensors):
        return None
    told = [d for d in first if not _NAMELESS.fullmatch(d.name)]
    if len({d.name for d in told}) > 1 or (told and len(told) < len(first)) or any(_OTHER.search(d.name) for d in told):
        return None
    return Dimension(first[0].name, {name: axis for d in first for name, axis in d.axes.items()}, guessed=True)


def free_dimensions(model: ir.Model) -> list[Dimension]:
    """Return the open dimensions that can be chosen one by one, the one that counts samples first.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[t, batch] x) => (float[t, batch] y) {y = Relu(x)}'
    ... )
    >>> [dimension.name for dimension in free_dimensions(model)]
    ['batch', 't']
    """
    every, batch = dimensions(model), batch_dimension(model)
    if batch is None:
        return every
    return [batch, *(d for d in every if not set(d.axes.items()) <= set(batch.axes.items()))]


def sized(feeds: Mapping[str, Any], dimension: Dimension, size: int) -> dict[str, Any]:
    """Return feeds with another size along a dimension: cut off, or begun anew."""
    changed = dict(feeds)
    for name, axis in dimension.axes.items():
        array = np.asarray(feeds[name])
        shape = list(array.shape)
        shape[axis] = size
        empty = 0 in array.shape or not size
        changed[name] = (
            np.zeros(shape, array.dtype) if empty else np.take(array, np.arange(size) % array.shape[axis], axis)
        )
    return changed


def varied(feeds: Mapping[str, Any], dimension: Dimension, count: int = 3) -> dict[str, Any]:
    """Return feeds of several samples that differ: those that there are, then variants of the first.

    These are turned round or shifted, and differ in their mean and extremes too: numbers are smaller; of whole numbers,
    which may be indices, some are repeated in place of others.
    """
    changed = dict(feeds)
    for name, axis in dimension.axes.items():
        array = np.moveaxis(np.asarray(feeds[name]), axis, 0)
        rows = [array[i] if i < len(array) else _variant(array[0], i) for i in range(count)]
        changed[name] = np.ascontiguousarray(np.moveaxis(np.stack(rows), 0, axis))
    return changed


def _variant(row: Array, number: int) -> Array:
    if row.size < 2:
        return (row * (0.5 + number)).astype(row.dtype) if row.dtype.kind == "f" else row
    turned = np.flip(row) if number % 2 else np.roll(row.reshape(-1), row.size // 3 + 1).reshape(row.shape)
    if row.dtype.kind == "f":
        return np.asarray(turned * (0.5 + 0.25 * (number % 2)), row.dtype)
    return np.resize(turned.reshape(-1)[: max(1, row.size * (1 + number % 2) // 3)], row.shape)


def row_axis(one: tuple[int, ...], two: tuple[int, ...], three: tuple[int, ...]) -> int | None:
    """Return the axis of an output that grows with the batch, from its shapes for 1, 2 and 3 samples.

    >>> row_axis((1, 10), (2, 10), (3, 10)), row_axis((10,), (10,), (10,)), row_axis((4,), (8,), (12,))
    (0, None, 0)
    """
    return sample_axis({1: one, 2: two, 3: three})


def sample_axis(shapes: Mapping[int, tuple[int, ...]]) -> int | None:
    """Return the axis of an output that grows with the batch; None where none, or not one alone, does.

    Args:
        shapes: Number of samples -> shape, that of 1 sample among them.

    >>> sample_axis({1: (5, 1), 4: (5, 4), 8: (5, 8)})
    1
    """
    one = shapes[1]
    if any(len(shape) != len(one) for shape in shapes.values()):
        return None
    grows = [i for i, size in enumerate(one) if size and all(s[i] == n * size for n, s in shapes.items())]
    same = all(shape[i] == size for shape in shapes.values() for i, size in enumerate(one) if i not in grows)
    return grows[0] if len(grows) == 1 and same and len(shapes) > 1 else None


def rows_of(array: Array, axis: int, count: int) -> list[Array]:
    """Return the part of each sample of an output."""
    return np.split(array, count, axis)
