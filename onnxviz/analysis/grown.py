"""Sequences that grow by merging: a result of many batches is made without copying what came before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar, overload

__all__ = ["Grown"]

T = TypeVar("T")


class Grown(Sequence[T]):
    """The first items of a list that several results share, each of which never changes.

    The last of them is appended to in place; of any other, what it shows is copied first. So a sweep over n batches
    copies n items in all, not n²/2.

    >>> one = Grown.joined((1,), (2,))
    >>> two, three = Grown.joined(one, (3,)), Grown.joined(one, (4, 5))
    >>> list(one), list(two), list(three)
    ([1, 2], [1, 2, 3], [1, 2, 4, 5])
    """

    def __init__(self, items: list[T], count: int) -> None:
        self._items, self._count = items, count

    @classmethod
    def joined(cls, first: Sequence[T], second: Sequence[T]) -> Grown[T]:
        """Return the items of both; neither changes."""
        latest = isinstance(first, Grown) and len(first._items) == first._count
        items = first._items if isinstance(first, Grown) and latest else list(first)
        items.extend(list(second))
        return cls(items, len(items))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return islice(self._items, self._count)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return self._items[: self._count][index]
        return self._items[range(self._count)[index]]
