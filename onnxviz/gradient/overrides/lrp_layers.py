"""The rules of relevance propagation for layers with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.overrides.kinds import copied, floor_of, shaped, true_gradient
from onnxviz.gradient.overrides.lrp_plan import added_to, nonnegative
from onnxviz.gradient.step import Step

__all__ = ["LayerRule", "apply_rule", "stabilised"]

Numbers = float | tuple[float, ...]


@dataclass(frozen=True)
class LayerRule:
    """A rule for a layer ``z = W a + b``.

    Attributes:
        kind: ``epsilon``, ``gamma``, ``generalized-gamma``, ``alpha-beta``, ``flat``, ``w-square`` or ``z-box``.
        epsilon: The stabiliser, added to ``z`` with the sign of ``z``.
        gamma: How much positive weights are favoured.
        alpha: Weight of positive contributions.
        beta: Weight of negative ones; ``alpha - beta = 1`` conserves relevance.
        low: Lowest value of the input, or one a channel; None for the lowest of each sample.
        high: Highest.
        bias: ``rule``: as the rule has it; ``kept``: the bias as it is; ``zero``: none, so that it takes no relevance.
    """

    kind: str
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    low: Numbers | None = None
    high: Numbers | None = None
    bias: str = "rule"


def stabilised(ops: Ops, z: ir.Value, epsilon: float) -> ir.Value:
    """Return ``z + ε sign z``, where the sign of 0 is 1."""
    small = ops.scalar(floor_of(epsilon, z), z)
    return ops.Where(ops.Less(z, ops.scalar(0, z)), ops.Sub(z, small), ops.Add(z, small))


def apply_rule(s: Step, r: ir.Value, place: int, rule: LayerRule, tail: Sequence[ir.Node]) -> ir.Value:
    """Return the relevance of a layer's input.

    Args:
        s: The layer.
        r: ``R``, the relevance of its output, or of what is folded into it.
        place: Which input carries the activations.
        rule: The rule.
        tail: The nodes behind it that are folded into it.
    """
    layer = _Layer(s, place, rule, tail)
    made = _RULES[rule.kind](layer, r)
    layer.tidy()
    return made


class _Layer:
    """A layer with what is folded into it; it runs forward and back with other activations, weights and biases."""

    def __init__(self, s: Step, place: int, rule: LayerRule, tail: Sequence[ir.Node]) -> None:
        self.s, self.place, self.rule = s, place, rule
        self.ops = s.ops
        self.a = s[place]
        self.z = tail[-1].outputs[0] if tail else s.y
        self.w = s[1 - place]
        self.b = s.input(2) if s.node.op_type != "Einsum" else None
        self.changed = bool(tail)
        self._attributes: dict[str, object] = {}
        self._steps: list[Step] = []
        if s.node.op_type == "Gemm":
            self._plain_gemm()
        value = s.y
        for node in tail:
            self._fold(node, value)
            value = node.outputs[0]

    def _plain_gemm(self) -> None:
        """Take the factors of a Gemm into its weights and bias."""
        for name in ("alpha", "beta"):
            factor = float(self.s.attr(name, 1.0))
            old = self.w if name == "alpha" else self.b
            if factor == 1 or old is None:
                continue
            made = shaped(self.ops.Mul(old, self.ops.scalar(factor, old)), old)
            self.w, self.b = (made, self.b) if name == "alpha" else (self.w, made)
        self._attributes = {"alpha": 1.0, "beta": 1.0}

    def _fold(self, node: ir.Node, value: ir.Value) -> None:
        """Take a bias or a BatchNormalization that follows into weights and bias."""
        ops = self.ops
        if node.op_type == "Add":
            added = added_to(node, value)
            assert added is not None
            conv = self.s.node.op_type in ("Conv", "ConvTranspose")
            self.b = ops.Reshape(added, ops.ints(-1)) if conv else added
            return
        gamma, beta, mean, variance = node.inputs[1:5]
        assert gamma is not None
        assert beta is not None
        assert mean is not None
        assert variance is not None
        epsilon = node.attributes["epsilon"].value if "epsilon" in node.attributes else 1e-5
        root = ops.Sqrt(ops.Add(variance, ops.scalar(float(epsilon), variance)))
        scale = ops.cast(ops.Div(ops.cast(gamma, variance), root), self.w)
        shift = ops.cast(mean, self.w)
        moved = ops.Neg(shift) if self.b is None else ops.Sub(self.b, shift)
        self.b = ops.Add(ops.Mul(moved, scale), ops.cast(beta, self.w))
        self.w = shaped(ops.Mul(self.w, self._along_outputs(scale)), self.w)

    def _along_outputs(self, scale: ir.Value) -> ir.Value:
        """Return a number an output channel as it broadcasts with the weights."""
        kind = self.s.node.op_type
        sizes = static_shape(self.w)
        assert sizes is not None
        if kind == "Conv":
            return self.ops.Reshape(scale, self.ops.ints(-1, *[1] * (len(sizes) - 1)))
        if kind == "ConvTranspose":
            return self.ops.Reshape(scale, self.ops.ints(-1, *[1] * (len(sizes) - 2)))
        turned = kind == "Gemm" and self.s.attr("transB", 0)
        return self.ops.Reshape(scale, self.ops.ints(-1, 1)) if turned else scale

    # the layer with other parts

    def part(self, value: ir.Value, sign: int) -> ir.Value:
        """Return a tensor above (1) or below (-1) 0, and 0 elsewhere."""
        op_type = "Max" if sign > 0 else "Min"
        return shaped(self.ops.node(op_type, value, self.ops.scalar(0, value)), value)

    def bias(self, change: Callable[[ir.Value], ir.Value] | None) -> ir.Value | None:
        """Return the bias as the rule has it: changed as the weights are, or not at all; None where there is none."""
        if self.b is None or self.rule.bias == "zero":
            return None
        return change(self.b) if change is not None and self.rule.bias == "rule" else self.b

    def forward(self, a: ir.Value, w: ir.Value, b: ir.Value | None) -> tuple[Step, ir.Value]:
        """Return the layer with other activations and weights as its rule sees it, and what it gives."""
        ops, s = self.ops, self.s
        step = copied(s, {self.place: a, 1 - self.place: w}, self._attributes)
        self._steps.append(step)
        inside = b if s.node.op_type in ("Conv", "ConvTranspose", "Gemm") else None
        if len(step.node.inputs) > 2 and s.node.op_type != "Einsum":
            step.node.replace_input_with(2, inside)
        elif inside is not None:
            step.node.resize_inputs(3)
            step.node.replace_input_with(2, inside)
        needs = tuple(place == self.place for place in range(len(step.node.inputs)))
        z = step.y if b is None or inside is not None else shaped(ops.Add(step.y, b), s.y)
        return Step(ops, step.node, needs, s.version, s.walk), z

    def back(self, step: Step, c: ir.Value) -> ir.Value:
        """Return the transposed layer applied to a tensor, of the shape of the activations."""
        found = true_gradient(step, shaped(c, self.s.y))[self.place]
        assert found is not None
        return found

    def share(self, r: ir.Value, z: ir.Value) -> ir.Value:
        """Return ``R / (z + ε sign z)``."""
        return self.ops.Div(r, stabilised(self.ops, z, self.rule.epsilon))

    def tidy(self) -> None:
        """Remove forward nodes that only told rules what to transpose."""
        for step in self._steps:
            if not step.y.uses():
                self.ops.graph.remove(step.node, safe=True)

    def plain(self) -> tuple[Step, ir.Value]:
        """Return the layer as it is, and what it gives, with the bias that the rule leaves it."""
        if self.rule.bias == "zero" and self.b is not None:
            return self.forward(self.a, self.w, None)
        if not self.changed:
            needs = tuple(place == self.place for place in range(len(self.s.node.inputs)))
            return Step(self.ops, self.s.node, needs, self.s.version, self.s.walk), self.z
        return self.forward(self.a, self.w, self.b)[0], self.z


# the rules


def _epsilon(layer: _Layer, r: ir.Value) -> ir.Value:
    """Bach et al. 2015, equation 58: ``a Wᵀ(R / (z + ε sign z))``."""
    step, z = layer.plain()
    return layer.ops.Mul(layer.a, layer.back(step, layer.share(r, z)))


def _gamma(layer: _Layer, r: ir.Value) -> ir.Value:
    """Montavon et al. 2019, section 10.2.2: positive weights count ``1 + γ`` times; for activations not below 0."""
    step, z = layer.forward(layer.a, _favoured(layer, layer.w, 1), layer.bias(lambda b: _favoured(layer, b, 1)))
    return layer.ops.Mul(layer.a, layer.back(step, layer.share(r, z)))


def _favoured(layer: _Layer, value: ir.Value, sign: int) -> ir.Value:
    ops = layer.ops
    more = ops.Mul(layer.part(value, sign), ops.scalar(layer.rule.gamma, value))
    return shaped(ops.Add(value, more), value)


def _generalized_gamma(layer: _Layer, r: ir.Value) -> ir.Value:
    """The same for activations of both signs (Andéol et al. 2021): what has the sign of z is favoured."""
    ops, zero = layer.ops, layer.ops.scalar(0, r)
    z = layer.plain()[1]
    upper = ops.Where(ops.Greater(z, zero), r, zero)
    parts = [_signed(layer, upper, 1, lambda value, sign: _favoured(layer, value, sign))]
    lower = ops.Where(ops.Less(z, zero), r, zero)
    parts.append(_signed(layer, lower, -1, lambda value, sign: _favoured(layer, value, sign)))
    return ops.Add(*parts)


def _signed(layer: _Layer, r: ir.Value, sign: int, weights: Callable[[ir.Value, int], ir.Value]) -> ir.Value:
    """Share relevance over contributions of one sign: ``a⁺ W⁺ + a⁻ W⁻``, or for -1 ``a⁺ W⁻ + a⁻ W⁺``."""
    ops, bias = layer.ops, layer.bias(lambda b: weights(b, sign))
    if nonnegative(layer.a):
        step, z = layer.forward(layer.a, weights(layer.w, sign), bias)
        return ops.Mul(layer.a, layer.back(step, layer.share(r, z)))
    above, below = layer.part(layer.a, 1), layer.part(layer.a, -1)
    first, z = layer.forward(above, weights(layer.w, sign), bias)
    second, more = layer.forward(below, weights(layer.w, -sign), None)
    c = layer.share(r, shaped(ops.Add(z, more), layer.s.y))
    return ops.Add(ops.Mul(above, layer.back(first, c)), ops.Mul(below, layer.back(second, c)))


def _alpha_beta(layer: _Layer, r: ir.Value) -> ir.Value:
    """Bach et al. 2015, equation 60: positive contributions share ``α R``, negative ones ``-β R``."""
    ops, rule = layer.ops, layer.rule
    parts = []
    for factor, sign in ((rule.alpha, 1), (-rule.beta, -1)):
        if factor:
            made = _signed(layer, r, sign, layer.part)
            parts.append(made if factor == 1 else ops.Mul(made, ops.scalar(factor, r)))
    return ops.add(parts)


def _flat(layer: _Layer, r: ir.Value) -> ir.Value:
    """Lapuschkin et al. 2019: each input of a sum gets the same, whatever it is and its weight."""
    return _even(layer, r, _ones(layer, layer.w))


def _w_square(layer: _Layer, r: ir.Value) -> ir.Value:
    """Montavon et al. 2017, equation 12: shares by the squares of the weights."""
    return _even(layer, r, shaped(layer.ops.Mul(layer.w, layer.w), layer.w))


def _even(layer: _Layer, r: ir.Value, w: ir.Value) -> ir.Value:
    step, z = layer.forward(_ones(layer, layer.a), w, None)
    return layer.back(step, layer.share(r, z))


def _ones(layer: _Layer, like: ir.Value) -> ir.Value:
    sizes, ops = static_shape(like), layer.ops
    if sizes is not None and None not in sizes and prod(size or 0 for size in sizes) <= 64:
        return ops.constant(np.ones([size or 0 for size in sizes]).astype(like.dtype.numpy()))  # type: ignore[union-attr]
    return shaped(ops.filled(ops.shape(like), 1.0, like), like)


def _z_box(layer: _Layer, r: ir.Value) -> ir.Value:
    """Montavon et al. 2017, equation 14: ``(a W - l W⁺ - h W⁻)``, for inputs that lie between l and h."""
    ops, s = layer.ops, layer.s
    low, high = _bound(layer, layer.rule.low, "ReduceMin"), _bound(layer, layer.rule.high, "ReduceMax")
    positive, negative = layer.part(layer.w, 1), layer.part(layer.w, -1)
    whole, z = layer.forward(layer.a, layer.w, None)
    lower, zl = layer.forward(low, positive, None)
    upper, zh = layer.forward(high, negative, None)
    c = layer.share(r, shaped(ops.Sub(ops.Sub(z, zl), zh), s.y))
    first = ops.Mul(layer.a, layer.back(whole, c))
    return ops.Sub(ops.Sub(first, ops.Mul(low, layer.back(lower, c))), ops.Mul(high, layer.back(upper, c)))


def _bound(layer: _Layer, given: Numbers | None, op_type: str) -> ir.Value:
    """Return the bound of the input, of its shape."""
    ops, a = layer.ops, layer.a
    if given is None:
        rank = layer.s.rank(layer.place)
        if rank is None:
            raise layer.s.refuse("the rank of its input is not known, and z-box has no low and high")
        bound = ops.node(op_type, a, ops.ints(*range(1, rank)), keepdims=1)
    elif isinstance(given, tuple):
        rank = layer.s.rank(layer.place)
        if rank is None:
            raise layer.s.refuse("the rank of its input is not known, and z-box has a bound a channel")
        sizes = static_shape(a)
        channels = sizes[1] if sizes is not None and len(sizes) > 1 else None
        if channels is not None and len(given) != channels:
            raise layer.s.refuse(f"z-box has bounds of {len(given)} channels, and its input has {channels}")
        array = np.array(given).reshape([-1 if axis == 1 else 1 for axis in range(max(rank, 2))])
        bound = ops.constant(array.astype(a.dtype.numpy()))  # type: ignore[union-attr]
    else:
        bound = ops.scalar(given, a)
    return shaped(ops.Expand(bound, ops.shape(a)), a)


_RULES: dict[str, Callable[[_Layer, ir.Value], ir.Value]] = {
    "epsilon": _epsilon,
    "gamma": _gamma,
    "generalized-gamma": _generalized_gamma,
    "alpha-beta": _alpha_beta,
    "flat": _flat,
    "w-square": _w_square,
    "z-box": _z_box,
}
