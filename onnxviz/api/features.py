"""The verb ``features``: maps of channels, and what they tell together laid over the input."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from onnxviz.api.common import DATA, PICTURES, batches_for, check_outputs, save_view, tell_refused, write_numbers
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.feature_maps import Score
    from onnxviz.analysis.map_axes import Slices
    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.analysis.spatial_heat import Reduction
    from onnxviz.runtime.capture import Feed
    from onnxviz.runtime.inputs import Inputs
    from onnxviz.runtime.record import Capture

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["features"]


def features(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    data: Path_ | None = None,
    top: int = 64,
    by: Score = "energy",
    channels: Sequence[int] | None = None,
    scale: Literal["shared", "channel"] = "shared",
    sample: int = 0,
    axes: str | None = None,
    slices: Slices = None,
    along: str | None = None,
    overlay: Reduction | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw feature maps: a grid of one tensor's channels, a sheet with a row a layer for several, or heat maps.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; of several batches the one that holds the sample; None feeds seeded random numbers.
        tensors: Which tensors; by default those of the layers (convolution, pooling, activation, …).
        output: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture.
        top: Most channels of a grid; at most 1,024 are drawn.
        by: How channels are chosen: ``"energy"``, ``"sparsity"`` or ``"index"``.
        channels: Which channels, in this order, in place of ``top`` and ``by``; of several tensors each shows those it
            has.
        scale: One colour scale for a tensor, or one a channel.
        sample: Which sample.
        axes: A letter an axis of the tensors, such as ``"NCHW"``, ``"NTC"``, ``"CHW"`` or ``"NCTHW"``; by default what
            the graph tells.
        slices: Of volumes: the slices, or ``"strip"`` for an even spread; by default the middle one.
        along: Of volumes: ``"depth"``, ``"height"``, ``"width"`` or ``"time"``, the axis that is cut; by default the
            first.
        overlay: Draw one heat map a tensor over the input instead: ``"mean"``, ``"max"`` or ``"energy"`` over channels.
        tell: Called with a line for each tensor that was asked for and cannot be shown.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        SelectionError: None of the tensors can be drawn, or what is asked for does not fit it.
    """
    from onnxviz.runtime.capture import capture

    check_outputs((output, PICTURES), (data, DATA))
    opened = as_model(model)
    batches, run = batches_for(opened, inputs, None, options)
    fed, place = batches.holding(sample)
    of_all = (sample, batches.samples) if len(batches) > 1 else None  # the batch holds a part of what was given
    axes = None if axes is None else axes.upper()
    captured = capture(opened, fed, "*" if tensors is None else tensors, bodies=False, **run)
    every = tensors is not None
    how: dict[str, Any]
    if overlay is not None:
        how = {"every": every, "by": overlay, "sample": place, "layout": axes}
        figure, refused = _overlaid(opened, captured, fed, how, of_all, data)
    else:
        how = {
            "every": every, "top": min(top, _most()), "by": by, "sample": place, "layout": axes, "channels": channels,
            "slices": slices, "along": along,
        }  # fmt: skip
        figure, refused = _mapped(opened, captured, fed, how, (scale, of_all), data)
    tell_refused(tell, refused)
    save_view(figure, output)
    return figure


def _most() -> int:
    from onnxviz.plots.feature_maps import MOST_TILES

    return MOST_TILES


def _mapped(
    model: ir.Model, captured: Capture, fed: Inputs, how: dict[str, Any],
    shown: tuple[Literal["shared", "channel"], tuple[int, int] | None], data: Path_ | None,
) -> tuple[Figure, Sequence[NotDrawn]]:  # fmt: skip
    from onnxviz.analysis.feature_sheet import feature_sheet, features_data
    from onnxviz.plots.feature_maps import plot_feature_maps, plot_feature_sheet

    _check_channels(how["channels"])
    scale, of_all = shown
    sheet = feature_sheet(model, captured, **how)
    if of_all is not None:
        maps = tuple(replace(fm, sample=of_all[0], batch=of_all[1]) for fm in sheet.maps)
        sheet = replace(sheet, maps=maps)
    if data is not None:
        write_numbers(data, *features_data(sheet))
    if len(sheet.maps) == 1 and not sheet.not_drawn:
        return plot_feature_maps(sheet.maps[0], scale=scale), ()
    picture = fed.picture if how["sample"] == 0 else None
    title = f"Feature maps of {captured.model_name}"
    figure = plot_feature_sheet(sheet.maps, picture=picture, title=title, scale=scale, not_drawn=sheet.not_drawn)
    return figure, sheet.not_drawn


def _check_channels(channels: Sequence[int] | None) -> None:
    from onnxviz.errors import SelectionError

    if channels is not None and len(channels) > _most():
        raise SelectionError(f"{len(channels)} channels are too many", hint=f"name at most {_most()}")


def _overlaid(
    model: ir.Model,
    captured: Capture,
    fed: Inputs,
    how: dict[str, Any],
    of_all: tuple[int, int] | None,
    data: Path_ | None,
) -> tuple[Figure, Sequence[NotDrawn]]:
    from onnxviz.analysis.spatial_heat import canvas_of, overlay_data, spatial_heats
    from onnxviz.analysis.surroundings import Surroundings
    from onnxviz.plots.overlays import plot_overlays

    around = Surroundings(model, captured)
    sheet = spatial_heats(model, captured, canvas_of(around, fed, how["sample"]), around=around, **how)
    if of_all is not None:
        sheet = replace(sheet, sample=of_all[0], batch=of_all[1])
    if data is not None:
        write_numbers(data, *overlay_data(sheet))
    return plot_overlays(sheet), sheet.not_drawn
