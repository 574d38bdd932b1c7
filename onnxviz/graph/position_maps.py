"""Which positions of a model's input one axis of a tensor sees: exact integer maps, repeated with a period.

Strided windows shift what is seen by whole positions of the input, upsampling lets several positions see the same. Both
are held in one form, so that chains of them stay exact: position ``period · m + r`` of the tensor sees the positions
``shift · m + low[r]`` to ``shift · m + high[r]`` of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["PositionMap", "bordered", "identity_map", "merge", "resample"]

_LONGEST_PERIOD = 4096
_LONGEST_BORDERED = 1024
_MOST_READS = 1 << 16  # positions that are looked up for one new map
Reads = Callable[[int], Iterable[int]]


@dataclass(frozen=True, slots=True)
class PositionMap:
    """What the positions of one axis see of one axis of the input.

    Attributes:
        axis: The input's axis.
        period: After how many positions the pattern repeats.
        shift: By how many positions of the input it has moved on then.
        low: The first position of the input that is seen, for each position of a period.
        high: The last one; less than ``low`` where nothing is seen, as between the taps of a transposed convolution.
    """

    axis: int
    period: int
    shift: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    def interval(self, position: int) -> tuple[int, int]:
        """Return the first and the last position of the input that a position sees, not clipped to the input."""
        turns, rest = divmod(position, self.period)
        return self.shift * turns + self.low[rest], self.shift * turns + self.high[rest]

    @property
    def jump(self) -> Fraction:
        """How far what is seen moves from one position to the next, on average."""
        return Fraction(self.shift, self.period)

    def size(self, length: int | None = None) -> int:
        """Return how many positions of the input one position sees at most, of the first ``length`` or of all."""
        return max((high - low + 1 for low, high in zip(self.low[:length], self.high[:length], strict=True)), default=0)


def identity_map(axis: int) -> PositionMap:
    """Return the map of the input's own axis: each position sees itself.

    >>> identity_map(2).interval(7)
    (7, 7)
    """
    return PositionMap(axis, 1, 1, (0,), (0,))


def resample(source: PositionMap, forward: int, back: int, reads: Reads) -> PositionMap | None:
    """Return the map of an axis whose position ``i`` reads the positions ``reads(i)`` of another.

    Args:
        source: The map of the axis that is read.
        forward: After so many positions the reading repeats: ``reads(i + forward)`` is ``reads(i) + back``.
        back: See ``forward``.
        reads: The positions that are read.

    Returns:
        The map; None where its period would be too long to be written out.

    >>> once = resample(identity_map(2), 1, 2, lambda i: range(2 * i - 1, 2 * i + 2))  # 3 wide, stride 2, padding 1
    >>> twice = resample(once, 1, 2, lambda i: range(2 * i - 1, 2 * i + 2))
    >>> twice.size(), twice.jump, twice.interval(0)
    (7, Fraction(4, 1), (-3, 3))
    """
    if forward < 1 or back < 1:
        return None
    turns = source.period // math.gcd(source.period, back)
    period = forward * turns
    if period > _LONGEST_PERIOD:
        return None
    low, high, looked_up = [], [], 0
    for position in range(period):
        seen = []
        for read in reads(position):
            looked_up += 1
            if looked_up > _MOST_READS:
                return None
            first, last = source.interval(read)
            if first <= last:
                seen.append((first, last))
        low.append(min((first for first, _ in seen), default=0))
        high.append(max((last for _, last in seen), default=-1))
    return PositionMap(source.axis, period, source.shift * back * turns // source.period, tuple(low), tuple(high))


def bordered(source: PositionMap, forward: int, back: int, reads: Reads, length: int) -> PositionMap | None:
    """Return the map of an axis whose border positions read otherwise than the rest: mirrored, or clamped.

    The positions 0 to ``length - 1`` are written out within one period of the map, and those around them, which do not
    exist, see nothing; otherwise as :func:`resample`.

    Returns:
        The map; None where the axis is too long to be written out.

    >>> mirrored = bordered(identity_map(2), 1, 1, lambda i: (abs(i - 2),), 10)  # 2 positions of padding before
    >>> [mirrored.interval(i) for i in range(4)], mirrored.jump
    ([(2, 2), (1, 1), (0, 0), (1, 1)], Fraction(1, 1))
    """
    if forward < 1 or not 0 < length <= _LONGEST_BORDERED:
        return None
    # Powers of two, so that maps of branches have periods in common; what follows the axis is no part of it.
    times = source.period // math.gcd(source.period, back)
    times <<= max(-(-3 * length // (2 * forward * times)) - 1, 0).bit_length()
    return resample(source, forward * times, back * times, lambda i: reads(i) if i < length else ())


def merge(one: PositionMap, other: PositionMap) -> PositionMap | None:
    """Return what two branches see together, from the first to the last; None where they do not run in step.

    >>> merge(identity_map(2), resample(identity_map(2), 1, 1, lambda i: (i - 1, i + 1))).interval(0)
    (-1, 1)
    """
    if one == other:
        return one
    period = math.lcm(one.period, other.period)
    if one.axis != other.axis or one.jump != other.jump or period > _LONGEST_PERIOD:
        return None
    low, high = [], []
    for position in range(period):
        parts = [p for p in (one.interval(position), other.interval(position)) if p[0] <= p[1]]
        low.append(min((first for first, _ in parts), default=0))
        high.append(max((last for _, last in parts), default=-1))
    return PositionMap(one.axis, period, one.shift * period // one.period, tuple(low), tuple(high))
