"""How an array is read: in blocks that fit the cache, cut so that sums do not depend on the number of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["BLOCK", "Block", "Layout"]

#: Elements at a time: what is made of them stays in the cache, about 1.5 MB.
BLOCK = 1 << 16
_ROWS = 1 << 14  # row sums that are kept before they are added up exactly


class Block(NamedTuple):
    """A range of the flat array and where it belongs.

    Attributes:
        start: Index of the first element.
        shape: ``(samples, channels, values)``, or ``(samples, values, channels)`` where channels are last.
        row: Which of the rows kept for each channel the first sample's is.
        channel: Index of the first channel.
        full: Number of rows kept for each channel, if they are to be added up then, else 0.
    """

    start: int
    shape: tuple[int, int, int]
    row: int
    channel: int
    full: int


@dataclass(frozen=True)
class Layout:
    """A shape as samples of channels of values.

    Attributes:
        samples: Entries that are summed apart.
        channels: Number of channels, 1 where they are not told apart.
        values: Number of values of a channel in a sample.
        last: Whether channels are the last axis, behind the values.
    """

    samples: int
    channels: int
    values: int
    last: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: int | None) -> Layout:
        if not shape:
            return cls(1, 1, 1, False)
        if axis is None:
            return cls(shape[0], 1, math.prod(shape[1:]), False)
        if axis == len(shape) - 1 > 1:
            return cls(shape[0], shape[-1], math.prod(shape[1:-1]), True)
        return cls(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]), False)

    @property
    def rows(self) -> int:
        """How many rows are kept for each channel before they are added up; all parts of a sample fit."""
        parts = -(-self.values // max(self.part, 1))
        return max(parts, min(self.samples * parts, _ROWS // max(self.channels, 1)))

    @property
    def part(self) -> int:
        """Values of a row."""
        return min(self.values, max(1, BLOCK // max(self.channels, 1)) if self.last else BLOCK)

    @property
    def largest(self) -> int:
        """Elements of the largest block."""
        return min(max(BLOCK, self.channels if self.last else 1), self.samples * self.channels * self.values)

    def blocks(self) -> Iterator[Block]:
        """Cut the array into blocks, in its order."""
        sample = self.channels * self.values
        if not self.samples * sample:
            return
        if sample <= BLOCK:
            yield from self._whole_samples(min(BLOCK // sample, self.rows))
            return
        parts = -(-self.values // self.part)
        row = 0
        for index in range(self.samples):
            used = row + parts
            full = used if index == self.samples - 1 or used + parts > self.rows else 0
            yield from self._sample(index * sample, row, full)
            row = 0 if full else used

    def _whole_samples(self, most: int) -> Iterator[Block]:
        row = 0
        for index in range(0, self.samples, most):
            count = min(most, self.samples - index)
            used, after = row + count, min(most, self.samples - index - count)
            full = used if not after or used + after > self.rows else 0
            shape = (count, self.values, self.channels) if self.last else (count, self.channels, self.values)
            yield Block(index * self.channels * self.values, shape, row, 0, full)
            row = 0 if full else used

    def _sample(self, start: int, row: int, full: int) -> Iterator[Block]:
        """Cut a sample that is larger than a block."""
        channels, values, part = self.channels, self.values, self.part
        starts = range(0, values, part)
        if self.last:
            for number, begin in enumerate(starts):
                count = min(part, values - begin)
                done = full if begin + count == values else 0
                yield Block(start + begin * channels, (1, count, channels), row + number, 0, done)
            return
        together = max(1, BLOCK // values)
        for channel in range(0, channels, together):
            for number, begin in enumerate(starts):
                shape = (1, min(together, channels - channel), min(part, values - begin))
                done = full if channel + shape[1] == channels and begin + shape[2] == values else 0
                yield Block(start + channel * values + begin, shape, row + number, channel, done)
