"""How windows go over the positions of an attributed input."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from onnxviz.analysis.attribution.axes import position_axes, spatial_axes
from onnxviz.analysis.attribution.case import Case
from onnxviz.errors import InputError

__all__ = ["Sizes", "Windows", "windows"]

#: One number for all axes, one an axis as ``"8x4"`` or a sequence, or ``"auto"``.
Sizes = int | str | tuple[int, ...]
_CELLS = {1: 16, 2: 8, 3: 4}  # patches along each axis by default, by the number of axes
_MOST_EACH = 512  # features or tokens that are taken one by one


@dataclass(frozen=True)
class Windows:
    """Windows over the axes of positions of a sample, which are cut off at its ends.

    Attributes:
        axes: Axes of positions, counted with that of the samples.
        shape: Their sizes.
        patch: Size of a window along each.
        stride: From one window to the next.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    patch: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many windows stand along each axis: the last one reaches the end."""
        ends = zip(self.shape, self.patch, self.stride, strict=True)
        return tuple(-(-(size - patch) // stride) + 1 for size, patch, stride in ends)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return prod(self.counts)

    def at(self, place: int, rank: int) -> tuple[slice, ...]:
        """Return a window of a sample of some rank, the axis of samples left out.

        >>> Windows((2,), (5,), (2,), (2,)).at(2, 3)
        (slice(None, None, None), slice(4, 6, None))
        """
        found = [slice(None)] * (rank - 1)
        where = np.unravel_index(place, self.counts) if self.counts else ()
        for axis, index, patch, stride in zip(self.axes, where, self.patch, self.stride, strict=True):
            found[axis - 1] = slice(int(index) * stride, int(index) * stride + patch)
        return tuple(found)


def windows(case: Case, name: str, patch: Sizes = "auto", stride: Sizes = "auto") -> Windows:
    """Return windows over an attributed input.

    By default they measure 1/16 of a signal, 1/8 of the sides of a picture and 1/4 of those of a volume, and overlap by
    half; tokens and features are taken one by one, as far as they are not more than 512.

    Raises:
        InputError: A size does not fit, or windows would leave gaps.
    """
    axes, spatial = position_axes(case, name), spatial_axes(case, name)
    shape = tuple(case.value(name).shape[axis] for axis in axes)
    if patch == "auto":
        cells = _CELLS.get(len(axes), 4) if spatial or prod(shape) > _MOST_EACH else max(shape, default=1)
        cells = _MOST_EACH if not spatial and len(axes) == 1 else cells
        sizes = tuple(max(-(-size // cells), 1) for size in shape)
    else:
        sizes = _sizes(patch, shape, "patch")
    halves = tuple(max(size // 2, 1) for size in sizes) if spatial else sizes
    steps = halves if stride == "auto" else _sizes(stride, shape, "stride")
    if any(size > whole for size, whole in zip(sizes, shape, strict=True)):
        raise InputError(
            f"a patch of {_text(sizes)} is larger than {name!r}, {_text(shape)}", hint="give a smaller one"
        )
    if any(step > size for step, size in zip(steps, sizes, strict=True)):
        raise InputError(
            f"a stride of {_text(steps)} leaves gaps between patches of {_text(sizes)}", hint="give one not above patch"
        )
    return Windows(axes, shape, sizes, steps)


def _sizes(given: Sizes, shape: tuple[int, ...], what: str) -> tuple[int, ...]:
    try:
        numbers = [int(part) for part in given.split("x")] if isinstance(given, str) else np.atleast_1d(given).tolist()
    except ValueError:
        raise InputError(
            f"{what} {given!r} is no size", hint=f"write {what}=8, or {what}=8x4 for an axis each"
        ) from None
    made = tuple(numbers) * (len(shape) if len(numbers) == 1 else 1)
    if len(made) != len(shape) or any(n < 1 or n != int(n) for n in made):
        hint = "give a whole number, 1 or more, for each"
        raise InputError(f"{what} {given!r} does not fit {len(shape)} axes of positions", hint=hint)
    return tuple(int(n) for n in made)


def _text(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))
