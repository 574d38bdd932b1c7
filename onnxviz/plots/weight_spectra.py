"""Spectra of weights as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter, NullLocator

from onnxviz.analysis.power_law import IMPLAUSIBLE
from onnxviz.analysis.scale import number
from onnxviz.analysis.weight_forms import WeightStudy
from onnxviz.analysis.weight_spectra import Spectrum
from onnxviz.plots.pairs import LABEL_WIDTH, MARGIN, row_text
from onnxviz.plots.style import ACCENT, FONT, INK, MUTED, ZERO, inch_axes
from onnxviz.plots.weight_study import about, draw_study, fine_axes

__all__ = ["plot_spectra"]

_BOX, _HEIGHT = 2.45, 1.75
_HIST = "#a9bfd6"


def plot_spectra(study: WeightStudy[Spectrum]) -> Figure:
    """Draw the spectra of weights, a row each: singular values, their distribution, the tail of the eigenvalues.

    The band in the first two is where a random matrix with independent elements of the same standard deviation would
    have its singular values (Marchenko-Pastur); the line in the third is the power law that was fitted, where it was.

    Args:
        study: Of :func:`onnxviz.analysis.weight_spectra.spectrum`.
    """
    lines = [
        "σ: singular values of the layer's matrix, outputs × inputs (input channels × kernel)",
        "λ = σ²",
        "grey band: where the σ of a random matrix of the same size and standard deviation lie (Marchenko–Pastur)",
        "right: share of λ at or above a value, orange the power law fitted to its tail",
        f"p: share of samples of that law that fit it no better; below {IMPLAUSIBLE:g} the law is rejected",
    ]
    width = MARGIN + LABEL_WIDTH + 0.45 + 3 * _BOX + 2 * 0.75 + 0.35
    return draw_study(study, f"Spectra of the weights of {study.model_name}", lines, width, lambda view: 2.25, _draw)


def _draw(figure: Figure, view: Spectrum, top: float) -> None:
    row_text(figure, top + 0.1, view.name.layer, [*about(view.name), *_notes(view)])
    left = MARGIN + LABEL_WIDTH + 0.45
    for draw in (_falling, _density, _tail):
        draw(inch_axes(figure, left, top + 0.1, _BOX, _HEIGHT), view)
        left += _BOX + 0.75


def _notes(view: Spectrum) -> list[str]:
    size = f"{view.outputs} × {view.inputs}"
    whole = len(view.singular_values)
    notes = [
        f"{view.blocks} matrices of {size}" if view.blocks > 1 else f"matrix {size}",
        f"rank {view.rank} of {whole} · stable rank {number(view.stable_rank)}",
        f"effective rank {number(view.effective_rank)}"
        + ("" if view.entropy is None else f" · entropy {number(view.entropy)}"),
        f"σ max {number(view.spectral_norm)} · condition "
        + ("infinite" if view.condition is None else number(view.condition)),
        f"{view.beyond} of {whole} σ beyond the random edge {number(view.edge)}"
        if view.edge is not None
        else "too small to compare with a random matrix",
    ]
    law = view.power_law
    if law is None:
        notes.append(f"no power law: {view.refused}")
    else:
        verdict = "power law not rejected:" if law.plausible else "power law rejected:"
        notes.append(
            f"{verdict} α {law.alpha:.2f} ({100 * law.level:g} % bootstrap {law.low:.2f} … {law.high:.2f}), "
            f"D {law.distance:.3f}, p {law.p_value:.2g}, tail {law.tail} of {law.count} λ"
        )
    return notes if view.blocks > 1 or not view.note else [*notes, view.note]


def _falling(axes: Axes, view: Spectrum) -> None:
    values = view.singular_values
    positive = values[values > values[0] * 1e-9]
    index = np.arange(1, len(positive) + 1)
    top = float(positive[0])
    if view.edge is not None and view.low_edge is not None:
        axes.axhspan(max(view.low_edge, 1e-9 * top), view.edge, color="#d0d7de", alpha=0.6, linewidth=0)
        axes.annotate(
            "random edge", (1, view.edge), (-2, 1), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="bottom", fontsize=6, color=MUTED, fontfamily=FONT,
        )  # fmt: skip
        top = max(top, view.edge)
    axes.plot(index, positive, color=ACCENT, linewidth=1.2, marker="." if len(positive) <= 60 else "", markersize=4)
    wide = positive[0] > 30 * positive[-1]
    axes.set_yscale("log" if wide else "linear")
    if wide:
        axes.set_ylim(positive[-1] / 1.5, top * 1.5)
    else:
        axes.set_ylim(0, top * 1.08)
    axes.locator_params(axis="x", integer=True, nbins=5)
    fine_axes(axes, "index", "σ")


def _density(axes: Axes, view: Spectrum) -> None:
    values = view.singular_values
    bins = int(np.clip(2 * np.sqrt(values.size), 5, 80))
    if view.edge is not None and view.low_edge is not None:
        axes.axvspan(view.low_edge, view.edge, color="#d0d7de", alpha=0.6, linewidth=0)
    counts, edges = np.histogram(values, bins=bins, range=(0.0, float(values[0])))
    axes.stairs(counts, edges, fill=True, color=_HIST, linewidth=0)
    axes.stairs(counts, edges, color=ACCENT, linewidth=0.6)
    axes.set_xlim(0, max(float(values[0]), view.edge or 0.0) * 1.04)
    axes.locator_params(axis="both", nbins=5)
    axes.locator_params(axis="y", integer=True, nbins=4)
    fine_axes(axes, "σ", "count")


def _tail(axes: Axes, view: Spectrum) -> None:
    values = np.sort(view.singular_values[view.singular_values > view.singular_values[0] * 1e-6] ** 2)
    share = 1 - np.arange(values.size) / values.size
    axes.plot(values, share, color=ACCENT, linewidth=0, marker=".", markersize=3 if values.size > 100 else 5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    law = view.power_law
    if law is not None:
        begin = law.tail / view.singular_values.size
        grid = np.geomspace(law.xmin, values[-1], 50)
        dashes = "-" if law.plausible else (0, (4, 2))
        axes.plot(grid, begin * (grid / law.xmin) ** (1 - law.alpha), color=ZERO, linewidth=1.4, linestyle=dashes)
        axes.axvline(law.xmin, color=ZERO, linewidth=0.7, linestyle=(0, (1, 2)))
        text = f"α = {law.alpha:.2f}" + ("" if law.plausible else " (rejected)")
        axes.text(0.04, 0.06, text, transform=axes.transAxes, fontsize=7.5, color=INK, fontfamily=FONT)
    if view.edge is not None:
        axes.axvline(view.edge**2, color=MUTED, linewidth=0.8)
    axes.set_ylim(0.6 / values.size, 1.5)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        few = high / low < 60
        if high / low < 4:
            axis.set_major_locator(MaxNLocator(4))
            axis.set_major_formatter(lambda value, position: number(value))
            axis.set_minor_locator(NullLocator())
            continue
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,), numticks=8))
        axis.set_major_formatter((lambda value, position: number(value)) if few else LogFormatterMathtext())
        axis.set_minor_formatter(NullFormatter())
    fine_axes(axes, "λ (grey line: random edge, dotted: xmin)", "share of λ at or above")
