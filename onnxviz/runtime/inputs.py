"""What a model is fed: pictures, arrays, literal values or seeded random numbers, and where each came from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.layouts import input_layout
from onnxviz.graph.shapes import bind_dims, dtype_name, model_inputs, open_dims, shape_list
from onnxviz.runtime.preprocess import Preprocessing, picture_to_tensor

__all__ = ["InputRecord", "Inputs", "load_inputs"]

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_FILLS = ("random", "zeros", "ones")


@dataclass(frozen=True)
class InputRecord:
    """What one input was fed.

    Attributes:
        name: The graph input.
        source: The file, the literal value, or how it was made up, such as ``"random, seed 0"``.
        shape: Of the tensor.
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


@dataclass(frozen=True)
class Inputs:
    """What a model is fed.

    Attributes:
        feeds: Input name -> array.
        records: The origin of each, in the model's order.
        assumed: Sizes that were taken for open dimensions because nothing gave them.
    """

    feeds: dict[str, np.ndarray]
    records: tuple[InputRecord, ...]
    assumed: dict[str, int] = field(default_factory=dict)

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
        sources: What to feed. A mapping of input name to array; or a list of

            - a path to a picture, or an ``.npy`` file: for the input that it fits;
            - a path to an ``.npz`` file: its entries are named as the inputs;
            - ``name=path``, or ``name=value`` with a JSON value such as ``16000`` or ``[[1, 2, 3]]``;
            - ``name=random``, ``name=zeros`` or ``name=ones``.

        preprocessing: What to do to pictures; see :class:`Preprocessing`.
        dims: Sizes for open dimensions of inputs that are made up; see :func:`onnxviz.graph.shapes.bind_dims`.
        seed: For random numbers.

    Returns:
        The feeds. Inputs that were given nothing are random, and their record says so (``made_up``).

    Raises:
        InputError: A file cannot be read, a name is not an input's, or a type or shape does not fit.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x) => (float[n, 2] y) {y = Neg(x)}'
    ... )
    >>> load_inputs(model, ["x=[[1, 2]]"]).feeds["x"].dtype
    dtype('float32')
    """
    how = preprocessing or Preprocessing()
    values = {str(value.name): value for value in model_inputs(model)}
    found: dict[str, tuple[np.ndarray, InputRecord]] = {}
    if isinstance(sources, Mapping):
        for name, array in sources.items():
            _add(found, values, name, np.asarray(array), "array")
    else:
        for source in sources:
            _read_source(model, values, found, os.fspath(source), how, seed)
    rest = [name for name in values if name not in found]
    assumed: dict[str, int] = {}
    if rest:
        sized, assumed = _sized(model, dims or {}, {name: array for name, (array, _) in found.items()})
        for name in rest:
            array = _random(sized[name], seed)
            _add(found, values, name, array, f"random, seed {seed}", made_up=True)
    feeds = {name: found[name][0] for name in values}
    return Inputs(feeds, tuple(found[name][1] for name in values), assumed)


def _add(
    found: dict[str, tuple[np.ndarray, InputRecord]],
    values: Mapping[str, ir.Value],
    name: str,
    array: np.ndarray,
    source: str,
    steps: Sequence[str] = (),
    picture: np.ndarray | None = None,
    made_up: bool = False,
) -> None:
    if name not in values:
        raise InputError(f"the model has no input {name!r}", hint=f"its inputs are {_signature(values)}")
    if name in found:
        raise InputError(f"input {name!r} is given twice")
    array, cast = _fitted(values[name], array)
    record = InputRecord(name, source, array.shape, str(array.dtype), (*steps, *cast), picture, made_up)
    found[name] = (array, record)


def _signature(values: Mapping[str, ir.Value]) -> str:
    return ", ".join(f"{name} {dtype_name(v)} {_shape_text(v)}" for name, v in values.items()) or "none"


def _shape_text(value: ir.Value) -> str:
    shape = shape_list(value)
    return "of any shape" if shape is None else f"({', '.join('?' if d is None else str(d) for d in shape)})"


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
    if wanted is None or wanted == str(array.dtype) or wanted.startswith(("sequence", "optional")):
        return array, steps
    if wanted == "string":
        return array.astype(object), steps
    if wanted in ("bfloat16",) or wanted.startswith("float8") or wanted.endswith("int4"):
        raise InputError(f"{expected}, which numpy has no type for")
    target = np.dtype(wanted)
    if not np.can_cast(array.dtype, target, "same_kind") and not _exact(array, target):
        raise InputError(f"{expected}, not {array.dtype}", hint=f"convert it with .astype({wanted!r})")
    steps.append(f"cast from {array.dtype} to {wanted}")
    return array.astype(target), steps


def _exact(array: np.ndarray, target: np.dtype[Any]) -> bool:
    """Whether a cast across kinds keeps every value, as for whole numbers stored as floats."""
    if array.dtype.kind not in "biuf":
        return False
    with np.errstate(all="ignore"):
        return bool(np.array_equal(array.astype(target).astype(array.dtype), array))


def _read_source(
    model: ir.Model,
    values: Mapping[str, ir.Value],
    found: dict[str, tuple[np.ndarray, InputRecord]],
    source: str,
    how: Preprocessing,
    seed: int,
) -> None:
    name, path = _split(values, source)
    suffix = Path(path).suffix.lower()
    if name is not None and not Path(path).exists() and suffix not in _PICTURES | {".npy", ".npz"}:
        array, note = _literal(values[name], path, seed) if name in values else (np.zeros(0), "")
        _add(found, values, name, array, note)
    elif suffix == ".npz":
        for key, array in _load_numpy(Path(path)).items():
            _add(found, values, key, array, Path(path).name)
    elif suffix == ".npy":
        array = _load_numpy(Path(path))[""]
        _add(found, values, name or _fitting_input(values, found, array), array, Path(path).name)
    else:
        if not Path(path).exists():
            raise InputError(f"there is no file {path}", hint=f"the model's inputs are {_signature(values)}")
        if name is not None and name not in values:
            raise InputError(f"the model has no input {name!r}", hint=f"its inputs are {_signature(values)}")
        value = values[name] if name is not None else _picture_input(model, values, found, path)
        array, picture, steps = picture_to_tensor(model, value, Path(path), how)
        _add(found, values, str(value.name), array, Path(path).name, steps, picture)


def _split(values: Mapping[str, ir.Value], source: str) -> tuple[str | None, str]:
    """Split ``name=path``; input names may hold ``=`` themselves, and so may paths."""
    for name in sorted(values, key=len, reverse=True):
        if source.startswith(f"{name}="):
            return name, source[len(name) + 1 :]
    if "=" in source and not Path(source).exists():
        name, _, path = source.partition("=")
        return name, path
    return None, source


def _literal(value: ir.Value, text: str, seed: int) -> tuple[np.ndarray, str]:
    if text == "random":
        return _random(value, seed), f"random, seed {seed}"
    if text in _FILLS:
        shape = [dim if isinstance(dim, int) else 1 for dim in shape_list(value) or []]
        return np.full(shape, float(text == "ones")).astype(_numpy_type(value)), text
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
        raise InputError(
            f"{path} cannot be read as a numpy file: {str(error).splitlines()[0] if str(error) else error}"
        ) from error


def _fitting_input(values: Mapping[str, ir.Value], found: Mapping[str, Any], array: np.ndarray) -> str:
    """Return the one input that an unnamed array fits: by shape and type, else the only one left."""
    free = [name for name in values if name not in found]

    def fits(name: str) -> bool:
        try:
            _fitted(values[name], array)
        except InputError:
            return False
        return True

    fitting = [name for name in free if fits(name)]
    if len(fitting) == 1 or (fitting and len(values) > 1 and len({_shape_text(values[n]) for n in fitting}) > 1):
        return fitting[0]
    if len(free) == 1:
        return free[0]
    if not fitting:
        raise InputError(f"an array of shape {array.shape} fits none of the inputs {_signature(values)}")
    raise InputError(f"the array fits several inputs: {', '.join(fitting)}", hint="name one: NAME=FILE")


def _picture_input(model: ir.Model, values: Mapping[str, ir.Value], found: Mapping[str, Any], path: str) -> ir.Value:
    free = [value for name, value in values.items() if name not in found]
    fitting = [value for value in free if input_layout(model, value) is not None and dtype_name(value) != "bool"]
    fitting = [v for v in fitting if len(shape_list(v) or []) == 4] or fitting
    if fitting:
        return fitting[0]
    if len(values) == 1:
        return next(iter(values.values()))  # its own error says why a picture does not fit
    raise InputError(f"no input takes the picture {path}: the inputs are {_signature(values)}", hint="give NAME=FILE")


def _sized(
    model: ir.Model, dims: Mapping[str, int], given: Mapping[str, np.ndarray]
) -> tuple[dict[str, ir.Value], dict[str, int]]:
    """Return the inputs with every open dimension set: as told, as in given arrays, else assumed; and these."""
    values = {str(v.name): v for v in model_inputs(model)}
    sizes: dict[str, int] = {
        dim: size
        for name, array in given.items()
        for dim, size in zip(shape_list(values[name]) or [], array.shape, strict=False)
        if isinstance(dim, str)
    }
    sizes.update(dims)
    assumed = {
        name: _usual_size(model, values[where], name, axis)
        for name, (where, axis) in open_dims(model).items()
        if name not in sizes and where not in given
    }
    sized = bind_dims(model, {**assumed, **sizes})
    return {str(v.name): v for v in model_inputs(sized)}, assumed


def _usual_size(model: ir.Model, value: ir.Value, name: str, axis: int) -> int:
    if axis == 0:
        return 1
    shape = shape_list(value) or []
    if len(shape) == 4 and (layout := input_layout(model, value)) is not None:
        return 3 if layout.index("C") == axis else 224
    words = ("seq", "token", "time", "length", "len", "frame", "sample")
    if "past" in name.lower() or not any(word in name.lower() for word in words):
        return 1
    waveform = len(shape) == 2 and "float" in (dtype_name(value) or "")
    return 512 if waveform else 16


def _numpy_type(value: ir.Value) -> np.dtype[Any]:
    name = dtype_name(value) or "float32"
    if name.startswith(("sequence", "optional", "bfloat16", "float8")) or name.endswith("int4"):
        raise InputError(f"input {value.name!r} is {name}, which onnxviz cannot make up", hint="feed it from Python")
    return np.dtype(object) if name == "string" else np.dtype(name)


def _random(value: ir.Value, seed: int, limit: int = 2**28) -> np.ndarray:
    """Return standard normal floats, integers that are valid indices where they index a table, fair coin flips."""
    shape = [dim if isinstance(dim, int) else 1 for dim in shape_list(value) or []]
    if math.prod(shape) > limit:
        raise InputError(f"input {value.name!r} would have {math.prod(shape):,} elements", hint="give --dim NAME=N")
    rng = np.random.default_rng([seed, crc32(str(value.name).encode())])
    dtype = _numpy_type(value)
    if dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    if dtype.kind in "fc":
        return np.asarray(rng.standard_normal(shape), dtype)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    top = 256 if dtype == np.uint8 else 128 if dtype == np.int8 else _table_rows(value)
    return np.asarray(rng.integers(0, top, shape), dtype)


def _table_rows(value: ir.Value, depth: int = 3) -> int:
    """Return how many rows the smallest table has that an integer input indexes; 2 if it indexes none."""
    rows = []
    for node in value.consumers():
        if node.op_type == "Gather" and len(node.inputs) > 1 and node.inputs[1] is value:
            table = constant_tensor(node.inputs[0])
            if table is not None and len(table.shape) > 0 and isinstance(table.shape[0], int):
                rows.append(max(1, table.shape[0]))
        elif (
            depth
            and node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
            and node.inputs[0] is value
        ):
            rows.append(_table_rows(node.outputs[0], depth - 1))
    return min(rows, default=2)
