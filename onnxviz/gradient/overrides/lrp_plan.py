"""What relevance propagation looks up of a model as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.overrides.kinds import PRODUCTS, UNARY
from onnxviz.graph.constants import constant_tensor

__all__ = ["LrpPlan", "make_plan", "nonnegative", "same_variable"]

_POSITIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Sqrt", "Softplus")
_KEEPS_SIGN = (
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "Dropout",
    "Identity", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather",
)  # fmt: skip
_ALL_KEEP_SIGN = ("Concat", "Add", "Sum", "Mean", "Max")
_DEPTH = 32


@dataclass(frozen=True, eq=False)
class LrpPlan:
    """Where layers stand.

    Attributes:
        first: Layers that no other layer lies before.
        tails: Layer -> the nodes behind it that are folded into its weights and bias.
        folded: All of those nodes.
    """

    first: frozenset[ir.Node]
    tails: dict[ir.Node, tuple[ir.Node, ...]]
    folded: frozenset[ir.Node]


def make_plan(nodes: Sequence[ir.Node], end: ir.Value, *, fold: bool) -> LrpPlan:
    """Return where layers stand in the nodes before a tensor."""
    behind: set[ir.Value] = set()  # what a layer was applied to
    first, tails = set(), {}
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value, []).append(node)
    for node in nodes:
        seen = any(value in behind for value in node.inputs)
        layer = node.op_type in PRODUCTS and any(_computed(value) for value in node.inputs)
        if layer and not seen:
            first.add(node)
        if layer or seen:
            behind.update(node.outputs)
        if layer and (tail := _tail(node, readers, end, fold)):
            tails[node] = tail
    return LrpPlan(frozenset(first), tails, frozenset(node for tail in tails.values() for node in tail))


def _computed(value: ir.Value | None) -> bool:
    return value is not None and constant_tensor(value) is None


def _tail(
    layer: ir.Node, readers: dict[ir.Value, list[ir.Node]], end: ir.Value, fold: bool
) -> tuple[ir.Node, ...]:  # fmt: skip
    """Return the bias that is added behind a MatMul, and the BatchNormalization behind a layer."""
    found: list[ir.Node] = []
    value = layer.outputs[0]
    if sum(_computed(operand) for operand in layer.inputs) != 1:
        return ()
    while value is not end and len(readers.get(value, ())) == 1 and not _in_body(value, readers):
        node = readers[value][0]
        bias = not found and node.op_type == "Add" and _is_bias(node, value, layer)
        norm = fold and node.op_type == "BatchNormalization" and _foldable(node, value, layer)
        if not bias and not norm:
            break
        found.append(node)
        if norm:
            break
        value = node.outputs[0]
    return tuple(found)


def _in_body(value: ir.Value, readers: dict[ir.Value, list[ir.Node]]) -> bool:
    """Whether nodes of bodies read it as well."""
    return any(use.node.graph is not readers[value][0].graph for use in value.uses())


def _is_bias(node: ir.Node, value: ir.Value, layer: ir.Node) -> bool:
    """Whether a constant with an entry a column, or a channel, is added to what has no bias yet."""
    tensor = constant_tensor(node.inputs[1] if node.inputs[0] is value else node.inputs[0])
    if tensor is None or not _computed(layer.inputs[0]):
        return False
    sizes = list(tensor.shape.numpy())
    if layer.op_type == "MatMul":
        return all(size == 1 for size in sizes[:-1])
    weights = static_shape(layer.inputs[1]) if layer.inputs[1] is not None else None
    if layer.op_type not in ("Conv", "ConvTranspose") or weights is None or _has_bias(layer):
        return False
    inner = len(weights) - 2  # axes of space, along which a bias is the same
    group = layer.attributes["group"].value if "group" in layer.attributes else 1
    channels = weights[0] if layer.op_type == "Conv" else (weights[1] or 0) * group
    around = len(sizes) > inner and all(size == 1 for size in (*sizes[: -inner - 1], *sizes[len(sizes) - inner :]))
    return around and sizes[-inner - 1] == channels


def _has_bias(layer: ir.Node) -> bool:
    return len(layer.inputs) > 2 and layer.inputs[2] is not None


def _foldable(node: ir.Node, value: ir.Value, layer: ir.Node) -> bool:
    if node.inputs[0] is not value or any(constant_tensor(operand) is None for operand in node.inputs[1:5]):
        return False
    if (attribute := node.attributes.get("training_mode")) is not None and attribute.value:
        return False
    if layer.op_type == "ConvTranspose":
        group = layer.attributes.get("group")
        return _computed(layer.inputs[0]) and (group is None or group.value == 1)
    if layer.op_type == "Conv":
        return _computed(layer.inputs[0])
    shape = static_shape(layer.inputs[1]) if layer.inputs[1] is not None else None
    return layer.op_type in ("Gemm", "MatMul") and _computed(layer.inputs[0]) and shape is not None and len(shape) == 2


def nonnegative(value: ir.Value | None, depth: int = _DEPTH) -> bool:
    """Whether no element of a tensor can be below 0, as what made it tells."""
    node = value.producer() if value is not None else None
    if node is None or depth <= 0 or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _POSITIVE:
        return True
    if node.op_type in _KEEPS_SIGN:
        return nonnegative(node.inputs[0], depth - 1)
    if node.op_type == "Clip":
        low = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and bool((low.numpy() >= 0).all())
    return node.op_type in _ALL_KEEP_SIGN and all(nonnegative(operand, depth - 4) for operand in node.inputs)


def same_variable(a: ir.Value, b: ir.Value) -> int | None:
    """Return which of two factors is nearer to a tensor that both are functions of, element by element; None for none.

    So GELU and SiLU that were exported as ``x`` times a function of x count as functions of x.
    """
    chain_a, chain_b = _chain(a), _chain(b)
    shared = [value for value in chain_a if value in chain_b]
    if not shared:
        return None
    return 0 if chain_a.index(shared[0]) <= chain_b.index(shared[0]) else 1


def _chain(value: ir.Value) -> list[ir.Value]:
    """Return a tensor and what it is a function of, element by element, nearest first."""
    found = [value]
    while len(found) < _DEPTH:
        node = found[-1].producer()
        if node is None or node.op_type not in (*UNARY, "Neg", "Add", "Sub", "Mul", "Div", "Cast", "Identity"):
            return found
        moving = list(dict.fromkeys(operand for operand in node.inputs if _computed(operand)))
        if node.op_type == "Cast" or node.op_type == "Identity" or len(moving) == 1:
            operand = moving[0] if moving else None
        else:
            operand = _joined(node, moving)
        if operand is None:
            return found
        found.append(operand)
    return found


def _joined(node: ir.Node, moving: Sequence[ir.Value | None]) -> ir.Value | None:
    """Return what both operands of a node are functions of."""
    if len(moving) != 2 or moving[0] is None or moving[1] is None:
        return None
    first, second = _simple_chain(moving[0]), _simple_chain(moving[1])
    return next((value for value in first if value in second), None)


def _simple_chain(value: ir.Value) -> list[ir.Value]:
    found = [value]
    while len(found) < _DEPTH and (node := found[-1].producer()) is not None:
        moving = list(dict.fromkeys(operand for operand in node.inputs if _computed(operand)))
        if len(moving) != 1 or moving[0] is None or node.op_type not in (*UNARY, "Neg", "Add", "Sub", "Mul", "Div"):
            return found
        found.append(moving[0])
    return found
