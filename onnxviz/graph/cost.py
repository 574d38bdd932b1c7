"""What a node costs: multiply-accumulates, learned parameters, bytes.

One MAC is one multiplication with its addition. Only products of tensors are counted (convolution, matrix product,
recurrence, attention); biases, activations and normalisation are not, as in most published tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor, is_parameter

__all__ = ["NodeCost", "model_parameters", "node_cost"]

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class NodeCost:
    """Cost of one node.

    Attributes:
        macs: Multiply-accumulates of one run; 0 for operators without products of tensors; None where the shapes that
            decide it are unknown.
        parameters: Learned elements among its constant inputs.
        parameter_bytes: Their size in bytes.
    """

    macs: int | None
    parameters: int
    parameter_bytes: int


def node_cost(node: ir.Node) -> NodeCost:
    """Return the cost of a node of a model with inferred shapes (:func:`onnxviz.graph.shapes.infer_shapes`).

    A Conv counts ``N · M · H' · W' · (C / group) · kH · kW`` MACs (M output channels of H' × W'), a matrix product of
    (…, n, k) by (…, k, m) counts ``… · n · k · m``.

    >>> from onnxviz.graph.shapes import infer_shapes
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) <float[4, 3, 3, 3] w> {y = Conv(x, w)}''')
    >>> node_cost(infer_shapes(model).graph.node(0)).macs
    3888
    """
    parameters = size = 0
    seen: set[int] = set()
    for value in node.inputs:
        tensor = constant_tensor(value)
        if tensor is not None and is_parameter(tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            parameters += tensor.size
            size += tensor.nbytes
    rule = _RULES.get(node.op_type)
    return NodeCost(rule(node) if rule else 0, parameters, size)


def model_parameters(model: ir.Model) -> tuple[int, int]:
    """Return how many learned elements a model has, and their size in bytes.

    Each tensor counts once, wherever it stands: initializers and Constant nodes, bodies included. Nothing is loaded.
    """
    tensors = [v.const_value for graph in model.graphs() for v in graph.initializers.values()]
    tensors += [constant_tensor(node.outputs[0]) for node in model.graph.all_nodes() if node.op_type == "Constant"]
    learned = [t for t in tensors if t is not None and is_parameter(t)]
    return sum(t.size for t in learned), sum(t.nbytes for t in learned)


def _sizes(value: ir.Value | None) -> Sizes | None:
    if value is None:
        return None
    tensor = constant_tensor(value)
    shape = tensor.shape if tensor is not None else value.shape
    if shape is None or any(not isinstance(dim, int) or dim < 0 for dim in shape):
        return None
    return tuple(int(dim) for dim in shape)  # type: ignore[arg-type]


def _input(node: ir.Node, position: int) -> Sizes | None:
    return _sizes(node.inputs[position]) if position < len(node.inputs) else None


def _conv(weight_at: int) -> Callable[[ir.Node], int | None]:
    def macs(node: ir.Node) -> int | None:
        output, weight = _sizes(node.outputs[0]), _input(node, weight_at)
        if output is None or weight is None:
            return None
        return math.prod(output) * math.prod(weight[1:])  # weight: (M, C / group, k…)

    return macs


def _conv_transpose(node: ir.Node) -> int | None:
    data, weight = _input(node, 0), _input(node, 1)
    if data is None or weight is None:
        return None
    return math.prod(data) * math.prod(weight[1:])  # weight: (C, M / group, k…)


def _matmul(a_at: int, b_at: int) -> Callable[[ir.Node], int | None]:
    def macs(node: ir.Node) -> int | None:
        a, b, output = _input(node, a_at), _input(node, b_at), _sizes(node.outputs[0])
        if a is None or b is None:
            return None
        inner = a[-1] if a else 1
        if output is not None:
            return math.prod(output) * inner
        if len(b) < 2:
            return math.prod(a)
        batch = max(math.prod(a[:-2]), math.prod(b[:-2]))
        return batch * (a[-2] if len(a) > 1 else 1) * inner * b[-1]

    return macs


def _gemm(node: ir.Node) -> int | None:
    a, b = _input(node, 0), _input(node, 1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    trans_a, trans_b = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    rows, inner = (a[1], a[0]) if trans_a else a
    return rows * inner * (b[0] if trans_b else b[1])


def _einsum(node: ir.Node) -> int | None:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for position, term in enumerate(terms):
        shape = _input(node, position)
        if shape is None or "." in term or len(shape) != len(term):
            return None
        sizes.update(zip(term, shape, strict=True))
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _recurrent(node: ir.Node) -> int | None:
    data, weight, recurrence = (_input(node, i) for i in range(3))
    if data is None or weight is None or recurrence is None or len(data) != 3:
        return None
    return data[0] * data[1] * (math.prod(weight) + math.prod(recurrence))


def _attention(node: ir.Node) -> int | None:
    """Q·Kᵀ and the product with V, for (batch, heads, length, size) or (batch, length, hidden) inputs."""
    query, key, value = (_input(node, i) for i in range(3))
    if query is None or key is None or value is None or {len(query), len(key), len(value)} not in ({3}, {4}):
        return None
    heads = query[1] if len(query) == 4 else 1
    return query[0] * heads * query[-2] * key[-2] * (query[-1] + value[-1])


def _matmul_nbits(node: ir.Node) -> int | None:
    data = _input(node, 0)
    return None if data is None else math.prod(data) * node.attributes.get_int("N", 0)


_RULES: dict[str, Callable[[ir.Node], int | None]] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "DeformConv"), _conv(1)),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(
        ("MatMul", "FusedMatMul", "TransposeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
        _matmul(0, 1),
    ),
    "QLinearMatMul": _matmul(0, 3),
    **dict.fromkeys(("Gemm", "FusedGemm"), _gemm),
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
    "MatMulNBits": _matmul_nbits,
}
