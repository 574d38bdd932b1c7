"""What follows a convolution or a matrix product channel by channel, BatchNorm above all, goes into its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance

__all__ = ["fold_affine"]

Floats = npt.NDArray[np.float64]
_TAKERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


@dataclass
class _Affine:
    """``y = scale * x + shift``, a value a channel or one for all, and the nodes that compute it."""

    scale: Floats
    shift: Floats
    nodes: list[ir.Node]


def fold_affine(model: ir.Model) -> int:
    """Fold per-channel Mul, Div, Add, Sub and BatchNormalization into the weights before them, in place.

    A chain of such nodes behind a Conv, ConvTranspose, Gemm or MatMul disappears where its other operands and the
    weights are constant, each tensor between them has one reader, and none is an output of the graph. Weights and bias
    are computed in float64 and rounded once. A MatMul has no bias: what is left of a shift stays as one Add, so its
    chain is folded only where nodes are saved. The node that takes a layer in says so in its provenance.

    Needs: nodes in topological order, constants at hand. Leaves true: names, order and types of inputs and outputs;
    values, up to rounding.

    Returns:
        How many nodes are gone.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, float k = {3}, float b = {1}> {
    ...     c = Conv(x, w) m = Mul(c, k) y = Add(m, b) }''')
    >>> fold_affine(model), [node.op_type for node in model.graph], [v.name for v in model.graph.outputs]
    (2, ['Conv'], ['y'])
    """
    before = model.graph.num_nodes()
    for node in list(model.graph):
        if node.op_type in _TAKERS and node.domain in ("", "ai.onnx"):
            _fold_behind(model.graph, node)
    return before - model.graph.num_nodes()


def _fold_behind(graph: ir.Graph, node: ir.Node) -> None:
    weight = _constant(node, 1)
    bias = _constant(node, 2)
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if weight is None or (has_bias and bias is None) or weight.ndim < 2:
        return
    if node.op_type == "MatMul" and weight.ndim > 2:
        return
    channels = _channels(node, weight)
    shape = node.outputs[0].shape
    rank = weight.ndim if node.op_type != "MatMul" else len(shape) if shape is not None else None
    axis = 1 if node.op_type != "MatMul" else -1
    chain = _chain(node, channels, rank, axis)
    if chain is None:
        return
    shifts = node.op_type == "MatMul" and bool(np.any(chain.shift))
    if shifts and len(chain.nodes) < 2:
        return
    scaled = _scaled(node, weight.astype(np.float64), chain.scale)
    old = np.zeros(channels) if bias is None else np.broadcast_to(bias.astype(np.float64).reshape(-1), channels)
    if node.op_type == "Gemm" and "beta" in node.attributes:
        old = old * node.attributes["beta"].as_float()
    moved = np.broadcast_to(old * chain.scale + chain.shift, channels)
    with np.errstate(over="ignore"):
        weights, biases = scaled.astype(weight.dtype), moved.astype(weight.dtype)
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        return
    _replace(graph, node, chain, weights, biases if has_bias or np.any(biases) else None, shifts=shifts)


def _constant(node: ir.Node, index: int) -> npt.NDArray[Any] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.is_graph_input():
        return None
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.dtype not in _FLOATS else tensor.numpy()


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _channels(node: ir.Node, weight: npt.NDArray[Any]) -> int:
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * _integer(node, "group", 1)
    if node.op_type == "Gemm":
        return int(weight.shape[0 if _integer(node, "transB", 0) else 1])
    return int(weight.shape[0 if node.op_type == "Conv" else 1])


def _chain(node: ir.Node, channels: int, rank: int | None, axis: int) -> _Affine | None:
    """Return all that can be folded behind a node; None where there is nothing."""
    found = _Affine(np.ones(1), np.zeros(1), [])
    value = node.outputs[0]
    while not value.is_graph_output() and len(uses := list(value.uses())) == 1:
        reader, index = uses[0]
        step = _step(reader, index, channels, rank, axis)
        if step is None or reader.graph is not node.graph:
            break
        scale, shift = step
        found = _Affine(found.scale * scale, found.shift * scale + shift, [*found.nodes, reader])
        value = reader.outputs[0]
    return found if found.nodes else None


def _step(node: ir.Node, index: int, channels: int, rank: int | None, axis: int) -> tuple[Floats, Floats] | None:
    """Return what a node does to its input as scale and shift; None where it is not affine channel by channel."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "BatchNormalization":
        return _batchnorm(node, index, channels) if axis == 1 or rank == 2 else None
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    operand = _constant(node, 1 - index)
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
    operands = [_constant(node, i) for i in range(1, 5)]
    if index or _integer(node, "training_mode", 0) or sum(bool(v.name) for v in node.outputs) > 1:
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


def _scaled(node: ir.Node, weight: Floats, scale: Floats) -> Floats:
    if scale.size == 1:
        return weight * scale.item()
    if node.op_type == "Conv" or (node.op_type == "Gemm" and _integer(node, "transB", 0)):
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if node.op_type == "ConvTranspose":
        groups = _integer(node, "group", 1)
        parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        factors = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (parts * factors).reshape(weight.shape)
    return weight * scale


def _replace(
    graph: ir.Graph, node: ir.Node, chain: _Affine, weights: npt.NDArray[Any], biases: npt.NDArray[Any] | None, *,
    shifts: bool,
) -> None:  # fmt: skip
    """Give a node its new weights and let it, or one Add behind it, stand for the chain."""
    last = chain.nodes[-1].outputs[0]
    name = node.name or node.outputs[0].name
    _set_weight(graph, node, 1, weights, f"{name}/weight")
    _note_layers(chain.nodes[-1] if shifts else node, node, chain.nodes)
    if shifts:
        assert biases is not None
        add = chain.nodes.pop()
        add.op_type = "Add"
        add.attributes.clear()
        _set_inputs(graph, add, [node.outputs[0]], biases, f"{add.name or last.name}/bias")
        for gone in reversed(chain.nodes):
            _remove(graph, gone)
        return
    if node.op_type == "Gemm":
        node.attributes.pop("beta", None)
    if biases is not None:
        _set_weight(graph, node, 2, biases, f"{name}/bias")
    own, name = node.outputs[0], last.name
    own.type, own.shape = last.type, last.shape
    ir.convenience.replace_all_uses_with(last, own, replace_graph_outputs=True)
    for gone in reversed(chain.nodes):
        _remove(graph, gone)
    own.name = name


def _set_inputs(graph: ir.Graph, node: ir.Node, data: list[ir.Value], operand: npt.NDArray[Any], name: str) -> None:
    old = [value for value in node.inputs if value is not None]
    node.resize_inputs(0)
    node.resize_inputs(len(data) + 1)
    for index, value in enumerate(data):
        node.replace_input_with(index, value)
    node.replace_input_with(len(data), _initializer(graph, operand, name))
    for value in old:
        _drop_unused(graph, value)


def _set_weight(graph: ir.Graph, node: ir.Node, index: int, array: npt.NDArray[Any], name: str) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    if old is not None and old.is_initializer() and len(list(old.uses())) == 1 and not old.is_graph_output():
        old.const_value = ir.Tensor(np.ascontiguousarray(array), name=old.name)
        return
    node.replace_input_with(index, _initializer(graph, array, name))
    if old is not None:
        _drop_unused(graph, old)


def _initializer(graph: ir.Graph, array: npt.NDArray[Any], name: str) -> ir.Value:
    taken = {v.name for v in graph.inputs} | set(graph.initializers) | {v.name for n in graph for v in n.outputs}
    wanted, number = name, 1
    while wanted in taken:
        wanted, number = f"{name}_{number}", number + 1
    tensor = ir.Tensor(np.ascontiguousarray(array), name=wanted)
    value = ir.Value(name=wanted, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    operands = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in operands:
        _drop_unused(graph, value)


def _drop_unused(graph: ir.Graph, value: ir.Value) -> None:
    if value.is_initializer() and not list(value.uses()) and not value.is_graph_output() and not value.is_graph_input():
        graph.initializers.pop(str(value.name), None)


def _note_layers(holder: ir.Node, node: ir.Node, chain: list[ir.Node]) -> None:
    """Write on the node that now gives the chain's last tensor which layers are in it."""
    own = provenance_of(node)
    if own is None:
        return
    layers = dict.fromkeys(own.folded)
    for source in map(provenance_of, chain):
        for layer in (source.layer, *source.folded) if source is not None else ():
            if layer and layer != own.layer:
                layers[layer] = None
    set_provenance(holder, Provenance(own.layer, own.class_name, own.line, tuple(layers)))
