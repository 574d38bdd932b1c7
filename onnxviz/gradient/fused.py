"""Fused operators of com.microsoft, and standard ones without rules, as the standard operators they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape

__all__ = ["EXPANSIONS", "Refused", "Site", "expansion"]

Made = Sequence[ir.Value | None]
EXPANSIONS: dict[tuple[str, str], Callable[[Site], Made]] = {}


class Refused(Exception):  # noqa: N818 - never leaves the package: expand() says it as a GradientError
    """A form of an operator that is not taken apart."""


@dataclass(frozen=True, eq=False)
class Site:
    """A node that is taken apart.

    Attributes:
        ops: Writes nodes before it.
        node: The node.
        opset: Version of the standard operators.
    """

    ops: Ops
    node: ir.Node
    opset: int

    def __getitem__(self, place: int) -> ir.Value:
        value = self.input(place)
        if value is None:
            raise Refused(f"it has no input {place}")
        return value

    def input(self, place: int) -> ir.Value | None:
        """Return an input, or None where the node has none there."""
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def rank(self, place: int) -> int:
        """Return the rank of an input."""
        value = self[place]
        if value.shape is None:
            raise Refused(f"the rank of its input {place} is not known")
        return len(value.shape)

    def wanted(self, place: int) -> bool:
        """Whether an output is in use."""
        outputs = self.node.outputs
        return place < len(outputs) and bool(outputs[place].uses() or outputs[place].is_graph_output())

    def refuse(self, places: dict[int, str], attributes: dict[str, str] | None = None) -> None:
        """Refuse inputs and attributes that are not taken apart."""
        for place, what in places.items():
            if self.input(place) is not None:
                raise Refused(f"it has {what}")
        for name, what in (attributes or {}).items():
            if self.attr(name, 0):
                raise Refused(f"it is {what}")


def expansion(*op_types: str, domain: str = "com.microsoft") -> Callable[..., Callable[[Site], Made]]:
    """Enter an expansion into the table: a decorator."""

    def enter(made: Callable[[Site], Made]) -> Callable[[Site], Made]:
        EXPANSIONS.update({(domain, op_type): made for op_type in op_types})
        return made

    return enter


@expansion("BiasGelu")
def bias_gelu(s: Site) -> Made:
    return [s.ops.Gelu(s.ops.Add(s[0], s[1]), domain="com.microsoft")]


@expansion("FastGelu")
def fast_gelu(s: Site) -> Made:
    """The approximation by tanh."""
    ops, bias = s.ops, s.input(1)
    x = s[0] if bias is None else ops.Add(s[0], bias)
    if s.opset >= 20:
        return [ops.Gelu(x, approximate="tanh")]
    cube = ops.Mul(ops.Mul(x, x), x)
    inner = ops.Mul(
        ops.scalar(math.sqrt(2 / math.pi), s[0]), ops.Add(x, ops.Mul(ops.scalar(0.044715, s[0]), cube))
    )  # fmt: skip
    return [ops.Mul(ops.Mul(x, ops.scalar(0.5, s[0])), ops.Add(ops.Tanh(inner), ops.scalar(1, s[0])))]


@expansion("QuickGelu")
def quick_gelu(s: Site) -> Made:
    gate = s.ops.Sigmoid(s.ops.Mul(s[0], s.ops.scalar(s.attr("alpha", 1.702), s[0])))
    return [s.ops.Mul(s[0], gate)]


@expansion("BiasSplitGelu")
def bias_split_gelu(s: Site) -> Made:
    halves = s.ops.nodes("Split", 2, s.ops.Add(s[0], s[1]), num_outputs=2, axis=-1)
    return [s.ops.Mul(halves[0], s.ops.Gelu(halves[1], domain="com.microsoft"))]


@expansion("BiasAdd")
def bias_add(s: Site) -> Made:
    return [s.ops.Add(s.ops.Add(s[0], s[1]), s[2])]


@expansion("BiasSoftmax")
def bias_softmax(s: Site) -> Made:
    """The bias is broadcast over inner axes, or over outer ones as usual."""
    ops, axis, bias = s.ops, int(s.attr("axis", 1)), s[1]
    if s.attr("is_inner_broadcast", 1) and s.rank(0) != s.rank(1):
        raise Refused("its bias has fewer axes and is broadcast over inner ones")
    rank = s.rank(0)
    axis %= rank
    x = ops.Add(s[0], bias)
    if axis == rank - 1:
        return [ops.Softmax(x, axis=axis)]
    flat = ops.Softmax(ops.Flatten(x, axis=axis), axis=-1)  # as before opset 13: over all from the axis on
    return [ops.Reshape(flat, ops.Shape(x), allowzero=1)]


@expansion("ExpandDims")
def expand_dims(s: Site) -> Made:
    return [s.ops.Unsqueeze(s[0], s.ops.Cast(s.ops.Reshape(s[1], s.ops.ints(-1)), to=7))]


@expansion("QuantizeLinear", "DequantizeLinear", "Trilu", "GatherND")
def same(s: Site) -> Made:
    """What the standard domain has by the same name."""
    inputs = list(s.node.inputs)
    attributes = {name: attribute.value for name, attribute in s.node.attributes.items()}
    return [s.ops.node(s.node.op_type, *inputs, **attributes)]


@expansion("FusedMatMul", "TransposeMatMul")
def fused_matmul(s: Site) -> Made:
    """``α A' B'``, the last two axes turned over where the attribute says so."""
    ops = s.ops
    factors = []
    for place, letter in enumerate("AB"):
        rank, last, batch = s.rank(place), s.attr(f"trans{letter}", 0), s.attr(f"transBatch{letter}", 0)
        order = list(range(rank))
        if batch and rank > 1:  # the first axis of the matrix lies before the batch
            order = [*range(1, rank - 1), 0, rank - 1]
        if last and rank > 1:
            order[-2:] = order[:-3:-1]
        factors.append(s[place] if order == list(range(rank)) else ops.Transpose(s[place], perm=order))
    product = ops.MatMul(*factors)
    alpha = s.attr("alpha", 1.0)
    return [product if alpha == 1 else ops.Mul(product, ops.scalar(alpha, s[0]))]


def activated(s: Site, x: ir.Value, kind: str, parameters: Sequence[float]) -> ir.Value:
    """Return an activation as fused operators name it."""
    ops = s.ops
    if kind in ("Relu", "Tanh", "Sigmoid", "HardSwish", "Softplus", "Softsign"):
        return ops.node(kind, x)
    if kind == "Clip":
        bounds = [ops.scalar(number, s[0]) for number in parameters]
        return ops.Clip(x, *bounds)
    names = {"LeakyRelu": ["alpha"], "HardSigmoid": ["alpha", "beta"], "Elu": ["alpha"], "ThresholdedRelu": ["alpha"]}
    if kind not in names:
        raise Refused(f"its activation is {kind}")
    given: dict[str, Any] = dict(zip(names[kind], parameters, strict=False))
    return ops.node(kind, x, **given)


@expansion("FusedGemm")
def fused_gemm(s: Site) -> Made:
    given = {name: s.attr(name) for name in ("alpha", "beta", "transA", "transB") if s.attr(name) is not None}
    kind = s.attr("activation", "")
    parameters = [s.attr(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    product = s.ops.Gemm(s[0], s[1], s.input(2), **given)
    return [activated(s, product, kind, [p for p in parameters if p is not None]) if kind else product]


_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@expansion("FusedConv", "NhwcFusedConv", "NhwcConv")
def fused_conv(s: Site) -> Made:
    """Convolution, then what is added, then the activation; the Nhwc forms have the channels last."""
    ops, last = s.ops, s.node.op_type.startswith("Nhwc")
    given = {name: s.attr(name) for name in _WINDOW if s.attr(name) is not None}
    x, w, more = s[0], s[1], s.input(3)
    forth = back = None
    if last:
        rank = s.rank(0)
        forth, back = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
        x, w = (ops.Transpose(value, perm=forth) for value in (x, w))
    y = ops.Conv(x, w, s.input(2), **given)
    if more is not None:
        y = ops.Add(y, ops.Transpose(more, perm=forth) if forth is not None else more)
    if kind := s.attr("activation", ""):
        y = activated(s, y, kind, s.attr("activation_params", []))
    return [ops.Transpose(y, perm=back) if back is not None else y]


def root_mean_square(s: Site, x: ir.Value, scale: ir.Value, axis: int, epsilon: float) -> tuple[ir.Value, ir.Value]:
    """Return ``γ x / √(mean x² + ε)`` over the axes from one on, and the factor ``1 / √(…)``."""
    ops = s.ops
    axes = ops.ints(*range(axis, 0)) if axis < 0 else ops.ints(*range(axis, s.rank(0)))
    mean = ops.ReduceMean(ops.Mul(x, x), axes, keepdims=1)
    factor = ops.Reciprocal(ops.Sqrt(ops.Add(mean, ops.scalar(epsilon, s[0]))))
    return ops.Mul(ops.Mul(x, factor), scale), factor


@expansion("SimplifiedLayerNormalization", domain="")
@expansion("SimplifiedLayerNormalization")
def simplified_layer_normalization(s: Site) -> Made:
    return root_mean_square(s, s[0], s[1], int(s.attr("axis", -1)), s.attr("epsilon", 1e-5))


@expansion("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def skip_layer_normalization(s: Site) -> Made:
    """The normalised sum of input, skip and bias; the fourth output is that sum."""
    ops, plain = s.ops, s.node.op_type == "SkipLayerNormalization"
    total, bias, epsilon = ops.Add(s[0], s[1]), s.input(4 if plain else 3), s.attr("epsilon", 1e-12)
    if bias is not None:
        total = ops.Add(total, bias)
    if not plain:
        y, factor = root_mean_square(s, total, s[2], -1, epsilon)
        return [y, None, factor, total]
    wanted = 3 if s.wanted(1) or s.wanted(2) else 1
    made = ops.nodes("LayerNormalization", wanted, total, s[2], s.input(3), axis=-1, epsilon=epsilon)
    return [*made, *[None] * (3 - wanted), total]


@expansion("EmbedLayerNormalization")
def embed_layer_normalization(s: Site) -> Made:
    """The normalised sum of the embeddings of words, places and segments."""
    ops, places, mask = s.ops, s.input(8), s.input(7)
    if s.attr("mask_index_type", 1) != 1:
        raise Refused("its mask index is of another type")
    total = ops.Gather(s[2], s[0], axis=0)
    if places is None:
        length = ops.dim(s[0], 1)
        total = ops.Add(total, ops.Slice(s[3], ops.ints(0), length, ops.ints(0)))
    else:
        total = ops.Add(total, ops.Gather(s[3], places, axis=0))
    ops.typed(total, s[2])
    if s.input(1) is not None:
        total = ops.Add(total, ops.Gather(s[4], s[1], axis=0))
    y = ops.LayerNormalization(total, s[5], s[6], axis=-1, epsilon=s.attr("epsilon", 1e-12))
    index = None
    if s.wanted(1):
        zeros = ops.Sub(s[0], s[0]) if mask is None else mask
        index = ops.ReduceSum(zeros, ops.ints(1), keepdims=0)
    return [y, index, total]


@expansion("STFT", domain="")
def short_time_fourier(s: Site) -> Made:
    """Frames of the signal, times the window, each transformed."""
    ops, window, length = s.ops, s.input(2), s.input(3)
    sizes = static_shape(s[0])
    if sizes is None or sizes[-1] not in (1, 2):
        raise Refused("it is not known whether its signal is real or complex")
    frame = ops.Reshape(length, ops.ints(1)) if length is not None else ops.dim(s[2], 0)
    frame, step = ops.Cast(frame, to=7), ops.Cast(ops.Reshape(s[1], ops.ints(1)), to=7)
    one, zero = ops.integer(1), ops.integer(0)
    count = ops.Add(ops.Div(ops.Sub(ops.dim(s[0], 1), frame), step), ops.ints(1))
    starts = ops.Mul(ops.Range(zero, ops.Squeeze(count), one), step)
    places = ops.Add(ops.Unsqueeze(starts, ops.ints(1)), ops.Range(zero, ops.Squeeze(frame), one))
    frames = ops.Gather(s[0], places, axis=1)
    if window is not None:
        frames = ops.Mul(frames, ops.Unsqueeze(window, ops.ints(1)))
    onesided = s.attr("onesided", 1)
    if s.opset >= 20:
        return [ops.DFT(frames, None, ops.integer(2), onesided=onesided)]
    return [ops.DFT(frames, axis=2, onesided=onesided)]
