"""Which gradients of a model are asked for, and the model that computes them beside the forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.analysis.flow_paths import meetings
from onnxviz.analysis.flow_plan import FlowPlan
from onnxviz.analysis.gradient_target import default_target
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import GradientError
from onnxviz.gradient.build import Cut
from onnxviz.gradient.model import GradientModel, gradient_model
from onnxviz.gradient.targets import tensors_of
from onnxviz.graph.extract import ancestors, reads
from onnxviz.graph.model import copy_model
from onnxviz.graph.tidy import fresh_name

__all__ = ["GradientPlan", "plan_gradients"]

_STATISTICS = frozenset({"mean", "variance"})  # of a normalisation: measured, not learned
_WAY_OUT = (
    "choose another --target, or take the model in floats that it was made from; --straight-through passes "
    "QuantizeLinear and DequantizeLinear, nothing passes operators that compute in codes"
)


@dataclass(frozen=True, eq=False)
class GradientPlan:
    """A model with the gradients that are wanted.

    Attributes:
        model: Runs forward and backward; the tensors of the forward pass keep their names.
        target: The expression.
        said: It in words.
        losses: Inputs that the target adds, such as ``"labels"``.
        layers: Tensor of a layer -> the output that holds its gradient, in the order of the layers.
        weights: Each learned tensor and the output that holds its gradient.
        shares: Output -> (first output of the node that reads, tensor): holds Σ ``|g · x|`` of that reading.
        missing: Layers without a gradient, and why.
        cuts: Where paths end.
        classes: Number of scores that labels choose from; None where it is not known.
    """

    model: ir.Model
    target: str
    said: str
    losses: tuple[str, ...]
    layers: dict[str, str]
    weights: tuple[tuple[LayerWeights, str], ...]
    shares: dict[str, tuple[str, str]]
    missing: tuple[NotDrawn, ...]
    cuts: tuple[Cut, ...]
    classes: int | None


def plan_gradients(
    plan: FlowPlan,
    target: str | None = None,
    *,
    labelled: bool = False,
    straight_through: bool = False,
    allow_cut: bool = False,
    paths: bool = True,
) -> GradientPlan:
    """Build the model that computes the gradients of all layers and learned tensors of a plan.

    Args:
        plan: The layers.
        target: What is differentiated, as :func:`onnxviz.gradient.targets.target_value` reads it; None for
            :func:`onnxviz.analysis.gradient_target.default_target`.
        labelled: Whether there are labels, so that the default is a loss.
        straight_through: Pass quantisation as if it did not round.
        allow_cut: Go on without paths through operators that have no rule.
        paths: Also compute gradient × activation where tensors meet.

    Raises:
        GradientError: No path leads back from the target, an operator on it has no rule, or the target is none.
        SelectionError: The target names no tensor of the model.
    """
    expression, said = default_target(plan, labelled) if target is None else (target, target)
    copy, edges = _with_edges(plan) if paths else (plan.model, {})
    stages = [stage.name for stage in plan.stages if stage.varies]
    weights = [
        one for one in layer_weights(plan.model) if one.role not in _STATISTICS and one.node.graph is plan.model.graph
    ]
    read = [str(value.name) for one in weights if (value := one.node.inputs[one.position]) is not None]
    wrt = list(dict.fromkeys([*stages, *read, *edges]))
    made = _made(copy, expression, wrt, allow_cut, straight_through)
    own = {str(value.name) for value in plan.model.graph.inputs}
    losses = tuple(str(value.name) for value in made.model.graph.inputs if value.name not in own)
    given = made.gradients
    values = {str(value.name): value for node in made.model.graph for value in node.outputs}
    shares = {
        _product(made.model.graph, values[edge], values[given[edge]]): place
        for edge, place in edges.items()
        if edge in given
    }
    if made.cuts and not _reaches_weights(plan, given):
        raise GradientError(f"no gradient reaches a layer with weights: it is cut at {made.cuts[0]}", hint=_WAY_OUT)
    return GradientPlan(
        made.model, expression, said, losses, {name: given[name] for name in stages if name in given},
        tuple((one, given[name]) for one, name in zip(weights, read, strict=True) if name in given),
        shares, _missing(plan, stages, expression, made), made.cuts, _classes(plan, expression),
    )  # fmt: skip


def _made(model: ir.Model, target: str, wrt: list[str], allow_cut: bool, straight_through: bool) -> GradientModel:
    try:
        return gradient_model(
            model, None, wrt, target=target, allow_cut=allow_cut, straight_through=straight_through, partial=True
        )
    except GradientError as error:
        if error.hint is None:
            error.hint = _WAY_OUT
        raise


def _with_edges(plan: FlowPlan) -> tuple[ir.Model, dict[str, tuple[str, str]]]:
    """Return a copy in which an Identity stands before each tensor that meets others, so that each reading is its own.

    Beside it, the Identity's output -> (first output of the reader, tensor).
    """
    copy = copy_model(plan.model)
    twins = dict(zip(plan.model.graph, copy.graph, strict=True))
    taken = {str(v.name) for v in (*copy.graph.inputs, *copy.graph.initializers.values())}
    taken |= {str(v.name) for node in copy.graph for v in node.outputs}
    edges: dict[str, tuple[str, str]] = {}
    for node, met in meetings(plan):
        reader = twins[node]
        for tensor in met:
            index = next((i for i, value in enumerate(node.inputs) if value is tensor), None)
            value = None if index is None else reader.inputs[index]
            if index is None or value is None:
                continue
            name = fresh_name(f"{value.name} (read)", taken)
            known = plan.inferred.get(str(value.name), value)
            copied = ir.Value(name=name, type=known.type, shape=known.shape)
            copy.graph.insert_before(reader, ir.node("Identity", [value], outputs=[copied]))
            reader.replace_input_with(index, copied)
            edges[name] = (str(node.outputs[0].name), str(value.name))
    return copy, edges


def _reaches_weights(plan: FlowPlan, given: dict[str, str]) -> bool:
    """Whether a layer with weights has a gradient, or there is none that could."""
    weighted = [stage.name for stage in plan.stages if stage.weighted and stage.varies]
    return not weighted or any(name in given for name in weighted)


def _product(graph: ir.Graph, tensor: ir.Value, gradient: ir.Value) -> str:
    """Append ``Σ |g · x|`` of a tensor, in float32; return its name."""
    single = ir.DataType.FLOAT
    wide = [ir.node("Cast", [value], {"to": int(single)}) for value in (tensor, gradient)]
    product = ir.node("Mul", [wide[0].outputs[0], wide[1].outputs[0]])
    size = ir.node("Abs", [product.outputs[0]])
    total = ir.Value(name=f"{gradient.name} (share)", type=ir.TensorType(single), shape=ir.Shape([]))
    last = ir.node("ReduceSum", [size.outputs[0]], {"keepdims": 0}, outputs=[total])
    chain = (*wide, product, size, last)
    for place, node in enumerate(chain[:-1]):
        node.outputs[0].name = f"{gradient.name} (share, {place})"
        node.outputs[0].type = ir.TensorType(single)
    graph.extend(chain)
    graph.outputs.append(total)
    return str(total.name)


def _missing(plan: FlowPlan, stages: list[str], target: str, made: GradientModel) -> tuple[NotDrawn, ...]:
    """Tell why layers have no gradient."""
    lost = [name for name in stages if name not in made.gradients]
    if not lost:
        return ()
    values = {str(value.name): value for node in plan.model.graph for value in node.outputs}
    ends = {values[name] for name in tensors_of(target) if name in values}
    behind = ancestors(plan.model.graph, ends)
    found = []
    for name in lost:
        known = plan.inferred.get(name)
        if values[name] not in behind:
            found.append(NotDrawn(name, "it has no gradient: the target does not depend on it"))
        elif known is not None and known.dtype is not None and not known.dtype.is_floating_point():
            found.append(NotDrawn(name, "it has no gradient: it holds codes"))
        else:
            found.append(NotDrawn(name, f"its gradient is cut: {_cut_after(plan, values[name], made.cuts)}"))
    return tuple(found)


def _classes(plan: FlowPlan, target: str) -> int | None:
    """Return the number of classes of the one tensor that a target names."""
    shapes = [known.shape for name in tensors_of(target) if (known := plan.inferred.get(name)) is not None]
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) < 2:
        return None
    return size if isinstance(size := shapes[0][1], int) else None


def _cut_after(plan: FlowPlan, value: ir.Value, cuts: tuple[Cut, ...]) -> str:
    """Return the first cut that a layer's values meet."""
    places = {cut.tensor: cut for cut in cuts}
    met = {value}
    for node in plan.model.graph:
        if value.producer() is not node and not met.intersection(reads(node)):
            continue
        for one in (*(v for v in reads(node) if v in met), *(v for v in node.outputs if value.producer() is not node)):
            if (cut := places.get(str(one.name))) is not None:
                return str(cut)
        if value.producer() is not node:
            met.update(node.outputs)
    return "an operator on every path has no gradient" + (f", such as {cuts[0]}" if cuts else "")
