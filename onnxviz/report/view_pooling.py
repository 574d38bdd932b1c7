"""The section on pooling: maps before and after, with the positions that survive marked on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy.typing as npt

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.pooling import PoolView, plan_pooling, pool_views
from onnxviz.errors import SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pool_part import is_grid, pool_part
from onnxviz.report.atlas import atlas
from onnxviz.report.budget import Picture
from onnxviz.report.formats import shape
from onnxviz.report.view_activations import draw_maps
from onnxviz.report.views import Card, Section, Seen, limited, panel, refusals

__all__ = ["pooling_section"]

_MOST = 40  # layers
_CHANNELS = 6
_LEAD = (
    "The same channels before and after, on one scale, no smoothing. Dots: positions that survive max pooling, as the "
    "operator's own Indices output says; hollow where others in the window are equal. Of large maps the part around "
    "the largest value is shown."
)


@dataclass(frozen=True)
class _Part:
    """The part of the maps that is shown, rows and columns: first and last + 1, before and after."""

    before: tuple[tuple[int, int], tuple[int, int]]
    after: tuple[tuple[int, int], tuple[int, int]]
    whole: bool


def pooling_section(seen: Seen) -> Section | None:
    """Return the pooling layers of a run; None where the model has none."""
    try:
        plan = plan_pooling(seen.prepared.model)
    except SelectionError:
        return None
    count = len(plan.nodes)
    plan = replace(plan, nodes=tuple(plan.nodes[i] for i in spread(count, _MOST)))
    found = pool_views(plan, seen.captured, top=_CHANNELS)
    notes = limited(count, _MOST, "pooling layers") + refusals(found.not_drawn)
    return Section(_LEAD, [_card(view) for view in found.views], notes)


def _card(view: PoolView) -> Card:
    captions = [*view.captions(), *view.before.captions()]
    sizes = f"{shape(view.shape_before)} → {shape(view.shape_after)}"
    maps = {"before": view.before, "after": view.after}
    if not is_grid(view):
        marks = _signal_marks(view)
        draws: Any = {
            "before": partial(_draw_signal, view.before, marks), "after": partial(draw_maps, view.after)
        }  # fmt: skip
    else:
        part = _part(view)
        if not part.whole:
            (y0, y1), (x0, x1) = part.before
            captions.append(f"zoomed: rows {y0} … {y1 - 1}, columns {x0} … {x1 - 1}")
        draws = {
            "before": partial(_draw_part, view.before, part.before, _marks(view, part)),
            "after": partial(_draw_part, view.after, part.after, None),
        }
    panels = [
        (label, panel("heads" if fm.kind == "grid" else fm.kind, f"{label} {view.name}", draws[label]))
        for label, fm in maps.items()
    ]
    return Card(view.name, view.op_type, sizes, (view.name,), captions, panels=panels)


def _part(view: PoolView) -> _Part:
    """Choose what is shown: what the figure shows, but whole windows before."""
    assert view.windows is not None
    chosen = pool_part(view)
    area = []
    sizes = zip(chosen.out, view.before.maps.shape[1:], view.after.maps.shape[1:], strict=True)
    for axis, ((first, last), size, length) in enumerate(sizes):
        if (first, last) == (0, length):
            area.append((0, size))
            continue
        windows = replace(
            view.windows,
            **{
                name: getattr(view.windows, name)[-2:][axis : axis + 1]
                for name in ("kernel", "strides", "pads", "dilations")
            },
        )
        starts, ends = windows.bounds((first,), (size,))[0], windows.bounds((last - 1,), (size,))[0]
        area.append((starts[0], ends[1]))
    return _Part((area[0], area[1]), (chosen.out[0], chosen.out[1]), chosen.whole)


def _marks(view: PoolView, part: _Part) -> list[list[int]] | None:
    """Return the pixels of each tile before that survive: ``p``, or ``-1 - p`` where it is one of equals."""
    if view.survivors is None or view.slices is not None:
        return None
    (y0, y1), (x0, x1) = part.before
    (oy0, oy1), (ox0, ox1) = part.after
    found = []
    for positions, tied in zip(view.survivors.positions, view.survivors.tied, strict=True):
        kept = positions[oy0:oy1, ox0:ox1].reshape(-1, 2)
        equal = tied[oy0:oy1, ox0:ox1].reshape(-1)
        inside = (kept >= [y0, x0]).all(axis=1) & (kept < [y1, x1]).all(axis=1)
        found.append(_coded((kept[:, 0] - y0) * (x1 - x0) + kept[:, 1] - x0, equal, inside))
    return found


def _signal_marks(view: PoolView) -> list[list[int]] | None:
    """Return the same for a signal: one tile, channels down."""
    if view.survivors is None or view.before.kind != "image" or view.survivors.positions.shape[-1] != 1:
        return None
    length = view.before.maps.shape[2]
    found: list[int] = []
    for row, (positions, tied) in enumerate(zip(view.survivors.positions, view.survivors.tied, strict=True)):
        found += _coded(row * length + positions[:, 0], tied, positions[:, 0] >= 0)
    return [found]


def _coded(places: npt.NDArray[Any], equal: npt.NDArray[Any], inside: npt.NDArray[Any]) -> list[int]:
    return [int(-1 - p if tied else p) for p, tied, there in zip(places, equal, inside, strict=True) if there]


def _draw_part(
    fm: FeatureMaps, part: tuple[tuple[int, int], tuple[int, int]], marks: list[list[int]] | None, level: int
) -> Picture:
    (y0, y1), (x0, x1) = part
    keep = max(1, _CHANNELS >> level)
    maps = fm.maps[:keep, y0:y1, x0:x1]
    labels = [str(c) for c in fm.channels[:keep]]
    picture = atlas(maps, labels, fm.scale, side=max(maps.shape[1:]), keep_aspect=True)
    picture["origin"] = [x0, y0]
    if marks is not None:
        picture["marks"] = marks[:keep]
    return picture, f"{keep} of {len(fm.maps)} maps, to keep the page small" if keep < len(fm.maps) else ""


def _draw_signal(fm: FeatureMaps, marks: list[list[int]] | None, level: int) -> Picture:
    picture, note = draw_maps(fm, level)
    if marks is not None and picture["tile"] == picture["of"]:
        picture["marks"] = marks
    return picture, note
