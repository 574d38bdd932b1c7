"""Which Softmax of a graph is attention's, and what lies about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.node_attributes import int_attribute, ints_attribute, string_attribute
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
        query: What queries are in the product that is compared, whichever side they stand on.
        key: What keys are.
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
    sides = _score(node)
    ends = _ends(node.outputs[0])
    if sides is None or not ends:
        return None
    return Site(_guarded(node.outputs[0]), node, *sides, tuple(ends))


def _over_the_last_axis(node: ir.Node, ranks: Mapping[str, int]) -> bool:
    axis, rank = _axis(node), ranks.get(str(node.outputs[0].name))
    return axis == -1 or not rank or axis % rank == rank - 1


def _axis(node: ir.Node) -> int:
    version = node.version or (
        node.graph.opset_imports.get("", node.graph.opset_imports.get("ai.onnx", 13))
        if isinstance(node.graph, ir.Graph)
        else 13
    )
    return int_attribute(node, "axis", -1 if version >= 13 else 1)


def _score(softmax: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Return queries and keys of the nearest product of two activations that leads to a Softmax.

    The axis of the keys is followed through Transposes. Learned queries may be constant.
    """
    row: list[tuple[ir.Value, int]] = [(v, -1) for v in softmax.inputs if v is not None]
    seen = {value for value, _ in row}
    for _ in range(_FAR):
        above: list[tuple[ir.Value, int]] = []
        for value, axis in row:
            node = value.producer()
            if node is None:
                continue
            if node.op_type in PRODUCTS:
                sides = _sides(node, axis)
                if sides is not None and not is_fixed(sides[1]):
                    return sides
            elif node.op_type in _BEFORE:
                below = _through(node, axis)
                above += [(v, below) for v in data_inputs(node) if v not in seen]
                seen.update(v for v, _ in above)
        row = above
    return None


def _through(node: ir.Node, axis: int) -> int:
    """Return which axis of a node's input an axis of its output is, both counted from the end."""
    perm = ints_attribute(node, "perm") if node.op_type == "Transpose" else None
    return perm[axis] - len(perm) if perm is not None and len(perm) >= -axis else axis


def _sides(product: ir.Node, axis: int) -> tuple[ir.Value, ir.Value] | None:
    """Return queries and keys of a product: the keys are the factor that gives the axis of its output."""
    places = PRODUCTS[product.op_type]
    factors = [product.inputs[i] for i in places if i < len(product.inputs)]
    if len(factors) != 2 or factors[0] is None or factors[1] is None:
        return None
    first = axis == -2 if product.op_type != "Einsum" else _is_of_first(product, axis)
    return (factors[1], factors[0]) if first else (factors[0], factors[1])


def _is_of_first(einsum: ir.Node, axis: int) -> bool:
    """Whether an axis of an Einsum's output comes from its first factor alone."""
    equation = string_attribute(einsum, "equation").replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        out = "".join(sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1))
    if len(terms) != 2 or len(out) < -axis:
        return False
    return out[axis] in terms[0] and out[axis] not in terms[1]


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
