"""A progress bar on a terminal, for verbs that run several batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["shown_progress"]


class Shown(Protocol):
    """Shows how much of something is done."""

    def __call__(self, done: int, of: int, what: str = ..., /) -> None:
        """Show that ``done`` of ``of`` are; a bar for each ``what``, gone once all are."""
        ...


@contextmanager
def shown_progress(wanted: bool = True, what: str = "batches") -> Iterator[Shown | None]:
    """Show a bar on a terminal once there are several batches (or ``what`` else is counted), and nothing in a pipe."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(done: int, of: int, counted: str = what, /) -> None:
            if done >= of:
                if counted in tasks:
                    bar.remove_task(tasks.pop(counted))
            elif counted in tasks:
                bar.update(tasks[counted], completed=done, total=of)
            else:
                tasks[counted] = bar.add_task(counted, total=of, completed=done)

        yield show
