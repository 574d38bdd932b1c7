"""Which input of a model is made up by activation maximization, and how values from 0 to 1 become what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import InputError, SelectionError, listed
from onnxviz.gradient.ops import Ops
from onnxviz.graph.layouts import input_layout, tensor_layouts
from onnxviz.graph.select import FLOAT_TYPES
from onnxviz.graph.shapes import dtype_name, model_inputs, open_dims, shape_list
from onnxviz.runtime.made_up import sized_inputs
from onnxviz.runtime.preprocess import Preprocessing, picture_form

__all__ = ["Canvas", "Kind", "bound_sizes", "find_canvas"]

#: What an input holds: a picture, a map of features, a signal over time, or features without an order.
Kind = Literal["picture", "map", "signal", "vector"]

_LONG = 256  # features without a name from here on are a waveform
_FEW = 8  # channels rather than points, where nothing tells


@dataclass(frozen=True, eq=False)
class Canvas:
    """The input that is made up.

    What is optimised is ``(N, C, ...)`` from 0 to 1; ``scale * value + shift``, laid out as ``order`` says, enters the
    model.

    Attributes:
        name: The graph input.
        kind: What it holds.
        channels: C.
        size: (height, width), (length,) or (features,).
        order: A letter an axis of the input, of N, C, H, W and L.
        color: The order of a picture's channels; empty where it is none.
        scale: ``(C,)`` float64.
        shift: ``(C,)`` float64.
        batch: Size of the batch that the model, or ``dims``, fixes; None where it is open.
        notes: What was taken for given, one line each.
    """

    name: str
    kind: Kind
    channels: int
    size: tuple[int, ...]
    order: str
    color: str
    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    batch: int | None
    notes: tuple[str, ...] = ()

    def shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the input for a batch.

        >>> canvas = Canvas("x", "signal", 2, (9,), "NLC", "", np.ones(2), np.zeros(2), None)
        >>> canvas.shape(4)
        (4, 9, 2)
        """
        return tuple(self._sizes(batch)[letter] for letter in self.order)

    def _sizes(self, batch: int) -> dict[str, int]:
        return {"N": batch, "C": self.channels, **dict(zip(self.letters[2:], self.size, strict=True))}

    @property
    def letters(self) -> str:
        """A letter an axis of what is optimised."""
        return "NCHW" if len(self.size) == 2 else "NCL"

    def write(self, ops: Ops, values: ir.Value, batch: int, dtype: ir.DataType) -> ir.Value:
        """Append the nodes that turn ``(N, C, ...)`` values into what the input takes, and return that."""
        column = (1, self.channels, *(1 for _ in self.size))
        if not np.all(self.scale == 1):
            values = ops.Mul(values, ops.constant(self.scale.astype(np.float32).reshape(column)))
        if np.any(self.shift):
            values = ops.Add(values, ops.constant(self.shift.astype(np.float32).reshape(column)))
        if dtype != ir.DataType.FLOAT:
            values = ops.Cast(values, to=int(dtype))
        kept = "".join(letter for letter in self.letters if letter in self.order)
        sizes = self._sizes(batch)
        if kept != self.letters:
            values = ops.Reshape(values, ops.ints(*(sizes[letter] for letter in kept)))
        if kept != self.order:
            values = ops.Transpose(values, perm=[kept.index(letter) for letter in self.order])
        return values


def find_canvas(
    model: ir.Model,
    wrt: str | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    bounds: tuple[float, float] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Canvas:
    """Return the input that is made up and what values from 0 to 1 mean in it.

    Args:
        model: A model with inferred shapes; it is not changed.
        wrt: The input; by default the first of floating point that takes a picture, else the first.
        preprocessing: What is done to pictures; where nothing is said, 0 to 1 as :class:`Preprocessing` has it.
        bounds: Smallest and largest value of an input that is none; -1 and 1 by default.
        dims: Sizes for open dimensions.

    Raises:
        InputError: The model has no such input, or none of floating point, or one of a form that cannot be made up.

    >>> from onnxviz.graph.shapes import infer_shapes
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[n, 1, 8, 8] x) => (float[n, 1, 8, 8] y) {y = Relu(x)}''')
    >>> canvas = find_canvas(infer_shapes(model))
    >>> canvas.kind, canvas.order, canvas.size, canvas.batch
    ('picture', 'NCHW', (8, 8), None)
    """
    how = preprocessing or Preprocessing()
    value = _chosen(model, wrt)
    sized = sized_inputs(model, dims or {}, {})[0][str(value.name)]
    shape, known = shape_list(value), shape_list(sized)
    if shape is None or known is None or not 1 <= len(shape) <= 4:
        raise InputError(
            f"input {value.name!r} has {'no known shape' if shape is None else f'{len(shape)} axes'}: only pictures, "
            "signals and vectors can be made up",
            hint="name another float input with --wrt",
        )
    order = _order(model, value, how)
    if len(shape) >= 3 and "W" in order and (found := _picture(model, value, how, order)) is not None:
        canvas, size = found
    else:
        canvas, size = _other(str(value.name), order, known, shape, bounds or (-1.0, 1.0), bounds is None), None
    sizes = {letter: int(dim) for letter, dim in zip(canvas[4], known, strict=True) if isinstance(dim, int)}
    spatial = "HW" if "H" in canvas[4] else "L"
    given = size or (0,) * len(spatial)
    whole = tuple(n or sizes.get(letter, 1) for letter, n in zip(spatial, given, strict=True))
    if min(whole) < 1:
        raise InputError(f"input {value.name!r} of shape {shape} is empty")
    first = shape[0] if "N" in canvas[4] else 1
    if isinstance(first, str) or first is None:  # open, unless a size was given for it
        first = known[0] if (first or f"{value.name}:0") in (dims or {}) else None
    batch = first if isinstance(first, int) else None
    name, kind, channels, notes, letters, color, scale, shift = canvas
    return Canvas(name, kind, channels, whole, letters, color, scale, shift, batch, notes)


_Found = tuple[
    str, Kind, int, tuple[str, ...], str, str, npt.NDArray[np.float64], npt.NDArray[np.float64]
]  # fmt: skip


def _chosen(model: ir.Model, wrt: str | None) -> ir.Value:
    values = {str(value.name): value for value in model_inputs(model)}
    said = ", ".join(f"{name} {dtype_name(value)}" for name, value in values.items()) or "none"
    if wrt is not None:
        if wrt not in values:
            raise InputError(f"the model has no input {wrt!r}", hint=f"its inputs are {said}")
        if values[wrt].dtype not in FLOAT_TYPES:
            raise InputError(
                f"input {wrt!r} is {dtype_name(values[wrt])}, and gradients lead to floating point alone",
                hint="name another with --wrt, or cut the model behind the embedding or the Cast that reads it",
            )
        return values[wrt]
    real = [value for value in values.values() if value.dtype in FLOAT_TYPES]
    if not real:
        raise InputError(
            f"no input is of floating point, which is all that gradients lead to: the inputs are {said}",
            hint="cut the model behind the embedding or the Cast that reads it, or export it with a float input",
        )
    pictures = [v for v in real if len(shape_list(v) or []) == 4 and input_layout(model, v) is not None]
    return (pictures or real)[0]


def _order(model: ir.Model, value: ir.Value, how: Preprocessing) -> str:
    shape = shape_list(value) or []
    if len(shape) == 4:
        return how.layout or input_layout(model, value) or "NCHW"
    if len(shape) == 3:
        told = tensor_layouts(model).get(str(value.name))
        if told is not None:
            return "NCL" if told == "NCHW" else "NLC"
        layout = input_layout(model, value)
        if layout is not None and isinstance(shape[0], int):
            spatial = [shape[layout.index(letter)] for letter in "HW"]
            if all(not isinstance(n, int) or n >= 8 for n in spatial):
                return layout
        middle, last = shape[1:]
        few = isinstance(middle, int) and isinstance(last, int) and middle < min(_FEW, last)
        return "NCL" if few else "NLC"
    return "NL" if len(shape) == 2 else "L"


def _picture(
    model: ir.Model, value: ir.Value, how: Preprocessing, order: str
) -> tuple[_Found, tuple[int, int] | None] | None:
    """Return the canvas of an input that takes pictures, and its sizes; None where it does not."""
    try:
        form = picture_form(model, value, how)
    except InputError:
        if how.color is not None or how.mean is not None or how.std is not None:
            raise
        return None
    said = how.scale is not None or how.mean is not None or how.std is not None
    what = ", ".join(form.steps) or "taken as they are"
    notes = (f"pixels from 0 to 255: {what}{'' if said else ' (assumed: --preset, --mean, --std, --scale say else)'}",)
    letters = form.layout if form.batched else form.layout.replace("N", "")
    if sorted(letters) != sorted(order):
        return None
    return (
        str(value.name), "picture", len(form.scale), notes, letters, form.color, form.scale, form.shift
    ), form.size  # fmt: skip


def _other(
    name: str,
    order: str,
    known: list[int | str | None],
    shape: list[int | str | None],
    bounds: tuple[float, float],
    assumed: bool,
) -> _Found:
    low, high = bounds
    if not low < high or not math.isfinite(high - low):
        raise InputError(f"values cannot be from {low:g} to {high:g}", hint="write --range -1,1")
    channels = known[order.index("C")] if "C" in order else 1
    if not isinstance(channels, int):
        raise SelectionError(f"input {name!r} has an open number of channels", hint="give --dim NAME=N")
    notes = (f"values from {low:g} to {high:g}{' (assumed: --range says else)' if assumed else ''}",)
    if "W" in order:
        kind: Kind = "map"
    elif "C" in order or (len(order) == 2 and (not isinstance(shape[1], int) or shape[1] >= _LONG)):
        kind = "signal"
    else:
        kind = "vector"
    return (
        name, kind, channels, notes, order, "", np.full(channels, high - low), np.full(channels, float(low))
    )  # fmt: skip


def bound_sizes(model: ir.Model, canvas: Canvas, batch: int, dims: Mapping[str, int]) -> dict[str, int]:
    """Return a size for every open dimension of the inputs: those of the canvas, and what follows from them.

    Raises:
        InputError: A size that was given contradicts them.
    """
    sized, _ = sized_inputs(model, dims, {canvas.name: canvas.shape(batch)})
    sizes = {}
    for name, (where, axis) in open_dims(model).items():
        size = (shape_list(sized[where]) or [])[axis]
        sizes[name] = size if isinstance(size, int) else 1
        if where == canvas.name:
            sizes[name] = canvas.shape(batch)[axis]
    if unknown := [name for name in dims if name not in sizes]:
        raise InputError(f"the model has no open dimension {listed(unknown)}")
    return sizes
