"""What picks numbers by index, and what puts them there."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.rules.tracing import add_along, added_at, int64, traced
from onnxviz.gradient.step import Step

_Put = Callable[[ir.Value, ir.Value, str], ir.Value]
_Take = Callable[[ir.Value], ir.Value]


@gradient("Gather")
def gather(s: Step, dy: ir.Value) -> Grads:
    ops, known, rank, index_rank = s.ops, s.known(1), s.rank(0), s.rank(1)
    if rank is None or index_rank is None:
        axis = s.attr("axis", 0)
        return traced(s, dy, lambda places: ops.Gather(places, s[1], axis=axis))
    axis = s.axis(0)
    if known is not None and known.size == 1 and known.ndim < 2:
        part, place = dy if known.ndim else ops.Unsqueeze(dy, ops.ints(axis)), int(known.reshape(()))
        size = ops.dim(s[0], axis)
        before = ops.ints(place) if place >= 0 else ops.Add(size, ops.ints(place))
        after = ops.ints(-1 - place) if place < 0 else ops.Sub(size, ops.ints(place + 1))
        known_ends = [value.const_value for value in (before, after)]
        if all(tensor is not None for tensor in known_ends):
            ends = ops.ints(*(int(tensor.numpy()[0]) for tensor in known_ends if tensor is not None))
        else:
            ends = ops.Concat(before, after, axis=0)
        return ops.pad(part, ends, ops.ints(axis), rank)
    return add_along(ops, dy, s[1], axis, s[0], index_rank)


@gradient("GatherElements")
def gather_elements(s: Step, dy: ir.Value) -> Grads:
    ops = s.ops
    return ops.scatter_add(ops.shape(s[0]), s[1], dy, s.attr("axis", 0))


@gradient("GatherND")
def gather_nd(s: Step, dy: ir.Value) -> Grads:
    ops, batches = s.ops, s.attr("batch_dims", 0)
    if batches:
        return traced(s, dy, lambda places: ops.GatherND(places, s[1], batch_dims=batches))
    return ops.scatter_add(ops.shape(s[0]), s[1], dy, None)


@gradient("ScatterElements", "Scatter")
def scatter_elements(s: Step, dy: ir.Value) -> Grads:
    ops, axis = s.ops, s.attr("axis", 0)

    def put(into: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        return ops.scatter(into, s[1], updates, axis, reduction)

    return _scattered(s, dy, put, lambda source: ops.GatherElements(source, s[1], axis=axis))


@gradient("ScatterND")
def scatter_nd(s: Step, dy: ir.Value) -> Grads:
    ops = s.ops

    def put(into: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        return ops.scatter(into, s[1], updates, None, reduction)

    return _scattered(s, dy, put, lambda source: ops.GatherND(source, s[1]))


def _scattered(s: Step, dy: ir.Value, put: _Put, take: _Take) -> Grads:
    """Return gradients of data, indices and updates."""
    reduction = s.attr("reduction", "none")
    if reduction == "none":
        kept = put(dy, s.ops.zeros_like(s[2]), "none") if s.need(0) else None
        return kept, None, take(dy) if s.need(2) else None
    if reduction == "add":
        return dy, None, take(dy) if s.need(2) else None
    return (_multiplied if reduction == "mul" else _extreme)(s, dy, put, take)


def _multiplied(s: Step, dy: ir.Value, put: _Put, take: _Take) -> Grads:
    """The product of all others at a place, right where some of them are 0 too."""
    ops, zero, one = s.ops, s.ops.scalar(0, dy), s.ops.scalar(1, dy)
    is_zero = [ops.Equal(s[i], zero) for i in (0, 2)]
    safe = [ops.Where(hit, one, s[i]) for hit, i in zip(is_zero, (0, 2), strict=True)]
    zeros = put(ops.cast(is_zero[0], dy), ops.cast(is_zero[1], dy), "add")
    product = put(safe[0], safe[1], "mul")
    alone = ops.Mul(dy, ops.Where(ops.Equal(zeros, one), product, zero))
    none = ops.Mul(dy, ops.Where(ops.Equal(zeros, zero), product, zero))
    data = ops.Where(is_zero[0], alone, ops.Div(none, safe[0])) if s.need(0) else None
    if not s.need(2):
        return data
    return data, None, ops.Where(is_zero[1], take(alone), ops.Div(take(none), safe[1]))


def _extreme(s: Step, dy: ir.Value, put: _Put, take: _Take) -> Grads:
    """Equal ones share the gradient evenly, as PyTorch's ``scatter_reduce`` does."""
    ops = s.ops
    own, new = ops.cast(ops.Equal(s[0], s.y), dy), ops.cast(ops.Equal(s[2], take(s.y)), dy)
    share = ops.Div(dy, ops.Max(put(own, new, "add"), ops.scalar(1, dy)))
    return ops.Mul(own, share), None, ops.Mul(new, take(share)) if s.need(2) else None


@gradient("TensorScatter")
def tensor_scatter(s: Step, dy: ir.Value) -> Grads:
    """The part that was overwritten has no gradient; the update's is read from there."""
    ops, rank, axis, batches = s.ops, s.rank(), s.axis(-2), s.input(2)
    if rank is None:
        raise s.refuse("the rank of its cache is not known")
    mode = s.attr("mode", "linear")
    kept = None
    if s.need(0):
        inputs = (ops.zeros_like(s[1]), batches) if batches is not None else (ops.zeros_like(s[1]),)
        kept = ops.TensorScatter(dy, *inputs, axis=axis, mode=mode)
    if not s.need(1):
        return kept
    steps = ops.Range(ops.integer(0), ops.Squeeze(ops.dim(s[1], axis)), ops.integer(1))
    places = ops.Reshape(steps, ops.ints(*[1] * axis, -1, *[1] * (rank - axis - 1)))
    if batches is not None:
        places = ops.Add(places, ops.Reshape(int64(ops, batches), ops.ints(-1, *[1] * (rank - 1))))
    if mode == "circular":
        places = ops.Mod(places, ops.dim(s[0], axis))
    return kept, ops.GatherElements(dy, ops.Expand(places, ops.shape(s[1])), axis=axis)


@gradient("Compress")
def compress(s: Step, dy: ir.Value) -> Grads:
    ops, axis, rank = s.ops, s.attr("axis"), s.rank()
    if axis is None or rank is None:
        given = {} if axis is None else {"axis": axis}
        return traced(s, dy, lambda places: ops.Compress(places, s[1], **given))
    axis = s.axis(0)
    size = ops.Squeeze(ops.dim(s[0], axis))
    kept = ops.Compress(ops.Range(ops.integer(0), size, ops.integer(1)), s[1], axis=0)
    return add_along(ops, dy, kept, axis, s[0])


@gradient("OneHot")
def one_hot(s: Step, dy: ir.Value) -> Grads:
    """Of the two values, off and on."""
    ops = s.ops
    off_on = ops.Cast(ops.ints(0, 1), to=int(dy.dtype or ir.DataType.FLOAT))
    hot = ops.OneHot(s[0], s[1], off_on, axis=s.attr("axis", -1))
    on = ops.ReduceSum(ops.Mul(dy, ops.typed(hot, dy)), keepdims=0)
    off = ops.Sub(ops.ReduceSum(dy, keepdims=0), on)
    return None, None, ops.Concat(ops.Unsqueeze(off, ops.ints(0)), ops.Unsqueeze(on, ops.ints(0)), axis=0)


@gradient("TopK", since=10)
def top_k(s: Step, dy: ir.Value | None, *rest: ir.Value | None) -> Grads:
    if dy is None:
        return None
    ops = s.ops
    return ops.scatter_add(ops.shape(s[0]), s.output(1), dy, s.attr("axis", -1))


@gradient("Unique")
def unique(s: Step, dy: ir.Value | None, *rest: ir.Value | None) -> Grads:
    """Of equal ones the first gets the gradient: it is the one that is returned."""
    if dy is None:
        return None
    if s.attr("axis") is None:
        return added_at(s.ops, s.output(1), dy, s[0])
    if s.rank() is None:
        raise s.refuse("the rank of its input is not known")
    return add_along(s.ops, dy, s.output(1), s.axis(0), s[0])
