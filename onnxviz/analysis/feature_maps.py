"""Feature maps: the channels of an activation as pictures, the best of them chosen by a named score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.channel_scores import channel_ranges, hoyer_sparsity
from onnxviz.analysis.map_axes import Slices, axis_letters, channels_first, cut_volume, numeric_array
from onnxviz.analysis.scale import PERCENTILE, ColorScale, color_scale
from onnxviz.analysis.tokens import Tokens
from onnxviz.errors import SelectionError

if TYPE_CHECKING:
    from onnxviz.runtime.record import TensorRecord

__all__ = ["FeatureMaps", "Score", "axis_letters", "feature_maps", "hoyer_sparsity"]

Score = Literal["energy", "index", "sparsity"]
Kind = Literal["grid", "image", "vector"]
_MOST_ASIDE = 8  # tokens beside the patches whose values are kept


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The channels of one activation, for one sample, as two-dimensional maps.

    Attributes:
        name: The tensor's name.
        op_type: The operator that produced it, or None for an input.
        shape: The whole tensor's shape.
        dtype: The whole tensor's type.
        kind: ``"grid"``: a map a channel, or a map a channel and slice. ``"image"``: one map, channels down,
            positions across.
            ``"vector"``: one map of one row, a column a channel.
        maps: ``(K, H, W)`` float32, read-only; K is 1 for an image or a vector.
        channels: The channel's index of each map (grid), row (image) or column (vector); with several slices a channel
            is there once for each.
        scores: ``(len(channels),)`` float64, the score that ``by`` names; for ``"index"``, the energy.
        by: The score that the channels were chosen by, highest first; ``"index"`` is the first ones in order,
            ``"request"`` those that were asked for.
        total: Number of channels in the tensor.
        sample: Index of the sample in the batch.
        batch: Size of the batch.
        scale: The scale that all channels of this sample share, those not shown included; of a vector, its full range.
        ranges: ``(len(channels), 2)`` float32: smallest and largest finite value of each channel shown; NaN where
            there is none.
        constant: Whether all finite values of a channel are equal, for each channel shown.
        constant_total: Number of such channels in the whole tensor.
        note: What was done to get two-dimensional maps; empty where nothing was.
        across: What lies across an image: ``"position"``, ``"time"`` or ``"token"``.
        slices: Of a volume, the slice of each map; else empty.
        cut: What such a slice is called: ``"slice"`` or ``"frame"``.
        aside: Tokens that stand for no patch, such as CLS: label, and ``(len(channels),)`` float32 values.
    """

    name: str
    op_type: str | None
    shape: tuple[int, ...]
    dtype: str
    kind: Kind
    maps: npt.NDArray[np.float32]
    channels: tuple[int, ...]
    scores: npt.NDArray[np.float64]
    by: Score | Literal["request"]
    total: int
    sample: int
    batch: int
    scale: ColorScale
    ranges: npt.NDArray[np.float32]
    constant: tuple[bool, ...]
    constant_total: int
    note: str
    across: str = "position"
    slices: tuple[int, ...] = ()
    cut: str = "slice"
    aside: tuple[tuple[str, npt.NDArray[np.float32]], ...] = ()

    @property
    def strip(self) -> int:
        """How many slices of each channel are shown; 1 where there is no more than one map a channel."""
        return len(self.channels) // max(len(set(self.channels)), 1) if self.slices else 1

    @property
    def shown(self) -> str:
        """How many of how many channels are shown, and by what: ``"64 of 512 channels, by energy"``."""
        count = len(set(self.channels))
        if count == self.total:
            return "1 channel" if self.total == 1 else f"all {self.total} channels"
        order = {"index": "in index order", "request": "as asked for"}.get(self.by, f"by {self.by}")
        return f"{count} of {self.total} channels, {order}"

    def first(self, count: int) -> FeatureMaps:
        """Return a grid's first maps; several slices of a channel stay together."""
        count = max(count // self.strip, 1) * self.strip
        if self.kind != "grid" or count >= len(self.channels):
            return self
        return replace(
            self, maps=self.maps[:count], channels=self.channels[:count], scores=self.scores[:count],
            ranges=self.ranges[:count], constant=self.constant[:count], slices=self.slices[:count],
            aside=tuple((label, values[:count]) for label, values in self.aside),
        )  # fmt: skip

    def best(self, count: int) -> tuple[int, ...]:
        """Return the places within ``channels`` of the highest scores, the highest first; as asked for, or in order."""
        order = (
            range(len(self.channels)) if self.by in ("index", "request") else np.argsort(-self.scores, kind="stable")
        )
        return tuple(int(i) for i in list(order)[:count])

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
    channels: Sequence[int] | None = None,
    slices: Slices = None,
    along: str | None = None,
    tokens: Tokens | None = None,
    across: str | None = None,
    rows: int | None = None,
) -> FeatureMaps:
    """Return the channels of an activation as two-dimensional maps.

    ``(N, C, H, W)`` gives a map a channel; ``(N, C, D, H, W)`` slices of each volume, the middle one unless others are
    named; ``(N, C, L)`` and ``(N, T, C)`` one image with the channels down and time or position across;
    ``(N, C)`` and ``(N, C, 1, 1)`` one row. ``(N, T, C)`` with ``tokens`` of which some are patches gives a map a
    channel, the other tokens set aside.
    The first axis is taken as the batch unless ``layout`` says otherwise. The outputs of LSTM, GRU and RNN, which are
    time-first, are recognised by their operator.

    Energy is the mean of ``x²`` over a channel's finite values. Sparsity is Hoyer's: see :func:`hoyer_sparsity`. Ties
    keep the order of the channels. Scores, scale and constancy are those of whole volumes, and of patches alone.

    Args:
        record: A captured tensor, or an array.
        layout: ``"NCHW"`` or ``"NHWC"``, for any rank: channels second, or last. Or a letter an axis, such as
            ``"CHW"``, ``"HWC"``, ``"HW"``, ``"NTC"``, ``"NCTHW"``. None takes ``"NCHW"``, and at rank 3 ``"NTC"``
            unless a convolution or the like made it.
        top: Largest number of channels of a grid; None for all. Images and vectors show every channel.
        by: ``"energy"``, ``"sparsity"`` or ``"index"`` (the first ones).
        sample: Which sample of the batch.
        name: The tensor's name where ``record`` is an array.
        channels: Which channels, in this order; ``top`` and ``by`` then choose nothing.
        slices: Which slices of a volume; ignored elsewhere.
        along: The axis that a volume is cut along: ``"depth"``, ``"height"``, ``"width"``, ``"time"`` or its letter; by
            default the first.
        tokens: What the positions of ``(N, T, C)`` stand for.
        across: What lies across an image; by default ``"time"`` for recurrence and the letter T, else ``"position"``.
        rows: Most channels of an image: those of the highest score, in the order of their index; None for all.

    Raises:
        SelectionError: The tensor has no such view: a scalar, text, an empty tensor, more than three spatial axes; or
            ``layout``, ``by``, ``sample``, ``channels`` or ``slices`` does not fit it.

    >>> maps = feature_maps(np.arange(8.0).reshape(1, 2, 2, 2), by="energy")
    >>> maps.channels, maps.maps.shape, maps.shown
    ((1, 0), (2, 2, 2), 'all 2 channels')
    >>> feature_maps(np.zeros((1, 9, 2, 2)), channels=[7, 2]).shown
    '2 of 9 channels, as asked for'
    """
    _check(by, top)
    array, title, op_type, dtype = numeric_array(record, name)
    axes = axis_letters(array.shape, title, op_type, layout)
    block, letters, sample, batch = channels_first(array, axes, sample, title)
    whole, view = _arrange(block, title, axes, letters, (slices, along, tokens, across))
    total = len(whole)
    energy, low, high = channel_ranges(whole)
    scores = hoyer_sparsity(whole) if by == "sparsity" else energy
    order = _order(scores, title, view.kind, (top, rows), by, channels)
    repeated = np.repeat(order, max(len(view.cuts), 1))
    maps = _flat_maps(view, whole, order)
    maps.flags.writeable = False
    constant = ~(low < high)
    return FeatureMaps(
        name=title, op_type=op_type, shape=tuple(array.shape), dtype=dtype, kind=view.kind, maps=maps,
        channels=tuple(repeated.tolist()), scores=scores[repeated], by=by if channels is None else "request",
        total=total, sample=sample, batch=batch,
        scale=color_scale(whole, percentile=100.0 if view.kind == "vector" else PERCENTILE),
        ranges=np.stack([low, high], axis=1)[repeated], constant=tuple(constant[repeated].tolist()),
        constant_total=int(np.count_nonzero(constant)) if view.kind != "vector" else 0, note=view.note,
        across=view.across, slices=view.cuts * len(order), cut=view.cut,
        aside=tuple((label, values[order]) for label, values in view.aside),
    )  # fmt: skip


def _check(by: str, top: int | None) -> None:
    if by not in get_args(Score):
        raise SelectionError(f"channels cannot be chosen by {by!r}", hint=f"choose from {', '.join(get_args(Score))}")
    if top is not None and top < 1:
        raise SelectionError(f"the top {top} channels are none", hint="ask for 1 or more")


@dataclass(frozen=True, eq=False)
class _View:
    """How a block becomes maps: its kind, its slices (``(C, slices, H, W)``) where it is cut, and what is said."""

    kind: Kind
    note: str = ""
    across: str = "position"
    cuts: tuple[int, ...] = ()
    cut: str = "slice"
    sliced: npt.NDArray[np.float32] | None = None
    aside: tuple[tuple[str, npt.NDArray[np.float32]], ...] = ()


def _arrange(
    block: npt.NDArray[np.float32], title: str, axes: str, letters: str, options: tuple[Any, ...]
) -> tuple[npt.NDArray[np.float32], _View]:
    """Return the block that scores and scale are of, ``(C, …)``, and how it becomes maps."""
    slices, along, tokens, across = options
    spatial = block.shape[1:]
    if len(spatial) > 3:
        raise SelectionError(
            f"{title} has {len(spatial)} spatial axes: no feature maps", hint="at most three are drawn"
        )
    if math.prod(spatial) == 1 and "C" in axes:
        shape = f"({', '.join('N' if a == 'N' else 'C' if a == 'C' else '1' for a in axes)})"
        return block.reshape(len(block), 1), _View("vector", f"{shape} vector as one row")
    if len(spatial) == 3:
        sliced, cuts, word = cut_volume(block, title, letters, slices, along)
        return block, _View("grid", _volume_note(sliced, block, cuts, word, along), cuts=cuts, cut=word, sliced=sliced)
    if len(spatial) == 2 and (1 not in spatial or "C" not in axes):
        return block, _View("grid")
    if len(spatial) == 1 and tokens is not None and len(tokens) == spatial[0] and tokens.image is not None:
        return _token_maps(block, tokens)
    across = across or ("time" if letters in ("T", "TD") or "T" in axes else "position")
    return block.reshape(len(block), -1), _View("image", f"1-D: channel × {across} image", across)


def _volume_note(
    sliced: npt.NDArray[np.float32], block: npt.NDArray[np.float32], cuts: tuple[int, ...], word: str, along: str | None
) -> str:
    count = block.size * len(cuts) // max(sliced.size, 1)
    if count == 1:
        return ""
    what = "video" if word == "frame" else "3-D volume"
    cut = f" along {along}" if along else ""
    if len(cuts) > 1:
        return f"{what}, {len(cuts)} of {count} {word}s a channel{cut}"
    return f"{what}, {'middle ' if cuts[0] == count // 2 else ''}{word} {cuts[0]} of {count}{cut}"


def _token_maps(block: npt.NDArray[np.float32], tokens: Tokens) -> tuple[npt.NDArray[np.float32], _View]:
    """Return the patches of ``(C, T)`` as ``(C, rows, columns)``, and the values of the other tokens."""
    patches = tokens.image
    assert patches is not None
    assert patches.grid is not None
    maps = block[:, patches.start : patches.stop].reshape(len(block), *patches.grid)
    others = [i for i in range(len(tokens)) if not patches.start <= i < patches.stop]
    note = f"tokens as {patches.grid[0]} × {patches.grid[1]} patches"
    if others:
        names = dict.fromkeys(block_.name for block_ in tokens.blocks if block_ is not patches)
        note += f", {', '.join(list(names)[:3])} set aside"
    kept = [i for i in others if any(b.kind == "learned" and b.start <= i < b.stop for b in tokens.blocks)]
    aside = tuple((tokens.labels[i], block[:, i]) for i in kept[:_MOST_ASIDE])
    return maps, _View("grid", f"{note} ({tokens.note})" if tokens.note else note, aside=aside)


def _order(
    scores: npt.NDArray[np.float64], title: str, kind: Kind, most: tuple[int | None, int | None], by: Score,
    channels: Sequence[int] | None,
) -> npt.NDArray[np.intp]:  # fmt: skip
    """Return the channels that are shown, in their order."""
    total = len(scores)
    if channels is not None:
        wrong = next((i for i in channels if not 0 <= i < total), None)
        if wrong is not None or not channels:
            raise SelectionError(
                f"{title} has no channel {wrong}" if channels else f"no channel of {title} is named",
                hint=f"it has {total}, 0 to {total - 1}",
            )
        return np.array(list(dict.fromkeys(channels)), np.intp)
    ranked = np.arange(total) if by == "index" else np.argsort(-scores, kind="stable")
    if kind == "grid":
        return ranked[: most[0]]
    if kind == "image" and most[1] is not None and total > most[1]:
        return np.sort(ranked[: most[1]])
    return np.arange(total)


def _flat_maps(view: _View, block: npt.NDArray[np.float32], order: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    if view.sliced is not None:
        return view.sliced[order].reshape(-1, *view.sliced.shape[2:])
    if view.kind == "grid":
        return block[order]
    return block.reshape(len(block), -1)[order].reshape(1, *((len(order), -1) if view.kind == "image" else (1, -1)))
