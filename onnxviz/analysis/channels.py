"""Which axis of a tensor its statistics per channel are taken along."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.graph.inline import inline_functions
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.shapes import infer_shapes

__all__ = ["MOST_CHANNELS", "channel_axes", "channel_axis"]

#: More entries than this are no channels but, say, a vocabulary.
MOST_CHANNELS = 16_384


def channel_axis(shape: Sequence[int], layout: str | None = None) -> int | None:
    """Return the axis of the channels, or None where there is none.

    Args:
        shape: The tensor's sizes, the batch first.
        layout: ``"NCHW"`` (channels second) or ``"NHWC"`` (channels last) of any rank, as
            :func:`onnxviz.graph.layouts.tensor_layouts` says. None takes the last axis of rank 2, (N, D), and
            3, (N, L, D), and the second of higher ranks.

    >>> channel_axis((1, 64, 8, 8)), channel_axis((1, 8, 8, 64), "NHWC"), channel_axis((1, 197, 768))
    (1, 3, 2)
    """
    rank = len(shape)
    if rank < 2:
        return None
    last = layout == "NHWC" or (layout is None and rank == 3)
    axis = rank - 1 if last else 1
    return axis if 0 < shape[axis] <= MOST_CHANNELS else None


def channel_axes(model: ir.Model) -> dict[str, int]:
    """Return the axis of the channels for every tensor of the main graph that has a fixed number of them.

    Summaries of such tensors merge over batches whatever else of their shape changes.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y, int64[2, M] z) <float[4, 3, 3, 3] w>
    ...   {y = Conv(x, w) f = Flatten(y) z = NonZero(f)}''')
    >>> channel_axes(model)
    {'x': 1, 'y': 1, 'f': 1}
    """
    inferred = infer_shapes(inline_functions(model))
    layouts = tensor_layouts(inferred)
    axes = {}
    for value in [*inferred.graph.inputs, *(output for node in inferred.graph for output in node.outputs)]:
        if value.shape is None or value.is_initializer() or not value.name:
            continue
        sizes = [dim if isinstance(dim, int) else 0 for dim in value.shape]
        axis = channel_axis(sizes, layouts.get(value.name))
        if axis is not None:
            axes[value.name] = axis
    return axes
