"""Targets that are expressions: their nodes, and the places of their ``argmax``, kept for all copies of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.target import Forward
from onnxviz.errors import GradientError
from onnxviz.gradient.names import named_tensors
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.prepare import prepare
from onnxviz.gradient.targets import TARGET, target_value
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


def expression_target(model: ir.Model, text: str, forward: Forward) -> Expression:
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
    before = set(copy.graph)
    ops = Ops(copy.graph, {*named_tensors(copy)}, TARGET)
    added: list[ir.Value] = []
    made = target_value(ops, named_tensors(copy), text, added)
    if added:
        raise GradientError(
            f"the target needs {', '.join(str(v.name) for v in added)}, which is no tensor's name",
            hint="write the numbers themselves, such as cross_entropy(logits, [3])",
        )
    frozen: dict[str, npt.NDArray[Any]] = {}
    for node in [node for node in copy.graph if node not in before and node.op_type == "ArgMax"]:
        # What is indexed may itself hold an argmax: that was found before.
        found = forward(copy, [str(node.outputs[0].name)], frozen)[str(node.outputs[0].name)]
        place = ir.Value(name=ops.name("place"), type=ir.TensorType(ir.DataType.INT64))
        place.shape = ir.Shape([None] * found.ndim)
        for user, position in list(node.outputs[0].uses()):
            user.replace_input_with(position, place)
        copy.graph.inputs.append(place)
        frozen[str(place.name)] = found
    inferred = infer_shapes(copy)
    tensor = str(made.name)
    notes = (f"its argmax is that of the unchanged input, {_places(frozen)}",) if frozen else ()
    return Expression(inferred, tensor, forward(inferred, [tensor], frozen)[tensor], frozen, notes)


def _places(frozen: Mapping[str, npt.NDArray[Any]]) -> str:
    first = next(iter(frozen.values()))
    return f"at {', '.join(str(i) for i in first.reshape(-1)[:4])}{' …' if first.size > 4 else ''}"
