"""Operators that are attention as a whole, made to give their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.errors import printable

__all__ = ["FUSED", "FusedSite", "expand_fused", "node_label"]

#: Operators that hold a whole attention.
FUSED = {"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention", "PackedAttention",
         "PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention",
         "DecoderAttention", "LongformerAttention", "SparseAttention", "PagedAttention",
         "QOrderedAttention", "QOrderedLongformerAttention", "RelativePositionAttention"}  # fmt: skip
_MODE = "qk_matmul_output_mode"
_AFTER_SOFTMAX = 3


@dataclass(frozen=True)
class FusedSite:
    """A fused attention whose weights can be had.

    Attributes:
        node: The operator.
        weights: ``(N, heads, Q, K)``.
        query: What the queries are made of.
        key: What the keys are made of.
        maker: The node that gives ``weights``.
    """

    node: ir.Node
    weights: ir.Value
    query: ir.Value
    key: ir.Value
    maker: ir.Node


class _Refused(Exception):  # noqa: N818 - never leaves this module
    pass


def node_label(node: ir.Node) -> str:
    """Return a node's name, or its type and first output.

    >>> node_label(ir.Node("", "Relu", [], num_outputs=1, name="relu1"))
    'relu1'
    """
    return node.name or f"{node.op_type} of {node.outputs[0].name}"


def expand_fused(model: ir.Model) -> tuple[list[FusedSite], list[str]]:
    """Make the fused attention of a model's main graph give its weights, in place.

    ONNX ``Attention`` gets its fourth output, with ``qk_matmul_output_mode = 3``: the weights after the softmax.
    com.microsoft ``Attention`` and ``MultiHeadAttention`` without mask, past or bias of the scores get nodes before
    them that compute softmax(scale · Q Kᵀ); the operator itself stays as it is.

    Returns:
        What can be had, and a line for each operator that cannot.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 23]>
    ...   g (float[1, 2, 5, 4] q) => (float[1, 2, 5, 4] y) { y = Attention(q, q, q) }''')
    >>> expand_fused(model)[0][0].weights.name
    'y.weights'
    """
    found, refused = [], []
    taken = {str(v.name) for node in model.graph.all_nodes() for v in (*node.inputs, *node.outputs) if v is not None}
    for node in [n for n in model.graph if n.op_type in FUSED]:
        try:
            found.append(_expand(model, node, taken))
        except _Refused as why:
            domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
            refused.append(f"{domain}{node.op_type} {printable(node_label(node), 80)!r} keeps its weights: {why}")
    return found, refused


def _expand(model: ir.Model, node: ir.Node, taken: set[str]) -> FusedSite:
    if node.domain in ("", "ai.onnx") and node.op_type == "Attention":
        return _fourth_output(node, taken)
    if node.domain != "com.microsoft" or node.op_type not in ("Attention", "MultiHeadAttention"):
        raise _Refused("the operator does not return them")
    if model.opset_imports.get("", 17) < 13:
        raise _Refused("only models of opset 13 and above are expanded")
    build = _Builder(model, node, taken)
    return build.attention() if node.op_type == "Attention" else build.multi_head()


def _fourth_output(node: ir.Node, taken: set[str]) -> FusedSite:
    query, key = node.inputs[0], node.inputs[1]
    assert query is not None
    assert key is not None
    mode = node.attributes[_MODE].as_int() if _MODE in node.attributes else 0
    used = len(node.outputs) > 3 and bool(node.outputs[3].name)
    if used and mode != _AFTER_SOFTMAX:
        raise _Refused(f"its fourth output is in use with {_MODE} = {mode}")
    if not used:
        present = len(node.outputs)
        node.resize_outputs(4)
        for place in range(present, 3):
            node.outputs[place].name = ""
        node.outputs[3].name = _fresh(f"{node.outputs[0].name}.weights", taken)
        _same_type(node.outputs[3], query)
        node.attributes[_MODE] = ir.AttrInt64(_MODE, _AFTER_SOFTMAX)
    return FusedSite(node, node.outputs[3], query, key, node)


def _same_type(value: ir.Value, other: ir.Value) -> None:
    if other.dtype is not None:
        value.dtype = other.dtype


def _fresh(name: str, taken: set[str]) -> str:
    count, fresh = 2, name
    while fresh in taken:
        fresh, count = f"{name}_{count}", count + 1
    taken.add(fresh)
    return fresh


class _Builder:
    """Adds the nodes that compute the weights of one fused node, in front of it."""

    def __init__(self, model: ir.Model, node: ir.Node, taken: set[str]) -> None:
        self._graph = model.graph
        self._node = node
        self._taken = taken
        self._base = str(node.outputs[0].name)
        self.last: ir.Node = node
        heads = node.attributes.get("num_heads")
        if heads is None:
            raise _Refused("it does not say how many heads it has")
        self._heads = heads.as_int()

    def _input(self, place: int) -> ir.Value | None:
        value = self._node.inputs[place] if place < len(self._node.inputs) else None
        return value if value is not None and value.name else None

    def _op(self, op: str, *inputs: ir.Value, outputs: int = 1, **attributes: int | list[int]) -> list[ir.Value]:
        made = ir.node(op, inputs, attributes=attributes, num_outputs=outputs)
        for place, value in enumerate(made.outputs):
            value.name = _fresh(f"{self._base}.{op.lower()}{place or ''}", self._taken)
        made.name = made.outputs[0].name
        self._graph.insert_before(self._node, made)
        self.last = made
        return list(made.outputs)

    def _constant(self, array: np.ndarray) -> ir.Value:
        name = _fresh(f"{self._base}.constant", self._taken)
        value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self._graph.register_initializer(value)
        return value

    def _refuse(self, places: dict[int, str], attributes: dict[str, str]) -> None:
        for place, what in places.items():
            if self._input(place) is not None:
                raise _Refused(f"it has {what}, which is not expanded")
        for name, what in attributes.items():
            if name in self._node.attributes and self._node.attributes[name].as_int():
                raise _Refused(f"it is {what}, which is not expanded")

    def _weights(self, query: ir.Value, key: ir.Value, width: int) -> ir.Value:
        """Return the softmax of the scaled product of ``(N, S, heads * d)`` tensors."""
        shape = self._constant(np.array([0, 0, self._heads, width // self._heads], np.int64))
        q = self._op("Transpose", self._op("Reshape", query, shape)[0], perm=[0, 2, 1, 3])[0]
        k = self._op("Transpose", self._op("Reshape", key, shape)[0], perm=[0, 2, 3, 1])[0]
        given = self._node.attributes.get("scale")
        scale = given.as_float() if given is not None and given.as_float() else 1 / math.sqrt(width // self._heads)
        kind = (query.dtype or ir.DataType.FLOAT).numpy()
        scaled = self._op("Mul", self._op("MatMul", q, k)[0], self._constant(np.array(scale, kind)))[0]
        weights = self._op("Softmax", scaled, axis=-1)[0]
        weights.name = _fresh(f"{self._base}.weights", self._taken)
        return weights

    def attention(self) -> FusedSite:
        """Expand com.microsoft Attention: one product with packed weights gives queries, keys and values."""
        self._refuse(
            {3: "a mask", 4: "a past", 5: "a bias of the scores", 6: "a past"},
            {"unidirectional": "causal", "do_rotary": "rotary", "past_present_share_buffer": "with a past"},
        )
        source, weight, bias = (self._input(i) for i in range(3))
        if source is None or weight is None or weight.shape is None or not isinstance(weight.shape[1], int):
            raise _Refused("the size of its weights is not known")
        sizes = self._node.attributes.get("qkv_hidden_sizes")
        widths = list(sizes.as_ints()) if sizes is not None else [weight.shape[1] // 3] * 3
        if widths[0] != widths[1]:
            raise _Refused("queries and keys differ in size")
        packed = self._op("MatMul", source, weight)[0]
        _same_type(packed, source)
        if bias is not None:
            packed = self._op("Add", packed, bias)[0]
        q, k, _ = self._op("Split", packed, self._constant(np.array(widths, np.int64)), outputs=3, axis=-1)
        _same_type(q, source)
        weights = self._weights(q, k, widths[0])
        return FusedSite(self._node, weights, source, source, self.last)

    def multi_head(self) -> FusedSite:
        """Expand com.microsoft MultiHeadAttention with queries and keys of rank 3."""
        self._refuse(
            {4: "a mask", 5: "a bias of the scores", 6: "a past", 7: "a past"}, {"unidirectional": "causal"}
        )  # fmt: skip
        query, key, value, bias = (self._input(i) for i in range(4))
        if query is None or key is None or value is None:
            raise _Refused("queries, keys and values are packed, which is not expanded")
        shapes = [v.shape for v in (query, key)]
        if any(s is None or len(s) != 3 for s in shapes) or not isinstance(width := query.shape[2], int):  # type: ignore[index]
            raise _Refused("its queries and keys are not known to be (N, S, heads × d)")
        source, target = query, key
        if bias is not None:
            for place in (0, 1):
                bounds = [np.array([n], np.int64) for n in (place * width, (place + 1) * width)]
                part = self._op("Slice", bias, *(self._constant(b) for b in bounds))[0]
                if place == 0:
                    query = self._op("Add", query, part)[0]
                else:
                    key = self._op("Add", key, part)[0]
            _same_type(query, source)
        weights = self._weights(query, key, width)
        return FusedSite(self._node, weights, source, target, self.last)
