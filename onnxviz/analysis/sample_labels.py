"""The class of each sample: from the folders that hold them, or from a table."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from onnxviz.errors import InputError

__all__ = ["SampleLabels", "label_order", "sample_labels"]

_SAMPLE = {"file", "filename", "path", "name", "image", "sample", "index", "id"}
_LABEL = {"label", "class", "target", "category", "y"}


@dataclass(frozen=True)
class SampleLabels:
    """The classes of samples.

    Attributes:
        labels: The class of each sample; None where the source names none.
        classes: All classes, sorted; numbers by their value.
        source: ``"folders"`` or the table's file name.
        notes: What did not match, one line each.
    """

    labels: tuple[str | None, ...]
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """The index of each sample's class in ``classes``; -1 where it has none."""
        place = {label: i for i, label in enumerate(self.classes)}
        return tuple(-1 if label is None else place[label] for label in self.labels)

    def first(self, count: int) -> SampleLabels:
        """Return the classes of the first samples."""
        return replace(self, labels=self.labels[:count])


def sample_labels(names: Sequence[str], source: str | os.PathLike[str] | None = None) -> SampleLabels | None:
    """Return the class of each sample.

    Args:
        names: The samples, as :attr:`onnxviz.runtime.batches.Batches.names` has them.
        source: ``"folders"``: the folder that holds each; or a ``.csv`` file of two columns, sample and class, or with
            a header that names them (such as ``file,label``); or a ``.csv`` or ``.txt`` of one column, a class a
            sample in their order. None takes the folders where the samples lie in several, else gives None.

    Raises:
        InputError: The file cannot be read, names none of the samples, or has another number of rows.

    >>> sample_labels(["cat/1.png", "cat/2.png", "dog/1.png"]).labels
    ('cat', 'cat', 'dog')
    """
    if source is None or os.fspath(source) == "folders":
        return _folders(names, required=source is not None)
    path = Path(source)
    rows = _rows(path)
    given, notes = _ordered(rows, names, path) if len(rows[0]) == 1 else _matched(rows, names, path)
    return SampleLabels(tuple(given), _sorted({label for label in given if label is not None}), path.name, notes)


def _folders(names: Sequence[str], *, required: bool) -> SampleLabels | None:
    parents = [PurePosixPath(name).parent.name for name in names]
    if not all(parents) or len(set(parents)) < 2:
        if required:
            raise InputError(
                "the samples do not lie in a folder a class",
                hint="give --labels FILE.csv with a line FILE,CLASS a sample",
            )
        return None
    return SampleLabels(tuple(parents), _sorted(set(parents)), "folders")


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        rows = [[cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels cannot be read from {path}: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise InputError(f"{path} holds no labels", hint="write a line FILE,CLASS a sample")
    return rows


def _delimiter(text: str) -> str:
    """Return what separates columns: a semicolon or a tab where no line has a comma and every line has one of it."""
    lines = [line for line in text.splitlines() if line.strip()]
    for other in ";\t":
        if lines and "," not in text and all(other in line for line in lines):
            return other
    return ","


def _ordered(rows: list[list[str]], names: Sequence[str], path: Path) -> tuple[list[str | None], tuple[str, ...]]:
    if rows[0][0].lower() in _LABEL and (len(rows) == len(names) + 1 or rows.count(rows[0]) == 1):
        rows = rows[1:]
    if len(rows) != len(names):
        raise InputError(
            f"{path} has {len(rows)} labels for {len(names)} samples",
            hint="write a line a sample in their order, or FILE,CLASS",
        )
    return [row[0] for row in rows], ()


def _matched(rows: list[list[str]], names: Sequence[str], path: Path) -> tuple[list[str | None], tuple[str, ...]]:
    header = [cell.lower() for cell in rows[0]]
    sample, label = 0, 1
    keys = _keys(names)
    known = {key for own in keys for key in own}
    if any(cell in _LABEL for cell in header) and not known.intersection(_key(cell) for cell in rows[0]):
        label = next(i for i, cell in enumerate(header) if cell in _LABEL)
        sample = next((i for i, cell in enumerate(header) if cell in _SAMPLE and i != label), 1 if label == 0 else 0)
        rows = rows[1:]
    if short := [row for row in rows if len(row) <= max(sample, label)]:
        raise InputError(f"{path} has a line without a label: {short[0][0][:80]!r}")
    table: dict[str, str] = {}
    for row in rows:
        key = _key(row[sample])
        if table.setdefault(key, row[label]) != row[label]:
            raise InputError(f"{path} gives {row[sample][:80]!r} two labels: {table[key]} and {row[label]}")
    found = [next((key for key in own if key in table), None) for own in keys]
    if not any(found):  # numbers are asked last, for all: the file 7.png is not the sample number 7
        found = [str(i) if str(i) in table else None for i in range(len(names))]
    given = [(table[key] or None) if key is not None else None for key in found]
    missing = sum(label is None for label in given)
    if missing == len(given):
        raise InputError(
            f"{path} names none of the {len(names)} samples", hint=f"the first sample is called {names[0]!r}"
        )
    notes = [f"{missing} of {len(names)} samples have no label in {path.name}"] if missing else []
    unknown = len(table.keys() - set(found))
    if unknown > 0:
        notes.append(f"{unknown} labels of {path.name} belong to no sample")
    return given, tuple(notes)


def _key(cell: str) -> str:
    """Return a table's name of a sample as names are written here."""
    return cell.replace("\\", "/").removeprefix("./")


def _keys(names: Sequence[str]) -> list[list[str]]:
    """Return under what a table may name each sample: path, file name and stem where they are unique."""
    base, stem = ([getattr(PurePosixPath(name), part) for name in names] for part in ("name", "stem"))
    unique = [{key for key, count in Counter(keys).items() if count == 1} for keys in (base, stem)]
    return [
        [name, *(key for key, once in ((base[i], unique[0]), (stem[i], unique[1])) if key in once)]
        for i, name in enumerate(names)
    ]


def _sorted(labels: set[str]) -> tuple[str, ...]:
    return tuple(sorted(labels, key=label_order))


def label_order(label: str) -> tuple[bool, float, str]:
    """Return a key that sorts classes: numbers by their value, then names; ``"nan"`` is a name.

    >>> sorted(["b", "10", "nan", "9"], key=label_order)
    ['9', '10', 'b', 'nan']
    """
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    return (False, value, label) if math.isfinite(value) else (True, 0.0, label)
