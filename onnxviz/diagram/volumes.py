"""A network as volumes: feature maps as boxes to scale, as papers draw LeNet, VGG and U-Net, straight from the file."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxviz.diagram.header import model_line
from onnxviz.diagram.result import Architecture
from onnxviz.diagram.themes import apply_theme, check_theme
from onnxviz.diagram.volume_figure import Figure
from onnxviz.diagram.volume_gates import without_gates
from onnxviz.diagram.volume_stages import Stage, collect_stages
from onnxviz.diagram.volume_units import collect_units, fold_repeats
from onnxviz.errors import InputError
from onnxviz.graph.cost import model_parameters
from onnxviz.graph.model import model_name
from onnxviz.graph.receptive_field import ReceptiveField, receptive_fields
from onnxviz.graph.shapes import infer_shapes, model_inputs, shape_list

__all__ = ["volumes"]

_MOST_NODES = 30_000
_MOST_VOLUMES = 400
_MOST_HEIGHT = 6_000.0  # px
_MOST_INPUTS = 8  # of which receptive fields are told
_WAY_OUT = "use --style graph"


def volumes(model: ir.Model, *, title: str | None = None, theme: str = "light") -> Architecture:
    """Draw a model as volumes: every feature map that matters is a box with its height, width and channels to scale.

    A box stands for the result of a convolution, pooling, concatenation, upsampling, matrix product, …; what works
    element by element behind it (bias, normalisation, activation) is a band at its end. Vectors are thin bars, sums of
    branches a circle with a plus. Convolutions of one size stand close together, branches above one another, and equal
    blocks in a row are drawn once, with their number. Shortcuts are lines over the boxes; an encoder and a decoder that
    are joined at each size are drawn as a U. Windows of convolution and pooling are drawn on the map that they read
    where there is room, and receptive fields (:mod:`onnxviz.graph.receptive_field`) are told at the end of each size,
    for a block that stands several times at its last.
    Scales are told below the figure. Nothing is run and no weights are loaded.

    Args:
        model: The model; it is not changed.
        title: The heading; by default the model's name.
        theme: ``"light"``, ``"dark"``, or ``"print"`` (greyscale).

    Raises:
        InputError: There is no such theme; nothing of the model has a known shape; or the model has more volumes than a
            figure can show, or the figure would be too high.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 8, 8] x) => (float[1, 1, 6, 6] y) <float[1, 1, 3, 3] w>
    ...   {c = Conv<kernel_shape = [3, 3]>(x, w) y = Relu(c)}''')
    >>> [group.id for group in volumes(model).scene.groups if group.box]
    ['input-x', 'node-c', 'output-y']
    """
    check_theme(theme)
    count = len(model.graph)
    if count > _MOST_NODES:
        raise InputError(f"a model of {count:,} nodes is too large for a figure of volumes", hint=_WAY_OUT)
    inferred = infer_shapes(model)
    stages = without_gates(collect_stages(inferred))
    if not any(_shows(stage) for stage in stages):
        raise InputError("the model has no tensor of known shape to draw as a volume", hint=_WAY_OUT)
    kept, blocks = fold_repeats(stages)
    if len(kept) > _MOST_VOLUMES:
        raise InputError(f"the model has {len(kept):,} volumes, too many for a figure", hint=_WAY_OUT)
    units = collect_units(kept, blocks)
    figure = Figure(units, blocks, _fields(inferred))
    if figure.placement.height > _MOST_HEIGHT:
        raise InputError(f"the figure would be {figure.placement.height:,.0f} px high, too much to read", hint=_WAY_OUT)
    finished = figure.finish(title or model_name(model), model_line(model, model_parameters(model)[0]))
    return replace(finished, scene=apply_theme(finished.scene, theme))


def _fields(model: ir.Model) -> dict[str, ReceptiveField]:
    """Return the receptive field of each tensor that sees one input with positions, or the same of several."""
    found: dict[str, ReceptiveField] = {}
    mixed: set[str] = set()
    for value in model_inputs(model)[:_MOST_INPUTS]:
        sizes = shape_list(value) or []
        try:
            fields = receptive_fields(model, value.name) if len(sizes) > 2 else {}
        except InputError:  # no axes that are known to be positions
            continue
        if not fields or all(sizes[axis] == 1 for axis in fields[str(value.name)].axes):
            continue
        mixed |= {name for name, field in fields.items() if found.get(name, field) != field}
        found |= fields
    return {name: field for name, field in found.items() if name not in mixed}


def _shows(stage: Stage) -> bool:
    return stage.role != "output" and stage.extent.known
