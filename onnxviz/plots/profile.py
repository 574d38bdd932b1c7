"""Where time and memory go, as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from onnxviz.plots.style import FONT, INK, MUTED, figure_text, inch_axes, name_lines, new_figure, safe, wrap_caption
from onnxviz.runtime.profile_result import MemoryUse, NodeProfile, Profile

__all__ = ["plot_activation_memory", "plot_node_times", "plot_operator_times", "plot_profile", "plot_roofline"]

#: Okabe and Ito's colours, which the colour-blind tell apart; what is left over is grey.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_OTHER = "#b4bac1"
_BAD = "#b3261e"
_MARGIN, _WIDTH = 0.35, 12.6
_SMALL = 7.0
_LONG_ENOUGH = 3e-6  # seconds from which a node's rate is told: the profiler counts whole microseconds


def plot_profile(profile: Profile, *, top: int = 10) -> Figure:
    """Draw a profile: the longest nodes, time by operator, activation memory and intensity, on one sheet.

    Args:
        profile: From :func:`onnxviz.runtime.profile.profile`.
        top: How many nodes have a bar.
    """
    figure = new_figure(_WIDTH, 8.3)
    figure_text(figure, _MARGIN, 0.2, safe(f"Profile of {profile.model_name}", 90), fontsize=14, fontweight="bold")
    figure_text(figure, _MARGIN, 0.52, wrap_caption(_facts(profile), _WIDTH - 1), fontsize=8, color=MUTED)
    colors = _colors(profile)
    plot_node_times(profile, top=top, ax=inch_axes(figure, 2.85, 1.2, 3.6, 3.05), colors=colors)
    plot_operator_times(profile, ax=inch_axes(figure, 8.6, 1.2, 2.75, 3.05), colors=colors)
    plot_activation_memory(profile, ax=inch_axes(figure, 0.95, 4.95, 5.5, 2.75))
    plot_roofline(profile, ax=inch_axes(figure, 7.5, 4.95, 4.75, 2.75), colors=colors)
    return figure


def _facts(profile: Profile) -> list[str]:
    facts = [
        f"{_time(profile.seconds)} a run, median of {profile.runs} after {profile.warmup} warm-up",
        f"{_time(profile.profiled_seconds)} under the profiler, {profile.unaccounted:.0%} of it in no node",
        "optimised session" if profile.mode == "production" else "nothing fused",
        ", ".join(profile.providers),
        f"{len(profile.rows):,} nodes",
    ]
    if profile.macs is not None:
        facts.append(f"{_si(profile.macs).strip()} MACs")
    return [*facts, *profile.notes]


def _colors(profile: Profile) -> dict[str, str]:
    return {op.operator: color for op, color in zip(profile.by_op(), _COLORS, strict=False)}


def plot_node_times(
    profile: Profile, *, top: int = 10, ax: Axes | None = None, colors: Mapping[str, str] | None = None
) -> Figure:
    """Draw a bar for each of the nodes that take longest: median, quartiles as a whisker, share and provider.

    Args:
        profile: The profile.
        top: How many.
        ax: Axes to draw into; None makes a figure.
        colors: Colour of each operator; by default that of its rank.
    """
    axes = ax if ax is not None else inch_axes(new_figure(6.9, 4.0), 2.85, 0.5, 3.6, 3.05)
    colors = _colors(profile) if colors is None else colors
    rows = profile.top(top)
    unit, scale = _time_unit(max((row.high for row in rows), default=0))
    bars = _bars(axes, [scale * r.seconds for r in rows], [colors.get(r.operator, _OTHER) for r in rows], top)
    axes.set_xlim(0, 1.55 * (scale * max((row.high for row in rows), default=0) or 1))
    _title(axes, f"The {len(rows)} nodes that take longest" if len(rows) < len(profile.rows) else "All nodes")
    axes.set_yticks(bars, [_two_lines(row) for row in rows], fontsize=_SMALL, parse_math=False)
    for place, row in zip(bars, rows, strict=True):
        axes.plot([scale * row.low, scale * row.high], [place, place], color=INK, linewidth=0.8)
        _after(
            axes,
            place,
            scale * max(row.high, row.seconds),
            f"{scale * row.seconds:.3g} {unit} · {row.share:.1%} · {row.provider}",
        )
    axes.set_xlabel(f"{unit} a run, own time (line: quartiles)", fontsize=_SMALL, color=MUTED, fontfamily=FONT)
    return axes.figure  # type: ignore[return-value]


def _two_lines(row: NodeProfile) -> str:
    """Return a node's label in at most two lines: what was fused into its main node stands on the second."""
    rest = [name for name in row.originals if name != row.main]
    if not rest:
        return name_lines(row.main, 38)
    more = f"{safe(rest[0], 34)}" if len(rest) == 1 else f"{safe(rest[0], 26)} + {len(rest) - 1} more"
    return f"{safe(row.main, 38)}\n+ {more}"


def plot_operator_times(
    profile: Profile, *, top: int = 10, ax: Axes | None = None, colors: Mapping[str, str] | None = None
) -> Figure:
    """Draw a bar for each operator: the time of all its nodes; what lies beyond ``top`` operators, and in none, too.

    Args, returns: As :func:`plot_node_times`.
    """
    axes = ax if ax is not None else inch_axes(new_figure(5.6, 4.0), 1.85, 0.5, 2.75, 3.05)
    colors = _colors(profile) if colors is None else colors
    ops = profile.by_op()
    bars = [
        (f"{safe(op.operator, 24)} × {op.nodes}", op.share, op.seconds, colors.get(op.operator, _OTHER))
        for op in ops[:top]
    ]
    if rest := ops[top:]:
        name = f"{len(rest)} other{'s' if len(rest) > 1 else ''} × {sum(op.nodes for op in rest)}"
        bars.append((name, sum(op.share for op in rest), sum(op.seconds for op in rest), _OTHER))
    bars.append(("in no node", profile.unaccounted, profile.unaccounted * profile.profiled_seconds, "white"))
    places = _bars(axes, [100 * share for _, share, _, _ in bars], [color for *_, color in bars], top + 2)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 100])
    axes.set_yticks(places, [name for name, *_ in bars], fontsize=_SMALL, parse_math=False)
    for place, (_, share, seconds, _) in zip(places, bars, strict=True):
        _after(axes, place, 100 * share, f"{share:.1%} · {_time(seconds)}")
    _title(axes, "By operator")
    axes.set_xlabel("% of the profiled run", fontsize=_SMALL, color=MUTED, fontfamily=FONT)
    return axes.figure  # type: ignore[return-value]


def _bars(axes: Axes, lengths: Sequence[float], colors: Sequence[str], rows: int) -> list[int]:
    places = list(range(len(lengths)))
    axes.barh(
        places,
        lengths,
        height=0.68,
        color=colors,
        edgecolor=[_OTHER if c == "white" else c for c in colors],
        linewidth=0.6,
    )
    axes.set_ylim(max(rows, len(lengths)) - 0.4, -0.6)
    axes.set_xlim(0, (max(lengths, default=0) or 1) * 1.55)
    _frame(axes)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    return places


def _after(axes: Axes, place: float, end: float, text: str) -> None:
    axes.annotate(
        text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=_SMALL - 0.5, color=MUTED,
        fontfamily=FONT, parse_math=False,
    )  # fmt: skip


def plot_activation_memory(profile: Profile, *, ax: Axes | None = None) -> Figure:
    """Draw the bytes of activations alive during each node, by liveness, with their peak and what was measured.

    Args:
        profile: The profile.
        ax: Axes to draw into; None makes a figure.
    """
    axes = ax if ax is not None else inch_axes(new_figure(7.0, 3.7), 0.95, 0.45, 5.5, 2.75)
    memory = profile.memory
    measured = memory.resident_bytes or 0
    fits = measured <= 3 * memory.peak_bytes
    unit, scale = _byte_unit(max(memory.peak_bytes, measured if fits else 0))
    sizes = [scale * size for size in memory.bytes]
    color = _COLORS[0]
    axes.stairs(sizes, [i + 0.5 for i in range(len(sizes) + 1)], fill=True, color=color, alpha=0.25, linewidth=0)
    axes.stairs(sizes, [i + 0.5 for i in range(len(sizes) + 1)], color=color, linewidth=0.9, baseline=None)
    top = 1.28 * (max(scale * memory.peak_bytes, scale * measured if fits else 0) or 1)
    axes.set_ylim(0, top)
    axes.set_xlim(0.5, max(len(sizes), 1) + 0.5)
    if memory.peak_row is not None:
        _mark_peak(axes, profile, scale, unit)
    at = scale * measured if measured and fits else top
    if at < top:
        axes.axhline(at, color=_BAD, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.annotate(
        _measured(memory, fits), (1, at), (-2, 3 if at < top else -9), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=_SMALL, color=_BAD if measured else MUTED, fontfamily=FONT,
        parse_math=False,
    )  # fmt: skip
    _frame(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    unknown = f"; {len(memory.unknown)} tensors of unknown size left out" if memory.unknown else ""
    _title(axes, "Activations alive, by liveness (no buffer reused in place)")
    axes.set_xlabel(f"node, in the order of execution{unknown}", fontsize=_SMALL, color=MUTED, fontfamily=FONT)
    axes.set_ylabel(unit, fontsize=_SMALL, color=MUTED, fontfamily=FONT)
    return axes.figure  # type: ignore[return-value]


def _measured(memory: MemoryUse, fits: bool) -> str:
    asked = "" if memory.allocator_bytes is None else f" (asked of the allocator: {_size(memory.allocator_bytes)})"
    if memory.resident_bytes is None:
        return safe(memory.resident_method, 90) + asked
    return (
        f"measured: {_size(memory.resident_bytes)} more resident memory{'' if fits else ', beyond the scale ↑'}{asked}"
    )


def _mark_peak(axes: Axes, profile: Profile, scale: float, unit: str) -> None:
    memory = profile.memory
    place = memory.rows.index(memory.peak_row) if memory.peak_row in memory.rows else 0
    height = scale * memory.peak_bytes
    axes.plot([place + 1], [height], marker="o", markersize=4, color=INK)
    left = place < len(memory.rows) / 2
    axes.annotate(
        f"peak {height:.3g} {unit} in {safe(profile.rows[memory.peak_row or 0].label, 40)}",
        (place + 1, height), (5 if left else -5, 5), textcoords="offset points", ha="left" if left else "right",
        fontsize=_SMALL, color=INK, fontfamily=FONT, parse_math=False,
    )  # fmt: skip


def plot_roofline(profile: Profile, *, ax: Axes | None = None, colors: Mapping[str, str] | None = None) -> Figure:
    """Draw each node that multiplies tensors by arithmetic intensity and rate, both logarithmic; area is time.

    The dashed lines are the highest rate and the highest traffic of the nodes drawn, not the machine's limits, in
    the form of a roofline (Williams, Waterman, Patterson, 2009). Nodes below 3 µs are too short for a rate.

    Args, returns: As :func:`plot_node_times`.
    """
    axes = ax if ax is not None else inch_axes(new_figure(6.0, 3.7), 0.9, 0.45, 4.75, 2.75)
    colors = _colors(profile) if colors is None else colors
    rows = [row for row in profile.rows if row.seconds >= _LONG_ENOUGH and row.gflops and row.intensity]
    _title(axes, "Rate against arithmetic intensity (area: time)")
    _frame(axes)
    if not rows:
        axes.set_xticks([])
        axes.set_yticks([])
        text = "no node that multiplies tensors took 3 µs or more"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", fontsize=8, color=MUTED, fontfamily=FONT)
        return axes.figure  # type: ignore[return-value]
    x, y = [row.intensity or 1 for row in rows], [row.gflops or 1 for row in rows]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(_span(x, 0.15))
    axes.set_ylim(_span(y, 0.3))
    _roof(axes, max(y), max((row.bytes or 0) / row.seconds / 1e9 for row in rows))
    axes.scatter(
        x, y, s=[12 + 500 * row.share for row in rows], c=[colors.get(row.operator, _OTHER) for row in rows],
        alpha=0.75, edgecolors="white", linewidths=0.5, zorder=3,
    )  # fmt: skip
    _label_points(axes, rows)
    _legend(axes, rows, colors)
    axes.set_xlabel(
        "arithmetic intensity: 2 · MACs / bytes (FLOP a byte)", fontsize=_SMALL, color=MUTED, fontfamily=FONT
    )
    axes.set_ylabel("GFLOP/s (10⁹ operations a second)", fontsize=_SMALL, color=MUTED, fontfamily=FONT)
    return axes.figure  # type: ignore[return-value]


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return logarithmic limits around the values, a decade and a half apart at least."""
    low, high = math.log10(min(values)), math.log10(max(values))
    wider = max(1.5 - (high - low), 0)
    return 10 ** (low - margin - 0.8 * wider), 10 ** (high + margin + 0.2 * wider)


def _roof(axes: Axes, rate: float, traffic: float) -> None:
    ridge = rate / traffic
    left, right = axes.get_xlim()
    corners = [left, min(max(ridge, left), right), right]
    axes.plot(
        corners, [min(rate, traffic * corner) for corner in corners], color=MUTED, linewidth=0.8, linestyle=(0, (4, 2))
    )
    axes.text(
        0.01, 0.98, f"dashed: the highest here, {_si(rate * 1e9)}FLOP/s and {_si(traffic * 1e9)}B/s", va="top",
        transform=axes.transAxes, fontsize=_SMALL - 0.5, color=MUTED, fontfamily=FONT,
    )  # fmt: skip


def _label_points(axes: Axes, rows: Sequence[NodeProfile]) -> None:
    """Name the longest nodes, where their names do not lie on each other."""
    taken: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: -row.seconds)[:8]:
        point = (row.intensity or 1, row.gflops or 1)
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(point))
        if len(taken) == 4 or any(abs(y - other_y) < 0.07 and abs(x - other_x) < 0.45 for other_x, other_y in taken):
            continue
        taken.append((x, y))
        left = x < 0.6
        axes.annotate(
            safe(row.main, 30), point, (6 if left else -6, -9),
            textcoords="offset points", ha="left" if left else "right", fontsize=_SMALL - 1, color=INK,
            fontfamily=FONT, parse_math=False, zorder=4,
        )  # fmt: skip


def _legend(axes: Axes, rows: Sequence[NodeProfile], colors: Mapping[str, str]) -> None:
    shown = [name for name in colors if any(row.operator == name for row in rows)]
    for name in shown:
        axes.scatter([], [], s=18, c=colors[name], label=safe(name, 24))
    if any(row.operator not in colors for row in rows):
        axes.scatter([], [], s=18, c=_OTHER, label="other")
    legend = axes.legend(loc="lower right", frameon=False, handletextpad=0.2, borderaxespad=0.2)
    for text in legend.get_texts():
        text.set(fontsize=_SMALL - 0.5, fontfamily=FONT, color=INK, parse_math=False)


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SMALL, width=0.5, length=2.5, labelfontfamily=FONT)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9, color=INK, fontfamily=FONT, fontweight="bold", pad=6)


def _time_unit(seconds: float) -> tuple[str, float]:
    return ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)


def _time(seconds: float) -> str:
    unit, scale = _time_unit(seconds)
    return f"{scale * seconds:.3g} {unit}"


def _size(size: int) -> str:
    unit, scale = _byte_unit(size)
    return f"{scale * size:.3g} {unit}"


def _si(value: float) -> str:
    """Return a number with a prefix of the SI before the unit that follows: ``"349 M"``."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def _byte_unit(size: float) -> tuple[str, float]:
    for name, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return name, 1 / factor
    return "bytes", 1.0
