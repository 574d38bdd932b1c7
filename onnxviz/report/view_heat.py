"""The section that lays layers over the picture: where each is active, its channels taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from onnxviz.analysis.feature_sheet import sheet_names
from onnxviz.analysis.scale import color_scale
from onnxviz.analysis.spatial_heat import Canvas, HeatSheet, Reduction, SpatialHeat, canvas_of, spatial_heats
from onnxviz.analysis.surroundings import Surroundings
from onnxviz.errors import SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.report.atlas import atlas
from onnxviz.report.budget import Picture
from onnxviz.report.formats import short
from onnxviz.report.views import Card, Section, Seen, panel
from onnxviz.runtime.inputs import Inputs

__all__ = ["heat_section"]

_MOST = 24  # layers
_TRIED = 240  # layers that are looked at
_SIDE = 48  # longest side of a tile, px
_WORDS: dict[Reduction, str] = {
    "energy": "energy: mean of x² over channels",
    "mean": "mean over channels",
    "max": "largest value over channels",
}
_LEAD = (
    "One number a position of each layer, placed where its cells lie on the picture and drawn over it: opaque where "
    "its magnitude is largest (the value stands below), orange above 0, blue below. Each layer has its own scale. "
    "Nothing is drawn where no cell lies."
)


def heat_section(seen: Seen) -> Section | None:
    """Return layers over the picture; None where no picture was fed, or no layer has positions on it."""
    captured = seen.captured
    if captured.picture is None:
        return None
    around = Surroundings(seen.prepared.model, captured)
    names = sheet_names(captured, every=False)
    if len(names) > _TRIED:
        some = {names[i] for i in spread(len(names), _TRIED)}
        captured = replace(captured, records={name: record for name, record in captured.items() if name in some})
    cards, notes, over = [], [], 0
    try:
        canvas = canvas_of(around, Inputs({}, captured.inputs))
        for by in _WORDS:
            sheet = spatial_heats(seen.prepared.model, captured, canvas, by=by, around=around)
            over = len(sheet.heats)
            cards.append(_card(sheet))
    except SelectionError as error:
        return Section(notes=[error.message])
    if over > _MOST or len(names) > _TRIED:
        looked = f"{over}" if len(names) <= _TRIED else f"{over} (of {_TRIED} of {len(names)} tensors, evenly spread)"
        notes.append(f"{min(over, _MOST)} of {looked} layers are shown, evenly spread")
    return Section(_LEAD, cards, notes)


def _card(sheet: HeatSheet) -> Card:
    chosen = [sheet.heats[i] for i in spread(len(sheet.heats), _MOST)]
    stretched = sum(1 for heat in chosen if not heat.placement.aligned)
    lost = sum(heat.nonfinite for heat in chosen)
    captions = [_WORDS[sheet.by]]
    if stretched:
        captions.append(f"{stretched} of {len(chosen)} stretched over the picture: what their cells see is not known")
    if sheet.without:
        captions.append(f"{len(sheet.without)} layers have no positions on the picture")
    if lost:
        captions.append(f"{lost} NaN or infinite values left out")
    names = tuple(heat.name for heat in chosen)
    draw = partial(_draw, chosen, sheet.canvas)
    size = f"{len(chosen)} layer{'s' * (len(chosen) != 1)}"
    pictures = [("", panel("heads", f"{sheet.by} of layers over the picture", draw))]
    return Card(sheet.by.capitalize(), "over channels", size, names, captions, panels=pictures)


def _draw(heats: Sequence[SpatialHeat], canvas: Canvas, level: int) -> Picture:
    """Draw heat maps on the grid of the picture; each level has about half as many bytes."""
    height, width = canvas.size
    shrink = min(1.0, (_SIDE >> (level // 2)) / max(height, width))
    rows, columns = max(1, round(height * shrink)), max(1, round(width * shrink))
    shown = [heats[i] for i in spread(len(heats), max(1, len(heats) >> max(level - 1, 0)))]
    at = [(np.arange(n) + 0.5) * size / n - 0.5 for n, size in ((rows, height), (columns, width))]
    maps = np.stack([heat.at(*at) for heat in shown])
    picture = atlas(maps, [short(heat.name, 24) for heat in shown], color_scale(maps), side=max(rows, columns))
    picture |= {"of": [width, height], "over": len(shown), "noun": "", "lines": True}
    return picture, f"{len(shown)} of {len(heats)} layers, to keep the page small" if len(shown) < len(heats) else ""
