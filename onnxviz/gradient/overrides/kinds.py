"""Kinds of operators, as methods that carry relevance tell them apart, and the true rules to build on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import Row, Rule, one, standard_table
from onnxviz.gradient.step import Step

__all__ = [
    "EXTREMES", "INDEXED", "LINEAR", "MOVES", "PRODUCTS", "SCATTERS", "UNARY", "Rows", "again", "copied", "dropout",
    "floor_of", "rows_of", "scalar_of", "scatter", "shaped", "true_gradient", "true_rows", "wrapped",
]  # fmt: skip

Key = tuple[str, str]
Rows = dict[Key, list[Row]]

#: Each element of the output is one of the input, and shapes alone tell which.
MOVES = (
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Expand", "Tile",
    "DepthToSpace", "SpaceToDepth", "CenterCropPad", "Trilu", "Pad", "Cast", "CastLike",
)  # fmt: skip
#: The same, and another input tells which.
INDEXED = ("Gather", "GatherElements", "GatherND", "ReverseSequence", "Compress", "Where")
SCATTERS = ("Scatter", "ScatterElements", "ScatterND")
#: Sums of the elements of one input, with factors that do not depend on it.
LINEAR = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Resize", "CumSum", "Col2Im", "DFT")
#: The largest or smallest elements.
EXTREMES = ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Max", "Min")
#: Linear in each of two inputs.
PRODUCTS = ("MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose")
#: A function of each element.
UNARY = (
    "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSigmoid",
    "HardSwish", "Softplus", "Softsign", "Mish", "Swish", "Gelu", "Shrink", "Clip", "Abs", "Exp", "Log", "Sqrt", "Pow",
    "Reciprocal", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
)  # fmt: skip


def rows_of(rule: Rule, op_types: Iterable[str], *, broadcasts: bool = False, domain: str = "") -> Rows:
    """Return rows of one rule."""
    return {(domain, op_type): [Row(1, rule, broadcasts)] for op_type in op_types}


def true_rows(op_types: Iterable[str]) -> Rows:
    """Return the rows of the true gradient."""
    table = standard_table()
    return {("", op_type): table.rows[("", op_type)] for op_type in op_types}


def wrapped(op_types: Iterable[str], rule: Rule, domain: str = "") -> Rows:
    """Return rows with another rule and what else the true ones say, such as that inputs are broadcast."""
    table = standard_table()
    return {
        (domain, op_type): [replace(row, rule=rule) for row in table.rows[(domain, op_type)]] for op_type in op_types
    }


def true_gradient(s: Step, *dys: ir.Value | None) -> tuple[ir.Value | None, ...]:
    """Return what the true rule of a node makes of what comes back, an entry an input.

    Raises:
        GradientError: There is none, or it does not have this form.
    """
    row = standard_table().find(s.node, s.version)
    if row is None:
        raise s.refuse(f"version {s.version} has no gradient rule")
    return one(s, row.rule(s, *dys))


def again(
    ops: Ops, node: ir.Node, inputs: Sequence[ir.Value | None], attributes: Mapping[str, object] | None = None
) -> Sequence[ir.Value]:
    """Write a node again with other inputs, and return its outputs, which have the shapes of the node's."""
    given = {name: attribute.value for name, attribute in node.attributes.items()} | dict(attributes or {})
    made = ops.nodes(node.op_type, len(node.outputs), *inputs, domain=node.domain, **given)
    return [shaped(value, old) for value, old in zip(made, node.outputs, strict=True)]


def copied(s: Step, inputs: dict[int, ir.Value], attributes: dict[str, object] | None = None) -> Step:
    """Write the node again with other inputs and return it as its rule sees it; only those are asked for.

    Tensors keep the shapes that the inputs and outputs of the node have.
    """
    operands = [inputs.get(place, value) for place, value in enumerate(s.node.inputs)]
    node = again(s.ops, s.node, operands, attributes)[0].producer()
    assert node is not None
    return Step(s.ops, node, tuple(place in inputs for place in range(len(operands))), s.version, s.walk)


def shaped(value: ir.Value, like: ir.Value) -> ir.Value:
    """Note that a tensor has the shape and type of another."""
    value.shape, value.type = like.shape, like.type
    return value


def floor_of(number: float, like: ir.Value) -> float:
    """Return a small number that the type of a tensor can hold beside what is divided by it."""
    return max(number, 6e-5) if like.dtype == ir.DataType.FLOAT16 else number


def in_inference(s: Step) -> None:
    """Refuse a Dropout that drops.

    Raises:
        GradientError: It is in training.
    """
    training = s.known(2)
    if s.input(2) is not None and (training is None or bool(training)):
        raise s.refuse("it is in training")


def without_reduction(s: Step) -> None:
    """Refuse a Scatter that adds to what is there.

    Raises:
        GradientError: It does.
    """
    if s.attr("reduction", "none") != "none":
        raise s.refuse(f"reduction = {s.attr('reduction')}")


def dropout(s: Step, carried: ir.Value, *rest: ir.Value | None) -> ir.Value:
    """Pass it."""
    in_inference(s)
    return carried


def scatter(s: Step, carried: ir.Value) -> tuple[ir.Value | None, ...]:
    """Carry it back to where each element is from."""
    without_reduction(s)
    return true_gradient(s, carried)


def scalar_of(array: np.ndarray | None) -> float | None:
    """Return the number that a constant of one element is."""
    return float(array.reshape(())) if array is not None and array.size == 1 else None
