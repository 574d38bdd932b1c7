"""The number that is explained, resolved for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.regions import Region

__all__ = ["Forward", "Index", "Target", "made_target"]

#: Gives the values of tensors of a model for all samples, ``(N, …)`` each, fed some more inputs.
Forward = Callable[[ir.Model, Sequence[str], Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]
Index = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Target:
    """One number for each sample: the mean or the sum of some entries of a tensor.

    Attributes:
        model: The model that holds the tensor; with the nodes of an expression, where that is the target.
        tensor: The tensor whose entries are the score.
        shape: Of one sample of it.
        dtype: Of it.
        clean: ``(N,)``: the score of each sample as it is; None where that is not known.
        at: For each sample, which entries, as numpy indexes a row.
        texts: What it is, for each sample.
        classes: For each sample the index of the class, where the tensor has one score a class; None elsewhere.
        bare: Whether the tensor has no axis of samples.
        notes: What a reader should know.
        frozen: Inputs that an expression adds, ``(N, …)``: the places of its ``argmax``, which stay those of the
            unchanged sample whatever copy of it is run.
        summed: Whether the entries are added up.
        regions: For each sample the part of the picture that the target is about; empty where it is about all of it.
    """

    model: ir.Model
    tensor: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    clean: npt.NDArray[np.float64] | None
    at: tuple[Index, ...]
    texts: tuple[str, ...]
    classes: tuple[int, ...] | None = None
    bare: bool = False
    notes: tuple[str, ...] = ()
    frozen: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    summed: bool = False
    regions: tuple[Region | None, ...] = ()

    def seeds(self, samples: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Return the gradient of the score with respect to the tensor, ``(R, *shape)``, for rows of some samples."""
        seeds = np.zeros((len(samples), *self.shape), self.dtype)
        for row, sample in enumerate(samples.tolist()):
            place = (row, *self.at[sample])
            seeds[place] = 1 if self.summed else 1 / np.size(seeds[place])
        return seeds

    def scores(self, values: npt.NDArray[Any], samples: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the score of rows ``(R, *shape)`` of some samples, ``(R,)``."""
        return _taken(values, [(row, *self.at[sample]) for row, sample in enumerate(samples.tolist())], self.summed)


def made_target(
    model: ir.Model, tensor: str, values: npt.NDArray[Any], at: Sequence[Index], texts: Sequence[str], **more: Any
) -> Target:
    """Return a target of some entries of a tensor.

    Args:
        model: The model that holds the tensor.
        tensor: Its name.
        values: ``(N, …)``: what it holds.
        at: For each sample, which entries.
        texts: For each sample, what that is.
        more: Other attributes of :class:`Target`.
    """
    clean = _taken(values, [(row, *place) for row, place in enumerate(at)], bool(more.get("summed")))
    return Target(model, tensor, values.shape[1:], values.dtype, clean, tuple(at), tuple(texts), **more)


def _taken(values: npt.NDArray[Any], places: Sequence[Index], summed: bool) -> npt.NDArray[np.float64]:
    take = np.sum if summed else np.mean
    return np.array([take(values[place], dtype=np.float64) for place in places], np.float64)
