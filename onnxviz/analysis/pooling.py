"""Pooling at work: what enters, what leaves, and which positions survive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps, Score
from onnxviz.analysis.numeric import is_numeric
from onnxviz.analysis.paired import NotDrawn, missing, paired_maps
from onnxviz.analysis.pool_plan import GLOBAL, WINDOWED, Method, PoolPlan, is_pool, plan_pooling
from onnxviz.analysis.pool_windows import Windows, ties, windows_of
from onnxviz.errors import ExecutionError, SelectionError
from onnxviz.graph.quantised import dequantizer
from onnxviz.runtime.piece import run_piece
from onnxviz.runtime.record import Capture

__all__ = ["PoolPlan", "PoolView", "Pooling", "Survivors", "is_pool", "plan_pooling", "pool_views"]


@dataclass(frozen=True, eq=False)
class Survivors:
    """Which positions of the channels shown max pooling kept, as the operator's own second output says.

    Attributes:
        positions: ``(K, *pooled, R)`` int64: the input position that each output position is a copy of, an entry a
            spatial axis; -1 where there is none (NaN in the window).
        tied: ``(K, *pooled)``: whether others in the window hold the same value.
        ties: Share of the windows that are tied, over all channels of the sample.
        kept: Share of the input positions that survive, over all channels of the sample.
        distinct: Number of them, each counted once.
        differing: Number of output positions whose value is not that at the position told; 0 unless something is wrong.
        outside: Number of survivors that lie in no place of their window, over all channels of the sample: then the
            windows of onnxruntime are others than the standard's, and ties are not known.
    """

    positions: npt.NDArray[np.int64]
    tied: npt.NDArray[np.bool_]
    ties: float
    kept: float
    distinct: int
    differing: int
    outside: int = 0


@dataclass(frozen=True, eq=False)
class PoolView:
    """One pooling layer, before and after.

    Attributes:
        name: The tensor that leaves it.
        source: The tensor that enters it.
        op_type: The operator.
        method: ``"max"``, ``"average"`` or ``"Lp"``.
        shape_before: Of the whole tensor that enters.
        shape_after: Of the one that leaves.
        windows: Where its windows lie; None for global pooling, which has one.
        before: What enters, for one sample.
        after: What leaves: the same channels on the same scale; for global pooling a vector of all channels.
        survivors: Of max pooling; None for others.
        spans: ``(C, 2)`` smallest and largest value of each channel before global pooling; None for others.
        slices: Which slice of a volume is shown before and after; None where it is none.
        note: What a reader should know; empty where there is nothing.
        nan: Number of NaN that enter and that leave, in the sample.
        inf: Number of infinite values, likewise.
        signals: Of one-dimensional maps, the channels to draw, in their order.
    """

    name: str
    source: str
    op_type: str
    method: Method
    shape_before: tuple[int, ...]
    shape_after: tuple[int, ...]
    windows: Windows | None
    before: FeatureMaps
    after: FeatureMaps
    survivors: Survivors | None
    spans: npt.NDArray[np.float64] | None
    slices: tuple[int, int] | None
    note: str
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    signals: tuple[int, ...] = ()

    def captions(self) -> list[str]:
        """Return what is done, and what survives, in words."""
        parts = [self.windows.text() if self.windows is not None else f"{self.method} over the whole map"]
        kept = self.survivors
        if kept is not None and self.windows is not None:
            parts.append(f"{100 * kept.kept:.3g} % of positions survive")
            if not kept.outside:
                parts.append(f"{100 * kept.ties:.3g} % of windows tied")
        elif kept is not None:
            parts.append(f"largest value tied in {100 * kept.ties:.3g} % of channels")
        if kept is not None and kept.differing:
            parts.append(f"{kept.differing} values differ from the position told")
        if kept is not None and kept.outside:
            parts.append("onnxruntime's windows are not the standard's here, so none is framed")
        for (enter, leave), what in ((self.nan, "NaN"), (self.inf, "Inf")):
            if enter or leave:
                parts.append(f"{enter} {what} enter, {leave} leave (hatched)")
        return [*parts, self.note] if self.note else parts


@dataclass(frozen=True)
class Pooling:
    """The pooling layers of a model on its input.

    Attributes:
        model_name: Of the model.
        views: One a layer, in the graph's order.
        not_drawn: What was asked for and cannot be shown.
        note: What a reader should know of the input; empty where there is nothing.
    """

    model_name: str
    views: tuple[PoolView, ...]
    not_drawn: tuple[NotDrawn, ...]
    note: str = ""


def pool_views(
    plan: PoolPlan, captured: Capture, *, top: int | None = 8, by: Score = "energy", sample: int = 0
) -> Pooling:
    """Return the pooling layers of a plan.

    Args:
        plan: What :func:`plan_pooling` returned.
        captured: The tensors of the plan, with their arrays.
        top: Most channels to show.
        by: How they are chosen, by what enters; see :func:`onnxviz.analysis.feature_maps.feature_maps`.
        sample: Which sample of the batch.

    Raises:
        SelectionError: Not one can be shown.
    """
    views: list[PoolView] = []
    refused = list(plan.not_drawn)
    for node in plan.nodes:
        name, source = str(node.outputs[0].name), str(node.inputs[0].name)  # type: ignore[union-attr]
        lost = missing(captured, source, name)
        try:
            if lost is None:
                views.append(_view(plan, node, captured, top, by, sample))
            else:
                refused.append(lost)
        except SelectionError as error:
            refused.append(NotDrawn(name, str(error)))
    if not views:
        raise SelectionError(f"no pooling layer can be shown: {refused[0].name}: {refused[0].reason}")
    return Pooling(captured.model_name, tuple(views), tuple(refused))


def _view(plan: PoolPlan, node: ir.Node, captured: Capture, top: int | None, by: Score, sample: int) -> PoolView:
    source, name = str(node.inputs[0].name), str(node.outputs[0].name)  # type: ignore[union-attr]
    records = captured[source], captured[name]
    before, after, note = _numbers(node, records[0].array, records[1].array)
    if not is_numeric(before.dtype):
        raise SelectionError("it holds no numbers")
    if before.ndim < 3:
        raise SelectionError(f"what enters has no spatial axes, shape {before.shape}")
    layout = _layout(node, plan.layouts.get(source))
    shapes = before.shape, after.shape
    if layout == "NHWC":
        before = np.moveaxis(before, -1, 1)
        after = np.moveaxis(after, -1, 1) if after.ndim == before.ndim else after
    everywhere = node.op_type in GLOBAL
    if everywhere:
        after = after.reshape(*before.shape[:2], *[1] * (before.ndim - 2))
    maps = paired_maps(before, after, records, layout="NCHW", top=top, by=by, sample=sample)
    at = maps[0].sample
    view = PoolView(
        name, source, node.op_type, (GLOBAL if everywhere else WINDOWED)[node.op_type], *shapes, None, *maps,
        None, None, None, note, _count(np.isnan, before[at], after[at]), _count(np.isinf, before[at], after[at]),
    )  # fmt: skip
    if everywhere:
        return _everywhere(view, before[at], after[at])
    windows = windows_of(node, before.shape[2:], after.shape[2:])
    view = _as_maps(replace(view, windows=windows), before[at], after[at], top)
    if view.method == "max":
        view = _with_survivors(view, plan.model, node, before[at : at + 1], after[at : at + 1])
    return _sliced(view, before[at], after[at]) if before.ndim == 5 else view


def _count(what: Any, *arrays: npt.NDArray[Any]) -> tuple[int, int]:
    first, second = (int(np.count_nonzero(what(a))) if a.dtype.kind == "f" else 0 for a in arrays)
    return first, second


def _everywhere(view: PoolView, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> PoolView:
    """Return a view of global pooling: the range of each channel, and where a maximum lies."""
    flat = before.reshape(len(before), -1).astype(np.float64)
    spans = np.stack([np.fmin.reduce(flat, axis=1), np.fmax.reduce(flat, axis=1)], axis=1)
    view = replace(view, spans=spans)
    if view.method != "max":
        return view
    left = after.reshape(-1).astype(np.float64)
    alive = ~np.isnan(left)
    equal = flat == left[:, None]
    place = np.where(alive, equal.argmax(axis=1), 0)
    at = np.stack(np.unravel_index(place, before.shape[1:]), axis=-1).astype(np.int64)
    at[~alive] = -1
    tied, found = equal.sum(axis=1) > 1, int(np.count_nonzero(alive))
    wrong = int(np.count_nonzero(alive & ~equal.any(axis=1)))
    shown, ones = list(view.before.channels), (1,) * (before.ndim - 1)
    survivors = Survivors(
        at[shown].reshape(len(shown), *ones, -1), tied[shown].reshape(len(shown), *ones), float(tied.mean()),
        found / flat.size, found, wrong,
    )  # fmt: skip
    return replace(view, survivors=survivors)


def _as_maps(view: PoolView, before: npt.NDArray[Any], after: npt.NDArray[Any], top: int | None) -> PoolView:
    """Return a view whose maps keep their spatial axes where one has size 1: of signals rows, of others grids."""
    ranked = np.arange(view.before.total)
    if view.before.by != "index":
        ranked = np.argsort(-view.before.scores, kind="stable")
    first = tuple(int(i) for i in ranked[:top])
    if before.ndim == 2:
        both = [
            replace(fm, kind="image", maps=array[None].astype(np.float32))
            for fm, array in ((view.before, before), (view.after, after))
        ]
        return replace(view, before=both[0], after=both[1], signals=first)
    entering, leaving = view.before, view.after
    if entering.kind != "grid":
        entering = _grid(entering, before, first)
    if leaving.kind != "grid":
        leaving = _grid(leaving, after, entering.channels)
    return replace(view, before=entering, after=leaving)


def _grid(fm: FeatureMaps, array: npt.NDArray[Any], channels: tuple[int, ...]) -> FeatureMaps:
    """Return maps of some channels; ``fm`` describes all of them in order."""
    array = array[:, array.shape[1] // 2] if array.ndim == 4 else array
    index, constant = list(channels), tuple(fm.constant[i] for i in channels)
    return replace(
        fm, kind="grid", maps=array[index].astype(np.float32), channels=channels, scores=fm.scores[index],
        ranges=fm.ranges[index], constant=constant, note="",
    )  # fmt: skip


def _numbers(
    node: ir.Node, before: npt.NDArray[Any], after: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    """Return what enters and leaves as numbers: quantised operators name their scales."""
    if node.op_type.startswith("QLinear"):
        return dequantizer(node, 1)(before), dequantizer(node, 3)(after), "dequantised"
    return before, after, f"quantised codes ({before.dtype})" if before.dtype.kind in "iu" else ""


def _layout(node: ir.Node, told: str | None) -> str:
    if node.op_type == "NhwcMaxPool" or node.attributes.get_int("channels_last", False):
        return "NHWC"
    return told or "NCHW" if node.op_type.startswith("Reduce") else "NCHW"


def _with_survivors(
    view: PoolView, model: ir.Model, node: ir.Node, before: npt.NDArray[Any], after: npt.NDArray[Any]
) -> PoolView:
    """Return a view with what the operator's Indices output says, run on the one sample."""
    if node.op_type != "MaxPool":
        return replace(view, note=_joined(view.note, f"{node.op_type} does not tell which positions survive"))
    values = np.ascontiguousarray(before.astype(np.float64 if before.dtype == np.float64 else np.float32))
    try:
        found, indices = run_piece(
            model, [node], node.inputs[0], values, node.outputs[0],  # type: ignore[arg-type]
            change={"storage_order": 0}, extra=f"{node.outputs[0].name} indices", opset=8,
        )  # fmt: skip
    except ExecutionError as error:
        return replace(view, note=_joined(view.note, f"survivors are not known: {error}"))
    return replace(view, survivors=_survivors(view, values, found, after, indices))


def _survivors(
    view: PoolView,
    values: npt.NDArray[Any],
    found: npt.NDArray[Any],
    after: npt.NDArray[Any],
    indices: npt.NDArray[Any],
) -> Survivors:
    assert view.windows is not None
    told, left = indices[0], after[0].astype(values.dtype)
    flat = values.reshape(-1)
    alive = (told >= 0) & ~np.isnan(left)
    if np.isnan(values).any():
        alive &= found[0] == left  # the kernel that gives indices treats NaN unlike the one that gives values alone
    told = np.where(alive, told, 0)
    same = (flat[told] == left) | ~alive
    survives = np.zeros(flat.size, bool)
    survives[told[alive]] = True
    distinct = int(np.count_nonzero(survives))
    channels, spatial = list(view.before.channels), values.shape[2:]
    positions = np.stack(np.unravel_index(told % int(np.prod(spatial)), spatial), axis=-1).astype(np.int64)
    positions[~alive] = -1
    outside = sum(int(np.count_nonzero(view.windows.outside(one))) for one in positions)
    tied = ties(values[0], found[0], view.windows) & (outside == 0)
    share = float(tied.mean()) if tied.size else 0.0
    wrong = int(np.count_nonzero(~same))
    return Survivors(positions[channels], tied[channels], share, distinct / flat.size, distinct, wrong, outside)


def _sliced(view: PoolView, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> PoolView:
    """Show the middle slice of a pooled volume, and the slice before in which most of its survivors lie."""
    assert view.windows is not None
    out = after.shape[1] // 2
    if view.survivors is not None:
        depths = view.survivors.positions[:, out, ..., 0]
        counts = np.bincount(depths[depths >= 0].reshape(-1), minlength=before.shape[1])
        enter = int(np.argmax(counts))
    else:
        low, high = view.windows.bounds((out, 0, 0), before.shape[1:])[0]
        enter = (low + high - 1) // 2
    index = list(view.before.channels)
    note = _joined(
        view.note, f"slice {enter} of {before.shape[1]} before (dots: of it alone), {out} of {after.shape[1]} after"
    )
    first = replace(view.before, maps=before[index, enter].astype(np.float32), note="")
    second = replace(view.after, maps=after[index, out].astype(np.float32), note="")
    return replace(view, before=first, after=second, slices=(enter, out), note=note)


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
