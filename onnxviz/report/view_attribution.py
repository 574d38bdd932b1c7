"""The section on attribution: which parts of the picture the answer came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.attribution.views import AttributionView, attribution_view
from onnxviz.analysis.scale import number
from onnxviz.errors import printable
from onnxviz.report.atlas import atlas, pooling_note
from onnxviz.report.budget import Picture
from onnxviz.report.formats import short
from onnxviz.report.views import Card, Section, Seen, panel

__all__ = ["attribution_section"]

_MOST_NODES, _MOST_VALUES, _MOST_LEARNED = 600, 50_000_000, 30_000_000  # up to which the page runs backward
_SIDE = 224  # longest side of a tile, px
_SAMPLE = 0
_ABOUT = {
    "grad-cam": "Grad-CAM weighs the channels of a layer by how the score changes with them",
    "layer-cam": "LayerCAM weighs the channels of a layer by how the score changes with them at each place, which "
    "keeps to the box where Grad-CAM shows all that is alike",
    "input-x-gradient": "input × gradient is what each pixel adds to the score to first order, channels added up",
}
_READ = (
    "The map of a layer lies over the picture, opaque where its magnitude is largest, orange above 0 and blue below, "
    "and beside it by itself. Point at a place for its value."
)


def attribution_section(seen: Seen) -> Section | None:
    """Return attributions of the answer over the picture; None where no picture was fed, or none is wanted."""
    if seen.attribute is None or seen.captured.picture is None:
        return None
    said = "onnxviz explain draws them"
    for many, most, what in (
        (sum(1 for _ in seen.prepared.model.graph), _MOST_NODES, "nodes"),
        (sum(math.prod(record.shape) for record in seen.captured.values()), _MOST_VALUES, "values in all tensors"),
        (sum(weight.parameters for weight in seen.weights), _MOST_LEARNED, "learned values"),
    ):
        if many > most:
            return Section(notes=[f"left out: {many:,} {what}, and up to {most:,} are run backward here; {said}"])
    found = seen.attribute()
    if not found:
        return None
    first = found[0]
    cards = [card for one in found if (card := _card(one)) is not None]
    notes = [printable(note, 300) for note in dict.fromkeys(note for one in found for note in one.notes)]
    if first.samples > 1:
        notes.append(f"sample {_SAMPLE} of {first.samples} is shown; {said.replace('them', 'all')}")
    about = "; ".join(_ABOUT[one.method] for one in found if one.method in _ABOUT)
    lead = f"Which parts of the picture the answer came from. {about}. {_READ}"
    return Section(lead, cards, notes) if cards else None


def _card(one: Attribution) -> Card | None:
    """Return a map over the picture; None where it has no positions on it."""
    view = attribution_view(one, one.tensor, _SAMPLE)
    if view.spatial is None or view.canvas is None or view.kind != "picture":
        return None
    captions = [short(f"target {one.target[_SAMPLE]}", 120), f"score {number(float(one.score[_SAMPLE]))}"]
    if one.layer is not None:
        captions.append(f"layer {short(one.layer.name, 60)}, {one.layer.how}")
    captions += [text for text in (view.how, f"in units of {one.unit}" if one.unit else "") if text]
    if view.scale.constant:
        captions.append("the same everywhere")
    if not view.spatial.placement.aligned:
        captions.append("stretched over the picture: what its cells see is not known")
    size = " × ".join(str(n) for n in view.heat.shape)
    draw = partial(_draw, view, one.method)
    pictures = [("", panel("heads", f"{one.method} over the picture", draw))]
    tensors = (one.layer.name,) if one.layer is not None else ()
    return Card(one.method, "attribution", size, tensors, captions, panels=pictures)


def _draw(view: AttributionView, name: str, level: int) -> Picture:
    """Draw a map on the grid of the picture; each level has about half as many bytes."""
    assert view.canvas is not None
    assert view.spatial is not None
    height, width = view.canvas.size
    shrink = min(1.0, (_SIDE >> (level // 2)) / max(height, width))
    rows, columns = max(1, round(height * shrink)), max(1, round(width * shrink))
    if view.fine:
        values = view.heat[None]
    else:
        at = [(np.arange(n) + 0.5) * size / n - 0.5 for n, size in ((rows, height), (columns, width))]
        values = view.spatial.at(*at)[None]
    # A layer's map lies over the picture and by itself; single pixels would not be seen over it.
    values = values if view.fine else np.concatenate([values, values])
    tiles: Sequence[str] = [name] * len(values)
    picture = atlas(values, tiles, view.scale, side=max(rows, columns), keep_aspect=True)
    note = pooling_note(picture) if view.fine else ""
    picture |= {"of": [width, height], "noun": "", "lines": not view.fine}
    return picture | ({} if view.fine else {"over": 1}), note
