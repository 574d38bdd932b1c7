"""How the error of a converted model grows through its depth, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from onnxviz.analysis.layer_parity import LayerError, LayerParity
from onnxviz.errors import InputError
from onnxviz.plots.style import INK, MUTED, figure_text, inch_axes, new_figure, safe, wrap_caption

__all__ = ["plot_parity"]

#: Okabe and Ito's colours, which the colour-blind tell apart, one a precision.
_COLORS = ("#0072B2", "#E69F00", "#009E73")
_BAD = "#b3261e"
_FLOOR = 1e-9  # what is equal, or nearer than this, stands on the lowest line
_TOP = 1e1
_NAMED = 60  # layers that fit with their names


def plot_parity(comparisons: Sequence[LayerParity]) -> Figure:
    """Draw the relative error of every layer, in order of execution, on a logarithmic scale.

    The error is ``‖onnx - source‖₂ / ‖source‖₂``, the worst over all inputs. Each
    precision has a colour, its tolerance a dashed line; layers above it are red, the first of them is named.

    Args:
        comparisons: One a precision; their layers are those of the first.

    Raises:
        InputError: No layer was compared.
    """
    layers = comparisons[0].layers if comparisons else ()
    if not layers:
        raise InputError("no layer was compared, so there is no error to draw", hint="ask for the .json instead")
    width = min(max(7.0, 2.2 + 0.19 * len(layers)), 16.0)
    names = len(layers) <= _NAMED
    longest = max(len(_label(layer)) for layer in layers) if names else 0
    below = 0.35 + 0.066 * longest if names else 0.6
    caption = wrap_caption(_facts(comparisons), width - 0.8)
    top = 0.85 + 0.14 * len(caption.splitlines())
    figure = new_figure(width, top + 3.4 + below)
    figure_text(figure, 0.35, 0.18, "Error through the depth", fontsize=14, fontweight="bold")
    figure_text(figure, 0.35, 0.5, caption, fontsize=8, color=MUTED)
    axes = inch_axes(figure, 0.95, top, width - 1.3, 3.4)
    places = {_key(layer): index for index, layer in enumerate(layers)}
    for comparison, color in zip(comparisons, _COLORS, strict=False):
        _draw(axes, comparison, places, color)
    _furnish(axes, layers, names=names)
    if len(comparisons) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    return figure


def _draw(axes: Axes, comparison: LayerParity, places: dict[tuple[str, str], int], color: str) -> None:
    known = [layer for layer in comparison.layers if _key(layer) in places]
    x = [places[_key(layer)] for layer in known]
    y = [_height(layer) for layer in known]
    axes.plot(x, y, color=color, linewidth=1, alpha=0.45, zorder=2)
    axes.scatter(
        x, y, s=16, color=[_BAD if layer.problem else color for layer in known], zorder=3, label=comparison.precision
    )
    axes.axhline(comparison.tolerance, color=color, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"tolerance {comparison.tolerance:.0e}", (0, comparison.tolerance), xycoords=("axes fraction", "data"),
        xytext=(3, 2), textcoords="offset points", fontsize=6.5, color=color,
    )  # fmt: skip
    first = comparison.first
    if first is not None and _key(first) in places:
        left = places[_key(first)] > 0.6 * len(places)
        axes.annotate(
            f"first: {safe(str(first), 44)}", (places[_key(first)], _height(first)), xytext=(-6 if left else 6, 5),
            textcoords="offset points", ha="right" if left else "left", fontsize=8, color=_BAD, fontweight="bold",
        )  # fmt: skip


def _key(layer: LayerError) -> tuple[str, str]:
    return layer.layer, layer.tensor


def _height(layer: LayerError) -> float:
    return min(max(layer.relative, _FLOOR), _TOP) if math.isfinite(layer.relative) else _TOP


def _furnish(axes: Axes, layers: Sequence[LayerError], *, names: bool) -> None:
    axes.set_yscale("log")
    axes.set_ylim(_FLOOR / 1.6, _TOP * 1.6)
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.grid(axis="y", color="#e4e7ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylabel("relative error", fontsize=8, color=INK)
    axes.tick_params(labelsize=7, length=2, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if names:
        axes.set_xticks(range(len(layers)), [_label(layer) for layer in layers], rotation=90, fontsize=6.5)
    else:
        axes.set_xlabel("layer, in order of execution", fontsize=8, color=INK)


def _label(layer: LayerError) -> str:
    return safe(layer.name, 36)


def _facts(comparisons: Sequence[LayerParity]) -> list[str]:
    first = comparisons[0]
    facts = [
        f"{len(first.layers)} layers of the source beside their ONNX tensors, in order of execution",
        f"the worst of batches {', '.join(map(str, dict.fromkeys(first.batches)))}",
        "L2 of the difference, relative to the source",
        f"errors below {_FLOOR:.0e} stand on the lowest line",
    ]
    if first.missing:
        facts.append(f"{len(first.missing)} layers have no tensor")
    for comparison in comparisons:
        worst = comparison.worst
        if worst is not None:
            differ = sum(layer.problem is not None for layer in comparison.layers)
            says = f"{differ} of {len(comparison.layers)} layers differ" if differ else "all layers agree"
            facts.append(f"{comparison.precision}: {says}, worst {worst.relative:.1e} at {safe(worst.layer, 40)}")
    return facts
