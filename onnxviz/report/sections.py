"""What the page shows of each layer and of each weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.layers import layer_feature_maps, select_weights
from onnxviz.analysis.scale import color_scale
from onnxviz.analysis.weight_norms import kernel_norms
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import ModelError, SelectionError
from onnxviz.plots.feature_maps import spread
from onnxviz.plots.weights import has_kernels, kernel_stack, matrix_of, pool_matrix
from onnxviz.report.atlas import atlas, pooling_note
from onnxviz.report.budget import Panel, Picture
from onnxviz.report.charts import histogram_svg
from onnxviz.report.weight_charts import weight_charts
from onnxviz.runtime.record import Capture

__all__ = ["feature_panels", "weight_panels"]

_CHANNELS = 32  # maps a layer
_LAYERS = 500  # layers with maps
_KERNELS, _ACROSS = 256, 32  # kernels a weight, and in a row
_STUDIED = 8  # weights whose spectra and filters are drawn
_NORMED = 100  # weights whose norms are drawn
_NORMS = 128  # longest side of the norms of kernels, px
_MAP, _IMAGE, _KERNEL, _MATRIX = 64, 512, 16, 256  # longest side of a tile by what it shows, px


def feature_panels(
    model: ir.Model, captured: Capture, statistics: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Panel], str]:
    """Return the layers with feature maps, and a note where some or all have none."""
    try:
        maps = layer_feature_maps(model, captured, top=_CHANNELS)
    except SelectionError as error:
        return [], f"no feature maps: {error}"
    panels = [
        Panel(
            {
                "id": f"features-{position}",
                "name": fm.name,
                "op_type": fm.op_type or "",
                "producer": captured[fm.name].producer,
                "shape": fm.shape,
                "dtype": fm.dtype,
                "caption": " · ".join(fm.captions()),
                "kind": fm.kind,
                "statistics": statistics[fm.name],
            },
            partial(_draw_features, fm),
        )
        for position, fm in enumerate(maps[:_LAYERS])
    ]
    note = f"feature maps of the first {_LAYERS} of {len(maps)} layers" if len(maps) > _LAYERS else ""
    return panels, note


def _draw_features(fm: FeatureMaps, level: int) -> Picture:
    if fm.kind == "grid":
        # Channels first: a small map in full tells more than many blurred ones.
        keep, side = max(2, _CHANNELS >> level), _MAP if level < 4 else _MAP // 2
        if keep < len(fm.channels):
            fm = replace(fm, maps=fm.maps[:keep], channels=fm.channels[:keep])
        picture = atlas(fm.maps, [str(c) for c in fm.channels], fm.scale, side=side, keep_aspect=True)
    else:
        picture = atlas(fm.maps, [""], fm.scale, side=_IMAGE >> level)
    return picture, _sentence(*fm.captions(), pooling_note(picture))


def weight_panels(layers: Sequence[LayerWeights]) -> tuple[list[Panel], str]:
    """Return every weight, and a note where some are not studied.

    All have numbers, kernels and matrices a histogram and a picture, an even spread of them a spectrum and a study of
    their filters, and spatial kernels their norms.
    """
    shown = select_weights(layers) if layers else []
    main = {id(lw) for lw in shown}
    matrices = [lw for lw in shown if len(lw.shape) > 1 and lw.parameters]
    normed = {id(matrices[i]) for i in spread(len(matrices), _NORMED)}
    studied = {id(matrices[i]) for i in spread(len(matrices), _STUDIED)}
    panels = [
        _weight_panel(f"weights-{position}", lw, id(lw) in main, id(lw) in normed, id(lw) in studied)
        for position, lw in enumerate(layers)
    ]
    note = f"spectra and filters are studied of {_STUDIED} of {len(matrices)} weights, evenly spread"
    note += f"; norms of kernels are drawn of {_NORMED}" if len(matrices) > _NORMED else ""
    return panels, note if len(matrices) > _STUDIED else ""


def _weight_panel(identity: str, lw: LayerWeights, main: bool, normed: bool, studied: bool) -> Panel:
    panel = Panel(
        {
            "id": identity, "layer": lw.layer, "op_type": lw.op_type, "role": lw.role, "tensor": lw.tensor,
            "shape": lw.shape, "dtype": lw.dtype, "quantization": lw.quantization, "parameters": lw.parameters,
            "caption": "", "main": main, "problem": "", "statistics": None, "kind": "", "histogram": "",
            "norms": None, "study": None,
        }
    )  # fmt: skip
    if not main:
        return panel
    try:
        panel.row["statistics"] = {**lw.statistics.to_dict(), "size": lw.parameters}
        if lw.parameters:
            panel.row["histogram"] = histogram_svg(lw.histogram, lw.layer)
            panel.row["statistics"]["size"] = lw.histogram.total  # packed 4-bit values count, not their bytes
            panel.row["kind"] = _weight_kind(lw)
            panel.row["norms"] = _norm_panel(f"{identity}-norms", lw) if normed else None
            panel.row["study"] = weight_charts(lw) if studied else None
            panel.draw = partial(_draw_weight, lw)
    except ModelError as error:
        panel.row["problem"] = str(error)
    return panel


def _norm_panel(identity: str, lw: LayerWeights) -> Panel | None:
    """Return the norms of kernels as a picture; None for what has no kernels, or one input a filter."""
    if not has_kernels(lw) or len(lw.shape) > 5 or lw.kernel.shape[1] < 2:
        return None
    row = {"id": identity, "name": lw.layer, "kind": "matrix", "caption": ""}
    return Panel(row, partial(_draw_norms, lw))


def _draw_norms(lw: LayerWeights, level: int) -> Picture:
    found = kernel_norms(lw)
    values, down, across = np.ma.filled(found.laid_out.astype(np.float64), np.nan), found.rows, found.columns
    if values.shape[0] > values.shape[1]:  # the longer axis lies across, as in the picture of the kernels
        values, down, across = values.T, across, down
    picture = atlas(values[None], [""], color_scale(values, signed=False), side=_NORMS >> level)
    picture["axes"] = [across, down]
    blank = "hatched where no kernel exists" if np.ma.getmaskarray(found.laid_out).any() else ""
    what = f"L2 norm of each kernel: {_count(values.shape[0], down)} down × {_count(values.shape[1], across)} across"
    return picture, _sentence(what, blank, pooling_note(picture))


def _weight_kind(lw: LayerWeights) -> str:
    if has_kernels(lw) and len(lw.shape) <= 5:
        return "filters" if kernel_stack(lw)[0].shape[1] == 1 else "kernels"
    return "vector" if matrix_of(lw)[0].shape[0] == 1 else "matrix"


def _draw_weight(lw: LayerWeights, level: int) -> Picture:
    if has_kernels(lw) and len(lw.shape) <= 5:
        return _draw_kernels(lw, _KERNELS >> level)
    matrix, down, across = matrix_of(lw)
    pooled, note = pool_matrix(matrix, (_MATRIX >> level, _MATRIX >> level))
    scale = color_scale(pooled, signed=True)
    picture = atlas(pooled[None], [""], scale, side=_MATRIX)
    picture["of"] = [matrix.shape[1], matrix.shape[0]]
    picture["axes"] = [across, down]
    what = f"{_count(matrix.shape[0], down)} down × {_count(matrix.shape[1], across)} across" if down else ""
    return picture, _sentence(what, scale.caption(), note)


def _draw_kernels(lw: LayerWeights, most: int) -> Picture:
    stack, note = kernel_stack(lw)
    outputs, inputs = stack.shape[:2]
    scale = color_scale(stack, signed=True)
    if inputs == 1:
        shown = min(outputs, most)
        tiles, labels, columns = stack[:shown, 0], [f"output {o}" for o in range(shown)], None
        what = f"kernels of {_of(shown, outputs, 'output')}, one input each"
    else:
        # The longer axis lies across, so that the picture is wide and not high.
        turned = inputs > outputs
        columns = min(max(outputs, inputs), _ACROSS, most)
        rows = min(outputs, inputs, max(1, most // columns))
        grid = stack[:rows, :columns] if turned else stack[:columns, :rows].swapaxes(0, 1)
        tiles = grid.reshape(rows * columns, *stack.shape[2:])
        places = [(r, c) if turned else (c, r) for r in range(rows) for c in range(columns)]
        labels = [f"output {o}, input {i}" for o, i in places]
        wide, high = ("input", "output") if turned else ("output", "input")
        what = f"kernels: {_of(columns, max(outputs, inputs), wide)} across × "
        what += f"{_of(rows, min(outputs, inputs), high)} down"
    picture = atlas(tiles, labels, scale, side=_KERNEL, columns=columns, keep_aspect=True)
    return picture, _sentence(what, note, scale.caption(), pooling_note(picture))


def _of(shown: int, total: int, what: str) -> str:
    return f"{shown} of {_count(total, what)}" if shown < total else _count(total, what)


def _count(number: int, what: str) -> str:
    if what == "entry":
        what = "entries" if number != 1 else what
        return f"{number} {what}"
    return f"{number} {what}{'s' * (number != 1 and not what.endswith('s'))}"


def _sentence(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
