"""One graph of activation maximization: numbers, picture, view, model, score, gradient, and the optimiser's step.

Adam: Kingma and Ba 2015, algorithm 1, upwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.maximize_model import Plan, Writer, give, named, pruned
from onnxviz.analysis.maximize_parameters import Parameters
from onnxviz.analysis.maximize_terms import Layer, write_diversity, write_goal
from onnxviz.errors import GradientError
from onnxviz.gradient.build import Cut
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import Table
from onnxviz.graph.shapes import infer_shapes

__all__ = ["Ascent", "ascent_model", "step_rates"]

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_HALF = 1024.0  # gradients of half precision are made larger by this, so that small ones are not lost


@dataclass(frozen=True, eq=False)
class Ascent:
    """A model that makes one step of the optimiser.

    Attributes:
        model: The model.
        state: Input -> output: the numbers, and the two means of Adam.
        numbers: The first of them.
        rates: Input, ``(2,)``: see :func:`step_rates`.
        view: Input, ``(N, 3, 2)``; None without views.
        targets: Inputs, ``(N, C, 1)`` or ``(N, C, P)``, None for each term of energy.
        weights: Inputs, ``(N,)``, one a term.
        mates: Input, ``(N, N)``: how much likeness to each other picture costs; None where it does not count.
        score: Output, ``(N,)``, likeness left out.
        picture: Output, ``(N, C, ...)`` from 0 to 1.
        layers: The layers.
        cuts: Where gradients end.
    """

    model: ir.Model
    state: dict[str, str]
    numbers: str
    rates: str
    view: str | None
    targets: tuple[str | None, ...]
    weights: tuple[str, ...]
    mates: str | None
    score: str
    picture: str
    layers: tuple[Layer, ...]
    cuts: tuple[Cut, ...]


def step_rates(step: int, rate: float) -> np.ndarray:
    """Return what Adam's means are corrected by at a step, counted from 0: ``rate / (1 - β₁ᵗ)`` and ``1 / √(1 - β₂ᵗ)``.

    >>> [round(float(rate), 3) for rate in step_rates(0, 0.05)]
    [0.5, 31.623]
    """
    first, second = (1 - beta ** (step + 1) for beta in _BETAS)
    return np.array([rate / first, 1 / np.sqrt(second)], np.float32)


def ascent_model(
    bound: ir.Model,
    plan: Plan,
    parameters: Parameters,
    *,
    table: Table | None = None,
    allow_cut: bool = False,
    straight_through: bool = False,
) -> Ascent:
    """Return a model that makes one step of the optimiser.

    Args:
        bound: As :func:`bound_model` gives it; it is not changed.
        plan: What for.
        parameters: What is optimised.
        table, allow_cut, straight_through: As :func:`onnxviz.gradient.model.gradient_model` takes them.

    Raises:
        GradientError: No gradient leads from a layer to the input.
        SelectionError: A layer has no channels for each picture.
    """
    writer = Writer(pruned(bound, [goal.layer for goal in plan.forms]), plan)
    ops, batch = writer.back, plan.batch
    half = next(v for v in writer.model.graph.inputs if v.name == plan.canvas.name).dtype == ir.DataType.FLOAT16
    numbers = writer.input("numbers", (batch, *parameters.shape))
    pictures = parameters.write(writer.front, numbers, batch, writer.opset)
    view = writer.enter(pictures)
    blocks, layers = writer.blocks()
    targets, weights, terms = [], [], []
    for goal, block, layer, everywhere in zip(plan.forms, blocks, layers, plan.everywhere, strict=True):
        weight = writer.input("weight", (batch,))
        target = None
        if goal.kind == "match":
            target = writer.input("target", (batch, layer.channels, 1 if everywhere else layer.positions))
        terms.append(ops.Mul(write_goal(ops, block, goal, target, everywhere), weight))
        targets.append(None if target is None else str(target.name))
        weights.append(str(weight.name))
    score = total = ops.add(terms)
    mates = None
    if plan.diverse:
        mates = writer.input("mates", (batch, batch))
        total = ops.Sub(score, write_diversity(ops, blocks[0], mates, batch))
    if half:
        total = ops.Mul(total, ops.scalar(_HALF, total))
    if not half and total is score:
        total = ops.Identity(score)
    give(writer.model, [score, pictures, total])
    inferred = infer_shapes(writer.model)
    made = _differentiated(inferred, str(total.name), str(numbers.name), plan, table, allow_cut, straight_through)
    model, cuts = made
    state, rates = _adam(model, str(numbers.name), 1 / _HALF if half else 1.0)
    outputs = {str(value.name): value for value in model.graph.outputs}
    for name in list(outputs):
        if name not in (score.name, pictures.name, *state.values()):
            model.graph.outputs.remove(outputs[name])
    return Ascent(
        model, state, str(numbers.name), rates, None if view is None else str(view.name), tuple(targets),
        tuple(weights), None if mates is None else str(mates.name), str(score.name), str(pictures.name), tuple(layers),
        cuts,
    )  # fmt: skip


def _differentiated(
    model: ir.Model,
    total: str,
    numbers: str,
    plan: Plan,
    table: Table | None,
    allow_cut: bool,
    straight_through: bool,
) -> tuple[ir.Model, tuple[Cut, ...]]:
    try:
        made = gradient_model(
            model, target=f'"{total}"', wrt=[numbers], table=table, allow_cut=allow_cut,
            straight_through=straight_through,
        )  # fmt: skip
    except GradientError as error:
        if not error.message.startswith("no gradient leads"):
            raise
        why = error.message.partition(": ")[2]
        names = " and ".join(dict.fromkeys(goal.layer for goal in plan.forms))
        if not why.startswith("all paths"):
            why = f"{names} does not depend on it"
        hint = "name another input with --wrt, or another layer"
        if "straight-through" in why:
            hint = "--straight-through passes it as if it did not round; or take the model it was quantised from"
        elif "all paths" in why:
            hint = "take a layer nearer to the input, or the model in floating point that it was made from"
        raise GradientError(
            f"no gradient leads from {names} to the input {plan.canvas.name!r}: {why}", hint=hint
        ) from error
    return made.model, made.cuts


def _adam(model: ir.Model, numbers: str, factor: float) -> tuple[dict[str, str], str]:
    """Append a step of Adam; return its state, input -> output, and the input of rates."""
    values = {str(value.name): value for value in (*model.graph.inputs, *model.graph.outputs)}
    start = values[numbers]
    slope = next(value for value in model.graph.outputs if str(value.name).startswith(f"{numbers}.grad"))
    slope.type, slope.shape = start.type, start.shape
    ops = Ops(model.graph, set(named(model)) | set(model.graph.initializers), "maximize.adam")
    inputs = []
    for stem, shape in (("mean", start.shape), ("square", start.shape), ("rates", ir.Shape([2]))):
        value = ir.Value(name=ops.name(stem), type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
        model.graph.inputs.append(value)
        inputs.append(value)
    mean, square, rates = inputs
    if factor != 1:
        slope = ops.Mul(slope, ops.scalar(factor, start))
    first, second = (ops.scalar(beta, start) for beta in _BETAS)
    rest, other = (ops.scalar(1 - beta, start) for beta in _BETAS)
    moved = ops.Add(ops.Mul(mean, first), ops.Mul(slope, rest))
    spread = ops.Add(ops.Mul(square, second), ops.Mul(ops.Mul(slope, slope), other))
    rate, correction = (ops.Gather(rates, ops.integer(i)) for i in (0, 1))
    length = ops.Add(ops.Mul(ops.Sqrt(spread), correction), ops.scalar(_EPSILON, start))
    stepped = ops.Add(start, ops.Mul(ops.Div(moved, length), rate))
    state = {}
    for before, after in ((start, stepped), (mean, moved), (square, spread)):
        after.type, after.shape = before.type, before.shape
        model.graph.outputs.append(after)
        state[str(before.name)] = str(after.name)
    return state, str(rates.name)
