"""What a scikit-learn estimator is fed with: one matrix of numbers, or one input a column where it needs strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxviz.converters.base import Array, ConvertOptions, Source
from onnxviz.converters.sklearn_steps import steps_of
from onnxviz.errors import ConversionError

__all__ = ["Inputs", "inputs_of"]

_ROWS = 8  # of an example with a dynamic batch


@dataclass(frozen=True)
class Inputs:
    """The inputs of an estimator.

    Attributes:
        example: One input by name: ``(batch, features)`` in float32, or ``(batch, 1)`` a column, in float32, int64 or
            strings (dtype object).
        names: The columns that the estimator was fitted with, where it wants a DataFrame; empty otherwise.
        text: It takes one string a row instead of a table, as a TfidfVectorizer does.
    """

    example: dict[str, Array]
    names: tuple[str, ...] = ()
    text: bool = False

    def table(self, feeds: Mapping[str, Array]) -> Any:
        """Return feeds as what the estimator takes: numbers in float64, as scikit-learn computes."""
        columns = [feeds[name] for name in self.example]
        columns = [c.astype(np.float64) if c.dtype.kind == "f" else c for c in columns]
        if self.names:
            import pandas

            return pandas.DataFrame({name: column[:, 0] for name, column in zip(self.names, columns, strict=True)})
        if len(columns) > 1:
            return np.hstack([column.astype(object) for column in columns])
        return columns[0][:, 0] if self.text else columns[0]


def inputs_of(estimator: Any, source: Source, options: ConvertOptions) -> Inputs:
    """Find out what an estimator is fed with, from the example beside it or from what it learnt.

    Raises:
        ConversionError: The number of features is unknown, or a given shape does not fit.
    """
    rows = options.input_shapes[0][0] if options.input_shapes else 1 if options.static else _ROWS
    names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    given: Any = source.example_inputs
    if given is None:
        return _learnt(estimator, names, rows, source.label, options)
    rows = rows if options.static else len(given)
    if hasattr(given, "columns"):
        columns = {str(name): _column(np.resize(given[name].to_numpy(), rows)) for name in given.columns}
        return Inputs(columns, names)
    table = np.asarray(given)
    if table.ndim == 1:
        return Inputs({"input": _column(np.resize(table, rows))}, text=True)
    if table.dtype.kind in "fiub":
        return Inputs({"input": np.resize(table, (rows, table.shape[1])).astype(np.float32)})
    named = names or tuple(f"x{place}" for place in range(table.shape[1]))
    return Inputs({n: _column(np.resize(c, rows)) for n, c in zip(named, table.T, strict=True)}, names)


def _learnt(estimator: Any, names: tuple[str, ...], rows: int, label: str, options: ConvertOptions) -> Inputs:
    """Make an example from what an estimator learnt about its input."""
    if (words := _vocabulary(estimator)) is not None:
        return Inputs({"input": _column(np.resize(words, rows))}, text=True)
    shapes = options.input_shapes
    wanted = getattr(estimator, "n_features_in_", 0)
    count = wanted or (shapes[0][-1] if shapes else 0)
    if not count or any(len(shape) != 2 or shape[1] != count for shape in shapes) or len(shapes) > 1:
        got = " and ".join(",".join(map(str, shape)) for shape in shapes)
        raise ConversionError(
            f"{label} takes rows of {count} features, not {got}" if count else f"the features of {label} are unknown",
            hint=f"give --input-shape {rows},{count or 'FEATURES'}",
        )
    drawn = np.random.default_rng(options.seed).standard_normal((rows, count)).astype(np.float32)
    values = _categories(estimator, range(count))
    by_name = bool(names) and any(hasattr(step, "transformers_") for step in steps_of(estimator).values())
    if not values and not by_name:
        return Inputs({"input": drawn})
    columns = {
        names[i] if names else f"x{i}": _column(np.resize(values[i], rows) if i in values else drawn[:, i])
        for i in range(count)
    }
    return Inputs(columns, names)


def _column(values: Array) -> Array:
    """Return a column ``(rows, 1)`` in a dtype that ONNX has: int64 for whole numbers, else float32, or strings."""
    if values.dtype.kind not in "fiub":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            return np.array([[str(value)] for value in values], dtype=object)
    whole = values.dtype.kind in "iub"
    return values.astype(np.int64 if whole else np.float32)[:, None]


def _categories(estimator: Any, columns: Any) -> dict[int, Array]:
    """Return the values that columns may have, by place, as far as encoders have learnt them."""
    if hasattr(estimator, "categories_"):
        known = [np.array([v for v in values if v is not None and v == v]) for values in estimator.categories_]
        known = [v.astype(np.int64) if v.dtype.kind == "f" and (v == np.trunc(v)).all() else v for v in known]
        return dict(zip(columns, known, strict=True)) if len(known) == len(columns) else {}
    if hasattr(estimator, "steps"):
        found = (_categories(step, columns) for _, step in estimator.steps)
        return next((values for values in found if values), {})
    values: dict[int, Array] = {}
    places = getattr(estimator, "_transformer_to_input_indices", {})  # resolves names, slices, masks and selectors
    for name, step, _ in getattr(estimator, "transformers_", ()):
        values |= _categories(step, [columns[place] for place in places.get(name, ())])
    return values


def _vocabulary(estimator: Any) -> Array | None:
    """Return the words that a pipeline which begins with a vectorizer of texts knows."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[0][1]
    words = getattr(estimator, "vocabulary_", None)
    return np.array(sorted(words), dtype=object) if words and isinstance(next(iter(words)), str) else None
