"""What a Keras model is called with: names, shapes and dtypes of its inputs, and how they are nested."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxviz.converters.base import Array, ConvertOptions, comes_from, seeded
from onnxviz.errors import ConversionError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.quiet import quiet

__all__ = ["Signature", "signature_of"]

_GENERATED = re.compile(r"(keras_tensor|input_layer)(_\d+)?")  # names that Keras counts up within a session
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs of a model.

    Attributes:
        names: Names of the inputs, flattened.
        shapes: Their shapes, batch included; None where an axis is dynamic.
        example_shapes: Shapes to try the model on.
        dtypes: Their dtypes.
        pack: Turns a flat list into the positional arguments of a call.
        labels: Names of the open axes of each input.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    example_shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    pack: Callable[[Sequence[Any]], list[Any]]
    labels: tuple[Mapping[int, str], ...]

    def example(self, seed: int, batch: int | None = None, stretch: int = 1) -> dict[str, Array]:
        """Draw one input by name.

        Args:
            seed: Seed of the values.
            batch: The batch size; by default the example's.
            stretch: How many times as long as in the example the other open axes are.
        """
        rng = np.random.default_rng(seed)
        drawn = {}
        rows = zip(self.names, self.example_shapes, self.dtypes, self.labels, strict=True)
        for name, shape, dtype, labels in rows:
            sizes = [size * stretch if axis and axis in labels else size for axis, size in enumerate(shape)]
            if batch is not None and sizes:
                sizes[0] = batch
            drawn[name] = seeded(sizes, dtype, rng)
        return drawn

    @property
    def open_sizes(self) -> tuple[str, ...]:
        """Names of the sizes beside the batch that stay open."""
        return tuple(dict.fromkeys(label for labels in self.labels for axis, label in labels.items() if axis))


def signature_of(model: Any, options: ConvertOptions, label: str) -> Signature:
    """Find out how a model is called; build it from ``options.input_shapes`` where it never was.

    Raises:
        ConversionError: A shape is unknown, or does not fit the model.
    """
    import keras

    structure = _declared_inputs(model)
    if structure is None:
        return _undeclared(model, options, label)
    tensors = keras.tree.flatten(structure)
    names = _names([tensor.name for tensor in tensors])
    shapes = _shapes(names, [tuple(t.shape) for t in tensors], options, label)
    nested = comes_from(model, "keras", "Functional") or len(tensors) == 1

    def pack(flat: Sequence[Any]) -> list[Any]:
        return [keras.tree.pack_sequence_as(structure, list(flat))] if nested else list(flat)

    dtypes = tuple(str(keras.backend.standardize_dtype(t.dtype)) for t in tensors)
    labels = _labels(names, shapes, options, label)
    for name, wanted, axes in zip(names, [tuple(t.shape) for t in tensors], labels, strict=True):
        if fixed := [axis for axis in axes if axis and wanted[axis] is not None]:
            raise ConversionError(f"{label} fixes axis {fixed[0]} of its input {name!r} to {wanted[fixed[0]]}")
    return Signature(names, _opened(shapes, labels), shapes, dtypes, pack, labels)


def _declared_inputs(model: Any) -> Any:
    """Return the model's symbolic inputs as they are nested; None for one that was subclassed or never built."""
    import keras

    if comes_from(model, "keras", "Functional"):
        return model.input
    if isinstance(model, keras.Sequential) and model.built and model.inputs:
        return model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return None


def _undeclared(model: Any, options: ConvertOptions, label: str) -> Signature:
    import keras

    parameters = [
        p.name
        for p in inspect.signature(model.call).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in ("training", "mask")
    ]
    known = options.input_shapes or _recorded_shapes(model)
    if not known:
        raise ConversionError(
            f"{label} was never built, so its input shape is unknown", hint="give --input-shape 1,28,28,1"
        )
    separate = len(known) > 1 and len(parameters) >= len(known)
    names = tuple(parameters[: len(known)]) if separate else tuple(f"input_{i + 1}" for i in range(len(known)))
    names = ("input",) if len(known) == 1 else names
    shapes = tuple((s[0] or 1, *s[1:]) for s in known)

    def pack(flat: Sequence[Any]) -> list[Any]:
        return list(flat) if separate or len(flat) == 1 else [list(flat)]

    labels = _labels(names, shapes, options, label)
    dtypes = (keras.backend.floatx(),) * len(known)
    signature = Signature(names, _opened(shapes, labels), shapes, dtypes, pack, labels)
    try:
        with quiet():
            model(*pack([keras.ops.zeros(shape) for shape in shapes]), training=False)
    except Exception as error:
        sizes = ", ".join("×".join(map(str, shape)) for shape in shapes)
        raise ConversionError(f"{label} cannot be built on inputs of shape {sizes}: {summary_line(error)}") from error
    declared = _declared_inputs(model)  # a Sequential knows its inputs once it is built
    return signature if declared is None else signature_of(model, options, label)


def _recorded_shapes(model: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that a subclassed model was built with, where it recorded them and they are complete."""
    recorded = (model.get_build_config() or {}) if model.built else {}
    shapes = list((recorded.get("shapes_dict") or {}).values()) or [recorded.get("input_shape")]
    if any(not isinstance(s, (list, tuple)) or any(not isinstance(n, int) for n in s[1:]) for s in shapes):
        return ()
    return tuple((s[0] or 1, *s[1:]) for s in shapes)


def _names(given: Sequence[str]) -> tuple[str, ...]:
    generated = [bool(_GENERATED.fullmatch(name)) for name in given]
    if sum(generated) == 1:
        return tuple("input" if new else name for name, new in zip(given, generated, strict=True))
    return tuple(f"input_{i + 1}" if new else name for i, (name, new) in enumerate(zip(given, generated, strict=True)))


def _shapes(
    names: Sequence[str], declared: Sequence[Shape], options: ConvertOptions, label: str
) -> tuple[tuple[int, ...], ...]:
    given = options.input_shapes
    if given and len(given) != len(declared):
        raise ConversionError(
            f"{label} has {len(declared)} inputs ({', '.join(names)}), {len(given)} shapes were given"
        )
    shapes: list[tuple[int, ...]] = []
    for index, (name, wanted) in enumerate(zip(names, declared, strict=True)):
        shape = given[index] if given else tuple(n or 1 if axis == 0 else n for axis, n in enumerate(wanted))
        listed = ",".join("?" if n is None else str(n) for n in wanted)
        if any(n is None for n in shape):
            raise ConversionError(
                f"input {name!r} of {label} has axes of unknown size: {listed}", hint="give --input-shape"
            )
        if len(shape) != len(wanted) or any(n is not None and n != m for n, m in zip(wanted, shape, strict=True)):
            raise ConversionError(f"input {name!r} of {label} is {listed}, not {','.join(map(str, shape))}")
        shapes.append(tuple(int(n) for n in shape if n is not None))
    return tuple(shapes)


def _labels(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], options: ConvertOptions, label: str
) -> tuple[dict[int, str], ...]:
    """Return which axes of each input stay open, and the names of their sizes."""
    labels: list[dict[int, str]] = [{} if options.static or not shape else {0: "batch"} for shape in shapes]
    for name, axes in options.dynamic.items():
        if name not in names:
            raise ConversionError(f"{label} has no input {name!r} to leave open", hint=f"it has {', '.join(names)}")
        place = list(names).index(name)
        rank = len(shapes[place])
        for axis, size in axes.items():
            if not -rank <= axis < rank:
                raise ConversionError(f"input {name!r} has no axis {axis}: its shape is {list(shapes[place])}")
            labels[place].setdefault(axis % rank, size)
    return tuple(labels)


def _opened(shapes: Sequence[tuple[int, ...]], labels: Sequence[Mapping[int, str]]) -> tuple[Shape, ...]:
    return tuple(
        tuple(None if axis in open_axes else n for axis, n in enumerate(shape))
        for shape, open_axes in zip(shapes, labels, strict=True)
    )
