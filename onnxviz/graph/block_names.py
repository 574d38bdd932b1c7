"""What an engineer would call a block, told from the operators in it and how they are wired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.kinds import kind_of

__all__ = ["block_name"]

_JOINS = frozenset({"Add", "Sum", "QLinearAdd", "AddRelu"})
_SKIPS = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipGroupNorm"})
_HEAVY = frozenset({"conv", "linear", "attention", "recurrent"})
_PRODUCTS = frozenset({"MatMul", "Einsum", "FusedMatMul", "MatMulInteger", "QLinearMatMul"})


def block_name(nodes: Sequence[ir.Node]) -> str:
    """Return the name of a kind of block: ``"Residual block"``, ``"Transformer layer"``, else ``"Block"``.

    Args:
        nodes: The block, in topological order.
    """
    kinds = Counter(kind_of(node) for node in nodes)
    skips = _skips(nodes)
    products = sum(node.op_type in _PRODUCTS and _moving(node) > 1 for node in nodes)
    if kinds["attention"] or (any(node.op_type == "Softmax" for node in nodes) and products > 1):
        return "Transformer layer" if skips > 1 else "Attention"
    operators = Counter(node.op_type for node in nodes)
    if operators["Sigmoid"] > 1 and operators["Tanh"] and (kinds["linear"] or kinds["conv"]):
        return "Recurrent cell"
    convolutions = [node for node in nodes if kind_of(node) == "conv"]
    if convolutions:
        return _convolutional(nodes, convolutions, skips)
    if kinds["recurrent"]:
        return "Recurrent layer"
    if skips:
        return "Residual block"
    return "Linear block" if kinds["linear"] else "Block"


def _convolutional(nodes: Sequence[ir.Node], convolutions: Sequence[ir.Node], skips: int) -> str:
    depthwise = [_is_depthwise(node) for node in convolutions]
    if any(depthwise[1:-1]) and not depthwise[0] and not depthwise[-1] and _kernel(convolutions[0]) == 1:
        return "Inverted residual"
    if skips:
        return "Residual block"
    inside = set(nodes)
    joins = [_branches(node, inside) for node in nodes if node.op_type in ("Concat", "QLinearConcat")]
    branches = max((sum(heavy for heavy, _ in join) for join in joins), default=0)
    if branches > 2:
        return "Inception block"
    if branches == 2 and len(convolutions) == 3:
        return "Fire module"
    if any(_grows(join) for join in joins):
        return "Dense block"
    return "Separable convolution" if any(depthwise) and not all(depthwise) else "Conv block"


def _moving(node: ir.Node) -> int:
    return sum(value is not None and constant_tensor(value) is None for value in node.inputs)


def _skips(nodes: Sequence[ir.Node]) -> int:
    """Count the joins of a branch with weights and one without, which both come from the same tensor."""
    inside = set(nodes)
    found = 0
    for node in nodes:
        if node.op_type in _SKIPS:
            found += 1
        elif node.op_type in _JOINS or (node.op_type == "FusedConv" and len(node.inputs) > 3):
            values = [value for value in node.inputs if value is not None and constant_tensor(value) is None]
            found += len(values) > 1 and _skipped(values, inside)
    return found


def _skipped(values: Sequence[ir.Value], inside: set[ir.Node]) -> bool:
    """Whether two tensors come from the same one, and only one of them by way of weights."""
    one, other = (_origins(value, inside) for value in values[:2])
    if not one.keys() & other.keys():
        return False
    ways = [{made for value, made in a.items() if value not in b} for a, b in ((one, other), (other, one))]
    heavy = [any(made is not None and kind_of(made) in _HEAVY for made in way) for way in ways]
    return heavy[0] != heavy[1]


def _origins(value: ir.Value, inside: set[ir.Node]) -> dict[ir.Value, ir.Node | None]:
    """Return a tensor and all that it is computed from within a block -> the node of the block that makes it."""
    found: dict[ir.Value, ir.Node | None] = {}
    pending = [value]
    while pending:
        value = pending.pop()
        if value in found or value.const_value is not None:
            continue
        made = value.producer()
        found[value] = made if made in inside else None
        if made is not None and made in inside:
            pending += [source for source in made.inputs if source is not None]
    return found


def _weight(node: ir.Node) -> tuple[int, ...]:
    index = 3 if node.op_type == "QLinearConv" else 1
    tensor = constant_tensor(node.inputs[index]) if len(node.inputs) > index else None
    return tuple(dim for dim in tensor.shape if isinstance(dim, int)) if tensor is not None else ()


def _kernel(node: ir.Node) -> int:
    return max(_weight(node)[2:], default=0)


def _is_depthwise(node: ir.Node) -> bool:
    group = node.attributes.get("group")
    many = group is not None and not group.is_ref() and group.as_int() > 1
    return many and len(weight := _weight(node)) > 1 and weight[1] == 1


def _branches(node: ir.Node, inside: set[ir.Node]) -> list[tuple[bool, set[ir.Value]]]:
    """Return for each input of a Concat whether a branch of the block leads to it, and what it is computed from."""
    found = []
    for value in dict.fromkeys(value for value in node.inputs if value is not None):
        origins = _origins(value, inside)
        works = any(made is not None and kind_of(made) in ("conv", "pool") for made in origins.values())
        found.append((works, set(origins)))
    return found


def _grows(join: Sequence[tuple[bool, set[ir.Value]]]) -> bool:
    """Whether a Concat puts what a block computed beside what it computed that from."""
    return any(
        works and not came and outside <= origins for works, origins in join for came, outside in join if outside
    )
