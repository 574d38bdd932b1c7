"""The error tree of onnxviz.

Every error that a user can cause is an :class:`OnnxvizError`. Its text is one line that says what is wrong and,
after a semicolon, what would work; the command line prints it as it is and ends with :attr:`OnnxvizError.exit_code`.
Names inside a model are untrusted, so control characters never reach the terminal.

>>> str(SelectionError("no tensor matches 'conv9'", hint="the nearest names are conv1, conv2"))
"no tensor matches 'conv9'; the nearest names are conv1, conv2"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "CheckError",
    "ConversionError",
    "ExecutionError",
    "GradientError",
    "InputError",
    "MemoryLimitError",
    "MissingDependencyError",
    "ModelError",
    "OnnxvizError",
    "OutputError",
    "ParityError",
    "ProviderError",
    "SelectionError",
    "TrustError",
    "counted",
    "listed",
    "printable",
    "spreadsheet_text",
]


def printable(text: object, limit: int = 600) -> str:
    r"""Return ``text`` on one line, with control and direction characters escaped and the middle cut beyond ``limit``.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    line = str(text)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(line) <= limit:
        return line
    head = limit * 2 // 3
    return f"{line[:head]}…{line[head - limit + 1 :]}"


class OnnxvizError(Exception):
    """Base of every error that onnxviz raises on purpose.

    Args:
        message: What is wrong, one line.
        hint: What would work, one line.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return printable(f"{self.message}; {self.hint}" if self.hint else self.message)


class ModelError(OnnxvizError):
    """A model file that is missing, damaged, not ONNX, unsafe, or newer than what is installed."""


class SelectionError(OnnxvizError):
    """A name, glob, op type or kind that selects nothing."""


class InputError(OnnxvizError):
    """An input file or value that cannot be read or does not fit the model."""


class GradientError(OnnxvizError):
    """A gradient that cannot be built: no path from the target, or an operator on it without a rule."""


class OutputError(OnnxvizError):
    """An output that cannot be written, or whose ending names no known format."""


class ProviderError(OnnxvizError):
    """An execution provider that was asked for and does not load."""


class CheckError(OnnxvizError):
    """A check that cannot decide: it has neither passed nor failed."""

    exit_code = 3


class ExecutionError(OnnxvizError):
    """onnxruntime refused the model or failed while running it."""


class MemoryLimitError(ExecutionError):
    """A memory limit that a run cannot keep to; the text has the number that would do."""


class MissingDependencyError(OnnxvizError):
    """An optional package is not installed; the hint is the command that installs it."""


class TrustError(OnnxvizError):
    """A source that would execute code was given without ``--trust``."""


class ConversionError(OnnxvizError):
    """A network that its exporter cannot turn into ONNX."""


class ParityError(OnnxvizError):
    """A converted model whose outputs differ from its source; ``parity`` holds the comparison."""

    exit_code = 1
    parity: Any = None


def spreadsheet_text(text: str) -> str:
    """Return a text for a cell of CSV: an apostrophe goes before what a spreadsheet would run as a formula.

    >>> spreadsheet_text("=1+1"), spreadsheet_text("conv1")
    ("'=1+1", 'conv1')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names, and count the others.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def counted(count: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "path"), counted(1200, "node"), counted(2, "batch")
    ('1 path', '1,200 nodes', '2 batches')
    """
    ending = "" if count == 1 else "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{count:,} {noun}{ending}"
