"""Types and shapes of every tensor, as far as they can be inferred without running the model."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from onnxviz.errors import InputError, listed
from onnxviz.graph.contents import NAMELESS, is_made_up
from onnxviz.graph.inference import infer_in_place
from onnxviz.graph.model import copy_model
from onnxviz.graph.propagation import SYMBOLS

__all__ = [
    "bind_dims", "dtype_name", "infer_shapes", "model_inputs", "name_axes", "open_dims", "shape_list", "symbolic_shape",
]  # fmt: skip


def dtype_name(value: ir.Value) -> str | None:
    """Return the name of a value's element type as numpy spells it (``"float32"``), or None where it is unknown.

    Sequences and optionals read as ``"sequence(float32)"``, maps as ``"map(int64, float32)"``.
    """
    if (aside := value.meta.get("onnxviz.type")) is not None:
        return _type_text(onnx.TypeProto.FromString(aside))
    kind, dtype = value.type, value.dtype
    if kind is None or dtype is None:
        return None
    name = _element_name(dtype)
    if isinstance(kind, ir.SequenceType):
        return f"sequence({name})"
    return f"optional({name})" if isinstance(kind, ir.OptionalType) else name


def _element_name(dtype: ir.DataType) -> str:
    name = dtype.name.lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _type_text(kind: onnx.TypeProto) -> str:
    if kind.HasField("map_type"):
        return f"map({_element_name(ir.DataType(kind.map_type.key_type))}, {_type_text(kind.map_type.value_type)})"
    for field in ("sequence_type", "optional_type"):
        if kind.HasField(field):
            return f"{field.removesuffix('_type')}({_type_text(getattr(kind, field).elem_type)})"
    return _element_name(ir.DataType(kind.tensor_type.elem_type))


def _dim(dim: int | str | None) -> int | str | None:
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if dim in NAMELESS else dim


def shape_list(value: ir.Value) -> list[int | str | None] | None:
    """Return a shape as JSON holds it: sizes, names of symbolic dimensions, None where unknown."""
    if value.shape is None:
        return None
    return [_dim(dim if isinstance(dim, int) else dim.value) for dim in value.shape]


def symbolic_shape(value: ir.Value) -> tuple[int | str | None, ...] | None:
    """Return a shape for a reader: as :func:`shape_list`, without names that inference made up for what it cannot say.

    A nameless dimension of an input has the letter that :func:`infer_shapes` calls it by in the tensors behind it; an
    output's size with a name that no input has, as exporters make them up, is what it can be inferred to be.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[?, 3, ?, ?] x) => (float[?, 3, ?, ?] y)'
    ...     '{p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) y = Relu(p)}'
    ... )
    >>> inferred = infer_shapes(model)
    >>> symbolic_shape(inferred.graph.inputs[0]), symbolic_shape(inferred.graph.node(0).outputs[0])
    (('N', 3, 'H', 'W'), ('N', 3, 'floor(H/2)', 'floor(W/2)'))
    """
    if value.shape is None:
        return None
    letters = value.meta.get(SYMBOLS, {})
    return tuple(
        letters.get(axis) if is_made_up(dim) or axis in letters else dim if isinstance(dim, int) else str(dim.value)
        for axis, dim in enumerate(value.shape)
    )


def model_inputs(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that a caller feeds; weights that old files list among the inputs are left out."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


def bind_dims(model: ir.Model, dims: Mapping[str, int]) -> ir.Model:
    """Return a copy with open dimensions of the inputs replaced by sizes.

    Shapes of intermediate tensors and outputs that depend on open dimensions are dropped, to be inferred again.

    Args:
        model: The model; it is not changed.
        dims: Sizes by the name of a symbolic dimension, or by ``"input:axis"`` where it has no name.

    Raises:
        InputError: No input has that dimension, or a size is negative.
    """
    copy = copy_model(model)
    for name, size in dims.items():
        if size < 0:
            raise InputError(f"dimension {name!r} cannot be {size}", hint="give a size of 0 or more")
        if not _bind(copy, name, size):
            known = open_dims(model)
            hint = f"its open dimensions are {', '.join(known)}" if known else "all its dimensions are fixed"
            raise InputError(f"the model has no dimension {name!r}", hint=hint)
    for node in copy.graph.all_nodes():
        for output in node.outputs:
            if output.shape is not None and any(not isinstance(d, int) or d < 0 for d in output.shape):
                output.shape = None
    return copy


def _bind(model: ir.Model, name: str, size: int) -> bool:
    where, _, axis = name.rpartition(":")
    found = False
    for value in model_inputs(model):
        shape = shape_list(value)
        for position, dim in enumerate(shape or []):
            if dim == name or (dim is None and value.name == where and axis == str(position)):
                shape[position], found = size, True  # type: ignore[index]
        value.shape = ir.Shape(shape) if shape is not None else None
    return found


def name_axes(model: ir.Model, names: Mapping[str, Mapping[int, str]]) -> ir.Model:
    """Return a copy in which axes of inputs are symbolic under given names, whatever they were declared as.

    What is declared of tensors that nodes write is dropped, since it may hold the sizes of before.

    Args:
        model: The model; it is not changed.
        names: Input -> axis -> name.

    Raises:
        InputError: There is no such input or axis.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4] x) => (float[1, 4] y) {y = Relu(x)}'
    ... )
    >>> open_dims(name_axes(model, {"x": {0: "batch"}}))
    {'batch': ('x', 0)}
    """
    copy = copy_model(model)
    values = {str(value.name): value for value in model_inputs(copy)}
    for name, axes in names.items():
        if name not in values:
            raise InputError(f"the model has no input {name!r}", hint=f"its inputs are {listed(list(values))}")
        shape = values[name].shape
        dims = None if shape is None else list(shape)
        for axis, text in axes.items():
            if dims is None or not 0 <= axis < len(dims):
                told = "no known shape" if dims is None else f"{len(dims)} axes, counted from 0"
                raise InputError(f"input {name!r} has no axis {axis}: it has {told}")
            dims[axis] = ir.SymbolicDim(text)
        if dims is not None:
            values[name].shape = ir.Shape(dims)
    for node in copy.graph.all_nodes():
        for output in node.outputs:
            output.shape = None
    return copy


def open_dims(model: ir.Model) -> dict[str, tuple[str, int]]:
    """Return each open dimension of the inputs by its name, or ``"input:axis"`` if it has none -> (input, axis).

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4, ?] x) => (float[n, 4, ?] y) {y = Relu(x)}'
    ... )
    >>> open_dims(model)
    {'n': ('x', 0), 'x:2': ('x', 2)}
    """
    found: dict[str, tuple[str, int]] = {}
    for value in model_inputs(model):
        for axis, dim in enumerate(shape_list(value) or []):
            if not isinstance(dim, int):
                found.setdefault(dim or f"{value.name}:{axis}", (value.name or "", axis))
    return found


def infer_shapes(model: ir.Model, dims: Mapping[str, int] | None = None) -> ir.Model:
    """Return a copy with the types and shapes of its tensors filled in where they can be inferred.

    Weights are not loaded: only constants up to 1 KB take part. What the model states about its inputs and outputs is
    kept; what it states wrongly about intermediate tensors is overruled by what can be inferred. Sizes that depend on
    open dimensions are written with their names, such as ``"floor((H + 1)/2)"`` or ``"past + tokens"``, in the form
    that :meth:`onnx_ir.SymbolicDim.evaluate` reads; each name is taken to stand for 1 or more.

    Args:
        model: The model; it is not changed. A model whose graph has a cycle comes back as it is.
        dims: Sizes for open dimensions of the inputs, such as ``{"batch": 1}``, as :func:`bind_dims` takes them.

    Raises:
        InputError: As :func:`bind_dims`.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] z) {y = Relu(x) z = Exp(y)}'
    ... )
    >>> inferred = infer_shapes(model, {"n": 2})
    >>> shape_list(inferred.graph.node(0).outputs[0])
    [2, 4]
    """
    if "cyclic" in model.meta:
        return model
    copy = bind_dims(model, dims) if dims else copy_model(model)
    infer_in_place(copy)
    return copy
