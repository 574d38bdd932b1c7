"""DeepLIFT: contributions to the difference from a reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.method import Method, picks_class
from onnxviz.gradient.names import is_float
from onnxviz.gradient.ops import Ops, label
from onnxviz.gradient.overrides import expansions as _expansions  # noqa: F401 - enters them
from onnxviz.gradient.overrides.kinds import (
    EXTREMES,
    INDEXED,
    LINEAR,
    MOVES,
    PRODUCTS,
    SCATTERS,
    UNARY,
    Rows,
    again,
    copied,
    dropout,
    floor_of,
    rows_of,
    scatter,
    shaped,
    true_gradient,
    true_rows,
    wrapped,
)  # fmt: skip
from onnxviz.gradient.registry import Grads, Table, standard_table
from onnxviz.gradient.step import Step
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.tidy import fresh_name

__all__ = ["Reference", "deeplift_table"]

_NEAR = 1e-10
_PICKS = (*MOVES, *INDEXED, "ReduceMax", "ReduceSum", "ReduceMean")


@dataclass(frozen=True, eq=False)
class Reference:
    """The forward pass on the baselines.

    Attributes:
        twins: Tensor -> what it is on the baselines, for those that depend on them.
        inputs: Input -> the input that its baseline is fed to.
        heads: Nodes whose output is the target, or what that picks from.
    """

    twins: dict[ir.Value, ir.Value]
    inputs: dict[str, str]
    heads: frozenset[ir.Node]

    def moved(self, value: ir.Value | None) -> bool:
        """Whether a tensor may differ from what it is on the baselines."""
        return value in self.twins

    def difference(self, ops: Ops, value: ir.Value) -> ir.Value:
        """Return a tensor less what it is on the baselines."""
        return shaped(ops.Sub(value, self.twins[value]), value)

    def middle(self, ops: Ops, value: ir.Value) -> ir.Value:
        """Return the mean of a tensor and what it is on the baselines."""
        if value not in self.twins:
            return value
        return shaped(ops.Mul(ops.Add(value, self.twins[value]), ops.scalar(0.5, value)), value)


class _DeepLift(Method):
    name, gives, conserves = "DeepLIFT", "contribution", True

    def begin(self, ops: Ops, nodes: Sequence[ir.Node], end: ir.Value, asked: Sequence[ir.Value]) -> Reference:
        """Add an input for each baseline, zeros unless it is fed, and the forward pass on them."""
        reference = Reference({}, {}, _heads(end))
        needed = _behind(nodes, [end])
        compared = [value for value in asked if value.is_graph_input()]
        for value in compared or sorted(_sources(nodes, asked), key=lambda value: str(value.name)):
            reference.twins[value] = _baseline(ops, value, reference)
        for node in nodes:
            if node in needed and not picks_class(node) and any(value in reference.twins for value in node.inputs):
                _twin(ops, node, reference)
        return reference

    def finish(self, ops: Ops, plan: Reference, value: ir.Value, carried: ir.Value) -> ir.Value:
        """Return multipliers times differences."""
        if value not in plan.twins:
            raise GradientError(
                f"{value.name} has no contribution: it is the same on every baseline",
                hint="ask for inputs, or for what is computed from them",
            )
        return ops.Mul(carried, plan.difference(ops, value))

    def baselines(self, plan: Reference) -> dict[str, str]:
        """Return input -> the input that its baseline is fed to."""
        return dict(plan.inputs)


def deeplift_table() -> Table:
    """Return the rules of DeepLIFT.

    Shrikumar, Greenside and Kundaje 2017, Learning Important Features Through Propagating Activation Differences, with
    the Rescale rule (section 3.5.2): the multiplier of an activation is ``Δy / Δx``, its derivative where ``Δx`` is 0.
    Pooling and Softmax are Captum's. The multipliers of a product ``a b`` are ``m (b + b') / 2`` and
    ``m (a + a') / 2``, which share ``Δ(a b)`` evenly (the Shapley values of two factors).

    >>> deeplift_table().method.gives
    'contribution'
    """
    rows: Rows = true_rows((*MOVES, "Add", "Sub", "Sum", "Mean", "Neg"))
    rows |= wrapped((*INDEXED, *LINEAR, "BatchNormalization"), _steady) | rows_of(dropout, ["Dropout"])
    rows |= wrapped(SCATTERS, scatter) | wrapped(UNARY, rescale)
    rows |= wrapped(["Gelu"], rescale, "com.microsoft") | wrapped([*PRODUCTS, "Mul"], product)
    rows |= wrapped(EXTREMES, extreme) | wrapped(["Softmax"], softmax) | wrapped(["Div"], quotient)
    return Table(rows, standard_table().none, _DeepLift())


# the forward pass on the baselines


def _behind(nodes: Sequence[ir.Node], ends: Iterable[ir.Value]) -> set[ir.Node]:
    """Return the nodes that some tensors depend on."""
    wanted, found = set(ends), set()
    for node in reversed(nodes):
        if any(output in wanted for output in node.outputs):
            found.add(node)
            wanted.update(value for value in node.inputs if value is not None)
    return found


def _heads(end: ir.Value) -> frozenset[ir.Node]:
    """Return the nodes whose output a target picks from."""
    found, todo = set(), [end]
    while todo:
        node = todo.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            if node.op_type in _PICKS and node.inputs[0] is not None:
                todo.append(node.inputs[0])
    return frozenset(found)


def _sources(nodes: Sequence[ir.Node], asked: Sequence[ir.Value]) -> set[ir.Value]:
    """Return the float inputs that asked tensors depend on."""
    read = {value for node in _behind(nodes, asked) for value in node.inputs if value is not None}
    return {value for value in read if value.is_graph_input() and not value.is_initializer() and is_float(value)}


def _baseline(ops: Ops, value: ir.Value, reference: Reference) -> ir.Value:
    """Add the input of a baseline: what broadcasts to the input's shape, zeros unless it is fed."""
    if value.shape is None or value.dtype is None:
        raise GradientError(f"{value.name} has no baseline: its shape is not known", hint="declare the input's shape")
    rank, name = len(value.shape), fresh_name(f"{value.name}.baseline", ops.taken)
    zeros = ir.tensor(np.zeros([1] * rank).astype(value.dtype.numpy()), name=name)
    fed = ir.Value(name=name, type=value.type, shape=ir.Shape([f"{name}.{axis}" for axis in range(rank)]))
    fed.const_value = zeros
    ops.graph.inputs.append(fed)
    ops.graph.register_initializer(fed)
    reference.inputs[str(value.name)] = name
    return shaped(ops.Expand(fed, ops.shape(value)), value)


def _twin(ops: Ops, node: ir.Node, reference: Reference) -> None:
    """Write a node again, on the baselines."""
    if any(True for _ in bodies_of(node)):
        raise GradientError(
            f"there is no DeepLIFT rule for {node.op_type}, which lies on the path at {label(node)!r}: "
            "its body is not run on a baseline",
            hint="ask for tensors behind it, or for another method",
        )
    operands = [None if value is None else reference.twins.get(value, value) for value in node.inputs]
    reference.twins.update(zip(node.outputs, again(ops, node, operands), strict=True))


# rules


def _still(s: Step, places: Iterable[int], what: str) -> None:
    """Refuse what else depends on the baselines."""
    if any(s.walk.plan.moved(s.input(place)) for place in places):
        raise s.refuse(what)


def _steady(s: Step, m: ir.Value, *rest: ir.Value | None) -> Grads:
    """Carry multipliers as gradients: the node is linear in what is asked for."""
    others = [place for place in range(len(s.node.inputs)) if not s.need(place)]
    if s.node.op_type == "Where":
        others = [0]
    if s.node.op_type == "BatchNormalization":
        others = [1, 2, 3, 4]
        if s.attr("training_mode", 0):
            raise s.refuse("it is in training")
    _still(s, others, "what it does depends on the input")
    return true_gradient(s, m, *rest)


def rescale(s: Step, m: ir.Value) -> Grads:
    """The Rescale rule of a function of each element."""
    place = _only(s)
    ops, plan = s.ops, s.walk.plan
    _still(s, [p for p in range(len(s.node.inputs)) if p != place], "its parameters depend on the input")
    slope = true_gradient(s, m)[place]
    assert slope is not None
    change = ops.Mul(m, plan.difference(ops, s.y))
    return _entry(s, place, _over(s, place, change, slope))


def _only(s: Step) -> int:
    """Return the one input that is asked for."""
    asked = [place for place in range(len(s.node.inputs)) if s.need(place)]
    if len(asked) != 1:
        raise s.refuse("its parameters depend on the input")
    return asked[0]


def _entry(s: Step, place: int, value: ir.Value) -> Grads:
    return tuple(value if p == place else None for p in range(len(s.node.inputs)))


def _over(s: Step, place: int, change: ir.Value, slope: ir.Value) -> ir.Value:
    """Return ``change / Δx``, the slope where the difference is next to none."""
    ops = s.ops
    difference = s.walk.plan.difference(ops, s[place])
    near = ops.Less(ops.Abs(difference), ops.scalar(floor_of(_NEAR, difference), difference))
    return ops.Where(near, slope, ops.Div(change, difference))


def product(s: Step, m: ir.Value) -> Grads:
    """What is linear in each factor, with the other in the middle of its change."""
    plan = s.walk.plan
    if s.node.op_type == "Einsum" and len(s.node.inputs) > 2 and sum(map(plan.moved, s.node.inputs)) > 1:
        raise s.refuse("a product of three tensors")
    if sum(map(plan.moved, s.node.inputs[:2])) < 2:
        return true_gradient(s, m)
    middles = {p: plan.middle(s.ops, v) for p, v in enumerate(s.node.inputs[:2]) if v is not None}
    if s.node.op_type == "Mul":
        return tuple(s.ops.Mul(m, middles[1 - p]) if s.need(p) else None for p in (0, 1))
    step = copied(s, middles)
    made = true_gradient(Step(s.ops, step.node, s.needs, s.version, s.walk), m)
    if not step.y.uses():
        s.ops.graph.remove(step.node, safe=True)
    return made


def quotient(s: Step, m: ir.Value) -> Grads:
    """``a / b`` as the product of a and 1 / b, whose multiplier is rescaled."""
    ops, plan = s.ops, s.walk.plan
    if not plan.moved(s[1]):
        return true_gradient(s, m)
    one, other = ops.scalar(1, m), plan.twins[s[1]]
    inverse, before = ops.Div(one, s[1]), ops.Div(one, other)
    half = ops.scalar(0.5, m)
    da = ops.Mul(m, ops.Mul(ops.Add(inverse, before), half)) if s.need(0) else None
    if not s.need(1):
        return da, None
    across = ops.Mul(m, plan.middle(ops, s[0]))  # Δ(1 / b) / Δb = -1 / (b b'), of which nothing vanishes
    return da, ops.Neg(ops.Mul(across, ops.Mul(inverse, before)))


def extreme(s: Step, m: ir.Value, *rest: ir.Value | None) -> Grads:
    """As Captum's pooling: the change up to the larger output belongs to the place of the one, the rest to the other's.

    With one moving input of several it is a function of each element, and is rescaled.
    """
    ops, plan = s.ops, s.walk.plan
    if s.node.op_type in ("Max", "Min"):
        if sum(plan.moved(value) for value in s.node.inputs) == 1:
            return rescale(s, m)
    else:
        _still(s, range(1, len(s.node.inputs)), "what it does depends on the input")
    twin = plan.twins[s.y]
    between = (ops.Min if s.node.op_type in ("Min", "ReduceMin") else ops.Max)(s.y, twin)
    shaped(between, s.y)
    maker = twin.producer()
    there = Step(ops, maker, s.needs, s.version, s.walk)
    ours = true_gradient(s, ops.Mul(m, ops.Sub(between, twin)))
    theirs = true_gradient(there, ops.Mul(m, ops.Sub(s.y, between)))
    slopes = true_gradient(s, m)
    return tuple(
        _over(s, place, ops.Add(a, b), slope) if a is not None and b is not None and slope is not None else None
        for place, (a, b, slope) in enumerate(zip(ours, theirs, slopes, strict=True))
    )


def softmax(s: Step, m: ir.Value) -> Grads:
    """As Captum where it gives the target: rescaled, less the mean along the axis (Shrikumar et al. 2017, section 3.6).

    Inside a network, as in attention, it is exponentials times the inverse of their sum, by the rules of those, which
    share the whole difference.
    """
    ops, axes = s.ops, s.ops.ints(s.attr("axis", -1))
    if s.node in s.walk.plan.heads:
        scaled = rescale(s, m)
        made = scaled[0] if isinstance(scaled, tuple) else scaled
        assert made is not None
        return ops.Sub(made, ops.ReduceMean(made, axes, keepdims=1))
    other, half = s.walk.plan.twins[s[0]], ops.scalar(0.5, m)
    highest = ops.ReduceMax(ops.Max(s[0], other), axes, keepdims=1)
    powers = [ops.Exp(ops.Sub(x, highest)) for x in (s[0], other)]
    inverses = [ops.Reciprocal(ops.ReduceSum(power, axes, keepdims=1)) for power in powers]
    through = ops.Mul(m, ops.Mul(ops.Add(*inverses), half))
    below = ops.ReduceSum(ops.Mul(m, ops.Mul(ops.Add(*powers), half)), axes, keepdims=1)
    carried = ops.Sub(through, ops.Mul(below, ops.Mul(*inverses)))
    change = ops.Mul(carried, ops.Sub(*powers))
    return _over(s, 0, change, ops.Mul(carried, powers[0]))
