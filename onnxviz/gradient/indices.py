"""Indices of target expressions: what numpy means by them, as nodes."""

from __future__ import annotations

import ast
import operator
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.ops import Ops, static_shape

__all__ = ["Index", "Place", "literal", "number", "pick", "places"]

_LAST = int(np.iinfo(np.int64).max)


class Place(Enum):
    """Indices that are no numbers."""

    ARGMAX = "argmax"
    NEW = "None"


#: A whole number, a slice of such, ``argmax``, or ``None`` (a new axis of one).
Index = int | slice | Place


def number(tree: ast.expr) -> float | int | None:
    """Return the number that a part is, or None."""
    try:
        found = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError):
        return None
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def literal(tree: ast.expr) -> np.ndarray | None:
    """Return the numbers that a part lists, or None."""
    try:
        found = np.array(ast.literal_eval(tree))
    except (ValueError, TypeError, SyntaxError):
        return None
    return found if found.dtype.kind in "if" else None


def places(tree: ast.expr, rank: int | None) -> list[Index]:
    """Return the indices of an expression, ``...`` written out.

    Args:
        tree: What stands in the brackets.
        rank: Of the tensor, None where it is not known.

    Raises:
        ValueError: It is no such index; the text says why.

    >>> places(ast.parse("y[..., -1]", mode="eval").body.slice, 3)
    [slice(None, None, None), slice(None, None, None), -1]
    """
    parts = list(tree.elts) if isinstance(tree, ast.Tuple) else [tree]
    dots = [i for i, part in enumerate(parts) if isinstance(part, ast.Constant) and part.value is Ellipsis]
    found: list[Index] = [_index(part) for i, part in enumerate(parts) if i not in dots]
    if len(dots) > 1:
        raise ValueError("'...' may stand once")
    taken = sum(place is not Place.NEW for place in found)
    if rank is not None and taken > rank and found != [Place.ARGMAX]:
        raise ValueError(f"{ast.unparse(tree)!r} has {taken} indices, and the tensor {rank} axes")
    if dots:
        if rank is None:
            raise ValueError("'...' needs a tensor whose rank is known")
        found[dots[0] : dots[0]] = [slice(None)] * (rank - taken)
    return found


def _index(part: ast.expr) -> Index:
    if isinstance(part, ast.Slice):
        return _slice(part)
    if isinstance(part, ast.Name) and part.id == "argmax":
        return Place.ARGMAX
    if isinstance(part, ast.Constant) and part.value is None:
        return Place.NEW
    if (place := number(part)) is None:
        raise ValueError(f"{ast.unparse(part)!r} is no index")
    return _whole(place, part)


def _slice(part: ast.Slice) -> slice:
    bounds: list[int | None] = []
    for bound in (part.lower, part.upper, part.step):
        if bound is None:
            bounds.append(None)
            continue
        if (found := number(bound)) is None:
            raise ValueError(f"{ast.unparse(part)!r} is no slice of whole numbers")
        bounds.append(_whole(found, bound))
    if bounds[2] == 0:
        raise ValueError("the step of a slice cannot be 0")
    return slice(*bounds)


def _whole(place: Any, part: ast.expr) -> int:
    if isinstance(place, float):
        raise ValueError(f"{ast.unparse(part)!r} is no whole number, which an index is")
    if abs(place) >= _LAST:
        raise ValueError(f"the index {ast.unparse(part)[:40]} is out of range")
    return operator.index(place)


def pick(ops: Ops, value: ir.Value, indices: Sequence[Index]) -> ir.Value:
    """Append the nodes of indices and return what they give.

    Raises:
        ValueError: An index is out of a size that is known.
    """
    sizes, whole = static_shape(value), value
    dims: list[int | ir.SymbolicDim | None] | None = None if value.shape is None else list(value.shape)
    axis = came = 0  # of what is made so far, and of the tensor
    for place in indices:
        size = None if sizes is None or came >= len(sizes) else sizes[came]
        came += place is not Place.NEW
        if place is Place.NEW:
            value = ops.Unsqueeze(value, ops.ints(axis))
        elif isinstance(place, slice):
            value = _sliced(ops, value, place, axis)
        elif isinstance(place, int):
            if size is not None and not -size <= place < size:
                raise ValueError(f"index {place} is out of range for an axis of size {size}")
            value = ops.Gather(value, ops.integer(place), axis=axis)
        else:
            first = ops.ArgMax(value, axis=axis, keepdims=1)
            value = ops.Squeeze(ops.GatherElements(value, first, axis=axis), ops.ints(axis))
        if dims is not None:
            dims[axis : axis + (place is not Place.NEW)] = _left(place, dims, axis, size)
        axis += place is Place.NEW or isinstance(place, slice)
    if value is not whole and dims is not None:
        value.shape = ir.Shape(dims)
    return value


def _left(
    place: Index, dims: Sequence[int | ir.SymbolicDim | None], axis: int, size: int | None
) -> list[int | ir.SymbolicDim | None]:
    """Return what an index leaves of an axis."""
    if place is Place.NEW:
        return [1]
    if not isinstance(place, slice):
        return []
    if place == slice(None):
        return [dims[axis]]
    return [None if size is None else len(range(size)[place])]


def _sliced(ops: Ops, value: ir.Value, part: slice, axis: int) -> ir.Value:
    if part == slice(None):
        return value
    step = 1 if part.step is None else part.step
    first, last = (0, _LAST) if step > 0 else (_LAST, -_LAST)
    start, stop = (first if part.start is None else part.start), (last if part.stop is None else part.stop)
    return ops.Slice(value, ops.ints(start), ops.ints(stop), ops.ints(axis), ops.ints(step))
