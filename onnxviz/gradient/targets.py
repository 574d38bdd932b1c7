"""What scalar is differentiated: an expression in the names of tensors, turned into nodes.

``logits[:, 7]``, ``logits[argmax]``, ``sum(features ** 2)``, ``logits[:, 3] - logits[:, 5]``,
``cross_entropy(logits, labels)``. It must give a number for each sample; samples are added up, so that the gradient
at an input holds each sample's own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import GradientError, SelectionError
from onnxviz.gradient.ops import Ops

__all__ = ["target_value"]

_LAST = np.iinfo(np.int64).max
_EXAMPLES = "write such as logits[:, 7], logits[argmax], sum(features) or cross_entropy(logits, labels)"
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Pow: "Pow",
}  # fmt: skip
_FUNCTIONS = {"abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_REDUCTIONS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "norm": "ReduceL2",
}  # fmt: skip


#: What takes the entry of the place that ``argmax`` names: gets the tensor and the axis, which it takes away.
Highest = Callable[[ir.Value, int], ir.Value]


def target_value(
    ops: Ops, values: Mapping[str, ir.Value], expression: str, inputs: list[ir.Value], *, argmax: Highest | None = None
) -> ir.Value:
    """Append the nodes of an expression and return what it gives.

    A tensor is written by its name, in quotes where that is no word: ``"fc/out:0"[:, 7]``. Indices are those of numpy;
    ``argmax`` in the place of an index takes the largest value along that axis (``logits[argmax]``: along the last).
    ``sum``, ``mean``, ``max``, ``min`` and ``norm`` reduce all axes but the first. ``cross_entropy(scores, labels)``
    (of scores before the softmax; labels ``(N,)``, classes along axis 1) and ``mse(tensor, wanted)`` are losses; a name
    that is no tensor's becomes an input of the model there.

    Args:
        ops: Where the nodes go.
        values: The tensors by name.
        expression: The text.
        inputs: Gets the inputs that the expression adds.
        argmax: What takes the entry that ``argmax`` names; by default that of the largest value, whatever is fed.

    Raises:
        GradientError: The text is no such expression.
        SelectionError: A name is no tensor's.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise GradientError(f"{expression!r} is no target", hint=_EXAMPLES) from error
    return _Reader(ops, values, expression, inputs, argmax).read(tree)


class _Reader:
    def __init__(
        self, ops: Ops, values: Mapping[str, ir.Value], text: str, inputs: list[ir.Value], argmax: Highest | None
    ) -> None:
        self.ops = ops
        self.argmax = argmax or (lambda value, axis: ops.ReduceMax(value, ops.ints(axis), keepdims=0))
        self.values = values
        self.text = text
        self.inputs = inputs

    def read(self, tree: ast.expr) -> ir.Value:
        """Return the tensor that a part of the expression is."""
        if isinstance(tree, ast.Name):
            return self.tensor(tree.id)
        if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
            return self.tensor(tree.value)
        if isinstance(tree, ast.Subscript):
            return self.index(self.read(tree.value), tree.slice)
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
            return self.call(tree.func.id, tree.args)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self.ops.Neg(self.read(tree.operand))
        if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
            return self.binary(_OPERATORS[type(tree.op)], tree.left, tree.right)
        raise self.wrong(f"it has {ast.unparse(tree)!r}")

    def wrong(self, why: str) -> GradientError:
        return GradientError(f"{self.text!r} is no target: {why}", hint=_EXAMPLES)

    def tensor(self, name: str) -> ir.Value:
        if name not in self.values:
            raise SelectionError(
                f"the target names {name!r}, and the model has no such tensor", hint="`onnxviz inspect` lists them"
            )
        return self.values[name]

    def binary(self, op_type: str, left: ast.expr, right: ast.expr) -> ir.Value:
        numbers = [_number(side) for side in (left, right)]
        if None not in numbers:
            raise self.wrong("it names no tensor")
        sides = [
            None if number is not None else self.read(side) for side, number in zip((left, right), numbers, strict=True)
        ]
        like = next(side for side in sides if side is not None)
        made = [
            self.ops.scalar(n, like) if s is None and n is not None else s for s, n in zip(sides, numbers, strict=True)
        ]
        return self.ops.node(op_type, *made)

    def call(self, name: str, arguments: list[ast.expr]) -> ir.Value:
        losses: dict[str, Callable[[ir.Value, ast.expr], ir.Value]] = {
            "cross_entropy": self.cross_entropy,
            "mse": self.mse,
        }
        if name in losses and len(arguments) == 2:
            return losses[name](self.read(arguments[0]), arguments[1])
        if name in _FUNCTIONS and len(arguments) == 1:
            return self.ops.node(_FUNCTIONS[name], self.read(arguments[0]))
        if name in _REDUCTIONS and len(arguments) == 1:
            return self.reduce(_REDUCTIONS[name], self.read(arguments[0]))
        known = ", ".join([*_REDUCTIONS, *_FUNCTIONS, *losses])
        raise self.wrong(f"there is no {name} of {len(arguments)} arguments; the functions are {known}")

    def reduce(self, op_type: str, value: ir.Value) -> ir.Value:
        """Reduce all axes but the first, the samples'."""
        ops = self.ops
        flat = ops.Reshape(value, ops.Concat(ops.Shape(value, start=0, end=1), ops.ints(-1), axis=0))
        return ops.node(op_type, flat, ops.ints(1), keepdims=0)

    def cross_entropy(self, scores: ir.Value, labels: ast.expr) -> ir.Value:
        """``-log softmax(scores)[label]`` of each sample; of dense labels, the mean over positions."""
        ops = self.ops
        given = self.given(labels, ir.DataType.INT64, None)
        picked = ops.GatherElements(ops.LogSoftmax(scores, axis=1), ops.Unsqueeze(given, ops.ints(1)), axis=1)
        return ops.Neg(self.reduce("ReduceMean", picked))

    def mse(self, value: ir.Value, wanted: ast.expr) -> ir.Value:
        """The mean squared difference of each sample."""
        difference = self.ops.Sub(value, self.given(wanted, value.dtype or ir.DataType.FLOAT, value))
        return self.reduce("ReduceMean", self.ops.Mul(difference, difference))

    def given(self, tree: ast.expr, dtype: ir.DataType, like: ir.Value | None) -> ir.Value:
        """Return what a loss is measured against: numbers, a tensor, or an input that the model gets."""
        try:
            return self.ops.constant(np.array(ast.literal_eval(tree)).astype(dtype.numpy()))
        except (ValueError, TypeError, SyntaxError):
            pass
        name = tree.id if isinstance(tree, ast.Name) else None
        if name is None or name in self.values:
            return self.read(tree)
        for value in self.inputs:
            if value.name == name:
                return value
        made = ir.Value(name=name, type=ir.TensorType(dtype), shape=like.shape if like is not None else None)
        if like is None:
            made.shape = ir.Shape([None])
        self.inputs.append(made)
        return made

    def index(self, value: ir.Value, tree: ast.expr) -> ir.Value:
        """Apply indices of numpy: whole numbers, slices, ``...``, and ``argmax``."""
        parts = list(tree.elts) if isinstance(tree, ast.Tuple) else [tree]
        if len(parts) == 1 and _is_argmax(parts[0]):
            return self.argmax(value, -1)
        if any(isinstance(part, ast.Constant) and part.value is Ellipsis for part in parts):
            parts = self.without_ellipsis(value, parts)
        axis = 0
        for part in parts:
            if isinstance(part, ast.Slice):
                value = self.slice(value, part, axis)
                axis += 1
            elif _is_argmax(part):
                value = self.argmax(value, axis)
            elif (place := _number(part)) is not None and float(place).is_integer():
                value = self.ops.Gather(value, self.ops.integer(int(place)), axis=axis)
            else:
                raise self.wrong(f"{ast.unparse(part)!r} is no index")
        return value

    def without_ellipsis(self, value: ir.Value, parts: list[ast.expr]) -> list[ast.expr]:
        if value.shape is None:
            raise self.wrong("'...' needs a tensor whose rank is known")
        place = next(i for i, part in enumerate(parts) if isinstance(part, ast.Constant) and part.value is Ellipsis)
        whole: list[ast.expr] = [ast.Slice() for _ in range(len(value.shape) - len(parts) + 1)]
        return [*parts[:place], *whole, *parts[place + 1 :]]

    def slice(self, value: ir.Value, part: ast.Slice, axis: int) -> ir.Value:
        bounds = [None if b is None else _number(b) for b in (part.lower, part.upper, part.step)]
        if any(b is not None and n is None for b, n in zip((part.lower, part.upper, part.step), bounds, strict=True)):
            raise self.wrong(f"{ast.unparse(part)!r} is no slice of whole numbers")
        if bounds == [None] * 3:
            return value
        start, end, step = (None if n is None else int(n) for n in bounds)
        step = 1 if step is None else step
        first, last = (0, _LAST) if step > 0 else (_LAST, -_LAST)
        ends = [first if start is None else start, last if end is None else end]
        return self.ops.Slice(
            value, self.ops.ints(ends[0]), self.ops.ints(ends[1]), self.ops.ints(axis), self.ops.ints(step)
        )


def _is_argmax(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Name) and tree.id == "argmax"


def _number(tree: ast.expr) -> Any:
    """Return the number that a part is, or None."""
    try:
        number = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError):
        return None
    return number if isinstance(number, (int, float)) and not isinstance(number, bool) else None
