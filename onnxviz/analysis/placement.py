"""Where the cells of a map lie on the input that they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxviz.graph.position_maps import PositionMap

if TYPE_CHECKING:
    from onnxviz.analysis.surroundings import Surroundings
    from onnxviz.graph.receptive_field import ReceptiveField

__all__ = ["CellAxis", "Placement", "cell_axis", "place", "stretched"]


@dataclass(frozen=True)
class CellAxis:
    """Cells of equal size along an axis of the input; pixel 0 reaches from -0.5 to 0.5.

    Attributes:
        first: The centre of cell 0, in pixels of the input.
        step: From one centre to the next.
        count: Number of cells.
    """

    first: float
    step: float
    count: int

    @property
    def ends(self) -> tuple[float, float]:
        """Where the first cell begins and the last one ends."""
        return self.first - self.step / 2, self.first + self.step * (self.count - 0.5)

    def cells(self, pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return where pixels lie, counted in cells: whole numbers are the centres of cells."""
        return np.asarray((pixels - self.first) / self.step)


def stretched(count: int, length: int) -> CellAxis:
    """Return cells that fill an axis from end to end.

    >>> stretched(4, 8)
    CellAxis(first=0.5, step=2.0, count=4)
    """
    step = length / count
    return CellAxis(step / 2 - 0.5, step, count)


def cell_axis(seen: PositionMap, count: int) -> CellAxis | None:
    """Return the cells of an axis by the middles of what they see; None where those do not advance.

    Where upsampling lets the middles advance unevenly, the even spread nearest to them is taken.

    >>> from onnxviz.graph.position_maps import identity_map, resample
    >>> cell_axis(resample(identity_map(2), 1, 2, lambda i: range(2 * i, 2 * i + 2)), 4)
    CellAxis(first=0.5, step=2.0, count=4)
    """
    step = float(seen.jump)
    if step <= 0:
        return None
    middles = [
        sum(seen.interval(i)) / 2 - step * i
        for i in range(min(seen.period, count))
        if seen.interval(i)[0] <= seen.interval(i)[1]
    ]
    return CellAxis(float(np.mean(middles)), step, count) if middles else None


@dataclass(frozen=True)
class Placement:
    """Where the cells of a map lie.

    Attributes:
        axes: Rows and columns; of a signal, its steps alone.
        aligned: By what they see of the input; else stretched over it.
        note: How, where there is something to be said.
    """

    axes: tuple[CellAxis, ...]
    aligned: bool
    note: str = ""


def place(
    name: str, shape: tuple[int, ...], size: tuple[int, ...], around: Surroundings,
    fields: Sequence[dict[str, ReceptiveField]],
) -> Placement:  # fmt: skip
    """Place a map on the input.

    By the receptive field of the tensor itself; of a map that was enlarged on its way and covers the input, as in a
    decoder, evenly, as cells of a block then see nearly the same and show what they are trained to show there.
    Where that field is everything, with gates as in squeeze-and-excitation left out; where it still is, as behind
    attention and recurrence, by that of the nearest convolution or pooling on its way whose maps have as many
    cells; else stretched.

    Args:
        name: The tensor.
        shape: Sizes of its map: rows and columns, or steps.
        size: Sizes of the input, of as many axes.
        around: What the model tells of its tensors.
        fields: Receptive fields with regard to that input: as they are, and with gates of one number a channel left
            out.
    """
    for place_, known in enumerate(fields):
        own = _axes(known.get(name), shape)
        if own is not None and _enlarged(known[name], own, size):
            axes = tuple(stretched(count, length) for count, length in zip(shape, size, strict=True))
            return Placement(axes, False, "enlarged on its way: cells lie evenly over the input")
        if own is not None:
            return Placement(own, True, "placed with gates left out" if place_ else "")
    for plane in around.stream(name).planes:
        sizes = around.shapes.get(plane, ())
        last = around.layouts.get(plane) == "NHWC"
        if (sizes[1:-1] if last else sizes[2:]) == shape:
            found = next((a for known in fields if (a := _axes(known.get(plane), shape)) is not None), None)
            if found is not None:
                return Placement(found, True, f"placed as {plane}")
    axes = tuple(stretched(count, length) for count, length in zip(shape, size, strict=True))
    return Placement(axes, False, "stretched over the input")


def _enlarged(field: ReceptiveField, axes: tuple[CellAxis, ...], size: tuple[int, ...]) -> bool:
    return any(
        seen is not None and seen.period > 1 and axis.step * axis.count == length
        for seen, axis, length in zip(field.maps, axes, size, strict=True)
    )


def _axes(field: ReceptiveField | None, shape: tuple[int, ...]) -> tuple[CellAxis, ...] | None:
    if field is None or len(field.maps) != len(shape):
        return None
    found = [None if seen is None else cell_axis(seen, count) for seen, count in zip(field.maps, shape, strict=True)]
    known = tuple(axis for axis in found if axis is not None)
    return known if len(known) == len(shape) else None
