"""What a node costs: multiply-accumulates, learned parameters, bytes.

One MAC is one multiplication with its addition. Only products of tensors are counted (convolution, matrix product,
recurrence, attention); biases, activations and normalisation are not, as in most published tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.errors import ModelError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.learned import learned_inputs, learned_tensors
from onnxviz.graph.liveness import tensor_bytes

__all__ = ["NodeBytes", "NodeCost", "model_parameters", "node_bytes", "node_cost"]

Sizes = tuple[int, ...]

_LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND", "GatherBlockQuantized", "Slice"})


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


@dataclass(frozen=True)
class NodeBytes:
    """Bytes that a node must move if it reads each input and writes each output once; None where a size is unknown.

    Attributes:
        read: Of the inputs that are computed.
        weights: Of the inputs that are constant.
        written: Of the outputs.
    """

    read: int | None
    weights: int | None
    written: int | None

    @property
    def total(self) -> int | None:
        """All three together, the denominator of arithmetic intensity."""
        if self.read is None or self.weights is None or self.written is None:
            return None
        return self.read + self.weights + self.written


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
    for position in learned_inputs(node):
        tensor = constant_tensor(node.inputs[position])
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            parameters += tensor.size
            size += tensor.nbytes
    rule = _RULES.get(node.op_type)
    return NodeCost(rule(node) if rule else 0, parameters, size)


def node_bytes(node: ir.Node) -> NodeBytes:
    """Return the bytes that a node of a model with inferred shapes moves.

    An input that is read at several places counts once. Lookups (Gather, Slice) read no more of their data than they
    write; Shape and Size read none of it. What a runtime keeps in caches, or never copies (as for Reshape), is not
    known here: this is the traffic of an operator on its own.

    >>> from onnxviz.graph.shapes import infer_shapes
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> {y = MatMul(x, w)}''')
    >>> node_bytes(infer_shapes(model).graph.node(0))
    NodeBytes(read=8, weights=24, written=12)
    """
    written = _sum(tensor_bytes(value) for value in node.outputs if value.name)
    read: list[int | None] = []
    weights: list[int | None] = []
    for position, value in enumerate(dict.fromkeys(node.inputs)):
        if value is None:
            continue
        tensor = constant_tensor(value)
        size = (
            tensor_bytes(value) if tensor is None else (None if tensor.dtype == ir.DataType.STRING else tensor.nbytes)
        )
        if position == 0 and node.op_type in ("Shape", "Size"):
            size = 0
        elif position == 0 and node.op_type in _LOOKUPS:
            size = size if size is None or written is None else min(size, written)
        (read if tensor is None else weights).append(size)
    return NodeBytes(_sum(read), _sum(weights), written)


def _sum(sizes: Iterable[int | None]) -> int | None:
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


def model_parameters(model: ir.Model) -> tuple[int, int]:
    """Return how many learned elements a model has, and their size in bytes.

    Each tensor counts once, however many nodes share it, bodies and functions included; what no node reads as something
    learned (:func:`onnxviz.graph.learned.learned_inputs`) does not count. Functions that cannot be inlined are left
    out. Nothing is loaded.
    """
    try:
        flat = inline_functions(model)
    except ModelError:
        flat = model
    learned = learned_tensors(flat)
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
        if len(a) > 1 and node.attributes.get_int("transA", 0) == 1:  # FusedMatMul
            inner = a[-2]
        if output is not None:
            return math.prod(output) * inner
        if len(b) < 2:
            return math.prod(a)
        batch = max(math.prod(a[:-2]), math.prod(b[:-2]))
        rows = math.prod(a[-2:]) // max(inner, 1)
        return batch * rows * inner * (b[-2] if node.attributes.get_int("transB", 0) else b[-1])

    return macs


def _gemm(b_at: int) -> Callable[[ir.Node], int | None]:
    def macs(node: ir.Node) -> int | None:
        a, b = _input(node, 0), _input(node, b_at)
        if a is None or b is None or len(a) != 2 or len(b) != 2:
            return None
        trans_a, trans_b = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
        rows, inner = (a[1], a[0]) if trans_a else a
        return rows * inner * (b[0] if trans_b else b[1])

    return macs


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
    """Q·Kᵀ and the product with V, for (batch, heads, length, size) or (batch, length, hidden) inputs.

    Keys and values of the past, and several query heads to one key head, are counted; masks are not taken off.
    """
    if node.domain == "com.microsoft" and node.op_type == "Attention":
        return _projected_attention(node)
    query, key, value = (_input(node, i) for i in range(3))
    if query is None or key is None or value is None or {len(query), len(key), len(value)} not in ({3}, {4}):
        return None
    length = _with_past(node, key[-2], 6 if node.op_type == "MultiHeadAttention" else 4)
    if length is None:
        return None
    heads = query[1] if len(query) == 4 else node.attributes.get_int("q_num_heads", 1)
    value_heads = heads if len(query) == 4 else node.attributes.get_int("kv_num_heads", heads)
    hidden = heads * query[-1] if len(query) == 4 else query[-1]
    value_hidden = heads * value[-1] if len(query) == 4 else heads * value[-1] // max(value_heads, 1)
    return query[0] * query[-2] * length * (hidden + value_hidden)


def _with_past(node: ir.Node, length: int, past_at: int, axis: int = -2) -> int | None:
    """Return how many keys there are, those of the past included."""
    if past_at >= len(node.inputs) or node.inputs[past_at] is None:
        return length
    past = _input(node, past_at)
    return None if past is None else length + past[axis]


def _projected_attention(node: ir.Node) -> int | None:
    """Attention of com.microsoft, which projects its input to Q, K and V first: (batch, length, hidden) inputs."""
    data, weight = _input(node, 0), _input(node, 1)
    if data is None or weight is None or len(data) != 3 or len(weight) != 2:
        return None
    length = _with_past(node, data[1], 8 if node.op_type == "QAttention" else 4)
    if length is None:
        return None
    sizes = node.attributes.get_ints("qkv_hidden_sizes", None) or [weight[1] // 3] * 3
    return data[0] * data[1] * (data[2] * weight[1] + length * (sizes[0] + sizes[-1]))


def _grouped_attention(node: ir.Node) -> int | None:
    query, key = _input(node, 0), _input(node, 1)
    heads, groups = (node.attributes.get_int(name, 1) for name in ("num_heads", "kv_num_heads"))
    if query is None or len(query) != 3 or (key is None and node.inputs[1:2] != (None,)):
        return None
    hidden = query[2] if key is not None else query[2] * heads // (heads + 2 * groups)
    length = _with_past(node, query[1] if key is None else key[1], 3)
    return None if length is None else 2 * query[0] * query[1] * length * hidden


def _matmul_nbits(node: ir.Node) -> int | None:
    data = _input(node, 0)
    return None if data is None else math.prod(data) * node.attributes.get_int("N", 0)


def _unknown(node: ir.Node) -> None:
    """Say of an operator that it multiplies tensors, as often as only its data decide."""


_RULES: dict[str, Callable[[ir.Node], int | None]] = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvInteger", "DeformConv"), _conv(1)),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(
        (
            "MatMul",
            "FusedMatMul",
            "FusedMatMulActivation",
            "TransposeMatMul",
            "MatMulInteger",
            "MatMulIntegerToFloat",
            "DynamicQuantizeMatMul",
        ),
        _matmul(0, 1),
    ),
    "QLinearMatMul": _matmul(0, 3),
    **dict.fromkeys(("Gemm", "FusedGemm", "GemmFastGelu", "GemmFloat8"), _gemm(1)),
    "QGemm": _gemm(3),
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
    "QAttention": _projected_attention,
    "GroupQueryAttention": _grouped_attention,
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _matmul_nbits),
    **dict.fromkeys(
        ("MoE", "QMoE", "SparseAttention", "LongformerAttention", "PagedAttention", "DecoderMaskedMultiHeadAttention"),
        _unknown,
    ),
}
