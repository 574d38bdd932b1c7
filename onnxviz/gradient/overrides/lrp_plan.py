"""What relevance propagation looks up of a model as a whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.gradient.ops import static_shape
from onnxviz.gradient.overrides.kinds import PRODUCTS
from onnxviz.gradient.overrides.lrp_functions import normalisations
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of

__all__ = ["LrpPlan", "added_to", "make_plan", "nonnegative"]

_POSITIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Sqrt", "Softplus")
_KEEPS_SIGN = (
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "Dropout",
    "Identity", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather",
)  # fmt: skip
_ALL_KEEP_SIGN = ("Concat", "Add", "Sum", "Mean", "Max")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
_DEPTH = 32


@dataclass(frozen=True, eq=False)
class LrpPlan:
    """Where layers stand.

    Attributes:
        first: Layers that no other layer lies before.
        tails: Layer -> the nodes behind it that are folded into its weights and bias.
        folded: All of those nodes.
        fixed: Tensors that are computed from constants alone, such as transposed weights.
        normal: Nodes of normalisations that were exported in parts -> the operand that is normalised.
    """

    first: frozenset[ir.Node]
    tails: dict[ir.Node, tuple[ir.Node, ...]]
    folded: frozenset[ir.Node]
    fixed: frozenset[ir.Value]
    normal: dict[ir.Node, int]


def make_plan(nodes: Sequence[ir.Node], end: ir.Value, *, fold: bool) -> LrpPlan:
    """Return where layers stand in the nodes before a tensor."""
    fixed = _fixed(nodes)
    behind: set[ir.Value] = set()  # what a layer was applied to
    first, tails = set(), {}
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value, []).append(node)
    for node in nodes:
        seen = any(value in behind for value in node.inputs)
        layer = node.op_type in PRODUCTS and any(_computed(value, fixed) for value in node.inputs)
        if layer and not seen:
            first.add(node)
        if layer or seen:
            behind.update(node.outputs)
        if layer and (tail := _tail(node, readers, end, fold, fixed)):
            tails[node] = tail
    return LrpPlan(
        frozenset(first), tails, frozenset(node for tail in tails.values() for node in tail), fixed,
        normalisations(nodes, fixed),
    )  # fmt: skip


def _fixed(nodes: Sequence[ir.Node]) -> frozenset[ir.Value]:
    """Return what nodes compute from constants alone."""
    found: set[ir.Value] = set()
    for node in nodes:
        if node.op_type in _RANDOM or any(True for _ in bodies_of(node)):
            continue
        if not any(_computed(value, found) for value in node.inputs):
            found.update(node.outputs)
    return frozenset(found)


def _computed(value: ir.Value | None, fixed: Collection[ir.Value]) -> bool:
    return value is not None and value not in fixed and constant_tensor(value) is None


def _tail(
    layer: ir.Node, readers: dict[ir.Value, list[ir.Node]], end: ir.Value, fold: bool, fixed: Collection[ir.Value]
) -> tuple[ir.Node, ...]:  # fmt: skip
    """Return the bias that is added behind a layer without one, and the BatchNormalization behind a layer."""
    found: list[ir.Node] = []
    value = layer.outputs[0]
    if [_computed(operand, fixed) for operand in layer.inputs].count(True) != 1:
        return ()
    while value is not end and len(readers.get(value, ())) == 1 and not _in_body(value, readers):
        node = readers[value][0]
        bias = not found and node.op_type == "Add" and _is_bias(node, value, layer, fixed)
        norm = fold and node.op_type == "BatchNormalization" and _foldable(node, value, layer, fixed)
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


def _is_bias(node: ir.Node, value: ir.Value, layer: ir.Node, fixed: Collection[ir.Value]) -> bool:
    """Whether a constant with an entry a column, or a channel, is added to what has no bias yet."""
    added, whole = added_to(node, value), static_shape(value)
    sizes = static_shape(added) if added is not None else None
    if sizes is None or None in sizes or whole is None or _computed(added, fixed) or _has_bias(layer):
        return False
    if len(sizes) > len(whole) or not _computed(layer.inputs[0], fixed):
        return False
    if layer.op_type in ("MatMul", "Gemm", "Einsum"):
        return all(size == 1 for size in sizes[:-1]) and (not sizes or sizes[-1] in (1, whole[-1]))
    inner = len(whole) - 2  # axes of space, along which a bias is the same
    around = len(sizes) > inner and all(size == 1 for size in (*sizes[: -inner - 1], *sizes[len(sizes) - inner :]))
    return around and sizes[-inner - 1] == whole[1]


def added_to(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """Return what an Add adds to a tensor."""
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _has_bias(layer: ir.Node) -> bool:
    return layer.op_type != "Einsum" and len(layer.inputs) > 2 and layer.inputs[2] is not None


def _foldable(node: ir.Node, value: ir.Value, layer: ir.Node, fixed: Collection[ir.Value]) -> bool:
    if node.inputs[0] is not value or any(_computed(operand, fixed) for operand in node.inputs[1:5]):
        return False
    if (attribute := node.attributes.get("training_mode")) is not None and attribute.value:
        return False
    weights = static_shape(layer.inputs[1]) if layer.inputs[1] is not None else None
    if not _computed(layer.inputs[0], fixed) or weights is None:
        return False
    if layer.op_type == "ConvTranspose":
        group = layer.attributes.get("group")
        return group is None or group.value == 1
    if layer.op_type == "Conv":
        return True
    whole = static_shape(value)  # channels are axis 1, columns the last one
    return layer.op_type in ("Gemm", "MatMul") and len(weights) == 2 and whole is not None and len(whole) == 2


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
