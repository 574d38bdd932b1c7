"""Many samples for one model: folders, lists and long arrays, cut into the batches that it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.model import copy_model
from onnxviz.graph.shapes import model_inputs, shape_list
from onnxviz.runtime.inputs import PICTURES, InputRecord, Inputs, Reader
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.samples import sample_count

__all__ = ["Batches", "load_batches"]

_FILES = PICTURES | {".npy"}
Source = str | os.PathLike[str]


@dataclass(frozen=True)
class _Stream:
    """The samples of one input: a file each, or the rows of one array."""

    name: str | None
    files: tuple[Path, ...]
    rows: np.ndarray | None = None

    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.files) if self.rows is None else len(self.rows)

    def names(self) -> list[str]:
        """Return what each sample is called."""
        if self.rows is not None:
            where = self.files[0].name if self.files else ""
            return [f"{where}[{row}]" for row in range(len(self.rows))]
        if self.folder is None:
            return [file.name for file in self.files]
        return [file.relative_to(self.folder).as_posix() for file in self.files]


class Batches:
    """Batches of inputs, read when their turn comes.

    Attributes:
        samples: Number of samples that the batches hold.
        left_over: Number of samples that fill no batch, of a model whose batch is fixed.
        names: What each sample is called: its file below the folder (``"cat/7.png"``), or its row (``"x.npy[7]"``).
            Empty for what was given ready made.
    """

    def __init__(
        self,
        counts: Sequence[int],
        read: Callable[[int], Inputs],
        left_over: int = 0,
        names: Sequence[str] = (),
        read_one: Callable[[int], dict[str, InputRecord]] | None = None,
    ) -> None:
        self._counts = tuple(counts)
        self._read = read
        self._read_one = read_one
        self.samples = sum(self._counts)
        self.left_over = left_over
        self.names = tuple(names)

    @classmethod
    def of(cls, model: ir.Model, inputs: Sequence[Inputs]) -> Batches:
        """Return batches that are there already."""
        counts = [1 if _one_picture(batch) else sample_count(model, batch.feeds) for batch in inputs]
        return cls(counts, lambda index: inputs[index])

    def __len__(self) -> int:
        return len(self._counts)

    def __iter__(self) -> Iterator[tuple[Inputs, int]]:
        """Yield the inputs of each batch and the number of samples that they are."""
        for index, count in enumerate(self._counts):
            yield self._read(index), count

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of samples of each batch."""
        return self._counts

    def first(self) -> Inputs:
        """Return the first batch."""
        return self._read(0)

    def batch(self, index: int) -> Inputs:
        """Return one batch, read when it is asked for."""
        return self._read(index)

    def holding(self, sample: int) -> tuple[Inputs, int]:
        """Return the batch that holds a sample, and the place of the sample in it.

        A single batch is returned as it is, whatever the sample: how many it holds is only known by its tensors.

        Raises:
            InputError: There are fewer samples.
        """
        if len(self._counts) == 1:
            return self.first(), sample
        before = 0
        for index, count in enumerate(self._counts):
            if 0 <= sample < before + count:
                return self._read(index), sample - before
            before += count
        raise InputError(f"there is no sample {sample}", hint=f"{before} were given, counted from 0")

    def picture(self, sample: int) -> np.ndarray | None:
        """Return the picture of one sample as the model sees it, (H, W, 3) uint8 RGB; None where it is none.

        It is read when it is asked for.
        """
        if self._read_one is None:
            return self.first().picture if self.samples == 1 else None
        return next((r.picture for r in self._read_one(sample).values() if r.picture is not None), None)


def _one_picture(batch: Inputs) -> bool:
    """Whether a picture of three axes was fed, whose first size may pass for a batch."""
    return any(record.picture is not None and len(record.shape) < 4 for record in batch.records)


def load_batches(
    model: ir.Model,
    sources: Sequence[Source] | Mapping[str, Any] = (),
    *,
    batch: int | None = None,
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Batches:
    """Make the batches that sources give.

    What :func:`onnxviz.runtime.inputs.load_inputs` takes gives one batch. There are several where a source is a folder
    (its pictures and ``.npy`` files, sorted by name; where it holds none, those of its sub-folders, which are then the
    classes), where more files are given than the model has inputs, or where
    the first axis of an ``.npy`` file or array is longer than the model's batch (or than ``batch``).

    Args:
        model: The model; it is not changed.
        sources: As :func:`onnxviz.runtime.inputs.load_inputs` takes them; ``DIR``, ``NAME=DIR``.
        batch: Samples a batch, where the model leaves that open; 1 by default for files, all rows for an array.
        preprocessing, dims, seed: As :func:`onnxviz.runtime.inputs.load_inputs` takes them.

    Raises:
        InputError: A folder holds nothing that can be fed, or inputs have different numbers of samples.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y) {y = Neg(x)}'
    ... )
    >>> [inputs.feeds["x"].tolist() for inputs, _ in load_batches(model, {"x": np.float32([[1, 2], [3, 4]])})]
    [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    if batch is not None and batch < 1:
        raise InputError(f"a batch cannot hold {batch} samples", hint="give --batch 1 or more")
    how = preprocessing or Preprocessing()
    probe = Reader(model, how, seed)
    streams, single = _streams(probe, sources, batch)
    if not streams:
        return Batches.of(model, [_read_all(probe, single).inputs(dims or {})])
    counts = {len(stream) for stream in streams.values()}
    if len(counts) > 1:
        told = ", ".join(f"{name}: {len(stream)}" for name, stream in streams.items())
        raise InputError(f"the inputs have different numbers of samples: {told}")
    total, size = counts.pop(), _batch_size(probe, streams, batch)
    fixed = any(isinstance(_first_dim(probe.value(name)), int) for name in streams)
    whole = total - total % size if fixed else total
    if not whole:
        raise InputError(f"the model takes batches of {size}, and there are {total} samples")

    parts = [range(at, min(at + size, whole)) for at in range(0, whole, size)]

    def read(index: int) -> Inputs:
        reader = _read_all(Reader(model, how, seed), single)
        for name, stream in streams.items():
            _add(reader, name, stream, parts[index], how, seed)
        return reader.inputs(dims or {})

    def read_one(sample: int) -> dict[str, InputRecord]:
        return {
            name: _read_file(_sample_model(model, name), name, stream.files[sample], how, seed).records[name]
            for name, stream in streams.items()
            if stream.rows is None
        }

    leading = next((stream for stream in streams.values() if stream.rows is None), next(iter(streams.values())))
    return Batches([len(part) for part in parts], read, total - whole, leading.names()[:whole], read_one)


def _read_all(reader: Reader, single: Sequence[tuple[str, Any] | str]) -> Reader:
    for source in single:
        if isinstance(source, str):
            reader.read(source)
        else:
            reader.add(source[0], source[1], "array")
    return reader


def _streams(
    reader: Reader, sources: Sequence[Source] | Mapping[str, Any], batch: int | None
) -> tuple[dict[str, _Stream], list[tuple[str, Any] | str]]:
    """Sort the sources into inputs that have many samples and what every batch is fed alike."""
    streams: dict[str, _Stream] = {}
    single: list[tuple[str, Any] | str] = []
    if isinstance(sources, Mapping):
        for name, given in sources.items():
            if (rows := _rows(reader.value(name), given, batch)) is not None:
                streams[name] = _Stream(name, (), rows)
            else:
                single.append((name, given))
        return streams, single
    texts = [os.fspath(source) for source in sources]
    loose = [text for text in texts if reader.split(text)[0] is None and Path(text).suffix.lower() in _FILES]
    several = len(loose) > len(reader.values)
    if batch is None and (several or any(Path(reader.split(text)[1]).is_dir() for text in texts)):
        batch = 1  # files go one by one, and the rows of an array beside them as well
    files: list[Path] = []
    for text in texts:
        prefix, path = reader.split(text)
        if Path(path).is_dir():
            streams[prefix or _only_input(reader)] = _Stream(prefix, _folder(Path(path)), folder=Path(path))
        elif several and text in loose:
            files.append(Path(text))
        elif (found := _long_array(reader, prefix, Path(path), batch)) is not None:
            streams[found[0]] = found[1]
        else:
            single.append(text)
    if files:
        streams[_only_input(reader)] = _Stream(None, tuple(files))
    return streams, single


def _only_input(reader: Reader) -> str:
    if len(reader.values) == 1:
        return next(iter(reader.values))
    raise InputError(
        f"several samples fit several inputs: {', '.join(reader.values)}", hint="name the input: NAME=FOLDER"
    )


def _folder(path: Path) -> tuple[Path, ...]:
    found = path.iterdir() if any(_is_sample(p) for p in path.iterdir()) else _in_folders(path)
    files = tuple(sorted(p for p in found if _is_sample(p)))
    if not files:
        raise InputError(f"the folder {path} holds no pictures and no .npy files, nor do its sub-folders")
    return files


def _in_folders(path: Path) -> list[Path]:
    """Return what lies in the folders of a folder; hidden ones, such as those of an editor, are no classes."""
    return [file for file in path.glob("*/*") if not file.parent.name.startswith(".")]


def _is_sample(path: Path) -> bool:
    return path.suffix.lower() in _FILES and not path.name.startswith(".") and path.is_file()


def _long_array(reader: Reader, name: str | None, path: Path, batch: int | None) -> tuple[str, _Stream] | None:
    if path.suffix.lower() != ".npy" or not path.is_file() or (name is None and len(reader.values) != 1):
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return None  # the reader says what is wrong with it
    name = name or next(iter(reader.values))
    rows = _rows(reader.value(name), array, batch)
    return None if rows is None else (name, _Stream(name, (path,), rows))


def _rows(value: ir.Value, given: Any, batch: int | None) -> np.ndarray | None:
    """Return an array whose first axis is longer than a batch; None for anything else."""
    shape = shape_list(value)
    if not isinstance(given, np.ndarray) or shape is None or given.ndim != len(shape) or not shape:
        return None
    size = shape[0] if isinstance(shape[0], int) else batch
    return given if size is not None and 0 < size < len(given) else None


def _first_dim(value: ir.Value) -> int | str | None:
    return (shape_list(value) or [None])[0]


def _batch_size(reader: Reader, streams: Mapping[str, _Stream], batch: int | None) -> int:
    sizes = {size for name in streams if isinstance(size := _first_dim(reader.value(name)), int)}
    if len(sizes) > 1 or (batch is not None and sizes and sizes != {batch}):
        raise InputError(
            f"the model's batch is fixed at {', '.join(map(str, sorted(sizes)))}", hint="leave --batch out"
        )
    return sizes.pop() if sizes else batch or 1


def _add(reader: Reader, name: str, stream: _Stream, part: range, how: Preprocessing, seed: int) -> None:
    """Add the samples of one batch to a reader, joined along the first axis."""
    if stream.rows is not None:
        where = f"{stream.files[0].name}[{part.start}:{part.stop}]" if stream.files else f"[{part.start}:{part.stop}]"
        reader.add(name, np.asarray(stream.rows[part.start : part.stop]), where)
        return
    one = _sample_model(reader.model, name)
    records: list[InputRecord] = []
    arrays: list[np.ndarray] = []
    for index in part:
        sample = _read_file(one, name, stream.files[index], how, seed)
        arrays.append(sample.feeds[name])
        records.append(sample.records[name])
    if len({a.shape for a in arrays}) > 1:
        raise InputError(
            f"the samples of a batch have different shapes: {', '.join(str(a.shape) for a in arrays[:4])}",
            hint="give --batch 1, or --resize",
        )
    first, last = records[0], records[-1]
    source = first.source if len(part) == 1 else f"{first.source} … {last.source} ({len(part)} files)"
    reader.add(name, np.concatenate(arrays), source, first.steps, first.picture)


def _read_file(one: ir.Model, name: str, file: Path, how: Preprocessing, seed: int) -> Reader:
    sample = Reader(one, how, seed)
    try:
        sample.read(f"{name}={file}")
    except InputError as error:
        if file.name in str(error):
            raise
        raise InputError(f"{file}: {error.message}", hint=error.hint) from error
    return sample


def _sample_model(model: ir.Model, name: str) -> ir.Model:
    """Return a copy whose input takes one sample, to read samples with; the model itself where it does already."""
    value = next(v for v in model_inputs(model) if v.name == name)
    shape = shape_list(value)
    if not shape or not isinstance(shape[0], int) or shape[0] == 1:
        return model
    copy = copy_model(model)
    twin = next(v for v in copy.graph.inputs if v.name == name)
    twin.shape = ir.Shape([1, *shape[1:]])
    return copy
