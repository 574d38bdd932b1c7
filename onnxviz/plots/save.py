"""Writing figures: the format by the ending, the same bytes for the same figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxviz.errors import OutputError
from onnxviz.graph.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "save_figure"]

#: Ending -> metadata that savefig is given, so that neither dates nor versions enter the file.
FORMATS: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_SETTINGS: Any = {"svg.hashsalt": "onnxviz", "svg.fonttype": "none", "pdf.fonttype": 42}


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 150) -> None:
    """Write a figure as PNG, SVG or PDF, by the path's ending, in one step.

    Text stays text in SVG and PDF. The same figure gives the same bytes.

    Args:
        figure: What a function of this package returned.
        path: Where to; ``.png``, ``.svg`` or ``.pdf``.
        dpi: Pixels an inch, for PNG and for the pictures inside SVG and PDF.

    Raises:
        OutputError: The ending names no known format, or the file cannot be written.

    >>> import tempfile, pathlib
    >>> from matplotlib.figure import Figure
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "empty.png"
    >>> save_figure(Figure(figsize=(1, 1)), target)
    >>> target.read_bytes()[1:4]
    b'PNG'
    """
    ending = Path(path).suffix.lower().lstrip(".")
    if ending not in FORMATS:
        what = f"the ending .{ending} names no picture format" if ending else "the name has no ending"
        raise OutputError(f"cannot write {path}: {what}", hint=f"use {', '.join(f'.{name}' for name in FORMATS)}")
    import matplotlib

    with atomic_path(path) as temporary, matplotlib.rc_context(_SETTINGS):
        figure.savefig(temporary, format=ending, dpi=dpi, metadata=FORMATS[ending])
