"""The positions of an input in the order that a map gives them, and the input with some of them taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.axes import input_letters
from onnxviz.analysis.attribution.baselines import blurred
from onnxviz.analysis.attribution.resizing import enlarged
from onnxviz.analysis.placement import CellAxis, stretched
from onnxviz.errors import SelectionError

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case
    from onnxviz.analysis.attribution.result import Attribution

__all__ = ["Block", "Positions", "positions_of"]

Array = npt.NDArray[Any]
_COPY_BLUR = 8  # longest side over the standard deviation of the blurred copy of a map
_CENTRE = 4  # side over the standard deviation of the blob in the middle


@dataclass(frozen=True)
class Block:
    """The positions of one input.

    Attributes:
        tensor: The input.
        shape: Of one sample of it.
        axes: Which axes of a sample are positions; those left out are channels, taken away together. All, where every
            entry is a feature of its own.
        spatial: Whether the positions have neighbours.
    """

    tensor: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    spatial: bool

    @property
    def size(self) -> tuple[int, ...]:
        """How many positions there are along each axis."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def count(self) -> int:
        """How many positions there are."""
        return int(np.prod(self.size))

    def over(self, marks: Array) -> Array:
        """Return ``(R, count)`` in a shape that broadcasts with ``(R, *shape)``."""
        sizes = [size if axis in self.axes else 1 for axis, size in enumerate(self.shape)]
        return marks.reshape(len(marks), *sizes)


@dataclass(frozen=True, eq=False)
class Positions:
    """The positions of all attributed inputs, and how a map ranks them.

    Attributes:
        one: The attribution.
        blocks: The inputs.
        cells: Where the cells of a layer's map lie along each axis of the input; None where the map is the input's.
    """

    one: Attribution
    blocks: tuple[Block, ...]
    cells: tuple[CellAxis, ...] | None = None

    @property
    def count(self) -> int:
        """How many positions there are in all."""
        return sum(block.count for block in self.blocks)

    def heats(self, sample: int) -> list[Array]:
        """Return the map of a sample without channels, float64, one an input, of a layer in its own cells.

        Numbers with a sign are added up over channels; of others the largest is taken.
        """
        if self.cells is not None:
            return [np.asarray(self.one.values[sample], np.float64)]
        found = []
        for block in self.blocks:
            whole = self.one.maps[block.tensor]
            rest = tuple(axis for axis in range(len(block.shape)) if axis not in block.axes)
            heat = np.asarray(whole[sample], np.float64)
            signed = bool(np.nanmin(whole, initial=0.0) < 0)
            found.append((heat.sum(axis=rest) if signed else heat.max(axis=rest)) if rest else heat)
        return found

    def spread(self, heats: Sequence[Array]) -> Array:
        """Return what heats say of every position, ``(count,)``: those of a layer enlarged to the input."""
        if self.cells is not None:
            heats = [enlarged(heats[0], self.blocks[0].size, cells=self.cells)]
        return np.concatenate([heat.reshape(-1) for heat in heats])

    def control(self, sample: int, kind: str, seed: int = 0) -> Array | None:
        """Return what a control says of every position; None where the input has no neighbouring positions.

        Args:
            sample: Which sample.
            kind: ``"random"``: the values of the map at random places; ``"blurred"``: the map under a Gaussian blur of
                1/8 of its longest side; ``"centre"``: a blob in the middle, of a standard deviation of 1/4 of the side.
            seed: Of ``"random"``.
        """
        heats = self.heats(sample)
        if kind == "random":
            rng = np.random.default_rng((seed, sample))
            return self.spread([rng.permutation(heat.reshape(-1)).reshape(heat.shape) for heat in heats])
        if not all(block.spatial for block in self.blocks):
            return None
        if kind == "blurred":
            return self.spread(
                [blurred(h, range(h.ndim), max(h.shape) / _COPY_BLUR) for h in map(np.nan_to_num, heats)]
            )
        return np.concatenate([_blob(block.size).reshape(-1) for block in self.blocks])

    def without(self, case: Case, sample: int, taken: Array, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Return copies of a sample in which some positions hold what a baseline holds there.

        Args:
            case: What is explained.
            sample: Which sample.
            taken: ``(R, count)`` of booleans.
            rows: Input -> the baseline of all samples, ``(N, …)``.
        """
        made, start = {}, 0
        for block in self.blocks:
            mask = block.over(taken[:, start : start + block.count])
            made[block.tensor] = np.where(mask, rows[block.tensor][sample], case.value(block.tensor)[sample])
            start += block.count
        return made

    def order(self, importance: Array, seed: int = 0) -> npt.NDArray[np.intp]:
        """Return the positions from the most important on; those that are equal in an order that the seed draws."""
        shuffled = np.random.default_rng((seed, 7)).permutation(len(importance))
        values = np.where(np.isfinite(importance), importance, -np.inf)[shuffled]
        return np.asarray(shuffled[np.argsort(-values, kind="stable")], np.intp)


def positions_of(case: Case, one: Attribution) -> Positions:
    """Return the positions that an attribution ranks.

    Raises:
        SelectionError: The map is that of a layer, and no input has as many axes of positions.
    """
    if one.layer is None:
        blocks = []
        for name, array in one.maps.items():
            letters = one.axes.get(name, "N" + "C" * (array.ndim - 1))[1:]
            axes = tuple(axis for axis, letter in enumerate(letters) if letter != "C")
            blocks.append(Block(name, array.shape[1:], axes or tuple(range(len(letters))), bool(axes)))
        return Positions(one, tuple(blocks))
    rank = len(one.layer.size)
    for name in sorted(case.sources, key=lambda name: name != _canvas_name(one)):
        value = case.value(name)
        axes = tuple(axis for axis, letter in enumerate(input_letters(case, name)[1:]) if letter != "C")
        if len(axes) == rank:
            block = Block(name, value.shape[1:], axes, True)
            known = one.placement.axes if one.placement is not None and name == _canvas_name(one) else None
            cells = known or tuple(stretched(n, m) for n, m in zip(one.layer.size, block.size, strict=True))
            return Positions(one, (block,), cells)
    raise SelectionError(f"no input has {rank} axes of positions that the layer's map could be laid over")


def _canvas_name(one: Attribution) -> str | None:
    return next((canvas.name for canvas in one.canvases if canvas is not None), None)


def _blob(size: Sequence[int]) -> Array:
    made = np.ones(())
    for length in size:
        at = (np.arange(length) - (length - 1) / 2) / (length / _CENTRE)
        made = np.multiply.outer(made, np.exp(-0.5 * at**2))
    return np.asarray(made)
