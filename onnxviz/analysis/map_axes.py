"""Which axis of an activation is what, and one sample of it as channels over positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.statistics import is_numeric, to_float
from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import KINDS

if TYPE_CHECKING:
    from onnxviz.runtime.record import TensorRecord

__all__ = ["AXES", "RECURRENT", "Slices", "axis_letters", "channels_first", "cut_volume", "numeric_array"]

#: Which slices of a volume: one, several, ``"strip"`` (an even spread), or None for the middle one.
Slices = int | Sequence[int] | Literal["strip"] | None
#: Names of the axes that a volume can be cut along, and their letters in a layout.
AXES = {"depth": "D", "height": "H", "width": "W", "time": "T"}
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})

# Operators whose outputs have their channels second whatever the rank.
_CHANNELS_SECOND = KINDS["conv"] | KINDS["pool"] | {"BatchNormalization", "InstanceNormalization", "PRelu"}
_STRIP = 8  # slices of a strip


def numeric_array(
    record: TensorRecord | npt.NDArray[Any], name: str | None, what: str = "feature maps"
) -> tuple[npt.NDArray[Any], str, str | None, str]:
    """Return the values of a tensor, its name, the operator that made it and its type.

    Raises:
        SelectionError: It is no array of numbers with axes.
    """
    if isinstance(record, np.ndarray):
        array, title, op_type, dtype = record, name or "array", None, str(record.dtype)
    else:
        array, title, op_type, dtype = record.array, name or record.name, record.op_type, record.dtype
    if not is_numeric(array.dtype):
        raise SelectionError(f"{title} holds {array.dtype}, which has no {what}", hint="choose a numeric tensor")
    if not array.ndim or not array.size:
        told = "is a scalar" if not array.ndim else f"is empty, of shape {array.shape}"
        raise SelectionError(f"{title} {told}: it has no {what}", hint="choose a tensor with channels")
    return array, title, op_type, dtype


def axis_letters(shape: tuple[int, ...], title: str, op_type: str | None = None, layout: str | None = None) -> str:
    """Return a letter an axis: N batch, C channels, d directions of a recurrence, anything else spatial.

    Args:
        shape: The tensor's sizes.
        title: Its name, for errors.
        op_type: The operator that made it; the outputs of LSTM, GRU and RNN are time-first.
        layout: As :func:`onnxviz.analysis.feature_maps.feature_maps` takes it.

    Raises:
        SelectionError: ``layout`` does not fit, or there are more than five axes.

    >>> axis_letters((1, 8, 5, 5), "conv"), axis_letters((1, 50, 64), "tokens"), axis_letters((9, 2, 1, 4), "y", "LSTM")
    ('NCHW', 'NWC', 'TdNC')
    """
    rank = len(shape)
    layout = None if layout is None else layout.upper()
    if layout is None and op_type in RECURRENT and rank == 4:
        return "TdNC"  # Y: time, directions, batch, units
    if layout is None and op_type in RECURRENT and rank == 3:
        return "dNC"  # the last state
    if layout is None or layout in ("NCHW", "NHWC"):
        last = layout == "NHWC" or (layout is None and rank == 3 and op_type not in _CHANNELS_SECOND)
        if rank == 1:
            return "C"
        if rank > 5:
            raise SelectionError(f"{title} has {rank} axes: no feature maps", hint="choose a tensor of up to 5 axes")
        spatial = "DHW"[5 - rank :]
        return f"N{spatial}C" if last else f"NC{spatial}"
    if len(layout) != rank or layout.count("C") > 1 or layout.count("N") > 1 or not layout.isalpha():
        raise SelectionError(
            f"layout {layout!r} does not fit {title}, of shape {tuple(shape)}",
            hint="give NCHW, NHWC, or one letter an axis, such as CHW, HW, NTC or NCTHW",
        )
    return layout


def channels_first(
    array: npt.NDArray[Any], axes: str, sample: int, title: str
) -> tuple[npt.NDArray[np.float32], str, int, int]:
    """Return one sample as float32 ``(C, *spatial)``, the letters of its spatial axes, the sample, and the batch.

    Raises:
        SelectionError: The batch has no such sample.
    """
    batch = array.shape[axes.index("N")] if "N" in axes else 1
    if not -batch <= sample < batch:
        raise SelectionError(f"{title} has no sample {sample}", hint=f"its batch holds {batch}, counted from 0")
    sample %= batch
    if "N" in axes:
        array = array.take(sample, axis=axes.index("N"))
        axes = axes.replace("N", "")
    if axes in ("TdC", "dC"):  # recurrent: directions times units are the channels
        units = array.shape[-2] * array.shape[-1]
        return to_float(array.reshape(*array.shape[:-2], units).T), axes[:-2], sample, batch
    array = np.moveaxis(array, axes.index("C"), 0) if "C" in axes else array[None]
    return to_float(array), axes.replace("C", ""), sample, batch


def cut_volume(
    block: npt.NDArray[np.float32], title: str, letters: str, slices: Slices, along: str | None
) -> tuple[npt.NDArray[np.float32], tuple[int, ...], str]:
    """Return slices of ``(C, S1, S2, S3)`` as ``(C, slices, H, W)``, which they are, and what a slice is called.

    Raises:
        SelectionError: There is no such axis or slice.
    """
    axis = 0
    if along is not None:
        letter = AXES.get(along, along.upper())
        if letter not in letters:
            known = [name for name, of in AXES.items() if of in letters] or list(letters)
            raise SelectionError(f"{title} has no axis {along!r} to be cut along", hint=f"it has {', '.join(known)}")
        axis = letters.index(letter)
    block = np.moveaxis(block, axis + 1, 1)
    count = block.shape[1]
    if slices is None:
        chosen = [count // 2]
    elif isinstance(slices, str):
        chosen = [round(i * (count - 1) / max(min(count, _STRIP) - 1, 1)) for i in range(min(count, _STRIP))]
    else:
        chosen = [slices] if isinstance(slices, int) else list(slices)
    wrong = next((i for i in chosen if not -count <= i < count), None)
    if wrong is not None or not chosen:
        raise SelectionError(f"{title} has no slice {wrong}", hint=f"it has {count}, counted from 0")
    chosen = [i % count for i in chosen]
    word = "frame" if letters[axis] == "T" else "slice"
    return block[:, chosen], tuple(chosen), word
