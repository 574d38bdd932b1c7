"""A progress bar on a terminal, for verbs that run several batches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["shown_progress"]


@contextmanager
def shown_progress(wanted: bool = True, what: str = "batches") -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal once there are several batches (or ``what`` else is counted), and nothing in a pipe."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: list[Any] = []

        def show(done: int, of: int) -> None:
            if of > 1 and not task:
                task.append(bar.add_task(what, total=of))
            if task:
                bar.update(task[0], completed=done, total=of)

        yield show
