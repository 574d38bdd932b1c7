"""Tensors by the names that a user writes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from itertools import islice

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.select import all_tensors

__all__ = ["float_tensor", "is_float", "named_tensors", "unknown"]

_POOL = 20_000  # names that are compared; comparing is slow


def named_tensors(model: ir.Model) -> dict[str, ir.Value]:
    """Return all tensors by their names: inputs, initializers, and what nodes give, bodies included."""
    values = {name: value for value, name in all_tensors(model).items()}
    return values | {str(v.name): v for v in (*model.graph.inputs, *model.graph.initializers.values())}


def is_float(value: ir.Value) -> bool:
    """Whether a value is a tensor of floating point; sequences and optional values are none."""
    return isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point()


def float_tensor(values: Mapping[str, ir.Value], name: str) -> ir.Value:
    """Return a tensor of floating point by its name.

    Raises:
        SelectionError: The name is no tensor's, or the tensor is of another type.
    """
    if name not in values:
        raise unknown(name, values)
    value = values[name]
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        kind = type(value.type).__name__.removesuffix("Type").lower()
        raise SelectionError(f"{name} is no tensor but of type {kind}", hint="choose a tensor of floating point")
    if not is_float(value):
        raise SelectionError(
            f"{name} is of type {value.dtype}, which has no gradient", hint="choose a tensor of floating point"
        )
    return value


def unknown(name: str, names: Iterable[str]) -> SelectionError:
    """Return the error of a name that no tensor has, with the nearest ones.

    >>> str(unknown("logit", ["x", "logits"]))
    "the model has no tensor 'logit'; did you mean 'logits'?"
    """
    lowered = {known.lower(): known for known in islice(names, _POOL)}
    near = difflib.get_close_matches(name[:200].lower(), lowered, n=3, cutoff=0.6)
    said = " or ".join(repr(lowered[one]) for one in near)
    return SelectionError(
        f"the model has no tensor {name!r}", hint=f"did you mean {said}?" if said else "`onnxviz inspect` lists them"
    )
