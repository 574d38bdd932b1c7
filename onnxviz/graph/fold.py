"""What follows a convolution or a matrix product channel by channel, BatchNorm above all, goes into its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.affine import Affine, affine_chain, constant_array, integer_attribute
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.graph.tidy import add_initializer, drop_unread

__all__ = ["fold_affine"]

Floats = npt.NDArray[np.float64]
_TAKERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def fold_affine(model: ir.Model, accept: Callable[[ir.Node], bool] = lambda node: True) -> int:
    """Fold per-channel Mul, Div, Add, Sub and BatchNormalization into the weights before them, in place.

    A chain of such nodes behind a Conv, ConvTranspose, Gemm or MatMul disappears where its other operands and the
    weights are constant, each tensor between them has one reader, and none is an output of the graph. Weights and bias
    are computed in float64 and rounded once. A MatMul has no bias: what is left of a shift stays as one Add, so its
    chain is folded only where nodes are saved. The node that takes a layer in says so in its provenance.

    Needs: nodes in topological order, constants at hand. Leaves true: names, order and types of inputs and outputs;
    values, up to rounding.

    Args:
        model: The model.
        accept: Which nodes may be folded.

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
            _fold_behind(model.graph, node, accept)
    return before - model.graph.num_nodes()


def _fold_behind(graph: ir.Graph, node: ir.Node, accept: Callable[[ir.Node], bool]) -> None:
    weight = constant_array(node, 1)
    bias = constant_array(node, 2)
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if weight is None or (has_bias and bias is None) or weight.ndim < 2:
        return
    if node.op_type == "MatMul" and weight.ndim > 2:
        return
    channels = _channels(node, weight)
    if bias is not None and bias.size > 1 and bias.shape not in ((channels,), (1, channels)):
        return  # a Gemm may add another value to each row
    shape = node.outputs[0].shape
    rank = weight.ndim if node.op_type != "MatMul" else len(shape) if shape is not None else None
    axis = 1 if node.op_type != "MatMul" else -1
    chain = affine_chain(node.outputs[0], channels, rank, axis, accept)
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


def _channels(node: ir.Node, weight: npt.NDArray[Any]) -> int:
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * integer_attribute(node, "group", 1)
    if node.op_type == "Gemm":
        return int(weight.shape[0 if integer_attribute(node, "transB", 0) else 1])
    return int(weight.shape[0 if node.op_type == "Conv" else 1])


def _scaled(node: ir.Node, weight: Floats, scale: Floats) -> Floats:
    if scale.size == 1:
        return weight * scale.item()
    if node.op_type == "Conv" or (node.op_type == "Gemm" and integer_attribute(node, "transB", 0)):
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if node.op_type == "ConvTranspose":
        groups = integer_attribute(node, "group", 1)
        parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        factors = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (parts * factors).reshape(weight.shape)
    return weight * scale


def _replace(
    graph: ir.Graph, node: ir.Node, chain: Affine, weights: npt.NDArray[Any], biases: npt.NDArray[Any] | None, *,
    shifts: bool,
) -> None:  # fmt: skip
    """Give a node its new weights and let it, or one Add behind it, stand for the chain."""
    last = chain.nodes[-1].outputs[0]
    name = node.name or node.outputs[0].name
    _set_weight(graph, node, 1, weights, f"{name}/weight")
    _note_layers(chain.nodes[-1] if shifts else node, node, chain.nodes)
    if shifts:
        assert biases is not None
        *inner, add = chain.nodes
        add.op_type = "Add"
        add.attributes.clear()
        _set_inputs(graph, add, [node.outputs[0]], biases, f"{add.name or last.name}/bias")
        if inner:
            drop_unread(graph, inner[-1].outputs[0])
        return
    if node.op_type == "Gemm":
        node.attributes.pop("beta", None)
    if biases is not None:
        _set_weight(graph, node, 2, biases, f"{name}/bias")
    own, name = node.outputs[0], last.name
    own.type, own.shape = last.type, last.shape
    ir.convenience.replace_all_uses_with(last, own, replace_graph_outputs=True)
    drop_unread(graph, last)
    own.name = name


def _set_inputs(graph: ir.Graph, node: ir.Node, data: list[ir.Value], operand: npt.NDArray[Any], name: str) -> None:
    old = [value for value in node.inputs if value is not None]
    node.resize_inputs(0)
    node.resize_inputs(len(data) + 1)
    for index, value in enumerate(data):
        node.replace_input_with(index, value)
    node.replace_input_with(len(data), add_initializer(graph, operand, name))
    for value in old:
        drop_unread(graph, value)


def _set_weight(graph: ir.Graph, node: ir.Node, index: int, array: npt.NDArray[Any], name: str) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    if old is not None and old.is_initializer() and len(list(old.uses())) == 1 and not old.is_graph_output():
        old.const_value = ir.Tensor(np.ascontiguousarray(array), name=old.name)
        return
    node.replace_input_with(index, add_initializer(graph, array, name))
    if old is not None:
        drop_unread(graph, old)


def _note_layers(holder: ir.Node, node: ir.Node, chain: Sequence[ir.Node]) -> None:
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
