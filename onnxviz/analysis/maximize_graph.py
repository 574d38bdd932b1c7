"""One graph of activation maximization: numbers, picture, view, model, score, gradient, and the optimiser's step.

Adam: Kingma and Ba 2015, algorithm 1, upwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.maximize_canvas import Canvas, bound_sizes
from onnxviz.analysis.maximize_parameters import Parameters
from onnxviz.analysis.maximize_terms import Goal, Layer, layer_of, write_diversity, write_goal
from onnxviz.analysis.maximize_views import write_views
from onnxviz.errors import GradientError, SelectionError
from onnxviz.gradient.build import Cut
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.prepare import OPSET, prepare
from onnxviz.gradient.registry import Table
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.model import copy_model
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import bind_dims, infer_shapes, model_inputs
from onnxviz.graph.tidy import drop_unread
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.session import Session

__all__ = ["Answers", "Ascent", "Plan", "answers_model", "ascent_model", "bound_model", "picture_bytes", "step_rates"]

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_HALF = 1024.0  # gradients of half precision are made larger by this, so that small ones are not lost


@dataclass(frozen=True, eq=False)
class Plan:
    """What a graph is made for.

    Attributes:
        canvas: The input that is made up.
        batch: Number of pictures.
        forms: The terms; channel, position, direction and weight of each picture are fed.
        everywhere: For each term whether what is fed is the same at all positions.
        picture: Sizes of the pictures; those of the input unless they are viewed.
        viewed: Whether the model sees views of them.
        diverse: Whether likeness to other pictures counts against a picture.
    """

    canvas: Canvas
    batch: int
    forms: tuple[Goal, ...]
    everywhere: tuple[bool, ...]
    picture: tuple[int, ...]
    viewed: bool
    diverse: bool = False


@dataclass(frozen=True, eq=False)
class Answers:
    """A model from pictures to the layers that are looked at.

    Attributes:
        model: Takes ``picture``, and ``view`` where pictures are viewed; gives ``blocks``.
        picture: ``(N, C, ...)`` from 0 to 1.
        view: ``(N, 3, 2)``; None without views.
        blocks: Outputs, ``(N, C, P)`` float32, one a term.
        layers: The layers.
    """

    model: ir.Model
    picture: str
    view: str | None
    blocks: tuple[str, ...]
    layers: tuple[Layer, ...]


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


def bound_model(
    model: ir.Model, canvas: Canvas, batch: int, dims: Mapping[str, int], layers: Sequence[str] = ()
) -> ir.Model:
    """Return a copy whose inputs have sizes, fit to get gradients; shapes of layers that only a run tells are measured.

    Raises:
        InputError: Sizes contradict each other.
        GradientError: The model's opset cannot be raised.
        ExecutionError: A run that tells a shape fails.
    """
    bound = prepare(bind_dims(model, bound_sizes(model, canvas, batch, dims)))
    if not {"", "ai.onnx"} & set(bound.opset_imports):  # a model of other domains alone
        bound.opset_imports[""] = OPSET
    named = _named(bound)
    open_ = [n for n in dict.fromkeys(layers) if n in named and None in (static_shape(named[n]) or (None,))]
    if open_:
        feeds = load_inputs(bound, {canvas.name: np.zeros(canvas.shape(batch), np.float32)}).feeds
        found = Session(_pruned(bound, open_), "cpu").run(feeds)
        for name in open_:
            named[name].shape = ir.Shape(np.shape(found[name]))
    return bound


def picture_bytes(bound: ir.Model, layers: Sequence[str]) -> int:
    """Return about how much memory one step takes: all tensors up to the layers, there and back, and one in between.

    Tensors whose size is not known count nothing.
    """
    model = _pruned(bound, layers)
    values = [value for node in model.graph for value in node.outputs if value.dtype is not None]
    known = [(value, static_shape(value) or (None,)) for value in values]
    return int(
        sum(3 * math.prod(s or 0 for s in shape) * v.dtype.itemsize for v, shape in known if v.dtype is not None)
    )


def _pruned(bound: ir.Model, layers: Sequence[str]) -> ir.Model:
    """Return a copy that gives the layers alone."""
    copy = copy_model(bound)
    named = _named(copy)
    _give(copy, [named[name] for name in dict.fromkeys(layers)])
    return copy


def _named(model: ir.Model) -> dict[str, ir.Value]:
    values = {name: value for value, name in all_tensors(model).items()}
    return values | {str(value.name): value for value in model.graph.inputs}


def _give(model: ir.Model, outputs: Sequence[ir.Value]) -> None:
    """Let a model give some tensors alone, and drop what was computed for others."""
    before = list(model.graph.outputs)
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    for value in before:
        drop_unread(model.graph, value)
    for node in reversed(list(model.graph)):
        for value in node.outputs:
            if node.graph is model.graph:
                drop_unread(model.graph, value)
    for value in list(model.graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            model.graph.initializers.pop(str(value.name))
            if value in model.graph.inputs:  # as old files list weights
                model.graph.inputs.remove(value)


class _Writer:
    """Writes before and behind a model, which it changes."""

    def __init__(self, model: ir.Model, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.taken = set(_named(model)) | set(model.graph.initializers) | {str(node.name) for node in model.graph}
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", OPSET))
        self.layouts = tensor_layouts(model)
        if not len(model.graph):
            raise SelectionError("the model computes nothing")
        self.front = Ops(model.graph, self.taken, "maximize.before", model.graph[0])
        self.back = Ops(model.graph, self.taken, "maximize")

    def input(self, stem: str, shape: Sequence[int]) -> ir.Value:
        value = ir.Value(name=self.front.name(stem), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        self.model.graph.inputs.append(value)
        return value

    def enter(self, pictures: ir.Value) -> ir.Value | None:
        """Let pictures enter the model; return the input of views."""
        plan, canvas, view = self.plan, self.plan.canvas, None
        seen = pictures
        if plan.viewed:
            view = self.input("view", (plan.batch, 3, 2))
            shape = (plan.batch, canvas.channels, *plan.picture)
            seen = write_views(self.front, pictures, view, shape, canvas.size, self.opset)
        value = next(v for v in model_inputs(self.model) if v.name == canvas.name)
        assert value.dtype is not None
        made = canvas.write(self.front, seen, plan.batch, value.dtype)
        ir.convenience.replace_all_uses_with(value, made)
        self.model.graph.inputs.remove(value)
        made.type, made.shape = value.type, ir.Shape(canvas.shape(plan.batch))
        return view

    def blocks(self) -> tuple[list[ir.Value], list[Layer]]:
        """Return each term's layer as ``(N, C, P)``."""
        named, made = _named(self.model), {}
        for goal in self.plan.forms:
            if goal.layer not in made:
                value = named[goal.layer]
                layer = layer_of(value, self.plan.batch, self.layouts.get(goal.layer))
                block = layer.write(self.back, value, self.plan.batch)
                made[goal.layer] = block, layer
        found = [made[goal.layer] for goal in self.plan.forms]
        return [block for block, _ in found], [layer for _, layer in found]


def answers_model(bound: ir.Model, plan: Plan) -> Answers:
    """Return a model from pictures to the layers of a plan.

    Args:
        bound: As :func:`bound_model` gives it; it is not changed.
        plan: What for; its forms are the layers.
    """
    writer = _Writer(_pruned(bound, [goal.layer for goal in plan.forms]), plan)
    pictures = writer.input("picture", (plan.batch, plan.canvas.channels, *plan.picture))
    view = writer.enter(pictures)
    blocks, layers = writer.blocks()
    _give(writer.model, list(dict.fromkeys(blocks)))
    names = tuple(str(block.name) for block in blocks)
    return Answers(writer.model, str(pictures.name), None if view is None else str(view.name), names, tuple(layers))


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
    writer = _Writer(_pruned(bound, [goal.layer for goal in plan.forms]), plan)
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
    _give(writer.model, [score, pictures, total])
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
    ops = Ops(model.graph, set(_named(model)) | set(model.graph.initializers), "maximize.adam")
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
