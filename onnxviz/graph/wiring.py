"""Whether blocks of a line are wired alike: compared input by input, never by hash."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from onnxviz.graph.canonical import Line

__all__ = ["rows_wired_alike", "same_wiring"]

BoolArray = npt.NDArray[np.bool_]


def rows_wired_alike(line: Line, first: int, period: int, count: int) -> list[tuple[int, int]]:
    """Split blocks with equal labels, one after the other, into rows of blocks whose inputs come from the same places.

    Blocks of a row read the same places in themselves and, from the third on, of the block before; what the first reads
    of what lies before it may be elsewhere, as it follows no block of its kind.

    Args:
        line: The line.
        first: Where the first block begins.
        period: How many nodes a block has.
        count: How many blocks there are.

    Returns:
        For each row its first block and how many it has, in order.
    """
    alike, follows = _compare_blocks(line, first, period, count)
    rows = []
    at = 0
    while at < count:
        end = at + 1
        while end < count and alike[end - 1] and (end == at + 1 or follows[end - 1]):
            end += 1
        rows.append((at, end - at))
        at = end
    return rows


def _compare_blocks(line: Line, first: int, period: int, count: int) -> tuple[BoolArray, BoolArray]:
    """Compare each of some blocks that follow one another with the next, input by input.

    Args:
        line: The line; the labels of the blocks are equal.
        first: Where the first block begins.
        period: How many nodes a block has.
        count: How many blocks there are.

    Returns:
        Whether both read the same places in themselves, and the same tensor from outside wherever the other one
        does; and whether both read the same places of the block before them.
    """
    begin, end = (int(line.first[first + at * period]) for at in (0, count))
    shape = (count, (end - begin) // count)
    if (np.diff(line.first[first : first + count * period + 1 : period]) != shape[1]).any():
        return np.zeros(count - 1, np.bool_), np.zeros(count - 1, np.bool_)
    starts = (first + np.arange(count) * period)[:, None]
    source = line.source[begin:end].reshape(shape)
    port = line.port[begin:end].reshape(shape)
    place = source - starts
    inside = (place >= 0) & (source >= 0)
    within = np.where(inside, place, -1)
    inner_port = np.where(inside, port, -1)
    alike = ((within[1:] == within[:-1]) & (inner_port[1:] == inner_port[:-1])).all(axis=1)
    columns = np.flatnonzero(~inside.all(axis=0))
    outside = zip(source[:, columns].tolist(), port[:, columns].tolist(), strict=True)
    patterns = [_pattern(zip(sources, ports, strict=True)) for sources, ports in outside]
    alike &= np.array([a == b for a, b in pairwise(patterns)], np.bool_)
    before = ~inside & (place >= -period) & (source >= 0)
    from_before = np.where(before, place, 0)
    before_port = np.where(before, port, -1)
    follows = ((from_before[1:] == from_before[:-1]) & (before_port[1:] == before_port[:-1])).all(axis=1)
    return alike, follows


def same_wiring(line: Line, one: int, other: int, period: int) -> bool:
    """Whether two blocks with equal labels read the same places in themselves, and from outside in the same pattern."""
    rows = []
    for start in (one, other):
        begin, end = int(line.first[start]), int(line.first[start + period])
        pairs = zip(line.source[begin:end].tolist(), line.port[begin:end].tolist(), strict=True)
        places = [(at - start, port) if at >= start else (-1, at, port) for at, port in pairs]
        outside = [place[1:] for place in places if len(place) == 3]
        rows.append(([place if len(place) == 2 else None for place in places], _pattern(outside)))
    return rows[0] == rows[1]


def _pattern(values: Iterable[tuple[int, ...]]) -> list[int]:
    """Number values by their first occurrence: ``[a, b, a]`` becomes ``[0, 1, 0]``."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]
