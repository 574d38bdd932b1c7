"""What several verbs need."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.graph.files import check_output

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_outputs", "reducer"]


def check_outputs(*outputs: tuple[str | os.PathLike[str] | None, Sequence[str]]) -> None:
    """Refuse what cannot be written before the work that it would hold."""
    for path, endings in outputs:
        if path is not None:
            check_output(path, endings)


def reducer(model: ir.Model, per_channel: bool) -> Callable[[str, Any], Any]:
    """Return what makes statistics of a tensor while the model runs."""
    from onnxviz.analysis.statistics import Summary, channel_axes

    axes = channel_axes(model) if per_channel else {}
    return lambda name, array: Summary.of(array, channel_axis=axes.get(name))
