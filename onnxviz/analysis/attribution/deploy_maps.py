"""Class activation maps as nodes: the formulas of :mod:`onnxviz.analysis.attribution.families.cam` in a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.attribution.layers import Layer
from onnxviz.analysis.attribution.resizing import linear_weights
from onnxviz.analysis.placement import CellAxis, stretched
from onnxviz.gradient.ops import Ops, static_shape

__all__ = ["CAM_FORMULAS", "channels_first", "enlarged", "over_channels", "positive"]

#: Gets the op builder, activations and gradients ``(N, K, …)`` and the number of positions' axes; returns ``(N, …)``.
Formula = Callable[[Ops, ir.Value, ir.Value, int], ir.Value]


def _spatial(axes: int) -> range:
    return range(2, 2 + axes)


def _over(ops: Ops, value: ir.Value) -> ir.Value:
    """Return the sum over channels."""
    return ops.sum(value, [1])


def positive(ops: Ops, value: ir.Value) -> ir.Value:
    """Return what is above 0."""
    return ops.Relu(value)


def _grad_cam(ops: Ops, a: ir.Value, g: ir.Value, axes: int) -> ir.Value:
    return _over(ops, ops.Mul(ops.ReduceMean(g, ops.ints(*_spatial(axes)), keepdims=1), a))


def _grad_cam_plus_plus(ops: Ops, a: ir.Value, g: ir.Value, axes: int) -> ir.Value:
    square = ops.Mul(g, g)
    total = ops.sum(a, _spatial(axes), keep=True)
    below = ops.Add(ops.Add(ops.Mul(square, ops.scalar(2, g)), ops.Mul(total, ops.Mul(square, g))), ops.scalar(1e-6, g))
    zero, one = ops.scalar(0, g), ops.scalar(1, g)
    alpha = ops.Where(ops.Equal(g, zero), zero, ops.Div(square, ops.Where(ops.Equal(below, zero), one, below)))
    return _over(ops, ops.Mul(ops.sum(ops.Mul(alpha, positive(ops, g)), _spatial(axes), keep=True), a))


def _hires_cam(ops: Ops, a: ir.Value, g: ir.Value, axes: int) -> ir.Value:
    return _over(ops, ops.Mul(g, a))


def _layer_cam(ops: Ops, a: ir.Value, g: ir.Value, axes: int) -> ir.Value:
    return _over(ops, ops.Mul(positive(ops, g), a))


def _element_wise(ops: Ops, a: ir.Value, g: ir.Value, axes: int) -> ir.Value:
    return _over(ops, positive(ops, ops.Mul(g, a)))


def _xgrad_cam(ops: Ops, a: ir.Value, g: ir.Value, axes: int) -> ir.Value:
    below = ops.Add(ops.sum(a, _spatial(axes), keep=True), ops.scalar(1e-7, a))
    below = ops.Where(ops.Equal(below, ops.scalar(0, a)), ops.scalar(1, a), below)
    return _over(ops, ops.Mul(ops.Div(ops.sum(ops.Mul(g, a), _spatial(axes), keep=True), below), a))


#: Method -> its formula. The Eigen-CAMs need a singular value decomposition, which ONNX has not.
CAM_FORMULAS: dict[str, Formula] = {
    "grad-cam": _grad_cam, "grad-cam++": _grad_cam_plus_plus, "hires-cam": _hires_cam, "layer-cam": _layer_cam,
    "element-wise-cam": _element_wise, "xgrad-cam": _xgrad_cam,
}  # fmt: skip


def channels_first(ops: Ops, layer: Layer, value: ir.Value) -> ir.Value:
    """Return a tensor of a layer as ``(N, K, *size)``: transposed, the tokens that are positions cut out as a grid."""
    order = list(range(len(layer.letters)))
    order.insert(1, order.pop(layer.letters.index("C")))
    made = value if order == sorted(order) else ops.Transpose(value, perm=order)
    if layer.block is None:
        return made
    made = ops.Slice(made, ops.ints(layer.block.start), ops.ints(layer.block.stop), ops.ints(2))
    return ops.Reshape(made, ops.ints(0, 0, *layer.size))


def over_channels(ops: Ops, value: ir.Value, axes: Sequence[int], *, signed: bool) -> ir.Value:
    """Return the sum over axes of numbers with a sign, the maximum of others; the tensor itself without axes."""
    if not axes:
        return value
    return ops.sum(value, axes) if signed else ops.ReduceMax(value, ops.ints(*axes), keepdims=0)


def enlarged(ops: Ops, heat: ir.Value, cells: Sequence[CellAxis], fed: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Return a map ``(N, *cells)`` at every position of an input, linear between the centres of cells.

    Cells that fill the input from end to end are what Resize makes; those that lie elsewhere, by what they see of the
    input, are interpolated by a matrix an axis, which needs the size to be known.

    Args:
        ops: Writes nodes.
        heat: The map.
        cells: Where its cells lie along each axis of positions.
        fed: The input.
        axes: Which of its axes those are.
    """
    shape = static_shape(fed)
    sizes = [None if shape is None else shape[axis] for axis in axes]
    fills = all(
        size is None or np.allclose((along.first, along.step), (even.first, even.step))
        for along, size in zip(cells, sizes, strict=True)
        for even in [stretched(along.count, size or along.count)]
    )
    if not fills:
        return _by_matrices(ops, heat, cells, [size or 0 for size in sizes])
    grown = ops.Unsqueeze(heat, ops.ints(1))
    asked = ops.Concat(ops.Shape(grown, start=0, end=2), *(ops.dim(fed, axis) for axis in axes), axis=0)
    if len(axes) == 1:  # runtimes resize pictures best
        asked = ops.Concat(asked, ops.ints(1), axis=0)
        grown = ops.Unsqueeze(grown, ops.ints(3))
    made = ops.Resize(grown, None, None, asked, mode="linear", coordinate_transformation_mode="half_pixel")
    return ops.Squeeze(made, ops.ints(1, 3) if len(axes) == 1 else ops.ints(1))


def _by_matrices(ops: Ops, heat: ir.Value, cells: Sequence[CellAxis], sizes: Sequence[int]) -> ir.Value:
    rank = 1 + len(cells)
    made = heat
    for axis, (along, size) in enumerate(zip(cells, sizes, strict=True), start=1):
        order = [a for a in range(rank) if a != axis] + [axis]
        back = [order.index(a) for a in range(rank)]
        plain = order == list(range(rank))
        turned = made if plain else ops.Transpose(made, perm=order)
        turned = ops.MatMul(turned, ops.constant(linear_weights(along, size).T.astype(np.float32)))
        made = turned if plain else ops.Transpose(turned, perm=back)
    return made
