"""One thread for linear algebra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run linear algebra on one thread: the same bits on any machine, and quick where others use its cores.

    Idle threads of a BLAS spin, and so do those of OpenMP: on two busy cores singular values took five times as long.
    Used as a decorator it holds for a function.

    >>> with one_thread():
    ...     pass
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
