"""The feature maps of a run: which tensors have them, and what the graph tells of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps, Score, feature_maps
from onnxviz.analysis.map_axes import RECURRENT, Slices
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.surroundings import Surroundings
from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import KINDS, LAYER_KINDS
from onnxviz.runtime.record import Capture

__all__ = ["FeatureSheet", "collect", "feature_sheet", "features_data", "sheet_names"]

_LAYER_OPS = frozenset().union(*(KINDS[kind] for kind in LAYER_KINDS))
_MOST_ROWS = 4096  # channels of an image
View = TypeVar("View")


@dataclass(frozen=True, eq=False)
class FeatureSheet:
    """The feature maps of several tensors.

    Attributes:
        model_name: Of the model.
        maps: In the model's order.
        not_drawn: Tensors that were asked for and have no maps.
    """

    model_name: str
    maps: tuple[FeatureMaps, ...]
    not_drawn: tuple[NotDrawn, ...] = ()


def sheet_names(captured: Capture, *, every: bool) -> list[str]:
    """Return the tensors that a sheet is about: all, or those of layers and the outputs (all if there is no layer)."""
    if every:
        return list(captured)
    layers = {n for n in captured if captured[n].op_type in _LAYER_OPS}
    shown = layers.union(captured.outputs) if layers else set(captured)
    return [n for n in captured if n in shown]


def feature_sheet(
    model: ir.Model,
    captured: Capture,
    *,
    every: bool = False,
    top: int = 64,
    by: Score = "energy",
    sample: int = 0,
    layout: str | None = None,
    channels: Sequence[int] | None = None,
    slices: Slices = None,
    along: str | None = None,
    around: Surroundings | None = None,
) -> FeatureSheet:
    """Return the feature maps of a capture, in the model's order.

    Of several tensors each shows those of the ``channels`` that it has, and a ``layout`` of letters is about those of
    as many axes. Quantised activations are shown as the numbers that their codes stand for, where the graph tells.
    Tensors that have no maps, or none of what was asked for, are told where they were asked for by name (``every``) or
    where the request is the reason.

    Args:
        model: The model that was captured.
        captured: Its tensors.
        every: All tensors that have maps; by default those of layers (convolution, pooling, activation, linear,
            normalisation, attention, recurrence) and the outputs, or all if the model has no such layer.
        top, by, sample, layout, channels, slices, along: See :func:`onnxviz.analysis.feature_maps.feature_maps`.
        around: What the model tells of its tensors, where that is worked out already.

    Raises:
        SelectionError: None of the tensors can be drawn; the text says why the first one cannot.
    """
    around = around or Surroundings(model, captured)
    names = sheet_names(captured, every=every)

    def view(name: str) -> FeatureMaps:
        record, said = around.in_numbers(captured[name])
        letters = layout
        if letters not in (None, "NCHW", "NHWC") and len(names) > 1 and len(letters) != len(record.shape):
            letters = None  # of several tensors, it is about those of as many axes
        letters = letters or around.letters(name)
        tokens = around.tokens(name) if letters is None and record.op_type not in RECURRENT else None
        wanted = channels
        if channels is not None and len(names) > 1:
            plain = feature_maps(record, layout=letters, top=1, by="index", tokens=tokens)
            wanted = [i for i in channels if i < plain.total]
            if not wanted:
                raise SelectionError(f"{name} has none of these channels: it has {plain.total}")
        fm = feature_maps(
            record, layout=letters, top=top, by=by, sample=sample, channels=wanted,
            slices=slices, along=along, tokens=tokens, across=around.across(name, tokens), rows=_MOST_ROWS,
        )  # fmt: skip
        return replace(fm, note=" · ".join(part for part in (fm.note, said) if part)) if said else fm

    found, refused = collect(names, view)
    cut = slices is not None or along is not None
    if cut and found and not any(fm.slices for fm in found):
        raise SelectionError(f"{found[0].name} has no three spatial axes to cut", hint="leave --slice and --along out")
    asked = every or channels is not None or sample != 0 or layout is not None or cut
    return FeatureSheet(captured.model_name, tuple(found), tuple(refused) if asked else ())


def collect(names: Collection[str], view: Callable[[str], View]) -> tuple[list[View], list[NotDrawn]]:
    """Return the views of all tensors that have one, and why the others have none.

    Raises:
        SelectionError: None has; the error is the first one's.
    """
    found: list[View] = []
    refused: list[NotDrawn] = []
    first: SelectionError | None = None
    for name in names:
        try:
            found.append(view(name))
        except SelectionError as error:
            first = first or error
            refused.append(NotDrawn(name, str(error).removeprefix(f"{name} ")))
    if not found:
        raise first or SelectionError("the model has no tensors to draw")
    return found, refused


def features_data(sheet: FeatureSheet) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of feature maps, named ``NUMBER/WHAT``, and a manifest that tells which is which.

    ``maps`` is ``(K, H, W)`` with ``channels`` and ``scores`` of each map; an image is ``(1, channels, positions)``, a
    vector ``(1, 1, channels)``. ``slices`` ``(K,)`` of volumes and ``aside`` ``(tokens, K)`` where there are any.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, fm in enumerate(sheet.maps):
        own: dict[str, np.ndarray] = {
            "maps": fm.maps, "channels": np.asarray(fm.channels, np.int64), "scores": fm.scores, "ranges": fm.ranges,
        }  # fmt: skip
        if fm.slices:
            own["slices"] = np.asarray(fm.slices, np.int64)
        if fm.aside:
            own["aside"] = np.stack([values for _, values in fm.aside])
        arrays |= {f"{i}/{what}": array for what, array in own.items()}
        rows.append({
            "number": i, "name": fm.name, "op_type": fm.op_type, "shape": list(fm.shape), "dtype": fm.dtype,
            "kind": fm.kind, "across": fm.across if fm.kind == "image" else None, "by": fm.by, "channels": fm.total,
            "sample": fm.sample, "scale": [fm.scale.vmin, fm.scale.vmax], "clipped": fm.scale.clipped,
            "nan": fm.scale.nan, "inf": fm.scale.inf, "constant": fm.constant_total,
            "aside": [label for label, _ in fm.aside], "note": fm.note,
        })  # fmt: skip
    refused = [one.to_dict() for one in sheet.not_drawn]
    return arrays, {"format": "onnxviz.features/1", "model": sheet.model_name, "tensors": rows, "not_drawn": refused}
