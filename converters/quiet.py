"""Keeping an exporter's chatter away from the user: prints, log lines and warnings of code that is not onnxviz's."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow stdout, stderr, logging and warnings while a third party's code runs; errors pass through.

    What native code writes to the process's stderr goes too: TensorFlow's libraries write there whatever log level is
    set.

    >>> with quiet():
    ...     print("exporting")
    """
    before = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        _native_stderr_to_nowhere(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _native_stderr_to_nowhere() -> Iterator[None]:
    try:
        saved = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
