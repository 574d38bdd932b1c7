"""Attributions side by side: the input, and a map a method, for each sample."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.attribution.views import AttributionView, attribution_view
from onnxviz.analysis.scale import number
from onnxviz.errors import SelectionError
from onnxviz.plots.attribution_tiles import Tile, draw_input, draw_tile, name_tile, tile_of
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pairs import MARGIN, head
from onnxviz.plots.style import MUTED, figure_text, new_figure, safe, wrap_caption

__all__ = ["plot_attributions"]

_MOST_SAMPLES = 8
_GAP, _HEAD = 0.24, 0.24


def plot_attributions(found: Sequence[Attribution], *, samples: int = _MOST_SAMPLES) -> Figure:
    """Draw attributions of one case by one or several methods.

    A row a sample, with what was fed on its left and a tile a method: over the picture in grey where the map is that
    of a layer, with a contour at half of its largest magnitude; pixel by pixel where it is that of the input; a strip
    under a signal; a colour behind a word; a bar a feature. Each tile has its own scale, with 0 dark where nothing is
    negative and white where something is.

    Args:
        found: Of the same samples and target.
        samples: Most samples; of more an even spread is drawn and said so.

    Raises:
        SelectionError: There is nothing to draw.
    """
    if not found or not found[0].samples:
        raise SelectionError("there are no attributions to draw", hint="give a method and an input")
    chosen = list(spread(found[0].samples, samples))
    rows = [[(one, attribution_view(one, name, i)) for one in found for name in one.maps] for i in chosen]
    tile = tile_of([view for row in rows for _, view in row])
    columns = tile.columns(len(rows[0]))
    lines = -(-len(rows[0]) // columns)
    width = max(2 * MARGIN + tile.lead + columns * (tile.width + _GAP) - _GAP, 6.2)
    each = _HEAD + tile.first + lines * tile.line
    caption = _caption(found, chosen) + (["the more opaque the larger its magnitude"] if tile.kind == "picture" else [])
    text = wrap_caption(caption, width - 2 * MARGIN).split("\n")
    foot = [line for one in found for line in _foot(one, width - 2 * MARGIN)]
    top = 0.62 + 0.18 * len(text)
    figure = new_figure(width, top + len(rows) * each + 0.1 + 0.165 * len(foot) + 0.1)
    head(figure, f"What counts for the answer of {found[0].model_name}", text)
    for place, (sample, row) in enumerate(zip(chosen, rows, strict=True)):
        _draw_row(figure, tile, row, sample, top + place * each)
    figure_text(
        figure, MARGIN, top + len(rows) * each + 0.1, "\n".join(foot), fontsize=7.5, color=MUTED, linespacing=1.45
    )  # fmt: skip
    return figure


def _draw_row(
    figure: Figure, tile: Tile, row: Sequence[tuple[Attribution, AttributionView]], sample: int,
    top: float,
) -> None:  # fmt: skip
    """Draw one sample: its target and score, what was fed, and a tile a map."""
    first = row[0][0]
    said = f"{safe(first.target[sample], 90)} · score {number(float(first.score[sample]))}"
    if first.samples > 1:
        said = f"sample {sample}: {said}"
    figure_text(figure, MARGIN, top + 0.06, said, fontsize=9, fontweight="bold")
    top += _HEAD
    columns = tile.columns(len(row))
    draw_input(figure, tile, row[0][1], (MARGIN, top))
    for place, (one, view) in enumerate(row):
        left = MARGIN + tile.lead + (place % columns) * (tile.width + _GAP)
        upper = top + tile.first + (place // columns) * tile.line + tile.above
        about = view.tensor if one.layer is None else f"{view.tensor} · {' × '.join(map(str, one.layer.size))}"
        name_tile(figure, tile, one.method, about, (left, upper))
        draw_tile(figure, tile, view, (left, upper), one.unit)


def _caption(found: Sequence[Attribution], chosen: Sequence[int]) -> list[str]:
    total = found[0].samples
    parts = [f"{len(chosen)} of {total} samples"] if len(chosen) < total else []
    parts += list(dict.fromkeys(note for one in found for note in one.notes if note.startswith("score before")))
    parts += ["each map on its own scale"] if sum(len(one.maps) for one in found) * len(chosen) > 1 else []
    return parts


def _foot(one: Attribution, room: float) -> list[str]:
    """Return what there is to say of one attribution, in lines."""
    parts = [f"{key} {value}" for key, value in one.parameters.items()]
    parts += [f"layer {safe(one.layer.name, 60)}, {one.layer.how}"] if one.layer is not None else []
    for what, values in (("baseline score", one.baseline_score), ("completeness delta", one.completeness)):
        if values is not None:
            parts.append(f"{what} {', '.join(number(float(v)) for v in values[:4])}{' …' if len(values) > 4 else ''}")
    parts += [safe(note, 200) for note in one.notes if not note.startswith("score before")]
    parts += [f"cut: {safe(cut, 120)}" for cut in one.cuts[:3]]
    parts += [f"{len(one.cuts) - 3} more cuts"] if len(one.cuts) > 3 else []
    if one.certificate is not None:
        parts += [safe(line, 240) for line in one.certificate.lines()]
    made = wrap_caption([f"{one.method}: {parts[0]}" if parts else one.method, *parts[1:]], room * 1.06).split("\n")
    return [part for line in made for part in textwrap.wrap(line, max(int(room * 16), 30), subsequent_indent="   ")]
