"""What a JAX function is called with: arrays by name out of example arguments, which may be nested."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxviz.converters.base import Array, ConvertOptions, Source, seeded
from onnxviz.errors import ConversionError
from onnxviz.graph.model import summary_line

__all__ = ["EXAMPLE", "Inputs", "inputs_of", "named_leaves"]

#: What to do where the inputs are unknown.
EXAMPLE = "return (function, example inputs) from the factory, or give --input-shape"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a function.

    Attributes:
        example: One input by name: the parameter's, and its place in it where that is nested (``"batch_images_0"``).
        call: Calls a function with arrays in that order.
    """

    example: dict[str, Array]
    call: Callable[[Callable[..., Any], Sequence[Any]], Any]

    def specs(self, options: ConvertOptions) -> list[Any]:
        """Return shapes and dtypes; axis 0 is open, as ``batch``, where it has the size of the first input's.

        Raises:
            ConversionError: ``options.dynamic`` names an input or an axis that is not there.
        """
        import jax

        batch = next((array.shape[0] for array in self.example.values() if array.ndim), None)
        shapes: dict[str, list[int | str]] = {name: list(array.shape) for name, array in self.example.items()}
        for shape in shapes.values():
            if shape and shape[0] == batch and not options.static:
                shape[0] = "batch"
        for name, axes in options.dynamic.items():
            for axis, size in axes.items():
                if name not in shapes or not -len(shapes[name]) <= axis < len(shapes[name]):
                    listed = ", ".join(f"{n} {list(a.shape)}" for n, a in self.example.items())
                    raise ConversionError(f"there is no axis {axis} of an input {name!r}", hint=f"there are {listed}")
                shapes[name][axis] = size
        return [jax.ShapeDtypeStruct(tuple(shape), self.example[name].dtype) for name, shape in shapes.items()]


def inputs_of(source: Source, options: ConvertOptions) -> Inputs:
    """Find out what a function is called with: the example beside it, or random numbers of the given shapes.

    Raises:
        ConversionError: There is neither, or it does not fit the function.
    """
    import jax

    function: Any = source.network
    given, rng = source.example_inputs, np.random.default_rng(options.seed)
    if given is None:
        given = tuple(seeded(shape, np.float32, rng) for shape in options.input_shapes)
    if isinstance(given, list):
        given = tuple(given)
    args, kwargs = ((), given) if isinstance(given, dict) else (given if isinstance(given, tuple) else (given,), {})
    if not args and not kwargs:
        raise ConversionError(f"the inputs of {source.label} are unknown", hint=EXAMPLE)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise ConversionError(f"{source.label} takes other inputs: {summary_line(error)}", hint=EXAMPLE) from error
    tree = jax.tree.structure(list(bound.arguments.values()))
    example = {k: a for name, value in bound.arguments.items() for k, a in named_leaves({name: value}, "").items()}

    def call(function: Callable[..., Any], flat: Sequence[Any]) -> Any:
        bound.arguments.update(zip(bound.arguments, jax.tree.unflatten(tree, flat), strict=True))
        return function(*bound.args, **bound.kwargs)

    return Inputs(example, call)


def named_leaves(tree: Any, default: str) -> dict[str, Array]:
    """Return the arrays of a nested structure, in its order, named by their place in it.

    A single array, or a tuple of them, is named after ``default``: ``output``, or ``output_0``, ``output_1``.
    """
    import jax

    named: dict[str, Array] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        place = jax.tree_util.keystr(path, simple=True, separator="_")
        name = f"{default}_{place}" if place.isdecimal() else place or default
        while name in named:
            name += "_"
        named[name] = np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype))
    return named
