"""What small integer tensors hold where it can be told without a run: shapes on their way to a Reshape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.symbolic import (
    Size,
    add,
    floor_divide,
    largest,
    lower_bound,
    multiply,
    smallest,
    subtract,
    symbol,
)

__all__ = [
    "CONTENT_RULES", "MALFORMED", "NAMELESS", "Content", "Dims", "Known", "Shapes", "attribute", "integers",
    "is_made_up", "times",
]  # fmt: skip

#: What some exporters write as the name of a dimension that they know nothing of.
NAMELESS = ("", "None", "?", "-1")
#: What a rule meets in a malformed node: missing inputs, attributes of another type, sizes that do not fit, data that
#: cannot be read. What the node gives is then not known.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError)
_LONGEST = 200  # characters of a name
_MOST = 64  # elements of a tensor whose contents are followed
_BYTES = 1024
_WHOLE = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}

Dims = tuple[Size, ...]
Shapes = list[Dims | None]  # of the outputs of a node


@dataclass(frozen=True, slots=True)
class Content:
    """The elements of a vector, or of a scalar."""

    elements: Dims
    scalar: bool = False


def is_made_up(dim: int | ir.SymbolicDim) -> bool:
    """Whether a dimension is open and has no name of its own: a declared name says more than one of inference."""
    if isinstance(dim, int):
        return dim < 0
    name = dim.value
    return name is None or name in NAMELESS or name.startswith("unk__")


@dataclass
class Known:
    """Shapes and contents of the tensors of a model, as far as they are known yet."""

    opset: int
    shapes: dict[ir.Value, Dims] = field(default_factory=dict)
    contents: dict[ir.Value, Content] = field(default_factory=dict)

    def shape(self, value: ir.Value | None) -> Dims | None:
        """Return a tensor's sizes; None where not even their number is known."""
        if value is None:
            return None
        if (found := self.shapes.get(value)) is None and value.shape is not None:
            found = tuple(_size(dim) for dim in value.shape)
            self.shapes[value] = found
        return found

    def content(self, value: ir.Value | None) -> Content | None:
        """Return what a tensor holds."""
        if value is None:
            return None
        if (found := self.contents.get(value)) is None and (found := _constant(value)) is not None:
            self.contents[value] = found
        return found


def _size(dim: int | ir.SymbolicDim) -> Size:
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if is_made_up(dim) or len(dim.value or "") > _LONGEST else symbol(dim.value or "")


def _constant(value: ir.Value) -> Content | None:
    tensor = constant_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in _WHOLE | _FLOATS:
        return None
    if tensor.nbytes > _BYTES or tensor.size > _MOST or len(tensor.shape) > 1:
        return None
    array = tensor.numpy()
    if tensor.dtype in _FLOATS and not all(abs(x) < 2**31 and x == int(x) for x in array.reshape(-1).tolist()):
        return None
    return Content(tuple(int(x) for x in array.reshape(-1).tolist()), array.ndim == 0)


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return an attribute's value; the default where it is missing, or only a reference."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.value


def integers(node: ir.Node, known: Known, name: str, position: int) -> list[int] | None:
    """Return whole numbers that are an attribute in old opsets and an input in newer ones; None where they are open.

    Raises:
        LookupError: The node has neither.
    """
    if (found := attribute(node, name)) is not None:
        return [int(x) for x in found]
    if len(node.inputs) <= position or (value := node.inputs[position]) is None:
        raise LookupError(name)
    content = known.content(value)
    if content is None or not all(isinstance(x, int) for x in content.elements):
        return None
    return [x for x in content.elements if isinstance(x, int)]


def _given(node: ir.Node, known: Known) -> list[Content] | None:
    """Return the contents of all inputs; None where one is not known."""
    found = [known.content(value) for value in node.inputs]
    return None if not found or any(c is None for c in found) else [c for c in found if c is not None]


def _shape(node: ir.Node, known: Known) -> Content | None:
    dims = known.shape(node.inputs[0])
    return None if dims is None else Content(dims[attribute(node, "start", 0) : attribute(node, "end")])


def _count(node: ir.Node, known: Known) -> Content | None:
    dims = known.shape(node.inputs[0])
    return None if dims is None else Content((times(dims),), scalar=True)


def times(sizes: Sequence[Size]) -> Size:
    """Return the product of sizes."""
    made: Size = 1
    for size in sizes:
        made = multiply(made, size)
    return made


def _same(node: ir.Node, known: Known) -> Content | None:
    return known.content(node.inputs[0])


def _flattened(node: ir.Node, known: Known) -> Content | None:
    """Unsqueeze, Squeeze, Reshape: as long as it stays a scalar or a vector."""
    found, dims = known.content(node.inputs[0]), known.shape(node.outputs[0])
    if found is None:
        return None
    if dims is not None and len(dims) <= 1:
        return Content(found.elements, not dims)
    scalar = node.op_type == "Squeeze"
    if node.op_type == "Reshape" or (scalar != found.scalar and len(found.elements) == 1):
        target = known.content(node.inputs[1]) if node.op_type == "Reshape" else None
        if target is not None and len(target.elements) > 1:
            return None
        return Content(found.elements, not target.elements if target is not None else scalar)
    return None


def _gather(node: ir.Node, known: Known) -> Content | None:
    data, where = known.content(node.inputs[0]), known.content(node.inputs[1])
    if data is None or where is None or data.scalar or attribute(node, "axis", 0) not in (0, -1):
        return None
    if not all(isinstance(i, int) for i in where.elements):
        return None
    return Content(tuple(data.elements[i] for i in where.elements if isinstance(i, int)), where.scalar)


def _slice(node: ir.Node, known: Known) -> Content | None:
    data = known.content(node.inputs[0])
    starts, ends = integers(node, known, "starts", 1), integers(node, known, "ends", 2)
    steps: list[int] | None = [1]
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        steps = integers(node, known, "steps", 4)
    if data is None or data.scalar or starts is None or ends is None or steps is None or len(starts) != 1:
        return None
    return Content(data.elements[starts[0] : ends[0] : steps[0]])


def _concat(node: ir.Node, known: Known) -> Content | None:
    parts = []
    for value in node.inputs:  # an open part of known length leaves the others known
        found, dims = known.content(value), known.shape(value)
        if found is not None:
            parts.append(found.elements)
        elif dims is not None and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= _MOST:
            parts.append((None,) * dims[0])
        else:
            return None
    made = tuple(x for part in parts for x in part)
    return Content(made) if len(made) <= _MOST else None


def _elementwise(rule: Callable[[Size, Size], Size]) -> Callable[[ir.Node, Known], Content | None]:
    def apply(node: ir.Node, known: Known) -> Content | None:
        given = _given(node, known)
        if given is None:
            return None
        made = given[0]
        for other in given[1:]:
            long = max(len(made.elements), len(other.elements))
            if any(len(c.elements) not in (1, long) for c in (made, other)):
                return None
            a, b = (c.elements if len(c.elements) == long else c.elements * long for c in (made, other))
            made = Content(tuple(map(rule, a, b)), made.scalar and other.scalar)
        return made

    return apply


def _divided(a: Size, b: Size) -> Size:
    """Integer division truncates: of sizes, which are not negative, that is rounding down."""
    bound = lower_bound(a)
    return floor_divide(a, b) if isinstance(b, int) and b > 0 and bound is not None and bound >= 0 else None


def _equal(a: Size, b: Size) -> Size:
    if a is None or b is None:
        return None
    if a == b:
        return 1
    apart = (lower_bound(subtract(a, b)), lower_bound(subtract(b, a)))
    return 0 if any(bound is not None and bound > 0 for bound in apart) else None


def _where(node: ir.Node, known: Known) -> Content | None:
    given = _given(node, known)
    if given is None:
        return None
    long = max(len(c.elements) for c in given)
    condition, yes, no = (c.elements * long if len(c.elements) == 1 else c.elements for c in given)
    chosen = tuple(
        a if truth == 1 or (truth is None and a == b) else b if truth == 0 else None
        for truth, a, b in zip(condition, yes, no, strict=True)
    )
    return Content(chosen, all(c.scalar for c in given))


def _filled(node: ir.Node, known: Known) -> Content | None:
    shape, fill = known.content(node.inputs[0]), attribute(node, "value")
    if shape is None or len(shape.elements) > 1:
        return None
    count = shape.elements[0] if shape.elements else 1
    value = 0 if fill is None else fill.numpy().reshape(-1)[0].item()
    if not isinstance(count, int) or count > _MOST or value != int(value):
        return None
    return Content((int(value),) * count, not shape.elements)


def _reduced(node: ir.Node, known: Known) -> Content | None:
    found = known.content(node.inputs[0])
    if found is None or (node.op_type != "ReduceProd" and len(found.elements) != 1):
        return None
    return Content((times(found.elements),), not attribute(node, "keepdims", 1))


def _negated(a: Size, _: Size) -> Size:
    return multiply(a, -1)


def _unary(rule: Callable[[Size, Size], Size]) -> Callable[[ir.Node, Known], Content | None]:
    def apply(node: ir.Node, known: Known) -> Content | None:
        found = known.content(node.inputs[0])
        return None if found is None else Content(tuple(rule(x, None) for x in found.elements), found.scalar)

    return apply


def _whole(node: ir.Node, known: Known) -> Content | None:
    """Casts between numbers keep whole ones; one to bool does not."""
    return None if attribute(node, "to") == ir.DataType.BOOL else known.content(node.inputs[0])


def _integer_division(node: ir.Node, known: Known) -> Content | None:
    kind = next((value.dtype for value in node.inputs if value is not None and value.dtype is not None), None)
    return _elementwise(_divided)(node, known) if kind in _WHOLE else None


#: Operator -> what its first output holds.
CONTENT_RULES: dict[str, Callable[[ir.Node, Known], Content | None]] = {
    "Shape": _shape,
    "Size": _count,
    **dict.fromkeys(["Identity", "Floor", "Ceil", "Round"], _same),
    "Cast": _whole,
    **dict.fromkeys(["Unsqueeze", "Squeeze", "Reshape"], _flattened),
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Add": _elementwise(add),
    "Sub": _elementwise(subtract),
    "Mul": _elementwise(multiply),
    "Div": _integer_division,
    "Max": _elementwise(largest),
    "Min": _elementwise(smallest),
    "Equal": _elementwise(_equal),
    "Neg": _unary(_negated),
    "Where": _where,
    "ConstantOfShape": _filled,
    "ReduceProd": _reduced,
}
