"""Which Softmax of a graph is attention's, and what lies about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.token_streams import data_inputs, is_fixed

__all__ = ["PRODUCTS", "Site", "softmax_ranks", "softmax_site"]

#: Products of matrices, and which inputs they multiply.
PRODUCTS = {"MatMul": (0, 1), "Einsum": (0, 1), "FusedMatMul": (0, 1), "MatMulInteger": (0, 1), "Gemm": (0, 1),
             "QLinearMatMul": (0, 3)}  # fmt: skip
_BEFORE = {"Add", "Sub", "Mul", "Div", "Where", "Cast", "CastLike", "Reshape", "Identity", "Transpose", "Squeeze",
           "Unsqueeze", "Clip", "Max", "Min", "QuantizeLinear", "DequantizeLinear", "Tanh", "Dropout", "Expand",
           "Slice", "Flatten"}  # fmt: skip
_AFTER = {"Dropout", "Cast", "CastLike", "Identity", "Reshape", "Transpose", "Where", "Mul", "QuantizeLinear",
          "DequantizeLinear", "Squeeze", "Unsqueeze", "Expand", "Pad", "Slice", "DynamicQuantizeLinear",
          "Flatten"}  # fmt: skip
_FAR = 16  # steps between a product and the Softmax; masks of several terms take about 8


@dataclass(frozen=True)
class Site:
    """What lies about the weights of one attention.

    Attributes:
        weights: The tensor that holds them.
        node: What makes them.
        query: The left side of the product that is compared.
        key: Its right side.
        ends: The products with an activation that the weights lead to.
    """

    weights: ir.Value
    node: ir.Node
    query: ir.Value
    key: ir.Value
    ends: tuple[ir.Node, ...]


def softmax_ranks(model: ir.Model) -> dict[str, int]:
    """Return the rank of each Softmax's output, by name; inferred only where an axis is counted from the front."""
    every = [node for node in model.graph if node.op_type == "Softmax"]
    if all(_axis(node) == -1 or node.outputs[0].shape is not None for node in every):
        twins = every
    else:
        twins = [node for node in infer_shapes(model).graph if node.op_type == "Softmax"]
    return {str(n.outputs[0].name): len(n.outputs[0].shape) for n in twins if n.outputs[0].shape is not None}


def softmax_site(node: ir.Node, ranks: Mapping[str, int]) -> Site | None:
    """Return what lies about a Softmax that is attention's."""
    if node.op_type != "Softmax" or node.domain not in ("", "ai.onnx") or not _over_the_last_axis(node, ranks):
        return None
    score = _score(node)
    ends = _ends(node.outputs[0])
    if score is None or not ends:
        return None
    first, second = (score.inputs[i] for i in PRODUCTS[score.op_type])
    assert first is not None
    assert second is not None
    return Site(_guarded(node.outputs[0]), node, first, second, tuple(ends))


def _over_the_last_axis(node: ir.Node, ranks: Mapping[str, int]) -> bool:
    axis, rank = _axis(node), ranks.get(str(node.outputs[0].name))
    return axis == -1 or not rank or axis % rank == rank - 1


def _axis(node: ir.Node) -> int:
    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None and not attribute.is_ref() else None
    version = node.version or (
        node.graph.opset_imports.get("", node.graph.opset_imports.get("ai.onnx", 13))
        if isinstance(node.graph, ir.Graph)
        else 13
    )
    return (-1 if version >= 13 else 1) if axis is None else axis


def _score(softmax: ir.Node) -> ir.Node | None:
    """Return the nearest product of two activations that leads to a Softmax; learned queries may stand on its left."""
    row: list[ir.Value] = [v for v in softmax.inputs if v is not None]
    seen = set(row)
    for _ in range(_FAR):
        above: list[ir.Value] = []
        for value in row:
            node = value.producer()
            if node is None:
                continue
            if node.op_type in PRODUCTS:
                right = [node.inputs[i] for i in PRODUCTS[node.op_type] if i < len(node.inputs)]
                if len(right) == 2 and right[0] is not None and not is_fixed(right[1]):
                    return node
            elif node.op_type in _BEFORE:
                above += [v for v in data_inputs(node) if v not in seen]
                seen.update(above)
        row = above
    return None


def _ends(weights: ir.Value) -> list[ir.Node]:
    """Return the products with an activation that the weights lead to."""
    row, seen, found = [weights], {weights}, []
    for _ in range(_FAR // 2):
        below = []
        for value in row:
            for user in value.consumers():
                if user.op_type in PRODUCTS:
                    if all(not is_fixed(user.inputs[i]) for i in PRODUCTS[user.op_type]):
                        found.append(user)
                elif user.op_type in _AFTER:
                    below += [v for v in user.outputs if v not in seen]
                    seen.update(below)
        row = below
    return found


def _guarded(weights: ir.Value) -> ir.Value:
    """Return the weights after a guard against rows that are masked as a whole: Where(IsNaN(w), 0, w)."""
    for user in weights.consumers():
        condition = user.inputs[0].producer() if user.op_type == "Where" and user.inputs[0] is not None else None
        if condition is not None and condition.op_type == "IsNaN" and condition.inputs[0] is weights:
            return user.outputs[0]
    return weights
