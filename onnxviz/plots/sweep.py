"""What a model does at each size, as a figure: a strip a dimension, with time and memory, and grids of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from onnxviz.analysis.sweep_result import SizeRun, Sweep, SweptDimension, Verdict
from onnxviz.errors import InputError
from onnxviz.plots.style import INK, MUTED, figure_text, inch_axes, new_figure, safe, wrap_caption

__all__ = ["plot_sweep"]

_COLOURS: dict[Verdict, str] = {"works": "#3b8f6b", "changes": "#e69f00", "fails": "#b3261e", "not_tried": "#d9dde1"}
_SIGNS: dict[Verdict, str] = {"works": "", "changes": "≠", "fails": "×", "not_tried": "?"}
_WORDS: dict[Verdict, str] = {"works": "works", "changes": "changes", "fails": "fails", "not_tried": "not tried"}
_TIME, _MEMORY = "#0072B2", "#7b4fa3"
_LEFT, _CELL, _CURVE, _STRIP = 0.75, 0.36, 0.95, 0.26
_MOST_PAIRS, _WHY = 6, 0.15
_PAIR_CELL, _PAIR_ROOM = 0.3, 2.25


def plot_sweep(sweep: Sweep) -> Figure:
    """Draw what became of every size that was tried.

    A strip a dimension, the others at their usual sizes: green works, orange runs and changes, red fails, grey was not
    tried. Above it time and memory of one run over those at the usual size (bold), on a logarithmic scale. Below, the
    pairs of dimensions that were changed together.

    Raises:
        InputError: Nothing was tried.
    """
    if not sweep.runs:
        raise InputError("no size was tried, so there is nothing to draw", hint="ask for the .json instead")
    grids = _grids(sweep)
    longest = max(len(dimension.runs) for dimension in sweep.dimensions)
    width = min(max(7.2, _LEFT + 0.45 + _CELL * longest), 14.0)
    caption = wrap_caption(_facts(sweep), width - 0.8)
    top = 0.95 + 0.14 * len(caption.splitlines())
    heights = [0.52 + _CURVE + _STRIP + 0.42 + _WHY * (_why(sweep, one) is not None) for one in sweep.dimensions]
    across = max(int((width - 0.4) / _PAIR_ROOM), 1)
    tall = [max(len(rows) for _, _, rows, _ in grids[i : i + across]) for i in range(0, len(grids), across)]
    below = sum(0.85 + _PAIR_CELL * rows for rows in tall)
    figure = new_figure(width, top + sum(heights) + below + 0.1)
    figure_text(figure, 0.3, 0.16, f"Sizes of {safe(sweep.model, 48)}", fontsize=14, fontweight="bold")
    figure_text(figure, 0.3, 0.48, caption, fontsize=8, color=MUTED)
    _legend(figure, sweep, top, width)
    start = top
    for dimension, height in zip(sweep.dimensions, heights, strict=True):
        _dimension(figure, sweep, dimension, start, width)
        start += height
    if grids:
        figure_text(
            figure,
            0.3,
            start,
            "Two dimensions changed together, at sizes that run alone",
            fontsize=9.5,
            fontweight="bold",
        )
    for row, rows in enumerate(tall):
        for column, grid in enumerate(grids[row * across : (row + 1) * across]):
            _grid(figure, grid, _LEFT + column * _PAIR_ROOM, start + 0.4)
        start += 0.85 + _PAIR_CELL * rows
    return figure


def _legend(figure: Figure, sweep: Sweep, top: float, width: float) -> None:
    counts = sweep.counts()
    handles: list[Patch | Line2D] = [
        Patch(facecolor=_COLOURS[verdict], label=f"{_WORDS[verdict]} ({counts[verdict]})")
        for verdict in _COLOURS
        if counts[verdict]
    ]
    handles.append(Line2D([], [], color=_TIME, marker="o", markersize=3, linewidth=1.2, label="time"))
    if any(d.relative(run, "bytes") is not None for d in sweep.dimensions for run in d.runs):
        handles.append(
            Line2D([], [], color=_MEMORY, marker="s", markersize=3, linewidth=1, linestyle="--", label="memory")
        )
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.3 / width, 1 - (top - 0.38) / height), ncols=len(handles),
        frameon=False, fontsize=8, handlelength=1.4, columnspacing=1.4, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def _dimension(figure: Figure, sweep: Sweep, dimension: SweptDimension, top: float, width: float) -> None:
    """Draw the strip of one dimension, and the curves above it."""
    runs = dimension.runs
    room = width - _LEFT - 0.35
    cell = min(room / len(runs), 0.62)
    name = safe(dimension.name, 46)
    kind = "" if not dimension.samples else "  (taken to count samples)" if dimension.guessed else "  (counts samples)"
    figure_text(figure, 0.3, top, f"{name}{kind}", fontsize=9.5, fontweight="bold")
    tied = f"; changed together with {', '.join(safe(other, 30) for other in dimension.tied)}" * bool(dimension.tied)
    figure_text(figure, 0.3, top + 0.18, _cut(dimension.told + tied, width), fontsize=8, color=MUTED)
    if (why := _why(sweep, dimension)) is not None:
        figure_text(figure, 0.3, top + 0.33, _cut(safe(why, 400), width), fontsize=7.5, color=_COLOURS["fails"])
        top += _WHY
    curves = inch_axes(figure, _LEFT, top + 0.45, cell * len(runs), _CURVE)
    strip = inch_axes(figure, _LEFT, top + 0.5 + _CURVE, cell * len(runs), _STRIP)
    _curves(curves, dimension)
    for place, run in enumerate(runs):
        _cell(strip, place, 0, run, usual=run.sizes[dimension.name] == dimension.usual, size=8)
    strip.set_xlim(-0.5, len(runs) - 0.5)
    strip.set_ylim(0.5, -0.5)
    strip.set_yticks([])
    step = max(math.ceil(0.3 / cell), 1)
    sizes = [run.sizes[dimension.name] for run in runs]
    shown = [i for i in range(len(runs)) if i % step == 0 or sizes[i] == dimension.usual]
    strip.set_xticks(shown, [str(sizes[i]) for i in shown], fontsize=7.5)
    for place, label in zip(shown, strip.get_xticklabels(), strict=True):
        if sizes[place] == dimension.usual:
            label.set_fontweight("bold")
    strip.tick_params(length=0, pad=3, colors=INK)
    strip.spines[:].set_visible(False)


def _why(sweep: Sweep, dimension: SweptDimension) -> str | None:
    """Return why the size fails that is nearest to the usual one, or where samples begin to depend on each other."""
    name, usual = dimension.name, dimension.usual
    failed = [run for run in dimension.runs if run.verdict == "fails"]
    if failed:
        nearest = min(failed, key=lambda run: (not run.sizes[name], abs(run.sizes[name] - usual)))
        fixed = [f.fixed for f in sweep.failures if f.fixed and f.dimensions == (name,) and nearest.sizes in f.sizes]
        return f"at {nearest.sizes[name]}: {fixed[0] if fixed else nearest.reason}"
    own = [change for change in sweep.changes if change.kind == "samples" and dimension.samples]
    return f"{own[0].output}: samples depend on each other, first at {own[0].node}" if own else None


def _cut(text: str, width: float) -> str:
    most = int((width - 0.6) * 15)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cell(axes: Axes, column: float, row: float, run: SizeRun | None, *, usual: bool, size: float) -> None:
    """Draw one combination of sizes: a colour, and a sign for who cannot tell the colours."""
    if run is None:
        return
    axes.add_patch(
        Rectangle(
            (column - 0.46, row - 0.46), 0.92, 0.92, facecolor=_COLOURS[run.verdict],
            edgecolor=INK if usual else "white", linewidth=1.3 if usual else 0.4,
        )
    )  # fmt: skip
    colour = INK if run.verdict in ("not_tried", "changes") else "white"
    axes.text(
        column, row, _SIGNS[run.verdict], ha="center", va="center_baseline", fontsize=size, color=colour,
        fontweight="bold",
    )  # fmt: skip


def _curves(axes: Axes, dimension: SweptDimension) -> None:
    """Draw time and memory over those at the usual size."""
    values: list[float] = [1.0]
    kinds = (("seconds", _TIME, "o", "-", 1.3), ("bytes", _MEMORY, "s", "--", 1.0))
    for what, colour, marker, line, width in kinds:
        points = [(i, dimension.relative(run, what)) for i, run in enumerate(dimension.runs)]  # type: ignore[arg-type]
        known = [(i, value) for i, value in points if value and dimension.runs[i].sizes[dimension.name]]
        if known:
            heights = [dict(known).get(i, math.nan) for i, _ in points]  # no line across what did not run
            axes.plot(
                range(len(points)), heights, color=colour, marker=marker, markersize=3, linewidth=width, linestyle=line,
                zorder=3,
            )  # fmt: skip
            values += [value for _, value in known]
    axes.set_yscale("log")
    low, high = min(*values, 0.5), max(*values, 2.0)
    axes.set_ylim(low / 1.3, high * 1.3)
    ticks = _ticks(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticklabels([f"×{tick:g}" for tick in ticks], fontsize=7)
    axes.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(-0.5, len(dimension.runs) - 0.5)
    axes.set_xticks([])
    axes.tick_params(length=2, colors=INK)
    axes.grid(axis="y", color="#e4e7ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _ticks(low: float, high: float) -> list[float]:
    """Return about four ticks of a logarithmic axis, 1 among them."""
    span = math.log10(high / low)
    steps = [1.0, 2.0, 5.0] if span < 1.6 else [1.0]
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [step * 10.0**exponent for exponent in exponents for step in steps]
    return [tick for tick in every if low / 1.3 <= tick <= high * 1.3]


_Grid = tuple[SweptDimension, SweptDimension, list[int], dict[tuple[int, int], SizeRun]]


def _grids(sweep: Sweep) -> list[_Grid]:
    """Return for each pair of dimensions that were changed together: both, the sizes of the second, and the runs."""
    grids: list[_Grid] = []
    usual = {dimension.name: dimension.usual for dimension in sweep.dimensions}
    changed = [(run, {n for n, size in usual.items() if run.sizes[n] != size}) for run in sweep.pairs]
    for one, other in combinations(sweep.dimensions, 2):
        pairs = [run for run, names in changed if names == {one.name, other.name}]
        if not pairs:
            continue
        columns, rows = ({run.sizes[d.name] for run in pairs} | {d.usual} for d in (one, other))
        single = [
            *(run for run in one.runs if run.sizes[one.name] in columns),
            *(run for run in other.runs if run.sizes[other.name] in rows),
        ]
        cells = {(run.sizes[one.name], run.sizes[other.name]): run for run in [*single, *pairs]}
        grids.append((one, other, sorted(rows), cells))
    return grids[:_MOST_PAIRS]


def _grid(figure: Figure, grid: _Grid, left: float, top: float) -> None:
    """Draw the runs of two dimensions, each row a size of the second."""
    one, other, rows, cells = grid
    columns = sorted({column for column, _ in cells})
    axes = inch_axes(figure, left, top, _PAIR_CELL * len(columns), _PAIR_CELL * len(rows))
    for (column, row), run in cells.items():
        usual = column == one.usual and row == other.usual
        _cell(axes, columns.index(column), rows.index(row), run, usual=usual, size=8)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [str(size) for size in columns], fontsize=7)
    axes.set_yticks(range(len(rows)), [str(size) for size in rows], fontsize=7)
    axes.tick_params(length=0, pad=2, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(safe(one.name, 15), fontsize=8, color=INK, parse_math=False)
    axes.set_ylabel(
        safe(other.name, max(int(len(rows) * _PAIR_CELL / 0.075), 8)), fontsize=8, color=INK, parse_math=False
    )


def _facts(sweep: Sweep) -> Sequence[str]:
    names = list(dict.fromkeys(size.output for size in sweep.outputs))
    shapes = [f"{safe(name, 24)} [{_shape(sweep.shape(name))}]" for name in names[:3]]
    more = len(names) - len(shapes)
    facts = ["usual sizes in bold; time and memory over those at the usual size, nothing fused"]
    facts += [f"outputs: {'; '.join(shapes)}{f' and {more} more' if more > 0 else ''}"] if shapes else []
    others = [change for change in sweep.changes if change.kind != "samples"]
    for change in others[:3]:
        facts += [
            f"{safe(change.output, 24)}: {safe(change.message, 90)}",
            *([safe(change.why, 90)] if change.why else []),
        ]
    facts += [safe(note, 110) for note in sweep.notes if note.startswith("fed random")]
    return facts


def _shape(sizes: Sequence[str]) -> str:
    """Write the sizes of an output in about a line: long formulas are cut in the middle."""
    long = sum(len(size) > 12 for size in sizes)
    return ", ".join(safe(size, 80 // max(long, 1)) for size in sizes)
