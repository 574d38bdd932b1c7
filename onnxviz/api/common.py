"""What several verbs need."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from onnxviz.graph.files import atomic_write, check_output

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import Feed

    Path_ = str | os.PathLike[str]

__all__ = [
    "DATA", "PICTURES", "batches_for", "check_outputs", "reducer", "save_json", "save_view",
    "split_options", "tell_refused", "write_numbers",
]  # fmt: skip

#: The endings of pictures, and of the numbers behind them.
PICTURES = (".png", ".svg", ".pdf")
DATA = (".npz",)


class HasData(Protocol):
    """A result that can be written as plain data."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        ...


_READING = ("preprocessing", "dims", "seed")


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


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of reading inputs (``preprocessing``, ``dims``, ``seed``) and those of running a model.

    >>> split_options({"seed": 3, "providers": "cpu"})
    ({'seed': 3}, {'providers': 'cpu'})
    """
    reading = {name: options[name] for name in _READING if name in options}
    return reading, {name: value for name, value in options.items() if name not in _READING}


def batches_for(
    model: ir.Model, inputs: Feed, batch: int | None, options: Mapping[str, Any]
) -> tuple[Batches, dict[str, Any]]:
    """Return the batches of a feed, and the options that running them takes."""
    from onnxviz.runtime.capture import batches_of

    reading, run = split_options(options)
    return batches_of(model, inputs, batch=batch, **reading), run


def tell_refused(tell: Callable[[str], None] | None, not_drawn: Sequence[NotDrawn], most: int = 40) -> None:
    """Tell a line for each tensor that is not drawn, the last one counting the rest."""
    if tell is None:
        return
    for one in not_drawn[:most]:
        tell(f"not drawn: {one.name}: {one.reason}")
    if len(not_drawn) > most:
        tell(f"not drawn: {len(not_drawn) - most} more")


def write_numbers(path: Path_, arrays: Mapping[str, np.ndarray], manifest: dict[str, Any]) -> None:
    """Write the numbers behind a picture."""
    from onnxviz.runtime.storage import write_arrays

    write_arrays(os.fspath(path), arrays, manifest)


def save_json(result: HasData, output: Path_ | None) -> bool:
    """Write a result as JSON where a file is named that ends in ``.json``; return whether nothing is left to write."""
    if output is None:
        return True
    if not os.fspath(output).lower().endswith(".json"):
        return False
    atomic_write(output, json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return True


def save_view(figure: Figure, output: Path_ | None) -> None:
    """Write a figure where a file is named."""
    if output is not None:
        from onnxviz.plots.save import save_figure

        save_figure(figure, output)
