"""Chains of nodes that scale and shift a tensor channel by channel, as BatchNorm does: read off, not changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor

__all__ = ["Affine", "affine_chain", "affine_step", "constant_array", "integer_attribute"]

Floats = npt.NDArray[np.float64]
_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


@dataclass(frozen=True)
class Affine:
    """``y = scale * x + shift`` and the nodes that compute it.

    Attributes:
        scale: A value a channel, or one for all; float64.
        shift: The same.
        nodes: In order of execution.
    """

    scale: Floats
    shift: Floats
    nodes: tuple[ir.Node, ...]


def affine_chain(
    value: ir.Value,
    channels: int,
    rank: int | None,
    axis: int,
    accept: Callable[[ir.Node], bool] = lambda node: True,
) -> Affine | None:
    """Return the longest chain of Mul, Div, Add, Sub and BatchNormalization behind a tensor; None where there is none.

    The other operands are constant, and each tensor has one reader and is no output of the graph but the last.

    Args:
        value: The tensor that the chain starts from.
        channels: Its number of channels.
        rank: Its number of axes; None where unknown.
        axis: Where the channels are: 1 or -1.
        accept: Which nodes may be in the chain.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2, 3] x) => (float[2, 3] y) <float[3] k = {1, 2, 3}, float b = {1}> {
    ...     m = Mul(x, k) y = Sub(m, b) }''')
    >>> found = affine_chain(model.graph.inputs[0], 3, 2, -1)
    >>> found.scale.tolist(), found.shift.tolist(), len(found.nodes)
    ([1.0, 2.0, 3.0], [-1.0, -1.0, -1.0], 2)
    """
    found = Affine(np.ones(1), np.zeros(1), ())
    graph = None
    while not value.is_graph_output() and len(uses := list(value.uses())) == 1:
        reader, index = uses[0]
        graph = graph or reader.graph
        step = affine_step(reader, index, channels, rank, axis)
        if step is None or reader.graph is not graph or not accept(reader):
            break
        scale, shift = step
        found = Affine(found.scale * scale, found.shift * scale + shift, (*found.nodes, reader))
        value = reader.outputs[0]
    return found if found.nodes else None


def constant_array(node: ir.Node, index: int) -> npt.NDArray[Any] | None:
    """Return a constant operand of floats that no caller can replace; None for any other."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.is_graph_input():
        return None
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.dtype not in _FLOATS else tensor.numpy()


def integer_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or its default where the node does not have it."""
    return node.attributes[name].as_int() if name in node.attributes else default


def affine_step(node: ir.Node, index: int, channels: int, rank: int | None, axis: int) -> tuple[Floats, Floats] | None:
    """Return what a node does to one of its inputs as scale and shift; None where it is not affine by channel.

    Arguments are those of :func:`affine_chain`; ``index`` tells which input it is.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "BatchNormalization":
        return _batchnorm(node, index, channels) if axis == 1 or rank == 2 else None
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    operand = constant_array(node, 1 - index)
    if operand is None:
        return None
    other = _per_channel(operand, channels, rank, axis)
    if other is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "Mul":
        return other, zero
    if node.op_type == "Div":
        return (1 / other, zero) if index == 0 and np.all(other) else None
    if node.op_type == "Add":
        return one, other
    return (one, -other) if index == 0 else (-one, other)


def _batchnorm(node: ir.Node, index: int, channels: int) -> tuple[Floats, Floats] | None:
    operands = [constant_array(node, i) for i in range(1, 5)]
    if index or integer_attribute(node, "training_mode", 0) or sum(bool(v.name) for v in node.outputs) > 1:
        return None
    gamma, beta, mean, variance = (None if o is None else o.astype(np.float64) for o in operands)
    if gamma is None or beta is None or mean is None or variance is None or gamma.shape != (channels,):
        return None
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _per_channel(operand: npt.NDArray[Any], channels: int, rank: int | None, axis: int) -> Floats | None:
    """Return an operand as one value a channel, or one for all; None where it varies along another axis.

    The channel is ``axis`` (1 or -1) of ``rank``; where the rank is not known, axes in front might be added.
    """
    values = operand.astype(np.float64)
    if values.ndim > (1 if rank is None else rank):
        return None
    if values.size == 1:
        return values.reshape(1)
    from_end = 1 if axis == -1 or rank is None else rank - axis
    if values.size != channels or values.ndim < from_end:
        return None
    return values.reshape(-1) if values.shape[values.ndim - from_end] == channels else None
