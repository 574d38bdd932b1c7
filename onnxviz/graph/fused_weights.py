"""The weights that com.microsoft attention keeps to itself, computed by nodes beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.graph.node_attributes import float_attribute, int_attribute, ints_attribute
from onnxviz.graph.tidy import fresh_name

__all__ = ["OLDEST", "FusedSite", "KeepsWeightsError", "WeightsBuilder", "same_type"]

#: Oldest opset that the nodes are written for.
OLDEST = 11
_MASKED = -10000.0  # what masked scores get by default


@dataclass(frozen=True)
class FusedSite:
    """A fused operator whose weights can be had.

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


class KeepsWeightsError(Exception):
    """Why the weights of a fused operator cannot be had; never leaves this room."""


def same_type(value: ir.Value, other: ir.Value) -> None:
    """Give a value the element type of another, where that is known."""
    if other.dtype is not None:
        value.dtype = other.dtype


class WeightsBuilder:
    """Adds the nodes that compute the weights of one fused node, in front of it.

    They are softmax(scale · Q Kᵀ + mask) as onnxruntime's own kernels compute it: a key that is masked gets
    ``mask_filter_value`` (-10000) added, a key that a causal flag hides gets none of the weight.
    """

    def __init__(self, model: ir.Model, node: ir.Node, taken: set[str], shapes: Mapping[str, ir.Shape]) -> None:
        self._graph, self._node, self._taken, self._shapes = model.graph, node, taken, shapes
        self._opset = model.opset_imports.get("", 17)
        self._base = str(node.outputs[0].name)
        self.last: ir.Node = node
        if "num_heads" not in node.attributes:
            raise KeepsWeightsError("it does not say how many heads it has")
        self._heads = int_attribute(node, "num_heads")
        self._dtype = ir.DataType.FLOAT

    def _input(self, place: int) -> ir.Value | None:
        value = self._node.inputs[place] if place < len(self._node.inputs) else None
        return value if value is not None and value.name else None

    def _shape(self, value: ir.Value) -> ir.Shape | None:
        return value.shape if value.shape is not None else self._shapes.get(str(value.name))

    def _op(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        made = ir.node(op, inputs, attributes=attributes)
        made.outputs[0].name = made.name = fresh_name(f"{self._base}.{op.lower()}", self._taken)
        self._graph.insert_before(self._node, made)
        self.last = made
        return made.outputs[0]

    def _constant(self, given: Any, kind: Any = np.int64) -> ir.Value:
        array = np.asarray(given, kind)
        name = fresh_name(f"{self._base}.constant", self._taken)
        value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self._graph.register_initializer(value)
        return value

    def _unsqueeze(self, value: ir.Value, *axes: int) -> ir.Value:
        if self._opset < 13:
            return self._op("Unsqueeze", value, axes=list(axes))
        return self._op("Unsqueeze", value, self._constant(axes))

    def _size(self, value: ir.Value, axis: int) -> ir.Value:
        return self._op("Gather", self._op("Shape", value), self._constant(axis), axis=0)

    def _cut(self, value: ir.Value, start: int, stop: int, axis: int) -> ir.Value:
        return self._op("Slice", value, *(self._constant([n]) for n in (start, stop, axis)))

    def _refuse(self, places: dict[int, str], attributes: dict[str, str]) -> None:
        for place, what in places.items():
            if self._input(place) is not None:
                raise KeepsWeightsError(f"it has {what}, which is not expanded")
        for name, what in attributes.items():
            if int_attribute(self._node, name, 0):
                raise KeepsWeightsError(f"it is {what}, which is not expanded")

    def _known_type(self, *values: ir.Value | None) -> ir.DataType:
        """Return the element type of the first value that tells it, or whose producer reads one that does."""
        for value in values:
            producer = value.producer() if value is not None else None
            for one in (value, *(producer.inputs if producer is not None else ())):
                if one is not None and one.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
                    return one.dtype
        return ir.DataType.FLOAT

    def _by_head(self, value: ir.Value) -> ir.Value:
        """Return ``(N, S, heads * d)`` as ``(N, heads, S, d)``."""
        shaped = self._op("Reshape", value, self._constant([0, 0, self._heads, -1]))
        return self._op("Transpose", shaped, perm=[0, 2, 1, 3])

    def _weights(self, query: ir.Value, key: ir.Value, mask: int, bias: int) -> ir.Value:
        """Return the softmax of the scaled and masked product of ``(N, heads, S, d)`` tensors."""
        kind = self._dtype.numpy()
        scores = self._op("MatMul", query, self._op("Transpose", key, perm=[0, 1, 3, 2]))
        scale = float_attribute(self._node, "scale", 0.0)
        if scale:
            scores = self._op("Mul", scores, self._constant(scale, kind))
        else:
            width = self._op("Cast", self._size(query, 3), to=int(self._dtype))
            scores = self._op("Div", scores, self._op("Sqrt", width))
        given = self._input(bias)
        if given is not None:
            scores = self._op("Add", scores, given)
        given = self._input(mask)
        if given is not None:
            low = self._constant(float_attribute(self._node, "mask_filter_value", _MASKED), kind)
            zero = self._constant(0, kind)
            scores = self._op("Add", scores, self._op("Where", self._kept(given, scores), zero, low))
        if int_attribute(self._node, "unidirectional", 0):
            scores = self._op("Where", self._causal(scores), scores, self._constant(np.finfo(kind).min, kind))
        weights = self._op("Softmax", scores, axis=-1)
        weights.name = fresh_name(f"{self._base}.weights", self._taken)
        weights.dtype = self._dtype
        return weights

    def _kept(self, mask: ir.Value, scores: ir.Value) -> ir.Value:
        """Return which keys a mask leaves, to be broadcast to ``(N, heads, Q, K)``.

        A mask is ``(N, K)`` or ``(N, Q, K)``, not 0 where a key is seen; ``(N,)`` numbers of keys; or ``(2 N,)`` ends
        and starts.
        """
        shape = self._shape(mask)
        producer = mask.producer()
        if producer is not None and producer.op_type == "EmbedLayerNormalization":
            rank, twice = 1, False
        elif shape is None:
            raise KeepsWeightsError("it has a mask of unknown rank")
        else:
            rank, twice = len(shape), False
        if rank in (2, 3):
            return self._unsqueeze(self._op("Cast", mask, to=int(ir.DataType.BOOL)), *((1, 2) if rank == 2 else (1,)))
        if rank != 1:
            raise KeepsWeightsError(f"it has a mask of rank {rank}, which is not expanded")
        if shape is not None:
            twice = self._is_twice(shape[0])
        keys = self._op("Range", self._constant(0), self._size(scores, 3), self._constant(1))
        batch = self._op("Reshape", self._size(scores, 0), self._constant([1]))
        numbers = self._op("Cast", mask, to=int(ir.DataType.INT64))
        ends = self._op("Slice", numbers, self._constant([0]), batch)
        kept = self._op("Less", keys, self._unsqueeze(ends, 1))
        if twice:
            starts = self._op("Slice", numbers, batch, self._constant([np.iinfo(np.int64).max]))
            before = self._op("Less", keys, self._unsqueeze(starts, 1))
            kept = self._op("And", kept, self._op("Not", before))
        return self._unsqueeze(kept, 1, 2)

    def _is_twice(self, size: int | ir.SymbolicDim) -> bool:
        source = self._input(0)
        shape = None if source is None else self._shape(source)
        batch = None if shape is None else shape[0]
        if isinstance(size, int) and isinstance(batch, int) and size in (batch, 2 * batch):
            return size == 2 * batch
        if not isinstance(size, int) and size == batch and size.value is not None:
            return False
        raise KeepsWeightsError("it has a mask of one axis whose size is not known to be the batch")

    def _causal(self, scores: ir.Value) -> ir.Value:
        """Return which keys each query may see: ``(Q, K)``; the last query sees all."""
        total, rows = self._size(scores, 3), self._size(scores, 2)
        one = self._constant(1)
        at = self._op("Range", self._op("Sub", total, rows), total, one)
        keys = self._op("Range", self._constant(0), total, one)
        later = self._op("Less", self._unsqueeze(at, 1), self._unsqueeze(keys, 0))
        return self._op("Not", later)

    def attention(self) -> FusedSite:
        """Expand com.microsoft Attention: one product with packed weights gives queries, keys and values."""
        self._refuse(
            {6: "a past in a shared buffer"}, {"do_rotary": "rotary", "past_present_share_buffer": "with a past"}
        )
        source, weight = self._input(0), self._input(1)
        if source is None or weight is None:
            raise KeepsWeightsError("it lacks an input")
        self._dtype = self._known_type(weight, source)
        return self._packed(source, source, weight, weight, mask=3, past=4, scores=5)

    def quantised(self) -> FusedSite:
        """Expand com.microsoft QAttention: input and weights are codes, made numbers before they are multiplied."""
        self._refuse({}, {"do_rotary": "rotary", "past_present_share_buffer": "with a past"})
        source, weight = self._input(0), self._input(1)
        if source is None or weight is None:
            raise KeepsWeightsError("it lacks an input")
        self._dtype = self._known_type(self._input(3), self._input(2))
        numbers = []
        for codes, scale, zero in ((source, 3, 6), (weight, 4, 7)):
            value, factor, origin = self._op("Cast", codes, to=int(self._dtype)), self._input(scale), self._input(zero)
            if factor is None:
                raise KeepsWeightsError("it lacks a scale")
            if origin is not None:
                value = self._op("Sub", value, self._op("Cast", origin, to=int(self._dtype)))
            numbers.append(self._op("Mul", value, factor))
        return self._packed(source, numbers[0], weight, numbers[1], mask=5, past=8, scores=99)

    def _packed(
        self, source: ir.Value, numbers: ir.Value, weight: ir.Value, matrix: ir.Value,
        *, mask: int, past: int, scores: int,
    ) -> FusedSite:  # fmt: skip
        shape, sizes = self._shape(weight), ints_attribute(self._node, "qkv_hidden_sizes")
        if shape is None or len(shape) != 2 or not isinstance(shape[1], int):
            raise KeepsWeightsError("the size of its weights is not known")
        widths = sizes if sizes is not None else [shape[1] // 3] * 3
        if widths[0] != widths[1]:
            raise KeepsWeightsError("queries and keys differ in size")
        packed, bias = self._op("MatMul", numbers, matrix), self._input(2)
        if bias is not None:
            packed = self._op("Add", packed, bias)
        query = self._by_head(self._cut(packed, 0, widths[0], 2))
        key = self._by_head(self._cut(packed, widths[0], 2 * widths[0], 2))
        if (before := self._input(past)) is not None:  # (2, N, heads, P, d)
            key = self._op("Concat", self._op("Gather", before, self._constant(0), axis=0), key, axis=2)
        return FusedSite(self._node, self._weights(query, key, mask, scores), source, source, self.last)

    def multi_head(self) -> FusedSite:
        """Expand com.microsoft MultiHeadAttention: queries, keys and values apart, or packed."""
        self._refuse({8: "a past in a shared buffer", 9: "a cache of beams"}, {})
        source, target, values, bias = (self._input(i) for i in range(4))
        if source is None:
            raise KeepsWeightsError("it lacks an input")
        self._dtype = self._known_type(bias, source, target)
        if target is None or values is None:
            if bias is not None:
                raise KeepsWeightsError("its input is packed and has a bias, which is not expanded")
            packed, parts = (source, 3) if target is None else (target, 2)  # (N, S, heads, 3 or 2, d)
            query = self._part(packed, 0) if parts == 3 else self._by_head(source)
            key = self._part(packed, parts - 2)
            return FusedSite(self._node, self._with_past(query, key), source, target or source, self.last)
        rank = self._key_rank(target)
        if bias is not None and rank != 3:
            raise KeepsWeightsError("its keys are apart by head and have a bias, which is not expanded")
        query, key = source, target
        if bias is not None:
            width = self._op("Reshape", self._size(source, 2), self._constant([1]))
            twice = self._op("Add", width, width)
            query = self._op("Add", query, self._op("Slice", bias, self._constant([0]), width))
            key = self._op("Add", key, self._op("Slice", bias, width, twice))
        heads = self._by_head(query), self._by_head(key) if rank == 3 else key
        return FusedSite(self._node, self._with_past(*heads), source, target, self.last)

    def _part(self, packed: ir.Value, place: int) -> ir.Value:
        return self._op("Transpose", self._op("Gather", packed, self._constant(place), axis=3), perm=[0, 2, 1, 3])

    def _with_past(self, query: ir.Value, key: ir.Value) -> ir.Value:
        if (past := self._input(6)) is not None:
            key = self._op("Concat", past, key, axis=2)
        return self._weights(query, key, mask=4, bias=5)

    def _key_rank(self, key: ir.Value) -> int:
        shape, producer = self._shape(key), key.producer()
        if shape is not None and len(shape) in (3, 4):
            return len(shape)
        if producer is not None and producer.op_type in ("MatMul", "Gemm", "Add", "MatMulNBits"):
            return 3
        raise KeepsWeightsError("the rank of its keys is not known")
