"""The answer of a classifier: its scores ranked, as probabilities."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.statistics import is_numeric, to_float
from onnxviz.errors import InputError

__all__ = ["ClassScore", "Classification", "load_labels", "top_classes"]

# An index or a WordNet id before a name, and the quotes and braces of a Python dictionary around it.
_NAME = re.compile(r"""^\s*\{?\s*(?:n\d{8}\s+|\d+\s*:\s*)?['"]?(.*?)['"]?,?\s*\}?\s*$""")


@dataclass(frozen=True)
class ClassScore:
    """One class of a classifier's answer.

    Attributes:
        index: The class's index.
        label: Its name, or None where no labels were given.
        score: The model's own value for it.
        probability: Its probability, between 0 and 1.
    """

    index: int
    label: str | None
    score: float
    probability: float


@dataclass(frozen=True)
class Classification:
    """The best classes of one answer, best first.

    Attributes:
        ranked: The best classes; equal scores keep the order of their indices.
        classes: Number of classes in all.
        softmax: Whether softmax was applied to the scores to get probabilities; False where they already were.
    """

    ranked: tuple[ClassScore, ...]
    classes: int
    softmax: bool

    @property
    def best(self) -> ClassScore:
        """The class with the highest score."""
        return self.ranked[0]


def top_classes(array: npt.NDArray[Any], labels: Sequence[str] | None = None, k: int = 5) -> Classification | None:
    """Return the best classes of an output that has the form of a classifier's scores, else None.

    The form is ``(1, n)``, ``(n,)`` or ``(1, n, 1, 1)`` of a floating type with n ≥ 2 and all values finite. Whether
    such a vector *means* classes cannot be told from its values: a regression or an embedding may look the same.
    Values between 0 and 1 that sum to 1 are taken as probabilities; others go through a softmax.

    Args:
        array: A model's output for one sample.
        labels: A name for each class.
        k: How many classes to return.

    Raises:
        InputError: The number of labels is not the number of classes.

    >>> answer = top_classes(np.array([[0.1, 0.7, 0.2]]), labels=["cat", "dog", "fish"], k=2)
    >>> [(c.label, round(c.probability, 3)) for c in answer.ranked], answer.softmax
    ([('dog', 0.7), ('fish', 0.2)], False)
    """
    array = np.asarray(array)
    if array.ndim > 1:
        if array.shape[0] != 1:
            return None
        array = array.reshape(array.shape[1:])
    if array.ndim == 0 or array.size != array.shape[0] or array.size < 2:
        return None
    if not is_numeric(array.dtype) or array.dtype.kind in "biu" or "int" in array.dtype.name:
        return None
    scores = to_float(array.reshape(-1), np.float64)
    if not np.isfinite(scores).all():
        return None
    if labels is not None and len(labels) != scores.size:
        raise InputError(
            f"{len(labels)} labels were given for {scores.size} classes", hint="give one label a class, in order"
        )
    # Half precision rounds each of n values: the sum is off by far more than in float32.
    tolerance = 1e-4 if array.dtype.itemsize >= 4 else 2e-2
    softmax = not (bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) <= tolerance)
    probabilities = _softmax(scores) if softmax else scores
    ranked = tuple(
        ClassScore(int(i), None if labels is None else str(labels[i]), float(scores[i]), float(probabilities[i]))
        for i in np.argsort(-scores, kind="stable")[: max(k, 1)]
    )
    return Classification(ranked, int(scores.size), softmax)


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    total: npt.NDArray[np.float64] = powers / powers.sum()
    return total


def load_labels(path: str | os.PathLike[str]) -> list[str]:
    """Read class names from a file: one a line, or a JSON list, or a JSON object of index to name.

    A leading index (``"7: drake"``, also as a Python dictionary's lines) or WordNet id (``"n01847000 drake"``) is
    taken off.

    Raises:
        InputError: The file cannot be read, or holds no names.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels.txt"
    >>> _ = file.write_text("cat\\n7: drake\\n")
    >>> load_labels(file)
    ['cat', 'drake']
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read the labels {path}: {reason}", hint="give a text or JSON file") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        data = [line for line in text.splitlines() if line.strip(" {}\t")]
    if isinstance(data, dict) and all(str(key).isdigit() for key in data):
        data = [data[key] for key in sorted(data, key=int)]
    if not isinstance(data, list) or not data:
        raise InputError(f"{path} holds no class names", hint="write one a line")
    return [_NAME.sub(r"\1", str(name)) for name in data]
