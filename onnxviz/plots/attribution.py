"""Attributions side by side: the input, and a map a method or a target, for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.attribution.views import AttributionView, Kind, attribution_view, shared_scale
from onnxviz.analysis.scale import number
from onnxviz.errors import SelectionError
from onnxviz.plots.attribution_tiles import HALF, Tile, draw_input, draw_tile, name_tile, tile_of
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.pairs import MARGIN, head
from onnxviz.plots.style import MUTED, figure_text, new_figure, safe, wrap_caption

__all__ = ["plot_attributions"]

_MOST_SAMPLES = 8
_GAP, _HEAD, _APART = 0.24, 0.24, 0.12
Row = list[tuple[Attribution, AttributionView]]


def plot_attributions(
    found: Sequence[Attribution], *, samples: int = _MOST_SAMPLES, contours: Sequence[float] = HALF
) -> Figure:
    """Draw attributions of one case by one or several methods, of one or several targets.

    A row a sample, with what was fed on its left and a tile a method: over the picture in grey where the map is
    that of a layer, with contours; pixel by pixel where it is that of the input; a strip under a signal; a colour
    behind a word; a bar a feature. Maps of different kinds stand in rows of their own. Of several targets a method
    takes a row, a tile a target, their difference last, all on one scale; otherwise each tile has its own. 0 is
    dark where nothing is negative and white where something is. What a box or a class of pixels is about is
    outlined.

    Args:
        found: Of the same samples.
        samples: Most samples; of more an even spread is drawn and said so.
        contours: Where lines are drawn over the map of a layer, as shares of its largest magnitude.

    Raises:
        SelectionError: There is nothing to draw.
    """
    if not found or not found[0].samples:
        raise SelectionError("there are no attributions to draw", hint="give a method and an input")
    chosen = list(spread(found[0].samples, samples))
    several = _several(found)
    blocks = [(i, rows) for i in chosen if (rows := _rows(found, i, several))]
    tiles = _tiles([row for _, rows in blocks for row in rows])
    widths = [tiles[_kind(row)].across(len(row), _GAP) for _, rows in blocks for row in rows]
    width = max(2 * MARGIN + max(widths), 6.2)
    each = _HEAD + _high(tiles, blocks[0][1]) + _APART + (_HEAD * len(_titles(found, 0)) if several else 0)
    text = wrap_caption(_caption(found, chosen, "picture" in tiles, contours), width - 2 * MARGIN).split("\n")
    foot = _footer(found, several, width - 2 * MARGIN)
    top = 0.62 + 0.18 * len(text)
    figure = new_figure(width, top + len(blocks) * each + 0.1 + 0.165 * len(foot) + 0.1)
    head(figure, f"What counts for the answer of {found[0].model_name}", text)
    for place, (sample, rows) in enumerate(blocks):
        _draw_sample(figure, tiles, rows, (sample, top + place * each), several, contours)
    figure_text(
        figure, MARGIN, top + len(blocks) * each + 0.1, "\n".join(foot), fontsize=7.5, color=MUTED, linespacing=1.45
    )  # fmt: skip
    return figure


def _several(found: Sequence[Attribution]) -> bool:
    """Whether there are several targets."""
    return any(one.target != found[0].target for one in found)


def _rows(found: Sequence[Attribution], sample: int, several: bool) -> list[Row]:
    """Return the maps of a sample: a row a kind, of several targets a row a method on one scale as well."""
    every = [(one, attribution_view(one, name, sample)) for one in found for name in one.maps]
    if not several:
        return _by_kind(every)
    rows = []
    for method in dict.fromkeys(one.method for one in found):
        own = [(one, view) for one, view in every if one.method == method]
        views = shared_scale([view for _, view in own])
        rows += _by_kind([(one, view) for (one, _), view in zip(own, views, strict=True)])
    return rows


def _by_kind(row: Row) -> list[Row]:
    """Return maps in rows of one kind each, as words, tables and pictures need tiles of other sizes."""
    rows = [[one for one in row if one[1].kind == kind] for kind in get_args(Kind)]
    return [own for own in rows if own]


def _kind(row: Row) -> Kind:
    return row[0][1].kind


def _tiles(rows: Sequence[Row]) -> dict[Kind, Tile]:
    """Return the size of the tiles of each kind."""
    kinds = dict.fromkeys(_kind(row) for row in rows)
    return {kind: tile_of([view for row in rows if _kind(row) == kind for _, view in row]) for kind in kinds}


def _high(tiles: Mapping[Kind, Tile], rows: Sequence[Row]) -> float:
    """Return what the rows of a sample take from top to bottom, and what stands above the first of a kind."""
    lines = sum(tiles[_kind(row)].line * -(-len(row) // tiles[_kind(row)].columns(len(row))) for row in rows)
    return lines + sum(tiles[kind].first for kind in dict.fromkeys(map(_kind, rows)))


def _titles(found: Sequence[Attribution], sample: int) -> list[str]:
    """Return the targets of a sample that are no differences, with their scores."""
    lines = [f"{one.target[sample]} · score {number(float(one.score[sample]))}" for one in found if not one.contrast]
    return list(dict.fromkeys(lines))


def _letter(place: int) -> str:
    """Return the letter of a target, A for the first.

    >>> _letter(0), _letter(27)
    ('A', '28')
    """
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _draw_sample(
    figure: Figure, tiles: Mapping[Kind, Tile], rows: Sequence[Row], at: tuple[int, float], several: bool,
    contours: Sequence[float],
) -> None:  # fmt: skip
    """Draw one sample: its targets and scores, what was fed, and a tile a map."""
    sample, top = at
    every = [one for row in rows for one, _ in row]
    first = every[0]
    titles = _titles(every, sample)
    if several:
        titles = [f"{_letter(place)}   {title}" for place, title in enumerate(titles)]
        titles = [f"sample {sample}", *titles] if first.samples > 1 else titles
    elif first.samples > 1:
        titles = [f"sample {sample}: {titles[0]}"]
    for title in titles:
        figure_text(
            figure, MARGIN, top + 0.06, safe(title, int(13 * figure.get_figwidth())), fontsize=9, fontweight="bold"
        )
        top += _HEAD
    begun: set[Kind] = set()
    for row in rows:
        tile = tiles[_kind(row)]
        if _kind(row) not in begun:
            own = [view for other in rows if _kind(other) == _kind(row) for _, view in other]
            draw_input(figure, tile, own, (MARGIN, top))
            top += tile.first
        begun.add(_kind(row))
        columns = tile.columns(len(row))
        names = _names(row, several)
        for place, (one, view) in enumerate(row):
            left = MARGIN + tile.lead + (place % columns) * (tile.width + _GAP)
            upper = top + (place // columns) * tile.line + tile.above
            about = view.tensor
            if one.layer is not None and one.layer.name == view.tensor:
                about += f" · {' × '.join(map(str, one.layer.size))}"
            name_tile(figure, tile, names[place], about, (left, upper))
            draw_tile(figure, tile, view, (left, upper), one.unit, contours)
        top += -(-len(row) // columns) * tile.line


def _names(row: Row, several: bool) -> list[str]:
    """Return what stands above the maps of a row."""
    if not several:
        return [one.method for one, _ in row]
    targets = list(dict.fromkeys(one.target for one, _ in row if not one.contrast))
    difference = "−".join(_letter(place) for place in range(len(targets)))
    return [
        f"{one.method} · {difference if one.contrast else _letter(targets.index(one.target))}" for one, _ in row
    ]  # fmt: skip


def _caption(
    found: Sequence[Attribution], chosen: Sequence[int], picture: bool, contours: Sequence[float]
) -> list[str]:  # fmt: skip
    total = found[0].samples
    parts = [f"{len(chosen)} of {total} samples"] if len(chosen) < total else []
    parts += list(dict.fromkeys(note for one in found for note in one.notes if _is_said(note)))
    if _several(found):
        parts += ["each method on one scale for all targets"]
    elif sum(len(one.maps) for one in found) * len(chosen) > 1:
        parts += ["each map on its own scale"]
    if picture:
        parts += ["the more opaque the larger its magnitude"]
        if contours and any(one.layer is not None for one in found):
            shares = ", ".join(f"{100 * share:g}" for share in contours)
            parts += [f"lines at {shares} % of the largest"]
        if any(region is not None for one in found for region in one.regions):
            parts += ["outlined: what the target is about"]
    return parts


def _footer(found: Sequence[Attribution], several: bool, room: float) -> list[str]:
    """Return what there is to say below all maps, in lines; what holds for all targets of a method once."""
    plain = [one for one in found if not one.contrast]
    shared = [note for note in found[0].notes if all(note in one.notes for one in plain) and not _is_said(note)]
    targets = list(dict.fromkeys(one.target for one in plain))
    said: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in plain:
        if parts := _foot(one, shared):
            said.setdefault((one.method, tuple(parts)), []).append(_letter(targets.index(one.target)))
    lines: list[str] = []
    for (method, own), letters in said.items():
        name = f"{method} {', '.join(letters)}" if several and len(letters) < len(targets) else method
        lines += wrap_caption([f"{name}: {own[0]}", *own[1:]], room * 1.06).split("\n")
    if len(plain) < len(found):
        told = "A − B: the difference of the two maps, red where A counts more and blue where B does"
        lines += wrap_caption([told], room).split("\n")
    return lines + [line for note in shared for line in wrap_caption([safe(note, 200)], room).split("\n")]


def _is_said(note: str) -> bool:
    """Whether a note stands above, beside the target."""
    return note.startswith("score before")


def _foot(one: Attribution, shared: Sequence[str]) -> list[str]:
    """Return what there is to say of one attribution, in parts, without the notes that all share."""
    parts = [f"{key} {value}" for key, value in one.parameters.items()]
    parts += [f"layer {safe(one.layer.name, 60)}, {one.layer.how}"] if one.layer is not None else []
    if one.baseline_score is not None:
        parts.append(f"baseline score {_numbers(one.baseline_score)}")
    if one.completeness is not None:
        parts.append(f"completeness delta {_numbers(one.completeness)}{_share(one)}")
    parts += [safe(note, 200) for note in one.notes if note not in shared and not _is_said(note)]
    parts += [f"cut: {safe(cut, 120)}" for cut in one.cuts[:3]]
    parts += [f"{len(one.cuts) - 3} more cuts"] if len(one.cuts) > 3 else []
    if one.certificate is not None:
        parts += [safe(line, 240) for line in one.certificate.lines()]
    return parts


def _numbers(values: npt.NDArray[np.float64]) -> str:
    return f"{', '.join(number(float(v)) for v in values[:4])}{' …' if len(values) > 4 else ''}"


def _share(one: Attribution) -> str:
    """Return how large the delta is at most, of what the map should sum to."""
    assert one.completeness is not None
    whole = np.abs(one.score - (0.0 if one.baseline_score is None else one.baseline_score))
    if not (whole > 0).all():
        return ""
    return f" ({'at most ' * (len(whole) > 1)}{number(float(np.max(100 * np.abs(one.completeness) / whole)))} %)"
