"""Lines over a map of an attribution: contours, and the outline of what its target is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from onnxviz.analysis.attribution.regions import Region
from onnxviz.analysis.attribution.views import AttributionView

__all__ = ["draw_contours", "draw_region"]

_LARGE = 0.1  # share of a side from which an outline has room for dashes
_FINEST = 160  # places along an axis at which contours are looked for


def draw_contours(axes: Axes, view: AttributionView, shares: Sequence[float]) -> None:
    """Draw lines where a map has some shares of the largest magnitude of its scale, on each side of 0.

    Args:
        axes: Of the picture.
        view: The map, on a canvas.
        shares: Between 0 and 1.
    """
    assert view.canvas is not None
    assert view.spatial is not None
    if view.scale.constant or not view.scale.count:
        return
    at = [np.linspace(0, size - 1, min(size, _FINEST)) for size in view.canvas.size]
    values = np.ma.masked_invalid(view.spatial.at(*at))
    wanted = sorted({sign * share * view.scale.vmax for share in shares for sign in (-1, 1)})
    levels = [level for level in wanted if values.min() < level < values.max()]
    if levels and values.count():
        axes.contour(at[1], at[0], values, levels=levels, colors=["white"], linewidths=1.6, alpha=0.7,
                     linestyles="solid")  # fmt: skip
        axes.contour(at[1], at[0], values, levels=levels, colors=["black"], linewidths=0.7, linestyles="solid")


def draw_region(axes: Axes, region: Region | None, size: tuple[int, ...]) -> None:
    """Outline a part of a picture in black on white, a large rectangle dashed.

    Args:
        axes: Of the picture.
        region: The part; None draws nothing.
        size: Rows and columns of the picture.
    """
    if region is None:
        return
    if region.box is not None:
        left, top, right, bottom = (float(c) - 0.5 for c in region.box)
        large = max((right - left) / size[1], (bottom - top) / size[0]) > _LARGE
        for colour, wide, style in (("white", 2.0, "-"), ("black", 0.9, (0, (3, 2)) if large else "-")):
            axes.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=wide,
                          linestyle=style)
            )  # fmt: skip
    if region.mask is not None and region.mask.any() and not region.mask.all() and min(region.mask.shape) > 1:
        rows, columns = (
            (np.arange(n) + 0.5) / n * pixels - 0.5 for n, pixels in zip(region.mask.shape, size, strict=True)
        )
        block = region.mask.astype(np.float32)
        axes.contour(columns, rows, block, levels=[0.5], colors=["white"], linewidths=1.4)
        axes.contour(columns, rows, block, levels=[0.5], colors=["black"], linewidths=0.7)
