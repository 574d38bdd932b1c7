"""Keeping an exporter's chatter away from the user: prints, log lines and warnings of code that is not onnxviz's."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow stdout, stderr, logging and warnings while a third party's code runs; errors pass through.

    What native code writes to the process's stdout and stderr goes too: TensorFlow's and torch's libraries write there
    whatever log level is set.

    >>> with quiet():
    ...     print("exporting")
    """
    before = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        _native_output_to_nowhere(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _native_output_to_nowhere() -> Iterator[None]:
    saved: list[tuple[int, int]] = []
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
        for number in (1, 2):
            with contextlib.suppress(OSError):  # a process without that stream
                saved.append((number, os.dup(number)))
                os.dup2(sink, number)
        yield
    finally:
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(sink)
