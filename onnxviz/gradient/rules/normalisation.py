"""Normalisation by statistics of the batch, of a sample, of groups of channels, or of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step
from onnxviz.gradient.windows import rank_of

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _wide(s: Step, value: ir.Value) -> ir.Value:
    """Return a tensor in the type that the statistics are computed in: half precision is widened by ``stash_type``."""
    if value.dtype in _NARROW and s.attr("stash_type", 1) == int(ir.DataType.FLOAT):
        return s.ops.Cast(value, to=int(ir.DataType.FLOAT))
    return value


def _mean(ops: Ops, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    return ops.ReduceMean(value, ops.ints(*axes), keepdims=1)


def _standardised(ops: Ops, x: ir.Value, axes: Sequence[int], epsilon: float) -> tuple[ir.Value, ir.Value]:
    """Return ``x̂ = (x - mean) · inv`` and ``inv = 1 / √(variance + ε)``."""
    centred = ops.Sub(x, _mean(ops, x, axes))
    variance = _mean(ops, ops.Mul(centred, centred), axes)
    inv = ops.Reciprocal(ops.Sqrt(ops.Add(variance, ops.scalar(epsilon, x))))
    return ops.Mul(centred, inv), inv


def _back(ops: Ops, h: ir.Value, normal: ir.Value, inv: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Ioffe and Szegedy 2015, section 3: ``inv · (h - mean h - x̂ · mean(h x̂))``."""
    along = ops.Mul(normal, _mean(ops, ops.Mul(h, normal), axes))
    return ops.Mul(inv, ops.Sub(ops.Sub(h, _mean(ops, h, axes)), along))


def _channels(ops: Ops, value: ir.Value, rank: int) -> ir.Value:
    """Return ``(C,)`` as it broadcasts with ``(N, C, …)``."""
    return ops.Reshape(value, ops.ints(-1, *[1] * (rank - 2))) if rank > 2 else value


@gradient("BatchNormalization", since=14)
def batch_norm(s: Step, dy: ir.Value | None, *running: ir.Value | None) -> Grads:
    if s.attr("training_mode", 0):
        return _batch_norm_in_training(s, dy, *running)
    ops, rank = s.ops, rank_of(s)
    assert dy is not None
    like, axes = s[4], [0, *range(2, rank)]
    inv = ops.Reciprocal(ops.Sqrt(ops.Add(s[4], ops.scalar(s.attr("epsilon", 1e-5), like))))
    gain = ops.Mul(ops.cast(s[1], like), inv)
    dx = ops.Mul(dy, ops.cast(_channels(ops, gain, rank), dy)) if s.need(0) else None
    dscale = dmean = dvariance = None
    dbias = ops.sum(dy, axes) if s.need(2) or s.need(3) else None
    if s.need(3) and dbias is not None:
        dmean = ops.Neg(ops.Mul(ops.cast(dbias, like), gain))
    if s.need(1) or s.need(4):
        centred = ops.Sub(s[0], _channels(ops, ops.cast(s[3], s[0]), rank))
        normal = ops.Mul(ops.cast(ops.sum(ops.Mul(dy, centred), axes), like), inv)
        dscale = ops.cast(normal, s[1])
        dvariance = ops.Mul(ops.Mul(normal, ops.Mul(gain, inv)), ops.scalar(-0.5, like))
    return dx, dscale, None if dbias is None else ops.cast(dbias, s[2]), dmean, dvariance


def _batch_norm_in_training(
    s: Step, dy: ir.Value | None, dmean: ir.Value | None = None, dvariance: ir.Value | None = None
) -> Grads:
    """The statistics of the batch move with the input, and the running ones with them."""
    ops, x, rank, momentum = s.ops, s[0], rank_of(s), s.attr("momentum", 0.9)
    axes = [0, *range(2, rank)]
    centred = ops.Sub(x, _mean(ops, x, axes))
    inv = ops.Reciprocal(
        ops.Sqrt(ops.Add(_mean(ops, ops.Mul(centred, centred), axes), ops.scalar(s.attr("epsilon", 1e-5), x)))
    )
    normal = ops.Mul(centred, inv)
    parts, dscale, dbias = [], None, None
    if dy is not None:
        gain = ops.cast(_channels(ops, s[1], rank), dy)
        parts.append(_back(ops, ops.Mul(dy, gain), normal, inv, axes))
        dscale = ops.cast(ops.sum(ops.Mul(dy, normal), axes), s[1]) if s.need(1) else None
        dbias = ops.cast(ops.sum(dy, axes), s[2]) if s.need(2) else None
    share = ops.Div(ops.scalar(1 - momentum, x), ops.count(x, axes))
    if dmean is not None:
        own = ops.Mul(_channels(ops, ops.cast(dmean, x), rank), share)
        parts.append(ops.Expand(own, ops.shape(x)))
    if dvariance is not None:
        own = ops.Mul(_channels(ops, ops.cast(dvariance, x), rank), ops.Mul(share, ops.scalar(2, x)))
        parts.append(ops.Mul(centred, own))
    kept = [None if grad is None else ops.Mul(grad, ops.scalar(momentum, grad)) for grad in (dmean, dvariance)]
    return ops.add(parts) if parts else None, dscale, dbias, kept[0], kept[1]


@gradient("InstanceNormalization")
def instance_norm(s: Step, dy: ir.Value) -> Grads:
    return _in_groups(s, dy, s.ops.ints(0, 0, -1), channelwise=False)


@gradient("GroupNormalization", since=18)
def group_norm_18(s: Step, dy: ir.Value) -> Grads:
    """Scale and bias have an entry a group."""
    return _in_groups(s, dy, s.ops.ints(0, s.attr("num_groups"), -1), channelwise=False)


@gradient("GroupNormalization", since=21)
def group_norm(s: Step, dy: ir.Value) -> Grads:
    """Scale and bias have an entry a channel."""
    return _in_groups(s, dy, s.ops.ints(0, s.attr("num_groups"), -1), channelwise=True)


def _in_groups(s: Step, dy: ir.Value, grouped: ir.Value, *, channelwise: bool) -> Grads:
    ops, rank, x = s.ops, rank_of(s), _wide(s, s[0])
    wide_dy, scale = ops.cast(dy, x), ops.cast(s[1], x)
    normal, inv = _standardised(ops, ops.Reshape(x, grouped), [2], s.attr("epsilon", 1e-5))
    dx = dscale = dbias = None
    # what the scale multiplies: feature maps, or groups of them
    part, plane = (wide_dy, _channels(ops, scale, rank)) if channelwise else (
        ops.Reshape(wide_dy, grouped), ops.Unsqueeze(scale, ops.ints(-1))
    )  # fmt: skip
    axes = [0, *range(2, rank)] if channelwise else [0, 2]
    if s.need(0):
        h = ops.Mul(part, plane)
        h = ops.Reshape(h, grouped) if channelwise else h
        dx = ops.cast(ops.Reshape(_back(ops, h, normal, inv, [2]), ops.shape(s[0]), allowzero=1), dy)
    if s.need(1):
        like = ops.Reshape(normal, ops.shape(s[0]), allowzero=1) if channelwise else normal
        dscale = ops.cast(ops.sum(ops.Mul(part, like), axes), dy)
    if s.need(2):
        dbias = ops.cast(ops.sum(part, axes), dy)
    return dx, dscale, dbias


@gradient("LayerNormalization", broadcasts=True)
def layer_norm(s: Step, dy: ir.Value | None, dmean: ir.Value | None = None, dinv: ir.Value | None = None) -> Grads:
    """Ba et al. 2016; the statistics are taken from the node's own further outputs."""
    ops, rank = s.ops, rank_of(s)
    axes = range(s.axis(-1), rank)
    x = _wide(s, s[0])
    if s[0].dtype == ir.DataType.FLOAT:
        mean, inv = s.output(1), s.output(2)
        mean.dtype = inv.dtype = ir.DataType.FLOAT
        normal = ops.Mul(ops.Sub(x, mean), inv)
    else:
        normal, inv = _standardised(ops, x, axes, s.attr("epsilon", 1e-5))
    parts, dscale = [], None
    if dy is not None:
        wide_dy = ops.cast(dy, x)
        if s.need(0):
            parts.append(_back(ops, ops.Mul(wide_dy, ops.cast(s[1], x)), normal, inv, axes))
        dscale = ops.cast(ops.Mul(wide_dy, normal), dy) if s.need(1) else None
    if s.need(0) and dmean is not None:
        parts.append(ops.Expand(ops.Div(ops.cast(dmean, x), ops.count(x, axes)), ops.shape(x)))
    if s.need(0) and dinv is not None:
        slope = ops.Mul(ops.Mul(inv, inv), ops.Div(ops.cast(dinv, x), ops.count(x, axes)))
        parts.append(ops.Neg(ops.Mul(normal, slope)))
    return ops.cast(ops.add(parts), s[0]) if parts else None, dscale, dy


@gradient("RMSNormalization", broadcasts=True)
def rms_norm(s: Step, dy: ir.Value) -> Grads:
    """Zhang and Sennrich 2019: ``x̂ = x / √(mean x² + ε)``."""
    ops, x = s.ops, _wide(s, s[0])
    axes = range(s.axis(-1), rank_of(s))
    square = _mean(ops, ops.Mul(x, x), axes)
    inv = ops.Reciprocal(ops.Sqrt(ops.Add(square, ops.scalar(s.attr("epsilon", 1e-5), x))))
    normal, wide_dy = ops.Mul(x, inv), ops.cast(dy, x)
    dx = None
    if s.need(0):
        h = ops.Mul(wide_dy, ops.cast(s[1], x))
        dx = ops.Mul(inv, ops.Sub(h, ops.Mul(normal, _mean(ops, ops.Mul(h, normal), axes))))
        dx = ops.cast(dx, s[0])
    return dx, ops.cast(ops.Mul(wide_dy, normal), s[1]) if s.need(1) else None


@gradient("MeanVarianceNormalization")
def mean_variance_norm(s: Step, dy: ir.Value) -> Grads:
    """``(x - mean) / (σ + 1e-9)``; where σ is 0 the second term is 0."""
    ops, axes, zero, one = s.ops, s.attr("axes", (0, 2, 3)), s.ops.scalar(0, dy), s.ops.scalar(1, dy)
    centred = ops.Sub(s[0], _mean(ops, s[0], axes))
    deviation = ops.Sqrt(_mean(ops, ops.Mul(centred, centred), axes))
    divisor = ops.Add(deviation, ops.scalar(1e-9, dy))
    flat = ops.Equal(deviation, zero)
    along = ops.Div(_mean(ops, ops.Mul(dy, s.y), axes), ops.Where(flat, one, deviation))
    direct = ops.Div(ops.Sub(dy, _mean(ops, dy, axes)), divisor)
    return ops.Sub(direct, ops.Div(ops.Mul(centred, ops.Where(flat, zero, along)), divisor))


@gradient("LpNormalization")
def lp_norm(s: Step, dy: ir.Value) -> Grads:
    """``(dy - |x|'ᵖ⁻¹ · Σ(dy · y)) / ‖x‖``, and 0 where the norm is."""
    ops, axis, p, x = s.ops, s.ops.ints(s.attr("axis", -1)), s.attr("p", 2), s[0]
    norm = ops.node("ReduceL1" if p == 1 else "ReduceL2", x, axis, keepdims=1)
    along = ops.ReduceSum(ops.Mul(dy, s.y), axis, keepdims=1)
    rest = ops.Sub(dy, ops.Mul(ops.Sign(x) if p == 1 else s.y, along))
    none = ops.Equal(norm, ops.scalar(0, dy))
    return ops.Where(none, ops.scalar(0, dy), ops.Div(rest, ops.Where(none, ops.scalar(1, dy), norm)))


@gradient("LRN")
def local_response_norm(s: Step, dy: ir.Value) -> Grads:
    """Krizhevsky et al. 2012, section 3.3: ``y = x / S^β`` with ``S = bias + α / size · Σ x²`` over near channels."""
    ops, x, size = s.ops, s[0], s.attr("size")
    alpha, beta, bias = s.attr("alpha", 1e-4), s.attr("beta", 0.75), s.attr("bias", 1.0)
    before, after = (size - 1) // 2, size // 2
    base = ops.Add(ops.Mul(_near(s, ops.Mul(x, x), before, after), ops.scalar(alpha, x)), ops.scalar(bias, x))
    direct = ops.Div(dy, ops.Pow(base, ops.scalar(beta, x)))
    through = _near(s, ops.Div(ops.Mul(dy, s.y), base), after, before)
    return ops.Sub(direct, ops.Mul(x, ops.Mul(through, ops.scalar(2 * alpha * beta, x))))


def _near(s: Step, value: ir.Value, before: int, after: int) -> ir.Value:
    """Return the mean over near channels, those outside as zeros."""
    ops, size = s.ops, before + after + 1
    sizes = static_shape(s[0])
    if sizes is not None and None not in sizes[1:]:
        rows = ops.ints(0, 1, *(sizes[1:2]), -1)  # type: ignore[arg-type]
    else:
        rows = ops.Concat(ops.ints(0, 1), ops.dim(s[0], 1), ops.ints(-1), axis=0)
    pooled = ops.AveragePool(
        ops.Reshape(value, rows), kernel_shape=[size, 1], pads=[before, 0, after, 0], count_include_pad=1
    )
    return ops.Reshape(pooled, ops.shape(s[0]), allowzero=1)
