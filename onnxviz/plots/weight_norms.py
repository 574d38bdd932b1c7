"""Norm matrices of kernels as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxviz.analysis.scale import color_scale, number
from onnxviz.analysis.weight_filters import DEAD, dead_rows
from onnxviz.analysis.weight_forms import WeightStudy
from onnxviz.analysis.weight_norms import KernelNorms
from onnxviz.plots.pairs import LABEL_WIDTH, MARGIN, row_text
from onnxviz.plots.style import ACCENT, INK, ZERO, colorbar, draw_map, inch_axes, safe
from onnxviz.plots.tiles import draw_vector
from onnxviz.plots.weight_study import about, draw_study, fine_axes
from onnxviz.plots.weights import pool_matrix

__all__ = ["plot_norms"]

_WIDEST, _HIGHEST, _LINE = 4.3, 2.6, 2.0
_POINTS = 2000  # of a curve


def plot_norms(study: WeightStudy[KernelNorms]) -> Figure:
    """Draw the L2 norm of each kernel, outputs down and inputs across, and the norms of the filters in falling order.

    Weights without spatial kernels are drawn as the matrix that they are, on a scale symmetric about 0. Each matrix
    has a scale and a colour bar of its own. The groups of a convolution lie on the diagonal; the norms of a depthwise
    layer, with one input a filter, are bars.

    Args:
        study: Of :func:`onnxviz.analysis.weight_norms.kernel_norms`.
    """
    lines = [
        "kernels: L2 norm of each, filters down, input channels across (dark is 0)",
        "matrices without kernels: their values, blue below 0, red above",
        "each on its own scale",
        f"right: L2 norm of each filter (row), largest first; orange: at most {DEAD:g} of the largest (dead)",
    ]
    width = MARGIN + LABEL_WIDTH + 0.4 + _WIDEST + 1.2 + _LINE + 0.3
    return draw_study(study, f"Norms of the weights of {study.model_name}", lines, width, _height, _draw)


def _size(view: KernelNorms) -> tuple[float, float]:
    rows, columns = view.laid_out.shape
    if _is_depthwise(view):
        return _WIDEST, 1.5
    cell = min(_WIDEST / columns, _HIGHEST / rows, 0.3)
    return max(columns * cell, 0.45), max(rows * cell, 0.6)


def _is_depthwise(view: KernelNorms) -> bool:
    return view.norms and view.values.shape[1] == 1


def _height(view: KernelNorms) -> float:
    return max(_size(view)[1] + 0.15, 1.55)


def _draw(figure: Figure, view: KernelNorms, top: float) -> None:
    left = MARGIN + LABEL_WIDTH + 0.4
    width, height = _size(view)
    axes = inch_axes(figure, left, top + 0.1, width, height)
    notes = []
    if _is_depthwise(view):
        draw_vector(axes, view.values[:, 0], labels=False)
        axes.set_ylim(bottom=0)
        fine_axes(axes, view.rows, "L2 norm")
        notes.append(f"{len(view.values)} filters of one input channel each")
    else:
        picture = view.laid_out
        masked = bool(np.ma.getmaskarray(picture).any())
        pooled, note = (picture, "") if masked else pool_matrix(np.ma.getdata(picture))
        scale = color_scale(np.ma.compressed(picture) if masked else np.asarray(pooled), signed=view.signed)
        rows, columns = picture.shape
        draw_map(axes, pooled, scale, (-0.5, columns - 0.5, rows - 0.5, -0.5))
        axes.locator_params("x", integer=True, nbins=int(np.clip(width / 0.35, 2, 6)))
        axes.locator_params("y", integer=True, nbins=int(np.clip(height / 0.25, 2, 6)))
        fine_axes(axes, view.columns, view.rows)
        axes.spines[["top", "right"]].set_visible(True)
        for spine in axes.spines.values():
            spine.set_linewidth(0.4)
        colorbar(figure, inch_axes(figure, left + width + 0.1, top + 0.1, 0.1, min(height, 1.6)), scale, size=6.5)
        notes += [scale.caption(), *([note] if note else []), *_groups(view, masked)]
    kind = "L2 norm of each kernel" if view.norms else "the matrix itself: no spatial kernels"
    row_text(figure, top + 0.1, view.name.layer, [*about(view.name), kind, *(safe(note, 120) for note in notes)])
    _falling(inch_axes(figure, left + _WIDEST + 1.2, top + 0.1, _LINE, 1.25), view)


def _groups(view: KernelNorms, masked: bool) -> list[str]:
    if view.groups == 1:
        return []
    own = view.values.shape[1]
    where = "on the diagonal, blank where no kernel exists" if masked else "one below the other, on their own inputs"
    return [f"{view.groups} groups of {own} input channels, {where}"]


def _falling(axes: Axes, view: KernelNorms) -> None:
    norms = view.filters[np.isfinite(view.filters)]
    dead = len(dead_rows(view.filters))
    falling = np.sort(norms)[::-1]
    at = np.unique(np.linspace(0, max(falling.size - 1, 0), min(falling.size, _POINTS)).astype(np.int64))
    axes.plot(at, falling[at], color=ACCENT, linewidth=1.3, marker="." if falling.size <= 40 else "", markersize=4)
    if dead and falling.size:
        first = falling.size - dead
        axes.axvspan(first - 0.5, falling.size - 0.5, color=ZERO, alpha=0.25, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True, nbins=4)
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, position: number(value))
    what = "rows" if " " in view.rows else f"{view.rows}s"
    fine_axes(axes, f"{what} by norm" + (f" · {dead} dead" if dead else ""), "L2 norm")
    axes.xaxis.label.set_color(ZERO if dead else INK)
