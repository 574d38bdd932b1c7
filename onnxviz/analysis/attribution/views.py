"""One map of one sample as it is drawn: over a picture, under a signal, along tokens, or a bar a feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.regions import Region
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.placement import CellAxis, Placement, stretched
from onnxviz.analysis.scale import ColorScale, color_scale
from onnxviz.analysis.spatial_heat import Canvas, SpatialHeat

__all__ = ["AttributionView", "attribution_view", "shared_scale"]

Kind = Literal["picture", "signal", "volume", "map", "tokens", "table"]


@dataclass(frozen=True, eq=False)
class AttributionView:
    """One map of one sample.

    Attributes:
        kind: ``"picture"`` and ``"signal"`` lie on a canvas; ``"volume"`` is the slice of the largest sum of
            magnitudes; ``"map"`` has two axes and no picture; ``"tokens"`` a number a position; ``"table"`` a number a
            feature.
        tensor: What is attributed.
        heat: ``(h, w)``; of a signal and of tokens ``(1, steps)``, of a table ``(1, features)``.
        scale: Its colours: diverging where the method's numbers have a sign.
        spatial: Where its cells lie on the canvas; None without one.
        canvas: What it lies on.
        fine: Whether its cells are the pixels or steps of the input itself.
        how: How channels were taken together, and which slice is shown.
        below: What was fed at the same places: a slice of the volume, the values of the features; None where a canvas
            shows it.
        words: What the positions stand for.
        region: The part of the picture that the target is about; None where it is about all of it.
    """

    kind: Kind
    tensor: str
    heat: npt.NDArray[np.float32]
    scale: ColorScale
    spatial: SpatialHeat | None = None
    canvas: Canvas | None = None
    fine: bool = False
    how: str = ""
    below: npt.NDArray[np.float32] | None = None
    words: tuple[str, ...] = ()
    region: Region | None = None


def shared_scale(views: Sequence[AttributionView]) -> list[AttributionView]:
    """Return maps with one limit for all, so that their colours compare: from 0, or symmetric where they have a sign.

    >>> made = [Attribution("saliency", {"x": np.float32([[1, k]])}, {}, ("",), np.ones(1)) for k in (2, 5)]
    >>> [view.scale.vmax for view in shared_scale([attribution_view(one, "x", 0) for one in made])]
    [5.0, 5.0]
    """
    most = max((view.scale.vmax for view in views if view.scale.count), default=1.0)
    found = []
    for view in views:
        low = -most if view.scale.kind == "diverging" else 0.0
        finite = view.heat[np.isfinite(view.heat)]
        clipped = float(np.mean(np.abs(finite) > most)) if finite.size else 0.0
        scale = replace(view.scale, vmin=low, vmax=most, clipped=clipped)
        spatial = None if view.spatial is None else replace(view.spatial, scale=scale)
        found.append(replace(view, scale=scale, spatial=spatial))
    return found


def attribution_view(one: Attribution, tensor: str, sample: int) -> AttributionView:
    """Return a map of one sample as it is drawn.

    Numbers with a sign are added up over channels; of others the largest is taken.

    Args:
        one: The attribution.
        tensor: Which of its maps.
        sample: Which sample.

    >>> found = Attribution("saliency", {"x": np.float32([[[3, -1], [0, 2]]])}, {}, ("class 0",), np.ones(1),
    ...                     axes={"x": "NCW"})
    >>> view = attribution_view(found, "x", 0)
    >>> view.kind, view.heat.tolist(), view.how
    ('tokens', [[3.0, 1.0]], 'sum of 2 channels')
    """
    letters = one.axes.get(tensor, "N" + "C" * (one.maps[tensor].ndim - 1))
    signed = one.contrast or bool(np.nanmin(one.maps[tensor], initial=0.0) < 0)
    heat, how = _over_channels(one.maps[tensor][sample], letters[1:], signed)
    fed = one.inputs.get(tensor)
    given = None if fed is None or one.layer is not None else np.asarray(fed[sample])
    canvas = one.canvases[sample] if sample < len(one.canvases) else None
    on = canvas is not None and (canvas.name == tensor or one.layer is not None) and heat.ndim == len(canvas.size)
    words = one.words[sample] if sample < len(one.words) and heat.shape == (len(one.words[sample]),) else ()
    on = on and not (words and canvas is not None and len(words) != canvas.size[0])  # a layer of the text, not of that
    if on and canvas is not None:
        fine = one.layer is None
        place = one.placement if not fine else _pixels(canvas.size)
        place = place or Placement(tuple(stretched(n, m) for n, m in zip(heat.shape, canvas.size, strict=True)), False)
        block = np.atleast_2d(heat)
        scale = color_scale(block, signed=signed, percentile=99.5 if fine else 100.0)
        spatial = SpatialHeat(
            tensor, None, one.maps[tensor].shape, "float32", "mean", block, place, 1, scale, 0, place.note
        )  # fmt: skip
        kind: Kind = "signal" if len(canvas.size) == 1 else "picture"
        region = one.regions[sample] if sample < len(one.regions) else None
        return AttributionView(kind, tensor, block, scale, spatial, canvas, fine, how, region=region)
    below = None
    if heat.ndim == 0 or "".join(set(letters[1:])) == "C":
        kind, how = "table", ""
        heat = one.maps[tensor][sample].reshape(1, -1)
        below = None if given is None else np.asarray(given, np.float32).reshape(1, -1)
    elif heat.ndim == 1:
        kind, heat = "tokens", heat[None]
    elif heat.ndim == 2:
        kind = "map"
    else:
        kind = "volume"
        place_ = int(np.abs(np.nan_to_num(heat)).reshape(len(heat), -1).sum(axis=1).argmax())
        if len(heat) > 1:
            how = f"{how} · " * bool(how) + f"slice {place_} of {len(heat)}"
        below = _slice(given, letters[1:], place_, heat.shape)
        heat = heat[place_]
    return AttributionView(
        kind, tensor, np.asarray(heat, np.float32), color_scale(heat, signed=signed), how=how, below=below,
        words=words if kind == "tokens" else (),
    )  # fmt: skip


def _over_channels(block: npt.NDArray[np.float32], letters: str, signed: bool) -> tuple[npt.NDArray[np.float32], str]:
    if "C" not in letters or set(letters) == {"C"}:
        return block, ""
    axis = letters.index("C")
    count = block.shape[axis]
    first = block.take(0, axis)
    if count > 1 and np.array_equal(block, np.expand_dims(first, axis).repeat(count, axis), equal_nan=True):
        return np.asarray(first, np.float32), "all channels alike"
    heat = block.sum(axis=axis, dtype=np.float64) if signed else block.max(axis=axis)
    return np.asarray(heat, np.float32), f"{'sum' if signed else 'max'} of {count} channels" if count > 1 else ""


def _pixels(size: tuple[int, ...]) -> Placement:
    return Placement(tuple(CellAxis(0.0, 1.0, n) for n in size), True)


def _slice(
    given: npt.NDArray[np.float32] | None, letters: str, place: int, shape: tuple[int, ...]
) -> npt.NDArray[np.float32] | None:
    if given is None:
        return None
    block = given.mean(axis=letters.index("C")) if "C" in letters else given
    return np.asarray(block[place], np.float32) if block.shape == shape else None
