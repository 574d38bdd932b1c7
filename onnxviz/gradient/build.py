"""The reverse walk: from gradients of some tensors to gradients of others. It knows no operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.ops import Ops, label
from onnxviz.gradient.registry import SHAPE_ONLY, Table, one
from onnxviz.gradient.step import Step
from onnxviz.graph.extract import bodies_of, outer_values, reads

__all__ = ["Cut", "Walk", "holders", "operator_version", "pull_back"]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class Cut:
    """A place where a path from the target to an asked tensor ends.

    Attributes:
        node: The node's name, or the name of its first output.
        op_type: Its operator, with the domain where that is not the standard one.
        version: Of the operator.
        tensor: The input whose gradient is cut.
        reason: Why.
    """

    node: str
    op_type: str
    version: int
    tensor: str
    reason: str

    def __str__(self) -> str:
        return f"{self.op_type}-{self.version} at {self.node!r}: {self.reason}"


@dataclass
class Walk:
    """What walks share.

    Attributes:
        table: The rules.
        opsets: Domain -> version that the model imports.
        allow_cut: Whether an operator without a rule cuts its paths instead of being an error.
        cuts: What was cut so far.
        straight_through: Whether quantisation passes gradients, as if it did not round.
        plan: What the rules look up of the model as a whole; the table's method made it.
        notes: What rules have to say of how they treated a node.
    """

    table: Table
    opsets: Mapping[str, int]
    allow_cut: bool = False
    cuts: list[Cut] = field(default_factory=list)
    straight_through: bool = False
    plan: Any = None
    notes: list[str] = field(default_factory=list)

    def quantised(self, node: ir.Node) -> bool:
        """Whether the rule of a node is true of quantised tensors."""
        row = self.table.find(node, operator_version(node, self.opsets))
        return row is not None and row.quantised

    def reason(self, node: ir.Node) -> str:
        """Return why no gradient passes a node."""
        if self.quantised(node) and not self.straight_through:
            return "it rounds to integers; straight-through gradients (--straight-through) pass it"
        return self.table.reason(node) or "its result is of integers"

    def cut(self, node: ir.Node, tensor: ir.Value, reason: str) -> None:
        """Note a cut."""
        name = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        self.cuts.append(Cut(label(node), name, operator_version(node, self.opsets), str(tensor.name), reason))


def operator_version(node: ir.Node, opsets: Mapping[str, int]) -> int:
    """Return the version of a node's operator: the opset in which it last changed."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    opset = opsets.get(domain, opsets.get("ai.onnx", 1) if not domain else 1)
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return 1


def pull_back(
    ops: Ops,
    nodes: Sequence[ir.Node],
    seeds: Mapping[ir.Value, ir.Value],
    wrt: Iterable[ir.Value],
    walk: Walk,
) -> dict[ir.Value, ir.Value]:
    """Append the backward nodes of a span of a graph.

    Args:
        ops: Where they go.
        nodes: The forward nodes, in order; those between ``wrt`` and the seeded tensors are walked.
        seeds: Tensor -> the gradient that enters it, of its shape and type.
        wrt: The tensors whose gradients are asked for.
        walk: The rules and what was cut so far.

    Returns:
        The gradient of each asked tensor that a path leads to.

    Raises:
        GradientError: An operator on a path has no rule, and cuts are not allowed.
    """
    wanted = set(wrt)
    held = holders(wanted, nodes)
    span, moved = _span(nodes, seeds, wanted, held, walk)
    found: dict[ir.Value, list[ir.Value]] = {value: [seed] for value, seed in seeds.items()}
    active = wanted | {output for node in span for output in node.outputs if output in moved}
    for node in reversed(span):
        incoming = [_total(ops, found, output) for output in node.outputs]
        if all(grad is None for grad in incoming):
            continue
        step = _as_step(ops, node, active, held.get(node, ()), walk)
        _apply(step, incoming, found)
    return {value: total for value in wanted if (total := _total(ops, found, value)) is not None}


def _total(ops: Ops, found: dict[ir.Value, list[ir.Value]], value: ir.Value) -> ir.Value | None:
    """Return the gradient of a tensor: the sum of what comes back from all its readers."""
    parts = found.get(value)
    if not parts:
        return None
    if len(parts) > 1:
        found[value] = [ops.add(parts)]
    return found[value][0]


def holders(wanted: Iterable[ir.Value], nodes: Iterable[ir.Node]) -> dict[ir.Node, tuple[ir.Value, ...]]:
    """Return the nodes in whose bodies, at any depth, asked tensors lie -> those tensors."""
    asked, held = set(wanted), {}
    for node in nodes:
        inner = [value for body in bodies_of(node) for one in body.all_nodes() for value in one.outputs]
        if found := tuple(value for value in inner if value in asked):
            held[node] = found
    return held


def _span(
    nodes: Sequence[ir.Node],
    seeds: Mapping[ir.Value, ir.Value],
    wanted: set[ir.Value],
    held: Mapping[ir.Node, tuple[ir.Value, ...]],
    walk: Walk,
) -> tuple[list[ir.Node], set[ir.Value]]:
    """Return the nodes that lie on a path from an asked tensor to a seeded one; note where paths are cut.

    Beside them, the tensors that gradients may be of.
    """
    moved = set(wanted)  # what has a gradient with respect to the asked tensors
    dead: set[ir.Value] = set()  # what depends on them, but not smoothly
    candidates = []
    for node in nodes:
        read = reads(node)
        smooth = node in held or any(value in moved for value in read)
        if not smooth and not any(value in dead for value in read):
            continue
        candidates.append(node)
        passes = smooth and walk.table.reason(node) is None
        for output in node.outputs:
            if passes and (_may_be_float(output) or (walk.straight_through and walk.quantised(node))):
                moved.add(output)
            elif walk.table.reason(node) != SHAPE_ONLY and output.dtype != ir.DataType.BOOL:
                dead.add(output)
    needed, span = set(seeds), []
    for node in reversed(candidates):
        if not any(output in needed for output in node.outputs):
            continue
        arriving = list(dict.fromkeys(value for value in reads(node) if value in moved))
        needed |= {value for value in reads(node) if value in moved or value in dead}
        if any(output in moved and output in needed for output in node.outputs):
            span.append(node)
        else:
            for value in arriving:
                walk.cut(node, value, walk.reason(node))
    return span[::-1], moved


def _may_be_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype in _FLOATS


def _as_step(ops: Ops, node: ir.Node, active: set[ir.Value], inside: tuple[ir.Value, ...], walk: Walk) -> Step:
    """Return a node as its rule sees it."""
    needs = tuple(value in active for value in node.inputs)
    outside = tuple(value for value in outer_values(node) if value in active)
    return Step(ops, node, needs, operator_version(node, walk.opsets), walk, outside, inside)


def _apply(step: Step, incoming: Sequence[ir.Value | None], found: dict[ir.Value, list[ir.Value]]) -> None:
    """Apply the rule of one node."""
    node, walk = step.node, step.walk
    row = walk.table.find(node, step.version)
    asked = [value for value, need in zip(node.inputs, step.needs, strict=True) if need and value is not None]
    if row is None:
        _refuse(node, step.version, [*asked, *step.outside], walk)
        return
    try:
        made = one(step, row.rule(step, *incoming))
    except GradientError as error:
        if not walk.allow_cut:
            raise
        for lost in (*asked, *step.outside):
            walk.cut(node, lost, error.message)
        return
    for place, (value, need) in enumerate(zip(node.inputs, step.needs, strict=True)):
        if value is None or not need:
            continue
        grad = made[place]
        if grad is None:
            if place not in step.dropped and not any(
                True for _ in bodies_of(node)
            ):  # of those, the walk through the body has told
                walk.cut(node, value, f"input {place} has no gradient")
            continue
        if grad.dtype is None and value.dtype is not None and _may_be_float(value):
            grad.dtype = value.dtype
        if row.broadcasts:
            grad = step.ops.sum_to(grad, value, node.outputs[0], row.inner)
        found.setdefault(value, []).append(grad)
    for value, grad in step.found.items():
        found.setdefault(value, []).append(grad)


def _refuse(node: ir.Node, version: int, cut: Sequence[ir.Value], walk: Walk) -> None:
    method = walk.table.method.name
    for value in cut:
        walk.cut(node, value, f"there is no {method} rule for it")
    if not walk.allow_cut:
        raise GradientError(
            f"there is no {method} rule for {walk.cuts[-1].op_type if cut else node.op_type} (version {version}), "
            f"which lies on the path at {label(node)!r}",
            hint="--allow-cut goes on without the paths through it",
        )
