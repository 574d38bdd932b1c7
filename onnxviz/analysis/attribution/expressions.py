"""Targets that are expressions: their nodes, and the places of their ``argmax``, kept for all copies of a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.targets import target_value
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import infer_shapes

__all__ = ["Expression", "expression_target"]


@dataclass(frozen=True, eq=False)
class Expression:
    """An expression as a tensor.

    Attributes:
        model: The model with its nodes.
        tensor: What it gives.
        values: ``(N, …)``: its values for the samples.
        frozen: Inputs that hold the places of ``argmax``, ``(N, …)``.
        notes: What a reader should know.
    """

    model: ir.Model
    tensor: str
    values: npt.NDArray[Any]
    frozen: Mapping[str, npt.NDArray[Any]]
    notes: tuple[str, ...]


class _Kept:
    """Takes the entry at a place that is fed, where an expression says ``argmax``."""

    def __init__(self, ops: Ops) -> None:
        self.ops = ops
        self.sites: list[tuple[str, ir.Value, int]] = []  # input, indexed tensor, axis

    def __call__(self, value: ir.Value, axis: int) -> ir.Value:
        place = ir.Value(name=self.ops.name("argmax"), type=ir.TensorType(ir.DataType.INT64))
        self.sites.append((str(place.name), value, axis))
        self.ops.graph.inputs.append(place)
        taken = self.ops.GatherElements(value, self.ops.Unsqueeze(place, self.ops.ints(axis)), axis=axis)
        return self.ops.Squeeze(taken, self.ops.ints(axis))


def expression_target(
    model: ir.Model,
    text: str,
    forward: Callable[[ir.Model, Sequence[str], Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]],
) -> Expression:
    """Return an expression in names of tensors as a tensor of a model, and its value for all samples.

    Args:
        model: The model; it is not changed.
        text: As :func:`onnxviz.gradient.targets.target_value` takes it.
        forward: Runs a model with some more inputs.

    Raises:
        GradientError: The text is no expression.
        SelectionError: A name is no tensor's.
    """
    copy = prepare(model)
    values = {name: value for value, name in all_tensors(copy).items()}
    values |= {str(v.name): v for v in (*copy.graph.inputs, *copy.graph.initializers.values())}
    ops = Ops(copy.graph, set(values), "target")
    kept, added = _Kept(ops), list[ir.Value]()
    made = target_value(ops, values, text, added, argmax=kept)
    if added:
        raise GradientError(
            f"the target needs {', '.join(str(v.name) for v in added)}, which is no tensor's name",
            hint="write the numbers themselves, such as cross_entropy(logits, [3])",
        )
    frozen: dict[str, npt.NDArray[Any]] = {}
    for name, value, axis in kept.sites:
        # What is indexed may itself hold an argmax, one that was found before.
        blank = {other: np.zeros(1, np.int64) for other, _, _ in kept.sites if other not in frozen}
        found = forward(_without(copy, blank), [str(value.name)], frozen)[str(value.name)]
        frozen[name] = np.asarray(found.argmax(axis=axis), np.int64)
        copy = _ranked(copy, name, frozen[name].ndim)
    inferred = infer_shapes(copy)
    tensor = str(made.name)
    notes = (f"its argmax is that of the unchanged input, {_places(frozen)}",) if frozen else ()
    return Expression(inferred, tensor, forward(inferred, [tensor], frozen)[tensor], frozen, notes)


def _places(frozen: Mapping[str, npt.NDArray[Any]]) -> str:
    first = next(iter(frozen.values()))
    return f"at {', '.join(str(i) for i in first.reshape(-1)[:4])}{' …' if first.size > 4 else ''}"


def _without(model: ir.Model, names: Mapping[str, Any]) -> ir.Model:
    """Return a copy in which some inputs, which what is asked for does not read, need not be fed."""
    from onnxviz.graph.model import copy_model

    copy = copy_model(model)
    for value in [v for v in copy.graph.inputs if v.name in names]:
        value.const_value = ir.tensor(names[str(value.name)], name=value.name)
        copy.graph.register_initializer(value)
    return copy


def _ranked(model: ir.Model, name: str, rank: int) -> ir.Model:
    next(v for v in model.graph.inputs if v.name == name).shape = ir.Shape([None] * rank)
    return model
