"""Feature maps: the channels of an activation as pictures, the best of them chosen by a named score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.scale import PERCENTILE, ColorScale, color_scale
from onnxviz.analysis.statistics import is_numeric, to_float
from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import KINDS

if TYPE_CHECKING:
    from onnxviz.runtime.record import TensorRecord

__all__ = ["FeatureMaps", "Score", "axis_letters", "feature_maps", "hoyer_sparsity"]

Score = Literal["energy", "index", "sparsity"]
Kind = Literal["grid", "image", "vector"]

# Operators whose outputs have their channels second whatever the rank.
_CHANNELS_SECOND = KINDS["conv"] | KINDS["pool"] | {"BatchNormalization", "InstanceNormalization", "PRelu"}
_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The channels of one activation, for one sample, as two-dimensional maps.

    Attributes:
        name: The tensor's name.
        op_type: The operator that produced it, or None for an input.
        shape: The whole tensor's shape.
        dtype: The whole tensor's type.
        kind: ``"grid"``: a map a channel. ``"image"``: one map, channels down, time (or position) across.
            ``"vector"``: one map of one row, a column a channel.
        maps: ``(K, H, W)`` float32, read-only; K is 1 for an image or a vector.
        channels: The channel's index of each map (grid), row (image) or column (vector).
        scores: ``(len(channels),)`` float64, the score that ``by`` names; for ``"index"``, the energy.
        by: The score that the channels were chosen by, highest first; ``"index"`` is the first ones in order.
        total: Number of channels in the tensor.
        sample: Index of the sample in the batch.
        batch: Size of the batch.
        scale: The scale that all channels of this sample share, those not shown included; of a vector, its full range.
        ranges: ``(len(channels), 2)`` float32: smallest and largest finite value of each channel shown; NaN where
            there is none.
        constant: Whether all finite values of a channel are equal, for each channel shown.
        constant_total: Number of such channels in the whole tensor.
        note: What was done to get two-dimensional maps; empty where nothing was.
    """

    name: str
    op_type: str | None
    shape: tuple[int, ...]
    dtype: str
    kind: Kind
    maps: npt.NDArray[np.float32]
    channels: tuple[int, ...]
    scores: npt.NDArray[np.float64]
    by: Score
    total: int
    sample: int
    batch: int
    scale: ColorScale
    ranges: npt.NDArray[np.float32]
    constant: tuple[bool, ...]
    constant_total: int
    note: str

    @property
    def shown(self) -> str:
        """How many of how many channels are shown, and by what: ``"64 of 512 channels, by energy"``."""
        if len(self.channels) == self.total:
            return "1 channel" if self.total == 1 else f"all {self.total} channels"
        order = "in index order" if self.by == "index" else f"by {self.by}"
        return f"{len(self.channels)} of {self.total} channels, {order}"

    def captions(self) -> list[str]:
        """Return the parts of the caption: channels, scale, clipping, constant channels, how the maps were made."""
        parts = [self.shown, self.scale.caption()]
        if self.kind == "vector":
            parts[0] = f"{self.total} values"
        if self.constant_total and self.kind != "vector":
            parts.append(f"{self.constant_total} constant")
        if self.batch > 1:
            parts.append(f"sample {self.sample} of {self.batch}")
        if self.note:
            parts.append(self.note)
        return parts


def feature_maps(
    record: TensorRecord | npt.NDArray[Any],
    *,
    layout: str | None = None,
    top: int | None = 64,
    by: Score = "energy",
    sample: int = 0,
    name: str | None = None,
) -> FeatureMaps:
    """Return the channels of an activation as two-dimensional maps.

    ``(N, C, H, W)`` gives a map a channel; ``(N, C, D, H, W)`` the middle slice of each volume; ``(N, C, L)`` and
    ``(N, T, C)`` one image with the channels down and time or position
    across, all of them; ``(N, C)`` and ``(N, C, 1, 1)`` one row.
    The first axis is taken as the batch unless ``layout`` says otherwise. The outputs of LSTM, GRU and RNN, which are
    time-first, are recognised by their operator.

    Energy is the mean of ``x²`` over a channel's finite values. Sparsity is Hoyer's
    ``(√n - L1/L2) / (√n - 1)`` (Hoyer 2004, JMLR 5, section 3.1): 0 for a flat channel, 1 for a single spike; a
    channel of zeros has 0. Ties keep the order of the channels.

    Args:
        record: A captured tensor, or an array.
        layout: ``"NCHW"`` or ``"NHWC"``, for any rank: channels second, or last. Or a letter an axis, such as
            ``"CHW"``, ``"HWC"``, ``"HW"``, ``"NTC"``. None takes ``"NCHW"``, and at rank 3 ``"NTC"`` unless a
            convolution or the like made it.
        top: Largest number of maps; None for all. Images and vectors always show every channel.
        by: ``"energy"``, ``"sparsity"`` or ``"index"`` (the first ones).
        sample: Which sample of the batch.
        name: The tensor's name where ``record`` is an array.

    Raises:
        SelectionError: The tensor has no such view: a scalar, text, an empty tensor, more than three spatial axes; or
            ``layout``, ``by`` or ``sample`` does not fit it.

    >>> maps = feature_maps(np.arange(8.0).reshape(1, 2, 2, 2), by="energy")
    >>> maps.channels, maps.maps.shape, maps.shown
    ((1, 0), (2, 2, 2), 'all 2 channels')
    """
    if isinstance(record, np.ndarray):
        array, title, op_type, dtype = record, name or "array", None, str(record.dtype)
    else:
        array, title, op_type, dtype = record.array, name or record.name, record.op_type, record.dtype
    _check(array, title, by, top)
    axes = axis_letters(array.shape, title, op_type, layout)
    batch = array.shape[axes.index("N")] if "N" in axes else 1
    if not -batch <= sample < batch:
        raise SelectionError(f"{title} has no sample {sample}", hint=f"its batch holds {batch}, counted from 0")
    sample %= batch
    block = _channels_first(array, axes, sample)
    kind, block, note = _arrange(block, title, axes)
    total = block.shape[0]
    energy, low, high = _per_channel(block)
    scores = hoyer_sparsity(block) if by == "sparsity" else energy
    order = np.arange(total) if by == "index" else np.argsort(-scores, kind="stable")
    if kind != "grid":
        order = np.arange(total)
    elif top is not None:
        order = order[:top]
    scale = color_scale(block, percentile=100.0 if kind == "vector" else PERCENTILE)
    maps = _flat_maps(kind, block, order)
    maps.flags.writeable = False
    return FeatureMaps(
        name=title,
        op_type=op_type,
        shape=tuple(array.shape),
        dtype=dtype,
        kind=kind,
        maps=maps,
        channels=tuple(int(i) for i in order),
        scores=scores[order],
        by=by,
        total=total,
        sample=sample,
        batch=batch,
        scale=scale,
        ranges=np.stack([low, high], axis=1)[order],
        constant=tuple(bool(c) for c in ~(low < high)[order]),
        constant_total=int(np.count_nonzero(~(low < high))) if kind != "vector" else 0,
        note=note,
    )


def hoyer_sparsity(block: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return Hoyer's sparsity of each channel of ``(C, …)`` over its finite values, as ``(C,)`` between 0 and 1.

    >>> hoyer_sparsity(np.array([[0.0, 0.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    scores = np.zeros(len(block))
    for i, channel in enumerate(block):
        values = np.abs(channel[np.isfinite(channel)].astype(np.float64))
        peak = values.max(initial=0.0)
        if values.size < 2 or peak == 0:
            continue
        values /= peak
        root = math.sqrt(values.size)
        scores[i] = (root - values.sum() / math.sqrt(np.square(values).sum())) / (root - 1)
    return np.clip(scores, 0.0, 1.0)


def _check(array: npt.NDArray[Any], title: str, by: str, top: int | None) -> None:
    if by not in get_args(Score):
        raise SelectionError(f"channels cannot be chosen by {by!r}", hint=f"choose from {', '.join(get_args(Score))}")
    if top is not None and top < 1:
        raise SelectionError(f"the top {top} channels are none", hint="ask for 1 or more")
    if not is_numeric(array.dtype):
        raise SelectionError(f"{title} holds {array.dtype}, which has no feature maps", hint="choose a numeric tensor")
    if not array.ndim or not array.size:
        what = "is a scalar" if not array.ndim else f"is empty, of shape {array.shape}"
        raise SelectionError(f"{title} {what}: it has no feature maps", hint="choose a tensor with channels")


def axis_letters(shape: tuple[int, ...], title: str, op_type: str | None = None, layout: str | None = None) -> str:
    """Return a letter an axis: N batch, C channels, anything else spatial.

    Args:
        shape: The tensor's sizes.
        title: Its name, for errors.
        op_type: The operator that made it; the outputs of LSTM, GRU and RNN are time-first.
        layout: As :func:`feature_maps` takes it.

    Raises:
        SelectionError: ``layout`` does not fit, or there are more than five axes.

    >>> axis_letters((1, 8, 5, 5), "conv"), axis_letters((1, 50, 64), "tokens"), axis_letters((9, 2, 1, 4), "y", "LSTM")
    ('NCHW', 'NWC', 'TDNC')
    """
    rank = len(shape)
    if layout is None and op_type in _RECURRENT and rank == 4:
        return "TDNC"  # Y: time, directions, batch, units
    if layout is None and op_type in _RECURRENT and rank == 3:
        return "DNC"  # the last state
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
            hint="give NCHW, NHWC, or one letter an axis, such as CHW, HW or NTC",
        )
    return layout


def _channels_first(array: npt.NDArray[Any], axes: str, sample: int) -> npt.NDArray[np.float32]:
    """Return one sample as float32 ``(C, *spatial)``."""
    if "N" in axes:
        array = array.take(sample, axis=axes.index("N"))
        axes = axes.replace("N", "")
    if axes in ("TDC", "DC"):  # recurrent: directions times units are the channels
        units = array.shape[-2] * array.shape[-1]
        return to_float(array.reshape(*array.shape[:-2], units).T)
    array = np.moveaxis(array, axes.index("C"), 0) if "C" in axes else array[None]
    return to_float(array)


def _arrange(block: npt.NDArray[np.float32], title: str, axes: str) -> tuple[Kind, npt.NDArray[np.float32], str]:
    """Return the kind of view, the block as ``(C, H, W)``, ``(C, L)`` or ``(C,)``, and what was done."""
    spatial = block.shape[1:]
    if len(spatial) > 3:
        raise SelectionError(
            f"{title} has {len(spatial)} spatial axes: no feature maps", hint="at most three are drawn"
        )
    if math.prod(spatial) == 1 and "C" in axes:
        shape = f"({', '.join('N' if a == 'N' else 'C' if a == 'C' else '1' for a in axes)})"
        return "vector", block.reshape(-1), f"{shape} vector as one row"
    if len(spatial) == 3:
        middle = spatial[0] // 2
        note = f"3-D volume, middle slice {middle} of {spatial[0]}" if spatial[0] > 1 else ""
        return "grid", block[:, middle], note
    if len(spatial) == 2 and (1 not in spatial or "C" not in axes):
        return "grid", block, ""
    return "image", block.reshape(len(block), -1), "1-D: channel × position image"


def _per_channel(
    block: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return energy, smallest and largest finite value of each channel; NaN ranges where nothing is finite."""
    flat = block.reshape(len(block), -1)
    energy = np.zeros(len(flat))
    low, high = (np.full(len(flat), np.nan, np.float32) for _ in range(2))
    if flat.shape[1] == 1:  # a vector may have a million of them
        value = np.where(np.isfinite(flat[:, 0]), flat[:, 0], np.float32(np.nan))
        return np.nan_to_num(np.square(value, dtype=np.float64)), value, value.copy()
    for i, channel in enumerate(flat):
        values = channel[np.isfinite(channel)]
        if values.size:
            energy[i] = np.mean(np.square(values, dtype=np.float64))
            low[i], high[i] = values.min(), values.max()
    return energy, low, high


def _flat_maps(kind: Kind, block: npt.NDArray[np.float32], order: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    if kind == "grid":
        return block[order]
    return block.reshape(1, *((len(block), -1) if kind == "image" else (1, -1))).copy()
