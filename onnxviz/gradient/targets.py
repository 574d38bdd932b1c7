"""What scalar is differentiated: an expression in the names of tensors, turned into nodes.

``logits[:, 7]``, ``logits[argmax]``, ``sum(features ** 2)``, ``logits[:, 3] - logits[:, 5]``,
``cross_entropy(logits, labels)``. It must give a number for each sample; samples are added up, so that the gradient
at an input holds each sample's own.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.indices import Place, literal, number, pick, places
from onnxviz.gradient.names import float_tensor
from onnxviz.gradient.ops import Ops, same_shape, static_shape

__all__ = ["TARGET", "target_value", "tensors_of"]

#: Begins the names of what an expression appends. Its ``argmax`` says which entry is meant; no path leads through it.
TARGET = "target"

_EXAMPLES = "write such as logits[:, 7], logits[argmax], sum(features) or cross_entropy(logits, labels)"
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Pow: "Pow",
}  # fmt: skip
_FUNCTIONS = {"abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_REDUCTIONS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "norm": "ReduceL2",
}  # fmt: skip
_MOST = 20_000  # letters of an expression


def target_value(ops: Ops, values: Mapping[str, ir.Value], expression: str, inputs: list[ir.Value]) -> ir.Value:
    """Append the nodes of an expression and return what it gives.

    A tensor is written by its name, in quotes where that is no word: ``"fc/out:0"[:, 7]``. Indices are those of numpy:
    whole numbers, slices, ``...`` and ``None``; ``argmax`` in the place of an index takes the largest value along that
    axis, and ``logits[argmax]`` the largest of each sample. ``sum``, ``mean``, ``max``, ``min`` and ``norm`` reduce all
    axes but the first, which counts samples; ``abs``, ``exp``, ``log``, ``sqrt``, ``tanh`` and ``sigmoid`` are taken of
    each element, and ``+ - * / **`` of tensors and numbers.

    Losses of each sample: ``cross_entropy(scores, labels)`` (scores ``(N, C, …)`` before the softmax, labels of whole
    numbers ``(N, …)``; the mean over positions) and ``mse(tensor, wanted)``. Labels and what is wanted are a number, a
    list, a tensor, or a name that no tensor has: that becomes an input of the model, of int64 and of the tensor's type.

    Args:
        ops: Where the nodes go.
        values: The tensors by name.
        expression: The text.
        inputs: Gets the inputs that the expression adds.

    Raises:
        GradientError: The text is no such expression.
        SelectionError: A name is no tensor's, or the tensor is not of floating point.
    """
    reader = _Reader(ops, values, expression, inputs)
    try:
        return reader.read(_tree(expression))
    except (RecursionError, MemoryError) as error:
        raise GradientError(f"{expression!r} is no target: it nests too deep", hint=_EXAMPLES) from error


def tensors_of(expression: str) -> set[str]:
    """Return the words and texts in an expression, names of tensors among them.

    >>> sorted(tensors_of("sum('fc/out:0' - y)"))
    ['fc/out:0', 'sum', 'y']
    """
    found = set()
    for part in ast.walk(_tree(expression)):
        if isinstance(part, ast.Name):
            found.add(part.id)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.add(part.value)
    return found


def _tree(expression: str) -> ast.expr:
    if len(expression) > _MOST:
        raise GradientError(f"the target has {len(expression):,} letters; at most {_MOST:,} are read", hint=_EXAMPLES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in a name is none of Python's business
            return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GradientError(f"{expression!r} is no target", hint=_EXAMPLES) from error


class _Reader:
    def __init__(self, ops: Ops, values: Mapping[str, ir.Value], text: str, inputs: list[ir.Value]) -> None:
        self.ops = ops
        self.values = values
        self.text = text
        self.inputs = inputs

    def read(self, tree: ast.expr) -> ir.Value:
        """Return the tensor that a part of the expression is."""
        if isinstance(tree, ast.Name):
            return float_tensor(self.values, tree.id)
        if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
            return float_tensor(self.values, tree.value)
        if isinstance(tree, ast.Subscript):
            return self.index(self.read(tree.value), tree.slice)
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
            return self.call(tree.func.id, tree.args)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self.each("Neg", self.read(tree.operand))
        if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
            return self.binary(_OPERATORS[type(tree.op)], tree.left, tree.right)
        if isinstance(tree, ast.Attribute):
            raise self.wrong(f"it has {ast.unparse(tree)!r}, and a name that is no word is written in quotes")
        raise self.wrong(f"it has {ast.unparse(tree)!r}" if number(tree) is None else "it names no tensor")

    def wrong(self, why: str) -> GradientError:
        return GradientError(f"{self.text!r} is no target: {why}", hint=_EXAMPLES)

    def binary(self, op_type: str, left: ast.expr, right: ast.expr) -> ir.Value:
        numbers = number(left), number(right)
        if None not in numbers:
            raise self.wrong("it names no tensor")
        sides = [None if n is not None else self.read(s) for n, s in zip(numbers, (left, right), strict=True)]
        like = next(side for side in sides if side is not None)
        made = [side if side is not None else self.scalar(n, like) for side, n in zip(sides, numbers, strict=True)]
        if made[0].dtype != made[1].dtype:
            raise self.wrong(f"it mixes {made[0].dtype} and {made[1].dtype}")
        result = self.ops.node(op_type, *made)
        if same_shape(*made) or None in sides:
            result.shape = like.shape
        return result

    def each(self, op_type: str, value: ir.Value) -> ir.Value:
        made = self.ops.node(op_type, value)
        made.shape = value.shape
        return made

    def scalar(self, given: Any, like: ir.Value) -> ir.Value:
        try:
            return self.ops.scalar(float(given), like)
        except OverflowError:
            raise self.wrong("a number in it is too large") from None

    def call(self, name: str, arguments: list[ast.expr]) -> ir.Value:
        losses: dict[str, Callable[[ir.Value, ast.expr], ir.Value]] = {
            "cross_entropy": self.cross_entropy,
            "mse": self.mse,
        }
        if name in losses and len(arguments) == 2:
            return losses[name](self.read(arguments[0]), arguments[1])
        if name in _FUNCTIONS and len(arguments) == 1:
            return self.each(_FUNCTIONS[name], self.read(arguments[0]))
        if name in _REDUCTIONS and len(arguments) == 1:
            return self.reduce(_REDUCTIONS[name], self.read(arguments[0]))
        known = ", ".join([*_REDUCTIONS, *_FUNCTIONS, *losses])
        raise self.wrong(f"there is no {name} of {len(arguments)} arguments; the functions are {known}")

    def reduce(self, op_type: str, value: ir.Value) -> ir.Value:
        """Reduce all axes but the first, the samples'; a scalar is one sample."""
        if (shape := static_shape(value)) is not None and not shape:
            value = self.ops.Reshape(value, self.ops.ints(1))
        made = self.ops.node(op_type, self.ops.samples(value), self.ops.ints(1), keepdims=0)
        made.shape = ir.Shape([None if value.shape is None or not len(value.shape) else value.shape[0]])
        return made

    def cross_entropy(self, scores: ir.Value, labels: ast.expr) -> ir.Value:
        """``-log softmax(scores)[label]`` of each sample; of dense labels, the mean over positions."""
        if scores.shape is not None and len(scores.shape) < 2:
            raise self.wrong(f"cross_entropy takes scores (samples, classes, …), and these are {scores.shape}")
        ops, given = self.ops, self.labels(scores, labels)
        picked = ops.GatherElements(ops.LogSoftmax(scores, axis=1), ops.Unsqueeze(given, ops.ints(1)), axis=1)
        return ops.Neg(self.reduce("ReduceMean", picked))

    def labels(self, scores: ir.Value, tree: ast.expr) -> ir.Value:
        shape = None if scores.shape is None else ir.Shape([d for i, d in enumerate(scores.shape) if i != 1])
        if (numbers := literal(tree)) is None:
            value = self.given(tree, ir.DataType.INT64, shape)
            if value.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
                raise self.wrong(f"labels are of type INT64 or INT32, and {ast.unparse(tree)} is {value.dtype}")
            return value
        classes = None if scores.shape is None else static_shape(scores)[1]  # type: ignore[index]
        if numbers.dtype.kind != "i":
            raise self.wrong(f"labels are whole numbers, and {ast.unparse(tree)} holds others")
        if numbers.size and classes is not None and not 0 <= numbers.min() <= numbers.max() < classes:
            raise self.wrong(f"labels lie in 0…{classes - 1}, and {ast.unparse(tree)} holds others")
        whole = self.ops.constant(numbers.astype(np.int64))
        return whole if numbers.ndim else self.ops.Expand(whole, self.ops.without_axis(scores, 1))

    def mse(self, value: ir.Value, wanted: ast.expr) -> ir.Value:
        """The mean squared difference of each sample."""
        if (numbers := literal(wanted)) is not None:
            other = self.ops.constant(numbers.astype(value.dtype.numpy() if value.dtype else np.float32))
        else:
            other = self.given(wanted, value.dtype or ir.DataType.FLOAT, value.shape)
        if other.dtype != value.dtype:
            raise self.wrong(f"it mixes {value.dtype} and {other.dtype}")
        difference = self.ops.Sub(value, other)
        return self.reduce("ReduceMean", self.ops.Mul(difference, difference))

    def given(self, tree: ast.expr, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        """Return what a loss is measured against: a tensor, or an input that the model gets."""
        quoted = tree.value if isinstance(tree, ast.Constant) and isinstance(tree.value, str) else None
        name = tree.id if isinstance(tree, ast.Name) else quoted
        if name is None:
            return self.read(tree)
        if name in self.values:
            return self.values[name]
        for value in self.inputs:
            if value.name == name:
                return value
        made = ir.Value(name=name, type=ir.TensorType(dtype), shape=None if shape is None else shape.copy())
        self.inputs.append(made)
        return made

    def index(self, value: ir.Value, tree: ast.expr) -> ir.Value:
        """Apply indices of numpy, and ``argmax``."""
        try:
            found = places(tree, None if value.shape is None else len(value.shape))
            if found == [Place.ARGMAX]:
                return self.largest(value)
            return pick(self.ops, value, found)
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def largest(self, value: ir.Value) -> ir.Value:
        """Return the largest entry of each sample, of a vector the largest of all; the first of equals."""
        flat = value if value.shape is not None and len(value.shape) == 1 else self.ops.samples(value)
        return pick(self.ops, flat, [Place.ARGMAX] if flat is value else [slice(None), Place.ARGMAX])
