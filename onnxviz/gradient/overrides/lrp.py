"""Layer-wise relevance propagation: what is carried back is relevance, whose sum stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.method import Method
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.overrides.kinds import (
    EXTREMES,
    INDEXED,
    LINEAR,
    MOVES,
    PRODUCTS,
    SCATTERS,
    UNARY,
    Rows,
    dropout,
    rows_of,
    scatter,
    shaped,
    true_gradient,
    true_rows,
    wrapped,
)  # fmt: skip
from onnxviz.gradient.overrides.lrp_functions import same_variable
from onnxviz.gradient.overrides.lrp_layers import LayerRule, apply_rule, stabilised
from onnxviz.gradient.overrides.lrp_plan import LrpPlan, make_plan
from onnxviz.gradient.registry import Grads, Row, Table, standard_table
from onnxviz.gradient.step import Step
from onnxviz.graph.constants import constant_tensor

__all__ = ["Choice", "lrp_table"]

#: Gets the kind of a layer (``conv`` or ``dense``) and whether no other layer lies before it.
Choice = Callable[[str, bool], LayerRule]

_NORMS = (
    "LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization",
    "MeanVarianceNormalization", "LRN",
)  # fmt: skip


class _Relevance(Method):
    gives, conserves = "relevance", True

    def __init__(self, name: str, fold: bool) -> None:
        self.name = name
        self.fold = fold

    def begin(self, ops: Ops, nodes: Sequence[ir.Node], end: ir.Value, asked: Sequence[ir.Value]) -> LrpPlan:
        """Find first layers, and what is folded into the layer before it.

        Raises:
            GradientError: A weight is asked for.
        """
        plan = make_plan(nodes, end, fold=self.fold)
        for value in asked:
            if value in plan.fixed or constant_tensor(value) is not None:
                raise GradientError(
                    f"{value.name} has no relevance: it is a constant, and relevance is of activations",
                    hint="ask for inputs, or for what is computed from them",
                )
        return plan

    def enter(self, ops: Ops, end: ir.Value) -> ir.Value:
        """Return the value of the target, which is what is shared out."""
        return ops.Identity(end)


def lrp_table(name: str, choice: Choice, epsilon: float = 1e-6, *, fold: bool = True) -> Table:
    """Return the rules of relevance propagation.

    Bach et al. 2015 and, for which rule goes where, Montavon et al. 2019, Layer-Wise Relevance Propagation: An
    Overview; normalisations, products of two activations and Softmax as Achtibat et al. 2024, AttnLRP, section 3.

    Args:
        name: What messages call it.
        choice: Which rule a layer has.
        epsilon: The stabiliser of sums, means and other layers without weights.
        fold: Whether a BatchNormalization behind a layer is folded into its weights (canonization); else it is an
            affine layer of its own, whose shift takes relevance.
    """
    layers = _Layers(choice, epsilon)
    rows: Rows = true_rows((*MOVES, *INDEXED)) | wrapped(EXTREMES, _routed)
    rows |= rows_of(dropout, ["Dropout"]) | wrapped(SCATTERS, scatter)
    rows |= rows_of(_one_variable, [*UNARY, "Neg"], broadcasts=True) | rows_of(
        _one_variable, ["Gelu"], domain="com.microsoft"
    )
    rows |= rows_of(_first, _NORMS) | wrapped((*LINEAR, "Add", "Sub", "Sum", "Mean"), layers.shared)
    rows |= wrapped(["BatchNormalization"], layers.affine) | wrapped(PRODUCTS, layers.layer)
    rows |= wrapped(["Mul"], _product) | wrapped(["Div"], _quotient) | wrapped(["Softmax"], _softmax)
    rows |= {("", op): [Row(1, _one_variable, quantised=True)] for op in ("QuantizeLinear", "DequantizeLinear")}
    return Table(rows, standard_table().none, _Relevance(name, fold))


class _Layers:
    """The rules of what sums up: they share relevance by contribution."""

    def __init__(self, choice: Choice, epsilon: float) -> None:
        self.choice = choice
        self.epsilon = epsilon

    def layer(self, s: Step, r: ir.Value) -> Grads:
        """A layer with weights; a product of two activations where both are asked for."""
        if s.need(0) and s.need(1):
            return self.bilinear(s, r)
        if s.node.op_type == "Einsum" and sum(s.needs) > 1:
            raise s.refuse("a product of three tensors")
        if not s.need(0) and not s.need(1):
            raise s.refuse("relevance is of what is computed from the input, not of its bias")
        plan: LrpPlan = s.walk.plan
        kind = "conv" if s.node.op_type in ("Conv", "ConvTranspose") else "dense"
        place = 0 if s.need(0) else 1
        made = apply_rule(s, r, place, self.choice(kind, s.node in plan.first), plan.tails.get(s.node, ()))
        return tuple(made if p == place else None for p in range(len(s.node.inputs)))

    def bilinear(self, s: Step, r: ir.Value) -> Grads:
        """Achtibat et al. 2024, proposition 3.3: each factor gets half of each product's share."""
        half = s.ops.Mul(r, s.ops.scalar(0.5, r))
        return self.contributions(s, half)

    def shared(self, s: Step, r: ir.Value) -> Grads:
        """A sum: each term gets its share of the whole, ``R x / (z + ε sign z)``; a folded bias gets none."""
        if s.node in s.walk.plan.folded:
            return tuple(r if need else None for need in s.needs)
        if s.node in s.walk.plan.normal:
            return _normalised(s, r)
        if s.node.op_type in LINEAR and any(s.needs[1:]):
            raise s.refuse("what it does depends on the input")
        return self.contributions(s, r)

    def affine(self, s: Step, r: ir.Value, *rest: ir.Value | None) -> Grads:
        """A BatchNormalization of its own; a folded one passes what its layer shares."""
        if s.attr("training_mode", 0):
            raise s.refuse("it is in training")
        if any(s.needs[1:]):
            raise s.refuse("relevance is of what is computed from the input, not of weights")
        return r if s.node in s.walk.plan.folded else self.contributions(s, r)

    def contributions(self, s: Step, r: ir.Value) -> Grads:
        """Input times gradient of ``R / (z + ε sign z)``, which is right for what is linear in each input."""
        share = s.ops.Div(r, stabilised(s.ops, s.y, self.epsilon))
        grads = true_gradient(s, shaped(share, s.y))
        return tuple(
            s.ops.Mul(value, grad) if need and grad is not None and value is not None else None
            for value, grad, need in zip(s.node.inputs, grads, s.needs, strict=True)
        )


def _routed(s: Step, r: ir.Value, *rest: ir.Value | None) -> Grads:
    """Winner takes all, equal ones share: where the true gradient goes."""
    return true_gradient(s, r, *rest)


def _one_variable(s: Step, r: ir.Value) -> Grads:
    """A function of one variable passes its relevance."""
    if sum(s.needs) > 1:
        raise s.refuse("its parameters depend on the input")
    return tuple(r if need else None for need in s.needs)


def _first(s: Step, r: ir.Value, *rest: ir.Value | None) -> Grads:
    """Achtibat et al. 2024, proposition 3.4: a normalisation passes relevance, its statistics get none."""
    if any(s.needs[1:]):
        raise s.refuse("relevance is of what is computed from the input, not of weights")
    return r


def _product(s: Step, r: ir.Value) -> Grads:
    """Factors that are functions of one variable pass relevance to it; else each of two gets half."""
    if sum(s.needs) < 2:
        return tuple(r if need else None for need in s.needs)
    if s.node in s.walk.plan.normal:
        return _normalised(s, r)
    nearer = same_variable(s[0], s[1], s.walk.plan.fixed)
    if nearer is not None:
        s.dropped.add(1 - nearer)
        return (r, None) if nearer == 0 else (None, r)
    half = s.ops.Mul(r, s.ops.scalar(0.5, r))
    return half, half


def _normalised(s: Step, r: ir.Value) -> Grads:
    """A part of a normalisation: its statistics get none, as those of a LayerNormalization."""
    place = s.walk.plan.normal[s.node]
    s.dropped.add(1 - place)
    return tuple(r if p == place else None for p in (0, 1))


def _quotient(s: Step, r: ir.Value) -> Grads:
    """What is divided gets all, what it is divided by counts as a factor (Achtibat et al. 2024, proposition 3.4)."""
    if not s.need(0):
        return None, r
    s.dropped.add(1)
    return r, None


def _softmax(s: Step, r: ir.Value) -> Grads:
    """Achtibat et al. 2024, proposition 3.1: ``x (R - s Σ R)``; masked places, where s is 0, get none."""
    ops, zero = s.ops, s.ops.scalar(0, r)
    along = ops.ReduceSum(r, ops.ints(s.attr("axis", -1)), keepdims=1)
    share = ops.Mul(s[0], ops.Sub(r, ops.Mul(s.y, along)))
    return ops.Where(ops.Equal(s.y, zero), zero, share)
