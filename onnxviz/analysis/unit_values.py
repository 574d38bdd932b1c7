"""What the units of a layer answer to each of many samples, as one matrix of samples × units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.feature_maps import axis_letters
from onnxviz.analysis.grown import Grown
from onnxviz.analysis.statistics import is_numeric, to_float
from onnxviz.errors import MemoryLimitError, SelectionError

__all__ = ["Over", "UnitValues", "unit_block", "unit_values"]

#: What is made of the positions of a unit: their mean, largest value or mean square; "flat" keeps every position.
Over = Literal["mean", "max", "energy", "flat"]
_MOST = 1 << 28  # values of a matrix: 1 GiB of float32


@dataclass(frozen=True, eq=False)
class UnitValues:
    """The answers of a layer's units to samples; those of two batches merge.

    Attributes:
        name: The tensor.
        shape: Its sizes in the first batch.
        axes: A letter an axis, as :func:`onnxviz.analysis.feature_maps.axis_letters` gives them.
        over: What was made of the positions of a unit.
        parts: ``(n, units)`` float32 a batch. NaN and Inf are kept.
    """

    name: str
    shape: tuple[int, ...]
    axes: str
    over: Over
    parts: Sequence[npt.NDArray[np.float32]]

    def merge(self, other: UnitValues) -> UnitValues:
        """Return the samples of both, those of ``other`` after these."""
        if other.units != self.units:
            raise SelectionError(
                f"{self.name} has {self.units} units for one sample and {other.units} for another",
                hint="choose a layer whose channels do not depend on the sample, or --resize the pictures",
            )
        if (self.samples + other.samples) * self.units > _MOST:
            raise MemoryLimitError(
                f"{self.samples + other.samples} samples × {self.units} units of {self.name} are too many to keep",
                hint="give fewer samples, or choose a smaller layer",
            )
        merged = replace(self, parts=Grown.joined(self.parts, other.parts))
        vars(merged)["samples"] = self.samples + other.samples  # known: counting every part at each merge is quadratic
        return merged

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.parts[0].shape[1])

    @cached_property
    def samples(self) -> int:
        """Number of samples."""
        return sum(map(len, self.parts))

    @property
    def channels(self) -> int:
        """Number of channels; the units, but where every position is one."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return sizes.get("C", 1) * (sizes.get("d", 1) if self.axes in ("TdNC", "dNC") else 1)

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """The answers, ``(samples, units)`` float32."""
        return np.concatenate(self.parts)


def unit_values(
    array: npt.NDArray[Any],
    name: str = "array",
    *,
    over: Over = "mean",
    op_type: str | None = None,
    layout: str | None = None,
) -> UnitValues:
    """Return what each unit (channel) of a layer answers to each sample of a batch.

    Args:
        array: A tensor whose axes are a batch, channels and any number of positions.
        name: Its name.
        over: ``"mean"``, ``"max"`` or ``"energy"`` (mean of x²) over the positions of each channel; NaN where one is
            NaN. ``"flat"``: every position of every channel is a unit of its own.
        op_type: The operator that made it.
        layout: As :func:`onnxviz.analysis.feature_maps.feature_maps` takes it.

    Raises:
        SelectionError: The tensor holds no numbers, is empty, or has no batch axis.

    >>> unit_values(np.arange(8.0).reshape(2, 2, 2), layout="NCHW").matrix.tolist()
    [[0.5, 2.5], [4.5, 6.5]]
    """
    if over not in get_args(Over):
        raise SelectionError(f"units cannot be taken over {over!r}", hint=f"choose from {', '.join(get_args(Over))}")
    axes, block = unit_block(array, name, op_type=op_type, layout=layout)
    if len(block) * math.prod(block.shape[1:] if over == "flat" else block.shape[1:2]) > _MOST:
        raise MemoryLimitError(f"{name}, of shape {array.shape}, has more units than are kept at once")
    flat = block.reshape(len(block), block.shape[1], -1)
    if over == "flat":
        made = flat.reshape(len(flat), -1)
    elif over == "max":
        made = flat.max(axis=2)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            made = (flat if over == "mean" else np.square(flat, dtype=np.float64)).mean(axis=2, dtype=np.float64)
    with np.errstate(over="ignore"):
        part = np.ascontiguousarray(made, np.float32)
    return UnitValues(name, tuple(array.shape), axes, over, (part,))


def unit_block(
    array: npt.NDArray[Any], name: str = "array", *, op_type: str | None = None, layout: str | None = None
) -> tuple[str, npt.NDArray[np.float32]]:
    """Return a tensor as samples × units × positions, and a letter an axis of the tensor.

    Args:
        array, name, op_type, layout: As :func:`unit_values` takes them.

    Returns:
        The letters, and ``(n, units, ...)`` float32 with the positions in the tensor's order; a tensor without channels
        is one unit.

    Raises:
        SelectionError: The tensor holds no numbers, is empty, or has no batch axis.

    >>> unit_block(np.zeros((2, 5, 6, 3)), layout="NHWC")[1].shape
    (2, 3, 5, 6)
    """
    if not is_numeric(array.dtype) or not array.size:
        what = "is empty" if is_numeric(array.dtype) else f"holds {array.dtype}"
        raise SelectionError(f"{name} {what}: it has no units", hint="choose a numeric tensor with channels")
    axes = axis_letters(array.shape, name, op_type, layout)
    if "N" not in axes:
        raise SelectionError(f"{name}, of shape {array.shape}, has no batch axis: it has no samples")
    block = np.moveaxis(to_float(array), axes.index("N"), 0)
    rest = axes.replace("N", "")
    if "C" in rest:
        block = np.moveaxis(block, rest.index("C") + 1, 1)
        if axes in ("TdNC", "dNC"):  # recurrent: directions times units
            block = np.moveaxis(block, rest.index("d") + 2, 1)
            block = block.reshape(len(block), block.shape[1] * block.shape[2], *block.shape[3:])
    else:
        block = block[:, None]
    return axes, block
