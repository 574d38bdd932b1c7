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
    count: int | None = None,
) -> Iterator[tuple[str, OutputParity]]:
    """Yield for each output in which samples influence each other what was done, and the worst comparison.

    Args:
        whole: Outputs for all samples together.
        alone: Outputs for each sample alone, in their order; a text where that did not run.
        axes: Output -> the axis along which it has a part for each sample.
        limits: Output -> relative error that rounding explains.
        turned: Outputs for the samples in another order.
        order: That order.
        count: Number of samples in ``whole``, of which ``alone`` may have the first; None for all.

    >>> whole = {"y": np.float32([[1, 2], [3, 4]])}
    >>> [how for how, _ in compare_rows(whole, [{"y": whole["y"][:1]}, {"y": whole["y"][:1]}], {"y": 0}, {"y": 1e-4})]
    ['it is run alone']
    """
    for name, axis in axes.items():
        found = [
            _bad(name, rows, alone, limits[name], turned, order, axis)
            for rows in _arrangements(whole[name], axis, count or len(alone))
        ]
        if all(found):
            yield max(found[0], key=lambda pair: pair[1].relative_l2)


def _arrangements(array: Array, axis: int, count: int) -> Iterator[list[Array]]:
    """Yield the parts of each sample, in the ways that an axis may hold them: one after the other, or in turn."""
    yield rows_of(array, axis, count)
    if (size := array.shape[axis]) > count:
        yield [np.take(array, range(row, size, count), axis) for row in range(count)]


def _bad(
    name: str,
    rows: Sequence[Array],
    alone: Sequence[Mapping[str, Array] | str],
    limit: float,
    turned: Mapping[str, Array] | None,
    order: Sequence[int],
    axis: int,
) -> list[tuple[str, OutputParity]]:
    """Return the comparisons of an output that fail, and what was done."""
    pairs = []
    if turned is not None and turned[name].shape[axis] == sum(row.shape[axis] for row in rows):
        found = list(_arrangements(turned[name], axis, len(rows)))
        moved = found[0] if rows[0].shape[axis] == 1 else min(found, key=lambda one: _distance(one, rows, order))
        pairs += [("the order of the samples changes", rows[source], moved[i]) for i, source in enumerate(order)]
    for i, result in enumerate(alone):
        if not isinstance(result, str):
            pairs.append(("it is run alone", rows[i], result[name]))
    compared = [(how, compare(name, a, b, limit or None, peak=10)) for how, a, b in pairs]
    return [(how, parity) for how, parity in compared if parity.problem and not _rounded(parity, rows[0])]


def _distance(one: Sequence[Array], rows: Sequence[Array], order: Sequence[int]) -> float:
    return sum(compare("", rows[source], one[i]).relative_l2 for i, source in enumerate(order))


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
            own = [whole] if axis is None else [rows[row] for rows in _arrangements(whole, axis, 3)]
            parity, *others = [compare(name, alone, one, limit or None, peak=10) for one in own]
            if parity.problem is None or _rounded(parity, whole) or any(one.problem is None for one in others):
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
