"""What the page shows of each layer and of each weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.layers import layer_feature_maps, select_weights
from onnxviz.analysis.scale import color_scale
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import ModelError, SelectionError
from onnxviz.plots.weights import has_kernels, kernel_stack, matrix_of, pool_matrix
from onnxviz.report.atlas import atlas, pooling_note
from onnxviz.report.budget import Panel, Picture
from onnxviz.report.charts import histogram_svg
from onnxviz.runtime.record import Capture

__all__ = ["feature_panels", "weight_panels"]

_CHANNELS = 32  # maps a layer
_LAYERS = 500  # layers with maps
_KERNELS, _ACROSS = 256, 32  # kernels a weight, and in a row
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


def weight_panels(model: ir.Model) -> list[Panel]:
    """Return every weight: numbers for all, a histogram and a picture for kernels, matrices and the like."""
    layers = layer_weights(model)
    shown = {id(lw) for lw in select_weights(layers)} if layers else set()
    return [_weight_panel(f"weights-{position}", lw, id(lw) in shown) for position, lw in enumerate(layers)]


def _weight_panel(identity: str, lw: LayerWeights, main: bool) -> Panel:
    panel = Panel(
        {
            "id": identity, "layer": lw.layer, "op_type": lw.op_type, "role": lw.role, "tensor": lw.tensor,
            "shape": lw.shape, "dtype": lw.dtype, "quantization": lw.quantization, "parameters": lw.parameters,
            "caption": "", "main": main, "problem": "", "statistics": None, "kind": "", "histogram": "",
        }
    )  # fmt: skip
    try:
        panel.row["statistics"] = {**lw.statistics.to_dict(), "size": lw.parameters}
        if main and lw.parameters:
            panel.row["histogram"] = histogram_svg(lw.histogram, lw.layer)
            panel.row["statistics"]["size"] = lw.histogram.total  # packed 4-bit values count, not their bytes
            panel.row["kind"] = _weight_kind(lw)
            panel.draw = partial(_draw_weight, lw)
    except ModelError as error:
        panel.row["problem"] = str(error)
    return panel


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
