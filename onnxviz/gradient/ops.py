"""Writing nodes into a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor

__all__ = ["Ops", "label", "same_shape", "static_shape"]

_BOOL = {"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf"}
_INT64 = {"Shape", "Size", "NonZero", "ArgMax", "ArgMin"}
_OPEN = {"If", "Loop", "Scan"}  # the bodies tell
_HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_SECOND = {"Where", "DequantizeLinear"}  # the type of the result is that of the second input


def label(node: ir.Node) -> str:
    """Return what messages call a node: its name, or that of its first output."""
    return str(node.name or node.outputs[0].name)


def static_shape(value: ir.Value) -> tuple[int | None, ...] | None:
    """Return the sizes of a tensor, None for each that is open; None where its rank is not known."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in value.shape)  # -1: an open size too


def same_shape(a: ir.Value, b: ir.Value) -> bool:
    """Whether two tensors are known to have one shape, open sizes of one name included."""
    if a is b:
        return True
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(_same(m, n) for m, n in zip(a.shape, b.shape, strict=True))


def _same(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    if isinstance(a, ir.SymbolicDim):
        return a.value is not None and isinstance(b, ir.SymbolicDim) and a == b
    return isinstance(b, int) and a == b and a >= 0


class Ops:
    """Appends nodes to a graph; ``ops.Add(a, b)`` returns the sum.

    Attributes in keywords; :meth:`nodes` makes several outputs. Types follow where that is simple, so that
    :meth:`scalar` can make constants of the right one.

    Args:
        graph: Where the nodes go.
        taken: Names that are in use in the whole model; it grows.
        prefix: What new names begin with.
        before: The node that they go before; at the end without one.
    """

    def __init__(self, graph: ir.Graph, taken: set[str], prefix: str = "grad", before: ir.Node | None = None) -> None:
        self.graph = graph
        self.before = before
        self.taken = taken
        self.prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._count = 0

    def body(self, name: str) -> Ops:
        """Return what writes into a new graph, the body of a node of this one; it may read what stands here."""
        made = Ops(ir.Graph([], [], nodes=[], name=self.name(name)), self.taken, self.prefix)
        made._count = self._count
        return made

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return lambda *inputs, **given: self.node(op_type, *inputs, **given)

    def node(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Append a node of one output and return that."""
        return self.nodes(op_type, 1, *inputs, domain=domain, **attributes)[0]

    def nodes(
        self, op_type: str, outputs: int, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node of several outputs and return them."""
        made = ir.node(
            op_type, list(inputs), attributes, domain=domain, num_outputs=outputs, name=self.name(op_type)
        )  # fmt: skip
        for value in made.outputs:
            value.name = self.name(op_type)
        if (dtype := self._dtype(op_type, inputs, attributes)) is not None:
            for value in made.outputs if op_type == "Split" else made.outputs[:1]:
                value.dtype = dtype
        if self.before is None:
            self.graph.append(made)
        else:
            self.graph.insert_before(self.before, made)
        return made.outputs

    @staticmethod
    def _dtype(op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]) -> ir.DataType | None:
        if op_type == "Cast":
            return ir.DataType(attributes["to"])
        if op_type == "ConstantOfShape":
            return attributes["value"].dtype if "value" in attributes else ir.DataType.FLOAT
        if op_type in _BOOL:
            return ir.DataType.BOOL
        if op_type in _INT64:
            return ir.DataType.INT64
        if op_type in _OPEN:
            return None
        if op_type == "QuantizeLinear":
            zero = inputs[2] if len(inputs) > 2 else None
            return ir.DataType.UINT8 if zero is None else zero.dtype
        typed = inputs[1 if op_type in _SECOND else 0] if inputs else None
        return None if typed is None else typed.dtype

    def name(self, stem: str) -> str:
        """Return a name that nothing in the model has."""
        while True:
            self._count += 1
            name = f"{self.prefix}.{stem}_{self._count}"
            if name not in self.taken:
                self.taken.add(name)
                return name

    # constants

    def constant(self, array: np.ndarray) -> ir.Value:
        """Return an initializer; equal ones are one."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name = self.name("constant")
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(array.shape)  # type: ignore[union-attr]
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *numbers: int) -> ir.Value:
        """Return a vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def integer(self, number: int) -> ir.Value:
        """Return a scalar of int64."""
        return self.constant(np.array(number, np.int64))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """Return a scalar of the type of another tensor."""
        return self.constant(np.array(number).astype(_numpy(like)))

    # shapes

    def shape(self, value: ir.Value) -> ir.Value:
        """Return the shape of a tensor, ``(rank,)`` int64: a constant where it is known."""
        sizes = static_shape(value)
        if sizes is not None and None not in sizes:
            return self.ints(*(size for size in sizes if size is not None))
        return self.Shape(value)

    def dim(self, value: ir.Value, axis: int) -> ir.Value:
        """Return one size of a tensor, ``(1,)`` int64."""
        sizes = static_shape(value)
        if sizes is not None and (size := sizes[axis]) is not None:
            return self.ints(size)
        end = None if axis == -1 else axis + 1
        return self.Shape(value, start=axis) if end is None else self.Shape(value, start=axis, end=end)

    def without_axis(self, value: ir.Value, axis: int) -> ir.Value:
        """Return the shape of a tensor without one axis, int64."""
        front = self.Shape(value, start=0, end=axis)
        return self.Concat(front, self.Shape(value, start=axis + 1), axis=0)

    def samples(self, value: ir.Value) -> ir.Value:
        """Return a tensor as a matrix: a row a sample, which the first axis counts."""
        return self.Reshape(value, self.Concat(self.Shape(value, start=0, end=1), self.ints(-1), axis=0))

    def count(self, value: ir.Value, axes: Iterable[int], like: ir.Value | None = None) -> ir.Value:
        """Return the number of elements along axes, a scalar of the type of ``like`` (of ``value``)."""
        axes, sizes = list(axes), static_shape(value)
        typed = like if like is not None else value
        known = None if sizes is None else [sizes[axis] for axis in axes]
        if known is not None and None not in known:
            return self.scalar(math.prod(size for size in known if size is not None), typed)
        picked = self.Gather(self.Shape(value), self.ints(*axes))
        return self.cast(self.ReduceProd(picked, keepdims=0), typed)

    def cast(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Return a tensor in the type of another."""
        assert like.dtype is not None
        if value.dtype == like.dtype:
            return value
        return self.Cast(value, to=int(like.dtype))

    @staticmethod
    def typed(value: ir.Value, like: ir.Value) -> ir.Value:
        """Note that a tensor has the type of another, where that does not follow from what made it."""
        if like.dtype is not None:
            value.dtype = like.dtype
        return value

    def reshape(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Return a tensor in the shape of another."""
        if same_shape(value, like):
            return value
        return self.Reshape(value, self.shape(like), allowzero=1)

    def zeros_like(self, value: ir.Value) -> ir.Value:
        """Return zeros of the shape and type of a tensor."""
        return self.filled(self.shape(value), 0.0, value)

    def filled(self, shape: ir.Value, number: float, like: ir.Value) -> ir.Value:
        """Return a tensor of one number, of a shape given as int64."""
        value = ir.tensor(np.array([number]).astype(_numpy(like)))
        return self.ConstantOfShape(shape, value=value)

    # borders and places

    def pad(self, value: ir.Value, pads: ir.Value, axes: ir.Value | None, rank: int | None) -> ir.Value:
        """Put zeros around a tensor along some axes, or cut off there; the node gets pads of all axes.

        onnxruntime's transpose optimiser loses the ``axes`` of a Pad, so that none is written.

        Args:
            value: The tensor.
            pads: How many before each axis, then how many after, ``(2 K,)`` int64; below 0 to cut off.
            axes: The axes, ``(K,)`` of integers, below 0 from the end; None for all.
            rank: Of the tensor, where it is known.
        """
        return self.Pad(value, self.all_pads(value, pads, axes, rank))

    def all_pads(self, value: ir.Value, pads: ir.Value, axes: ir.Value | None, rank: int | None) -> ir.Value:
        """Return the pads of all axes of a tensor, ``(2 rank,)``; arguments as :meth:`pad`."""
        if axes is None:
            return pads
        chosen, numbers = constant_tensor(axes), constant_tensor(pads)
        if chosen is None or rank is None:
            ranks = self.Shape(self.Shape(value)) if rank is None else self.ints(rank)
            places = self.Mod(self.Cast(axes, to=int(ir.DataType.INT64)), ranks)
            zeros = self.ConstantOfShape(
                self.Mul(ranks, self.ints(2)), value=ir.tensor(np.zeros(1, np.int64))
            )  # fmt: skip
            return self.ScatterElements(zeros, self.Concat(places, self.Add(places, ranks), axis=0), pads, axis=0)
        listed = [int(axis) % rank for axis in chosen.numpy()]
        places_now = listed + [axis + rank for axis in listed]
        if numbers is not None:
            whole = np.zeros(2 * rank, np.int64)
            whole[places_now] = numbers.numpy()
            return self.ints(*whole)
        source = np.full(2 * rank, len(places_now), np.int64)  # one past the end, where a 0 is
        source[places_now] = np.arange(len(places_now))
        return self.Gather(self.Concat(pads, self.ints(0), axis=0), self.constant(source))

    def scatter_add(self, shape: ir.Value, indices: ir.Value, updates: ir.Value, axis: int | None) -> ir.Value:
        """Return zeros with updates added at their places.

        Half precision is summed in single: onnxruntime's CPU provider has no other kernel, and many small numbers that
        meet would be lost.

        Args:
            shape: Of the result, ``(rank,)`` int64.
            indices: As ScatterElements along ``axis`` takes them, or ScatterND where that is None.
            updates: What is added.
            axis: See ``indices``.
        """
        assert updates.dtype is not None
        if updates.dtype not in _HALF:
            return self.scatter(self.filled(shape, 0.0, updates), indices, updates, axis, "add")
        wide = self.Cast(updates, to=int(ir.DataType.FLOAT))
        made = self.scatter(self.filled(shape, 0.0, wide), indices, wide, axis, "add")
        return self.Cast(made, to=int(updates.dtype))

    def scatter(
        self, into: ir.Value, indices: ir.Value, updates: ir.Value, axis: int | None, reduction: str = "none"
    ) -> ir.Value:
        """Return a tensor in which numbers are put, added or multiplied; arguments as :meth:`scatter_add`."""
        half = into.dtype if into.dtype in _HALF and reduction != "none" else None
        if half is not None:
            wide = int(ir.DataType.FLOAT)
            into, updates = self.Cast(into, to=wide), self.Cast(updates, to=wide)
        if axis is None:
            made = self.ScatterND(into, indices, updates, reduction=reduction)
        else:
            made = self.ScatterElements(into, indices, updates, axis=axis, reduction=reduction)
        return made if half is None else self.Cast(made, to=int(half))

    # sums

    def sum(self, value: ir.Value, axes: Iterable[int], *, keep: bool = False) -> ir.Value:
        """Return the sum over axes; the tensor itself where there are none."""
        axes = list(axes)
        if not axes:
            return value
        return self.ReduceSum(value, self.ints(*axes), keepdims=int(keep))

    def add(self, parts: Sequence[ir.Value]) -> ir.Value:
        """Return the sum of tensors of one shape."""
        if len(parts) == 1:
            return parts[0]
        return self.Add(*parts) if len(parts) == 2 else self.Sum(*parts)

    def sum_to(self, value: ir.Value, like: ir.Value, of: ir.Value | None = None, inner: int = 0) -> ir.Value:
        """Sum a tensor over what broadcasting stretched, so that it has the shape of ``like``.

        Args:
            value: Its shape is what ``like`` was broadcast to.
            like: The tensor that was broadcast.
            of: A tensor whose known shape is that of ``value``, such as the output of the forward node.
            inner: Number of last axes that are not broadcast; those of ``of`` may differ.
        """
        whole = of if of is not None else value
        if like.shape is None or whole.shape is None:
            return self._sum_at_run_time(value, like, None)
        if not inner and same_shape(like, whole):
            return value
        narrow, wide = like.shape[: len(like.shape) - inner], whole.shape[: len(whole.shape) - inner]
        lead = len(wide) - len(narrow)
        if lead < 0:
            return self._sum_at_run_time(value, like, None)
        pairs = [(n, w) for n, w in zip(narrow, wide[lead:], strict=True) if not _same(n, w)]
        if any(n != 1 for n, _ in pairs):
            return self._sum_at_run_time(value, like, lead)
        stretched = [lead + i for i, (n, w) in enumerate(zip(narrow, wide[lead:], strict=True)) if not _same(n, w)]
        summed = self.sum(value, [*range(lead), *stretched], keep=not lead)
        if not stretched or not lead:
            return summed
        return self.Reshape(summed, self.shape(like), allowzero=1)

    def _sum_at_run_time(self, value: ir.Value, like: ir.Value, lead: int | None) -> ir.Value:
        shape = self.shape(like)
        if lead is None:
            more = self.Sub(self.Shape(self.Shape(value)), self.Shape(shape))
            padded = self.Concat(self.Expand(self.integer(1), more), shape, axis=0)
        else:
            padded = self.Concat(self.ints(*[1] * lead), shape, axis=0) if lead else shape
        axes = self.Reshape(self.NonZero(self.Equal(padded, self.integer(1))), self.ints(-1))
        summed = self.ReduceSum(value, axes, keepdims=1, noop_with_empty_axes=1)
        return self.Reshape(summed, shape, allowzero=1)


def _numpy(like: ir.Value) -> np.dtype[Any]:
    assert like.dtype is not None, f"the type of {like.name} is not known"
    kind: np.dtype[Any] = like.dtype.numpy()
    return kind
