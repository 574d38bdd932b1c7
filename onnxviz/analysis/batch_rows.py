"""Whether the samples of a batch influence each other: their parts of the outputs beside what each gives alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.axes import Dimension, row_axis, rows_of
from onnxviz.analysis.comparison import TOLERANCE, OutputParity, compare
from onnxviz.analysis.numeric import is_numeric
from onnxviz.analysis.rounding import deepened

__all__ = ["Mixing", "compare_rows", "first_mixing", "one_row"]

Array = npt.NDArray[Any]
Capturing = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Mixing:
    """Where samples first influence each other.

    Attributes:
        node: The node.
        tensor: What it writes.
        parity: How far the part of a sample is from what the sample gives alone.
    """

    node: ir.Node
    tensor: str
    parity: OutputParity


def one_row(feeds: Mapping[str, Any], dimension: Dimension, row: int) -> dict[str, Any]:
    """Return feeds that hold one sample of a batch alone."""
    return {n: np.take(a, [row], dimension.axes[n]) if n in dimension.axes else a for n, a in feeds.items()}


def compare_rows(
    whole: Mapping[str, Array],
    alone: Sequence[Mapping[str, Array] | str],
    axes: Mapping[str, int],
    limits: Mapping[str, float],
    turned: Mapping[str, Array] | None = None,
    order: Sequence[int] = (),
) -> Iterator[tuple[str, OutputParity]]:
    """Yield for each output in which samples influence each other what was done, and the worst comparison.

    Args:
        whole: Outputs for all samples together.
        alone: Outputs for each sample alone, in their order; a text where that did not run.
        axes: Output -> the axis along which it has a part for each sample.
        limits: Output -> relative error that rounding explains.
        turned: Outputs for the samples in another order.
        order: That order.

    >>> whole = {"y": np.float32([[1, 2], [3, 4]])}
    >>> [how for how, _ in compare_rows(whole, [{"y": whole["y"][:1]}, {"y": whole["y"][:1]}], {"y": 0}, {"y": 1e-4})]
    ['it is run alone']
    """
    for name, axis in axes.items():
        count = len(alone)
        rows = rows_of(whole[name], axis, count)
        pairs = []
        if turned is not None and turned[name].shape == whole[name].shape:
            moved = rows_of(turned[name], axis, count)
            pairs += [("the order of the samples changes", rows[source], moved[i]) for i, source in enumerate(order)]
        for i, result in enumerate(alone):
            if not isinstance(result, str):
                pairs.append(("it is run alone", rows[i], result[name]))
        found = [(how, compare(name, a, b, limits[name] or None, peak=10)) for how, a, b in pairs]
        bad = [(how, parity) for how, parity in found if parity.problem and not _rounded(parity, whole[name])]
        if bad:
            yield max(bad, key=lambda pair: pair[1].relative_l2)


def _rounded(parity: OutputParity, array: Array) -> bool:
    """Whether whole numbers differ by so little that a rounding before them explains it: ties of ArgMax and TopK."""
    return array.dtype.kind in "iu" and parity.max_abs <= 1 and parity.relative_l2 < 1e-2


def first_mixing(
    model: ir.Model, feeds: Mapping[int, Mapping[str, Any]], dimension: Dimension, capturing: Capturing
) -> Mixing | None:
    """Return the first node, in order of execution, that makes samples influence each other.

    Every tensor is compared that has a part for each sample. One that has none but differs from what a sample gives
    alone, such as a mean over the batch, is named in place of what is first computed with it.

    Args:
        model: Without functions.
        feeds: Number of samples -> feeds, for 2 and 3 samples, of which the first are the same.
        dimension: What counts samples.
        capturing: Runs the model and returns its tensors by name, each with ``array``.
    """
    row = 2  # the last of three: what is summed up over a batch has met the others by then
    runs = [capturing(f) for f in (one_row(feeds[3], dimension, row), feeds[2], feeds[3])]
    blended: dict[str, Mixing] = {}
    for depth, node in enumerate(model.graph):
        for value in node.outputs:
            name = str(value.name or "")
            arrays = [array for run in runs if (array := _numbers(run, name)) is not None]
            if len(arrays) < len(runs):
                continue
            alone, two, whole = arrays
            axis = row_axis(alone.shape, two.shape, whole.shape)
            if axis is None and (alone.shape != whole.shape or alone.dtype.kind != "f"):
                continue  # such as what Shape gives
            limit = deepened(TOLERANCE.get(str(alone.dtype), 0.0), depth)
            own = whole if axis is None else rows_of(whole, axis, 3)[row]
            parity = compare(name, alone, own, limit or None, peak=10)
            if parity.problem is None or _rounded(parity, whole):
                continue
            found = _blended_source(node, blended) or Mixing(node, name, parity)
            if axis is not None:
                return found
            blended[name] = found
    return None


def _blended_source(node: ir.Node, blended: Mapping[str, Mixing]) -> Mixing | None:
    return next((blended[str(v.name)] for v in node.inputs if v is not None and str(v.name) in blended), None)


def _numbers(run: Mapping[str, Any], name: str) -> Array | None:
    record = run.get(name)
    array = None if record is None else getattr(record, "kept", None)
    return array if isinstance(array, np.ndarray) and is_numeric(array.dtype) else None
