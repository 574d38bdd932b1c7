"""Shapes of operators that cut, repeat and put together: Slice, Split, Gather, Concat, Tile, Range."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxviz.graph.contents import Known, Shapes, attribute, integers
from onnxviz.graph.symbolic import (
    Expression,
    Size,
    add,
    ceil_divide,
    floor_divide,
    largest,
    lower_bound,
    multiply,
    smallest,
    subtract,
)

__all__ = ["PART_RULES"]

_FAR = 2**31 - 1  # an end from which a Slice means "to the end"


def _concat(node: ir.Node, known: Known) -> Shapes:
    shapes = [known.shape(value) for value in node.inputs]
    found = [shape for shape in shapes if shape is not None]
    if not found:
        return [None]
    axis = attribute(node, "axis", 1) % len(found[0])
    made = []
    for i, sizes in enumerate(zip(*found, strict=True)):
        if i == axis:
            total: Size = 0 if len(found) == len(shapes) else None
            for size in sizes:
                total = add(total, size)
            made.append(total)
        else:
            made.append(next((s for s in sizes if isinstance(s, int)), next((s for s in sizes if s is not None), None)))
    return [tuple(made)]


def _slice(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    if data is None:
        return [None]
    bounds: list[Sequence[Size] | None] = []
    for position, name in enumerate(("starts", "ends", "axes", "steps"), 1):
        given = node.inputs[position] if position < len(node.inputs) else None
        content = known.content(given)
        listed = attribute(node, name) if given is None else content.elements if content is not None else None
        bounds.append(listed)
    starts, ends, axes, steps = bounds
    several = next((len(b) for b in bounds if b is not None), None)
    if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:
        return [(None,) * len(data)]  # which axes are cut is open
    if several is None:
        return [(None,) * len(data)]
    made = list(data)
    for i in range(several):
        axis = axes[i] if axes is not None else i
        if not isinstance(axis, int):
            return [(None,) * len(data)]
        if steps is None and len(node.inputs) > 4 and node.inputs[4] is not None:
            made[axis] = None
            continue
        made[axis] = _cut(
            data[axis], starts[i] if starts else None, ends[i] if ends else None, steps[i] if steps is not None else 1
        )
    return [tuple(made)]


def _cut(size: Size, start: Size, end: Size, step: Size) -> Size:
    """Return how many elements ``[start:end:step]`` leaves of ``size``."""
    if size is None or not isinstance(step, int) or step == 0 or start is None or end is None:
        return None
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(size)))
    if step < 0:
        whole = start == -1 or (isinstance(start, int) and start >= _FAR) or start == subtract(size, 1)
        return ceil_divide(size, -step) if whole and isinstance(end, int) and end <= -_FAR else None
    last = _bound(end, size)
    if isinstance(start, int) and start < 0 and last == size:
        return ceil_divide(smallest(-start, size), step)
    begins = lower_bound(start)
    length = subtract(last, start if begins is not None and begins >= 0 else _bound(start, size))
    bound = lower_bound(length)
    return ceil_divide(length if bound is not None and bound >= 0 else largest(length, 0), step)


def _bound(at: Size, size: int | Expression) -> Size:
    if at == 0 or (isinstance(at, int) and at >= _FAR) or at == size:
        return 0 if at == 0 else size
    bound = lower_bound(at)
    if bound is not None and bound >= 0:
        return smallest(at, size)
    if isinstance(at, int):
        return largest(add(size, at), 0)
    return None  # it may count from either end


def _split(node: ir.Node, known: Known) -> Shapes:
    data, axis, count = known.shape(node.inputs[0]), attribute(node, "axis", 0), len(node.outputs)
    if data is None:
        return [None]
    axis %= len(data)
    sizes: Sequence[Size]
    try:
        given = integers(node, known, "split", 1)
        sizes = [None] * count if given is None else given
    except LookupError:
        each = ceil_divide(data[axis], count) if known.opset >= 18 else floor_divide(data[axis], count)
        sizes = [each] * (count - 1) + [subtract(data[axis], multiply(each, count - 1))]
    return [(*data[:axis], size, *data[axis + 1 :]) for size in sizes]


def _tile(node: ir.Node, known: Known) -> Shapes:
    data, repeats = known.shape(node.inputs[0]), known.content(node.inputs[1])
    if data is None:
        return [None]
    return [tuple(map(multiply, data, repeats.elements)) if repeats is not None else (None,) * len(data)]


def _range(node: ir.Node, known: Known) -> Shapes:
    found = [known.content(value) for value in node.inputs]
    if any(c is None for c in found):
        return [(None,)]
    start, limit, step = (c.elements[0] for c in found if c is not None)
    if not isinstance(step, int) or step == 0:
        return [(None,)]
    length = ceil_divide(subtract(limit, start) if step > 0 else subtract(start, limit), abs(step))
    bound = lower_bound(length)
    return [(length if bound is not None and bound >= 0 else largest(length, 0),)]


def _gather(node: ir.Node, known: Known) -> Shapes:
    data, where = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    if data is None or where is None:
        return [None]
    axis = attribute(node, "axis", 0) % len(data)
    return [(*data[:axis], *where, *data[axis + 1 :])]


#: Operator -> the shapes of its outputs, as far as they are known.
PART_RULES: dict[str, Callable[[ir.Node, Known], Shapes]] = {
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "Range": _range,
    "Gather": _gather,
}
