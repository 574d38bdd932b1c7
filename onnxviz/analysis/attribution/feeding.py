"""Samples as rows: which inputs hold them along their first axis, and how many a run takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import InputError
from onnxviz.graph.shapes import model_inputs, shape_list
from onnxviz.runtime.batches import Batches
from onnxviz.runtime.samples import sample_count

__all__ = ["Feeding", "read_rows"]


@dataclass(frozen=True)
class Feeding:
    """How samples are fed.

    Attributes:
        samples: How many there are.
        rowwise: Inputs that hold a row a sample.
        fixed: Rows that every run must have, where the model fixes that; None where it is open.
        bare: Whether a sample is fed without an axis of samples, as the model has none.
    """

    samples: int
    rowwise: frozenset[str]
    fixed: int | None
    bare: bool = False

    def feeds(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model takes for some rows: padded to the fixed number by the last one, or without axis."""
        made: dict[str, Any] = {}
        for name, array in rows.items():
            if name not in self.rowwise:
                made[name] = array
            elif self.bare:
                made[name] = np.asarray(array[0])
            else:
                lacking = (self.fixed or 0) - len(array)
                made[name] = np.concatenate([array, array[-1:].repeat(lacking, axis=0)]) if lacking > 0 else array
        return made


def read_rows(model: ir.Model, batches: Batches) -> tuple[Feeding, dict[str, Any]]:
    """Return how the samples of all batches are fed, and the rows of each input.

    Args:
        model: The model.
        batches: The samples.

    Raises:
        InputError: An input changes its shape from batch to batch.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x) => (float[n, 2] y) {y = Neg(x)}')
    >>> from onnxviz.runtime.batches import load_batches
    >>> feeding, rows = read_rows(model, load_batches(model, {"x": np.ones((3, 2), np.float32)}, batch=1))
    >>> feeding.samples, feeding.fixed, rows["x"].shape
    (3, None, (3, 2))
    """
    first = batches.first()
    bare = [r.name for r in first.records if r.picture is not None and len(r.shape) < 4]
    declared = {str(value.name): shape_list(value) or [] for value in model_inputs(model)}
    arrays = {n: a for n, a in first.feeds.items() if isinstance(a, np.ndarray) and a.ndim and n in declared}
    opened = {n for n in arrays if declared[n] and not isinstance(declared[n][0], int)}
    several = opened or {n for n, a in arrays.items() if a.ndim > 1}
    count = 1 if bare else sample_count(model, first.feeds)
    rowwise = {n for n in several if len(arrays[n]) == count}
    if bare or not rowwise:
        names = frozenset(bare or [n for n, a in arrays.items() if a.dtype.kind == "f"][:1])
        feeding = Feeding(len(batches), names, 1, True)
    else:
        feeding = Feeding(batches.samples, frozenset(rowwise), None if opened else count)
    rows = dict(first.feeds)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in feeding.rowwise}
    for inputs, size in batches:
        for name, part in parts.items():
            array = inputs.feeds[name]
            part.append(array[None] if feeding.bare else array[:size])
    for name, part in parts.items():
        if len({array.shape[1:] for array in part}) > 1:
            raise InputError(f"the samples of {name} have different shapes", hint="give one at a time, or --resize")
        rows[name] = part[0] if len(part) == 1 else np.concatenate(part)
    return feeding, rows
