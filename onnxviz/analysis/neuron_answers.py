"""What the units of a layer answer to samples, where each is most active, and between which values it stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.grown import Grown
from onnxviz.analysis.unit_values import Over, UnitValues, unit_block, unit_values
from onnxviz.errors import MemoryLimitError, SelectionError
from onnxviz.graph.quantised import Decode

__all__ = ["NeuronAnswers", "Outcome", "answer_reducer", "neuron_answers"]


@dataclass(frozen=True, eq=False)
class NeuronAnswers:
    """The answers of a layer's units to samples; those of two batches merge.

    Attributes:
        values: A number a sample and unit.
        peaks: ``(n, units)`` int32 a batch: the position where a unit is most active, counted along its positions in
            the tensor's order; None where it has one position only.
        places: The sizes of the positions, a batch.
        lowest: ``(units,)`` float32: each unit's smallest value at any position of any sample; NaN where there is none.
        highest: ``(units,)`` float32: the largest one.
    """

    values: UnitValues
    peaks: Sequence[npt.NDArray[np.int32] | None]
    places: Sequence[tuple[int, ...]]
    lowest: npt.NDArray[np.float32]
    highest: npt.NDArray[np.float32]

    def merge(self, other: NeuronAnswers) -> NeuronAnswers:
        """Return the samples of both, those of ``other`` after these."""
        return replace(
            self,
            values=self.values.merge(other.values),
            peaks=Grown.joined(self.peaks, other.peaks),
            places=Grown.joined(self.places, other.places),
            lowest=np.fmin(self.lowest, other.lowest),
            highest=np.fmax(self.highest, other.highest),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples of each batch."""
        return tuple(len(part) for part in self.values.parts)

    def peak(self, sample: int, unit: int) -> tuple[int, ...] | None:
        """Return the position, an index a spatial axis, where a unit is most active; None where it has but one."""
        for peaks, place, size in zip(self.peaks, self.places, self.sizes, strict=True):
            if sample < size:
                if peaks is None:
                    return None
                return tuple(int(at) for at in np.unravel_index(int(peaks[sample, unit]), place))
            sample -= size
        return None


def neuron_answers(
    array: npt.NDArray[Any],
    name: str = "array",
    *,
    over: Over = "mean",
    op_type: str | None = None,
    layout: str | None = None,
) -> NeuronAnswers:
    """Return what each unit of a layer answers to each sample of a batch.

    A unit is most active where its value is largest; with ``over="energy"``, where its magnitude is.

    Args:
        array, name, over, op_type, layout: As :func:`onnxviz.analysis.unit_values.unit_values` takes them.

    Raises:
        SelectionError: The tensor holds no numbers, is empty, or has no batch axis.

    >>> found = neuron_answers(np.array([[[0.0, 3.0, 1.0]]]), layout="NCHW", over="max")
    >>> found.values.matrix.tolist(), found.peak(0, 0), found.highest.tolist()
    ([[3.0]], (1,), [3.0])
    """
    values = unit_values(array, name, over=over, op_type=op_type, layout=layout)
    _, block = unit_block(array, name, op_type=op_type, layout=layout)
    place = tuple(block.shape[2:])
    flat = block.reshape(len(block), block.shape[1], -1)
    if over == "flat":
        flat, place = flat.reshape(len(flat), -1, 1), ()
    peaks = None
    if flat.shape[2] > 1:
        size = np.abs(flat) if over == "energy" else flat
        peaks = np.where(np.isnan(size), -np.inf, size).argmax(axis=2).astype(np.int32)
    lowest, highest = np.fmin.reduce(flat, axis=(0, 2)), np.fmax.reduce(flat, axis=(0, 2))
    return NeuronAnswers(values, (peaks,), (place,), lowest, highest)


@dataclass(frozen=True, eq=False)
class Outcome:
    """The answers of a layer, or why there are none: one layer that has no units does not stop the others.

    Attributes:
        answers: None where there are none.
        reason: Why; empty where there are.
    """

    answers: NeuronAnswers | None
    reason: str = ""

    def merge(self, other: Outcome) -> Outcome:
        """Return the samples of both, or the first reason why there are none."""
        if self.answers is None or other.answers is None:
            return self if self.answers is None else other
        try:
            return Outcome(self.answers.merge(other.answers))
        except (SelectionError, MemoryLimitError) as error:
            return Outcome(None, str(error))


def answer_reducer(
    op_types: Mapping[str, str | None],
    layouts: Mapping[str, str],
    *,
    over: Over = "mean",
    decode: Mapping[str, Decode] | None = None,
) -> Callable[[str, npt.NDArray[Any]], Outcome]:
    """Return the ``reduce`` of :func:`onnxviz.runtime.capture.capture` that keeps the answers of units.

    Args:
        op_types: Tensor name -> the operator that made it.
        layouts: As :func:`onnxviz.graph.layouts.tensor_layouts` says.
        over: As :func:`onnxviz.analysis.unit_values.unit_values` takes it.
        decode: Tensor name -> what turns its quantised codes into numbers.
    """

    def reduce(name: str, array: npt.NDArray[Any]) -> Outcome:
        numbers = decode[name](array) if decode and name in decode else array
        try:
            return Outcome(
                neuron_answers(numbers, name, over=over, op_type=op_types.get(name), layout=layouts.get(name))
            )
        except (SelectionError, MemoryLimitError) as error:
            return Outcome(None, str(error))

    return reduce
