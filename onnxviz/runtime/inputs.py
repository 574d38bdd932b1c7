"""What a model is fed: pictures, arrays, literal values or seeded random numbers, and where each came from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.layouts import input_layout
from onnxviz.graph.shapes import dtype_name, model_inputs, shape_list
from onnxviz.runtime.made_up import input_type, random_array, sized_inputs
from onnxviz.runtime.preprocess import Preprocessing, picture_to_tensor

__all__ = ["PICTURES", "InputRecord", "Inputs", "Reader", "load_inputs"]

#: Endings of picture files.
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_FILLS = ("random", "zeros", "ones")


@dataclass(frozen=True)
class InputRecord:
    """What one input was fed.

    Attributes:
        name: The graph input.
        source: The file, the literal value, or how it was made up, such as ``"random, seed 0"``.
        shape: Of the tensor; of a sequence, its length.
        dtype: Of the tensor, as numpy spells it.
        steps: What was done to the source, one line a step.
        picture: The picture as the model sees it, (H, W, 3) uint8 RGB; None if the source is none.
        made_up: True if nobody gave this input a value.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    dtype: str
    steps: tuple[str, ...] = ()
    picture: np.ndarray | None = field(default=None, repr=False, compare=False)
    made_up: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON types, without the picture."""
        return {
            "name": self.name, "source": self.source, "shape": list(self.shape), "dtype": self.dtype,
            "steps": list(self.steps), "made_up": self.made_up,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.name}: {self.source}, {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Inputs:
    """What a model is fed.

    Attributes:
        feeds: Input name -> array (or list, for a sequence).
        records: The origin of each, in the model's order.
        assumed: Sizes that were taken for open dimensions because nothing gave them.
    """

    feeds: dict[str, Any]
    records: tuple[InputRecord, ...]
    assumed: dict[str, int] = field(default_factory=dict)

    @property
    def made_up(self) -> list[str]:
        """The inputs that nobody gave a value."""
        return [record.name for record in self.records if record.made_up]

    @property
    def picture(self) -> np.ndarray | None:
        """The first picture among the inputs, (H, W, 3) uint8 RGB."""
        return next((r.picture for r in self.records if r.picture is not None), None)


def load_inputs(
    model: ir.Model,
    sources: Sequence[str | os.PathLike[str]] | Mapping[str, Any] = (),
    *,
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Inputs:
    """Make the tensors that a model takes.

    Args:
        model: The model; it is not changed.
        sources: What to feed. A mapping of input name to array (a list of arrays for a sequence); or a list of

            - a path to a picture, or an ``.npy`` file: for the input that it fits;
            - a path to an ``.npz`` file: its entries are named as the inputs;
            - ``name=path``, or ``name=value`` with a JSON value such as ``16000`` or ``[[1, 2, 3]]``;
            - ``name=random``, ``name=zeros`` or ``name=ones``.

        preprocessing: What to do to pictures; see :class:`Preprocessing`.
        dims: Sizes for open dimensions of inputs that are made up; see :func:`onnxviz.graph.shapes.bind_dims`.
        seed: For random numbers.

    Returns:
        The feeds. Inputs that were given nothing are random, and their record says so (``made_up``). Inputs that have a
        default keep it unless they are named.

    Raises:
        InputError: A file cannot be read, a name is not an input's, or a type or shape does not fit.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x) => (float[n, 2] y) {y = Neg(x)}'
    ... )
    >>> load_inputs(model, ["x=[[1, 2]]"]).feeds["x"].dtype
    dtype('float32')
    """
    reader = Reader(model, preprocessing or Preprocessing(), seed)
    if isinstance(sources, Mapping):
        for name, array in sources.items():
            reader.add(name, array, "array")
    else:
        for source in sources:
            reader.read(os.fspath(source))
    return reader.inputs(dims or {})


class Reader:
    """Collects what the sources give, input by input."""

    def __init__(self, model: ir.Model, how: Preprocessing, seed: int) -> None:
        self.model = model
        self.how = how
        self.seed = seed
        self.values = {str(value.name): value for value in model_inputs(model)}
        self.defaults = {str(v.name): v for v in model.graph.inputs if v.is_initializer()}
        self.feeds: dict[str, Any] = {}
        self.records: dict[str, InputRecord] = {}
        self._fills: dict[str, str] = {}  # made once all sizes are known

    def inputs(self, dims: Mapping[str, int]) -> Inputs:
        """Return what was collected; inputs that were given nothing are made up."""
        required = [str(value.name) for value in model_inputs(self.model)]
        shapes = {name: record.shape for name, record in self.records.items() if name in required}
        sized, assumed = sized_inputs(self.model, dims, shapes)
        fills, self._fills = self._fills, {}
        for name in dict.fromkeys((*required, *fills)):
            if name not in self.feeds:
                value = sized.get(name) or self.value(name)
                self.add(name, *_filled(value, fills.get(name, "random"), self.seed), made_up=name not in fills)
        order = [*required, *(name for name in self.feeds if name not in required)]
        return Inputs({n: self.feeds[n] for n in order}, tuple(self.records[n] for n in order), assumed)

    def value(self, name: str) -> ir.Value:
        """Return the input of a name, those that have a default included."""
        value = self.values.get(name) or self.defaults.get(name)
        if value is None:
            raise InputError(f"the model has no input {name!r}", hint=f"its inputs are {_signature(self.values)}")
        return value

    def _has(self, name: str) -> bool:
        return name in self.feeds or name in self._fills

    def _check_free(self, name: str) -> None:
        if self._has(name):
            raise InputError(f"input {name!r} is given twice")

    def add(
        self,
        name: str,
        given: Any,
        source: str,
        steps: Sequence[str] = (),
        picture: np.ndarray | None = None,
        made_up: bool = False,
    ) -> None:
        value = self.value(name)
        self._check_free(name)
        if isinstance(value.type, ir.SequenceType):
            if not isinstance(given, (list, tuple)):
                raise InputError(f"input {name!r} takes a sequence", hint="feed a list of arrays from Python")
            self.feeds[name] = [np.asarray(item) for item in given]
            self.records[name] = InputRecord(name, source, (len(given),), dtype_name(value) or "sequence")
            return
        array, cast = _fitted(value, _array(name, given))
        dtype = "string" if array.dtype == object else array.dtype.name
        self.feeds[name] = array
        self.records[name] = InputRecord(name, source, array.shape, dtype, (*steps, *cast), picture, made_up)

    def read(self, source: str) -> None:
        """Read one source of the command line."""
        name, path = self.split(source)
        suffix = Path(path).suffix.lower()
        if name is not None:
            self.value(name)
        if name is not None and not Path(path).exists() and suffix not in PICTURES | {".npy", ".npz"}:
            if path in _FILLS:
                self._check_free(name)
                self._fills[name] = path
            else:
                self.add(name, *_literal(self.value(name), path))
        elif Path(path).is_dir():
            raise InputError(f"{path} is a folder", hint="a folder of samples is taken by `capture` alone")
        elif suffix == ".npz":
            self._read_archive(name, Path(path))
        elif suffix == ".npy":
            array = _load_numpy(Path(path))[""]
            self.add(name or self._fitting_input(array), array, Path(path).name)
        elif not Path(path).exists():
            raise InputError(f"there is no file {path}", hint=f"the model's inputs are {_signature(self.values)}")
        else:
            value = self.value(name) if name is not None else self._picture_input(path)
            array, picture, steps = picture_to_tensor(self.model, value, Path(path), self.how)
            self.add(str(value.name), array, Path(path).name, steps, picture)

    def split(self, source: str) -> tuple[str | None, str]:
        """Split ``name=path``; input names may hold ``=`` themselves, and so may paths."""
        for name in sorted([*self.values, *self.defaults], key=len, reverse=True):
            if source.startswith(f"{name}="):
                return name, source[len(name) + 1 :]
        if "=" in source and not Path(source).exists():
            name, _, path = source.partition("=")
            return name, path
        return None, source

    def _read_archive(self, name: str | None, path: Path) -> None:
        arrays = _load_numpy(path)
        if name is None:
            for key, array in arrays.items():
                self.add(key, array, path.name)
        elif name in arrays or len(arrays) == 1:
            self.add(name, arrays.get(name, next(iter(arrays.values()))), path.name)
        else:
            raise InputError(f"{path} has no entry {name!r}", hint=f"its entries are {', '.join(arrays)}")

    def _fitting_input(self, array: np.ndarray) -> str:
        """Return the one input that an unnamed array fits: by shape and type, else the only one left."""
        free = [name for name in self.values if not self._has(name)]
        fitting = [name for name in free if _fits(self.values[name], array)]
        fitting = [name for name in fitting if self.values[name].shape is not None] or fitting
        if len(fitting) == 1:
            return fitting[0]
        if len(free) == 1:
            return free[0]
        if not fitting:
            raise InputError(f"an array of shape {array.shape} fits none of the inputs {_signature(self.values)}")
        raise InputError(f"the array fits several inputs: {', '.join(fitting)}", hint="name one: NAME=FILE")

    def _picture_input(self, path: str) -> ir.Value:
        free = [value for name, value in self.values.items() if not self._has(name)]
        fitting = [value for value in free if input_layout(self.model, value) is not None]
        fitting = [v for v in fitting if len(shape_list(v) or []) == 4] or fitting
        if fitting:
            return fitting[0]
        if len(self.values) == 1:
            return next(iter(self.values.values()))  # its own error says why a picture does not fit
        raise InputError(
            f"no input takes the picture {path}: the inputs are {_signature(self.values)}", hint="give NAME=FILE"
        )


def _signature(values: Mapping[str, ir.Value]) -> str:
    return ", ".join(f"{name} {dtype_name(v)} {_shape_text(v)}" for name, v in values.items()) or "none"


def _shape_text(value: ir.Value) -> str:
    shape = shape_list(value)
    return "of any shape" if shape is None else f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _array(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError as error:
        raise InputError(f"input {name!r} was given what is no array: {error}") from error


def _fits(value: ir.Value, array: np.ndarray) -> bool:
    try:
        _fitted(value, array)
    except InputError:
        return False
    return True


def _fitted(value: ir.Value, array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Check an array against an input's type and shape; a missing batch axis and a safe cast are put right."""
    shape, wanted = shape_list(value), dtype_name(value)
    expected = f"input {value.name!r} takes {wanted} {_shape_text(value)}"
    steps = []
    if array.dtype == object and wanted != "string":
        raise InputError(f"{expected}, not an array of Python objects")
    if shape is not None:
        if array.ndim == len(shape) - 1 and (shape[0] == 1 or not isinstance(shape[0], int)):
            array = array[None]
            steps.append("batch axis of 1 added")
        fits = array.ndim == len(shape) and all(
            n == d for d, n in zip(shape, array.shape, strict=True) if isinstance(d, int)
        )
        if not fits:
            raise InputError(f"{expected}, not shape {tuple(array.shape)}")
    if wanted is None or wanted == array.dtype.name:
        return array, steps
    target = input_type(value)
    if target.kind == "O":
        return array.astype(object), steps
    if not np.can_cast(array.dtype, target, "same_kind") and not _exact(array, target):
        raise InputError(f"{expected}, not {array.dtype}", hint=f"convert it with .astype({wanted!r})")
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    lost = 0 if target.kind in "biu" else int(np.count_nonzero(~np.isfinite(cast))) - _not_finite(array)
    steps.append(f"cast from {array.dtype} to {wanted}" + (f", {lost} values overflowed to Inf" if lost > 0 else ""))
    return cast, steps


def _not_finite(array: np.ndarray) -> int:
    return 0 if array.dtype.kind in "biu" else int(np.count_nonzero(~np.isfinite(array)))


def _exact(array: np.ndarray, target: np.dtype[Any]) -> bool:
    """Whether a cast across kinds keeps what matters: whole numbers stored as floats, floats of fewer bits."""
    if array.dtype.kind not in "biuf":
        return False
    if target.kind == "V":
        return array.dtype.kind == "f"
    with np.errstate(all="ignore"):
        return bool(np.array_equal(array.astype(target).astype(array.dtype), array))


def _filled(value: ir.Value, fill: str, seed: int) -> tuple[np.ndarray, str]:
    if fill == "random":
        return random_array(value, seed), f"random, seed {seed}"
    shape = [dim if isinstance(dim, int) else 1 for dim in shape_list(value) or []]
    return np.full(shape, float(fill == "ones")).astype(input_type(value)), fill


def _literal(value: ir.Value, text: str) -> tuple[np.ndarray, str]:
    try:
        parsed = json.loads(text)
        array = np.asarray(parsed, dtype=object if dtype_name(value) == "string" else None)
    except (json.JSONDecodeError, ValueError) as error:
        raise InputError(
            f"{value.name}={text}: there is no such file, and it is no number or JSON list",
            hint=f"or one of {', '.join(_FILLS)}",
        ) from error
    rank = len(shape_list(value) or [])
    return array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim < rank else array, text


def _load_numpy(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as a numpy file: {reason}") from error
