"""What moves blocks, columns and centres of feature maps; affine grids and determinants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step
from onnxviz.gradient.windows import rank_of


@gradient("SpaceToDepth")
def space_to_depth(s: Step, dy: ir.Value) -> Grads:
    return s.ops.DepthToSpace(dy, blocksize=s.attr("blocksize"), mode="DCR")


@gradient("DepthToSpace")
def depth_to_space(s: Step, dy: ir.Value) -> Grads:
    ops, block = s.ops, s.attr("blocksize")
    if s.attr("mode", "DCR") == "DCR":
        return ops.SpaceToDepth(dy, blocksize=block)
    sizes = [ops.dim(s[0], axis) for axis in range(4)]
    step = ops.ints(block)
    apart = ops.Reshape(dy, ops.Concat(ops.ints(0, 0), sizes[2], step, sizes[3], step, axis=0))
    return ops.Reshape(ops.Transpose(apart, perm=[0, 1, 3, 5, 2, 4]), ops.shape(s[0]), allowzero=1)


@gradient("CenterCropPad", since=18)
def center_crop_pad(s: Step, dy: ir.Value) -> Grads:
    """What was cut off is padded again, as far from each end."""
    ops, axes = s.ops, s.attr("axes")
    shape = ops.shape(s[0])
    if axes is None:
        return ops.CenterCropPad(dy, shape)
    return ops.CenterCropPad(dy, ops.Gather(shape, ops.ints(*axes)), axes=axes)


@gradient("Col2Im", since=18)
def col2im(s: Step, dy: ir.Value) -> Grads:
    """The columns of the image: a convolution with a kernel for each element of the block."""
    ops, image, block = s.ops, s[1], s[2]
    known, shape = s.known(2), static_shape(image)
    dims = len(known) if known is not None else (rank_of(s) - 1 if s.y.shape is None else len(s.y.shape) - 2)
    if shape is not None and shape[0] is not None:
        dims = shape[0]
    count = ops.ReduceProd(block, keepdims=1)
    square = ops.filled(ops.Concat(count, count, axis=0), 0.0, dy)
    kernel = ops.Reshape(ops.EyeLike(square), ops.Concat(ops.ints(-1, 1), block, axis=0))
    planes = ops.Reshape(dy, ops.Concat(ops.ints(-1, 1), image, axis=0))
    columns = ops.Conv(
        planes, kernel, strides=s.attr("strides", (1,) * dims), dilations=s.attr("dilations", (1,) * dims),
        pads=s.attr("pads", (0,) * (2 * dims)),
    )  # fmt: skip
    return ops.Reshape(columns, ops.shape(s[0]), allowzero=1), None, None


@gradient("AffineGrid", since=20)
def affine_grid(s: Step, dy: ir.Value) -> Grads:
    """The grid is linear in theta: the grid of the unit matrix times what enters."""
    ops, shape = s.ops, static_shape(s[0])
    known = s.known(1)
    rows = shape[1] if shape is not None else None
    dims = rows or (len(known) - 2 if known is not None else None)
    if dims is None:
        raise s.refuse("the number of spatial axes is not known")
    unit = ops.constant(np.eye(dims, dims + 1)[None].astype(np.float32 if dy.dtype is None else dy.dtype.numpy()))
    size = ops.Concat(ops.ints(1), ops.Slice(s[1], ops.ints(1), ops.ints(dims + 2)), axis=0)
    base = ops.Reshape(ops.AffineGrid(unit, size, align_corners=s.attr("align_corners", 0)), ops.ints(-1, dims))
    ones = ops.Add(
        ops.Mul(ops.Slice(base, ops.ints(0), ops.ints(1), ops.ints(1)), ops.scalar(0, dy)), ops.scalar(1, dy)
    )
    entering = ops.Transpose(ops.Reshape(dy, ops.Concat(ops.ints(0, -1), ops.ints(dims), axis=0)), perm=[0, 2, 1])
    return ops.MatMul(entering, ops.Concat(base, ones, axis=1)), None


@gradient("Det")
def determinant(s: Step, dy: ir.Value) -> Grads:
    """Jacobi's formula by the cofactors, so that singular matrices have their gradient too."""
    ops, rank, shape = s.ops, rank_of(s), static_shape(s[0])
    size = None if shape is None else shape[-1] or shape[-2]
    if size is None:
        raise s.refuse("the size of its matrices is not known")
    spread = ops.Unsqueeze(dy, ops.ints(-2, -1))
    if size == 1:
        return ops.Expand(spread, ops.shape(s[0]))
    others = ops.constant(np.array([[j for j in range(size) if j != i] for i in range(size)], np.int64))
    lead = list(range(rank - 2))
    less = ops.Gather(ops.Gather(s[0], others, axis=rank - 2), others, axis=rank)  # (…, i, rows, j, columns)
    minors = ops.Det(ops.Transpose(less, perm=[*lead, rank - 2, rank, rank - 1, rank + 1]))
    signs = (-1.0) ** np.add.outer(np.arange(size), np.arange(size))
    return ops.Mul(
        ops.Mul(minors, ops.constant(signs.astype(np.float32 if dy.dtype is None else dy.dtype.numpy()))), spread
    )
