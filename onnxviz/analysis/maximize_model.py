"""The model between pictures and layers: its sizes bound, cut behind the layers, entered by pictures from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.maximize_canvas import Canvas, bound_sizes
from onnxviz.analysis.maximize_terms import Goal, Layer, layer_of
from onnxviz.analysis.maximize_views import write_views
from onnxviz.errors import SelectionError
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.prepare import OPSET, prepare
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.model import copy_model
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import bind_dims, model_inputs
from onnxviz.graph.tidy import drop_unread
from onnxviz.runtime.inputs import load_inputs
from onnxviz.runtime.session import Session

__all__ = ["Answers", "Plan", "Writer", "answers_model", "bound_model", "give", "named", "picture_bytes", "pruned"]


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
    values = named(bound)
    open_ = [n for n in dict.fromkeys(layers) if n in values and None in (static_shape(values[n]) or (None,))]
    if open_:
        feeds = load_inputs(bound, {canvas.name: np.zeros(canvas.shape(batch), np.float32)}).feeds
        found = Session(pruned(bound, open_), "cpu").run(feeds)
        for name in open_:
            values[name].shape = ir.Shape(np.shape(found[name]))
    return bound


def picture_bytes(bound: ir.Model, layers: Sequence[str]) -> int:
    """Return about how much memory one step takes: all tensors up to the layers, there and back, and one in between.

    Tensors whose size is not known count nothing.
    """
    model = pruned(bound, layers)
    values = [value for node in model.graph for value in node.outputs if value.dtype is not None]
    known = [(value, static_shape(value) or (None,)) for value in values]
    return int(
        sum(3 * math.prod(s or 0 for s in shape) * v.dtype.itemsize for v, shape in known if v.dtype is not None)
    )


def pruned(bound: ir.Model, layers: Sequence[str]) -> ir.Model:
    """Return a copy that gives the layers alone."""
    copy = copy_model(bound)
    values = named(copy)
    give(copy, [values[name] for name in dict.fromkeys(layers)])
    return copy


def named(model: ir.Model) -> dict[str, ir.Value]:
    """Return the tensors and inputs of a model by name."""
    values = {name: value for value, name in all_tensors(model).items()}
    return values | {str(value.name): value for value in model.graph.inputs}


def give(model: ir.Model, outputs: Sequence[ir.Value]) -> None:
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


class Writer:
    """Writes before and behind a model, which it changes."""

    def __init__(self, model: ir.Model, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.taken = set(named(model)) | set(model.graph.initializers) | {str(node.name) for node in model.graph}
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
        values, made = named(self.model), {}
        for goal in self.plan.forms:
            if goal.layer not in made:
                value = values[goal.layer]
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
    writer = Writer(pruned(bound, [goal.layer for goal in plan.forms]), plan)
    pictures = writer.input("picture", (plan.batch, plan.canvas.channels, *plan.picture))
    view = writer.enter(pictures)
    blocks, layers = writer.blocks()
    give(writer.model, list(dict.fromkeys(blocks)))
    names = tuple(str(block.name) for block in blocks)
    return Answers(writer.model, str(pictures.name), None if view is None else str(view.name), names, tuple(layers))
