"""The attentions of com.microsoft as products, a softmax and transposes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.fused import Made, Refused, Site, expansion


@dataclass(frozen=True)
class _Heads:
    """Queries, keys and values of an attention, each ``(N, heads, length, size)``, and what is added to the scores."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    added: list[ir.Value]


def _count(s: Site) -> int:
    heads = s.attr("num_heads")
    if heads is None:
        raise Refused("it does not say how many heads it has")
    return int(heads)


def _split(s: Site, x: ir.Value) -> ir.Value:
    """``(N, L, heads · d)`` to ``(N, heads, L, d)``."""
    shaped = s.ops.Reshape(x, s.ops.ints(0, 0, _count(s), -1))
    return s.ops.Transpose(shaped, perm=[0, 2, 1, 3])


def _masked(s: Site, keep: ir.Value) -> ir.Value:
    """Return 0 where a mask has 1, and the number that hides where it has 0."""
    ops = s.ops
    hidden = ops.scalar(s.attr("mask_filter_value", -10000.0), s[0])
    flag = ops.Cast(keep, to=int(ir.DataType.BOOL))
    return ops.Where(flag, ops.scalar(0, s[0]), hidden)


def _key_mask(s: Site, mask: ir.Value, length: ir.Value) -> ir.Value:
    """Return what a mask over keys adds to scores ``(N, heads, queries, keys)``."""
    ops = s.ops
    if mask.shape is None or len(mask.shape) not in (1, 2, 3):
        raise Refused("the rank of its mask is not known, or above 3")
    if len(mask.shape) == 3:
        return _masked(s, ops.Unsqueeze(mask, ops.ints(1)))
    if len(mask.shape) == 2:
        return _masked(s, ops.Unsqueeze(mask, ops.ints(1, 2)))
    rows, batch = mask.shape[0], s[0].shape[0] if s[0].shape is not None else None
    if rows != batch or (not isinstance(rows, int) and rows.value is None):
        raise Refused("its mask is of starts and ends")
    places = ops.Range(ops.integer(0), ops.Squeeze(length), ops.integer(1))
    ends = ops.Unsqueeze(ops.Cast(mask, to=int(ir.DataType.INT64)), ops.ints(1, 2, 3))
    return _masked(s, ops.Less(places, ends))


def _attend(s: Site, heads: _Heads) -> ir.Value:
    """Return ``softmax(scale · Q Kᵀ + …) V`` as ``(N, queries, heads · size)``."""
    ops = s.ops
    scale = s.attr("scale", 0.0)
    if scale:
        factor = ops.scalar(scale, s[0])
    else:
        size = heads.query.shape[3] if heads.query.shape is not None else None
        if not isinstance(size, int):
            raise Refused("the size of its heads is not known")
        factor = ops.scalar(1 / math.sqrt(size), s[0])
    scores = ops.Mul(ops.MatMul(heads.query, ops.Transpose(heads.key, perm=[0, 1, 3, 2])), factor)
    for more in heads.added:
        scores = ops.Add(scores, more)
    if s.attr("unidirectional", 0):
        scores = _causal(s, scores)
    mixed = ops.MatMul(ops.Softmax(scores, axis=-1), heads.value)
    return ops.Reshape(ops.Transpose(mixed, perm=[0, 2, 1, 3]), ops.ints(0, 0, -1))


def _causal(s: Site, scores: ir.Value) -> ir.Value:
    """Hide the keys after each query; the last query sees all of them."""
    ops, zero, one = s.ops, s.ops.integer(0), s.ops.integer(1)
    shape = ops.Shape(scores)
    queries, keys = (ops.Gather(shape, ops.integer(axis)) for axis in (-2, -1))
    last = ops.Add(ops.Unsqueeze(ops.Range(zero, queries, one), ops.ints(1)), ops.Sub(keys, queries))
    lowest = float(np.finfo(s[0].dtype.numpy()).min)  # type: ignore[union-attr]
    return ops.Where(ops.LessOrEqual(ops.Range(zero, keys, one), last), scores, ops.scalar(lowest, s[0]))


def _sized(s: Site, x: ir.Value, width: int) -> ir.Value:
    """Split heads of a known width, and note the size of a head."""
    made = _split(s, x)
    made.shape = ir.Shape([None, _count(s), None, width // _count(s)])
    return made


@expansion("Attention")
def attention(s: Site) -> Made:
    """One product with packed weights gives queries, keys and values."""
    s.refuse(
        {4: "a past", 6: "a past"}, {"do_rotary": "rotary", "past_present_share_buffer": "with a past"}
    )  # fmt: skip
    ops, weight, bias, mask = s.ops, s[1], s.input(2), s.input(3)
    if weight.shape is None or not isinstance(total := weight.shape[1], int):
        raise Refused("the size of its weights is not known")
    widths = [int(n) for n in s.attr("qkv_hidden_sizes", [])] or [total // 3] * 3
    packed = ops.MatMul(s[0], weight)
    if bias is not None:
        packed = ops.Add(packed, bias)
    parts = ops.nodes("Split", 3, packed, ops.ints(*widths), axis=-1)
    added = [] if mask is None else [_key_mask(s, mask, ops.dim(s[0], 1))]
    if (more := s.input(5)) is not None:
        added.append(more)
    query, key, value = (_sized(s, part, width) for part, width in zip(parts, widths, strict=True))
    return [_attend(s, _Heads(query, key, value, added))]


@expansion("MultiHeadAttention")
def multi_head_attention(s: Site) -> Made:
    """Queries ``(N, L, heads · d)``; keys and values as well, or split into heads already."""
    s.refuse({8: "a past of which it uses a part", 9: "a cache of beams"})
    ops, bias, mask = s.ops, s.input(3), s.input(4)
    if s.rank(0) != 3:
        raise Refused("queries, keys and values are packed")
    if s.input(1) is None or s.input(2) is None:
        raise Refused("keys and values are packed, or missing")
    widths = [s[i].shape[2] if s.rank(i) == 3 else None for i in range(3)]  # type: ignore[index]
    if not isinstance(width := widths[0], int):
        raise Refused("the size of its queries is not known")
    given: list[ir.Value] = [s[0], s[1], s[2]]
    if bias is not None:
        if s.rank(1) != 3 or not isinstance(last := widths[2], int):
            raise Refused("the sizes that its bias is for are not known")
        pieces = ops.nodes("Split", 3, bias, ops.ints(width, width, last), axis=0)
        given = [ops.Add(x, piece) for x, piece in zip(given, pieces, strict=True)]
    query = _sized(s, given[0], width)
    key, value = (given[i] if s.rank(i) == 4 else _split(s, given[i]) for i in (1, 2))
    if s.input(6) is not None:
        key = ops.Concat(s[6], key, axis=2)
    if s.input(7) is not None:
        value = ops.Concat(s[7], value, axis=2)
    length = ops.Gather(ops.Shape(key), ops.ints(2))
    added = [] if mask is None else [_key_mask(s, mask, length)]
    if (more := s.input(5)) is not None:
        added.append(more)
    return [_attend(s, _Heads(query, key, value, added)), key, value]
