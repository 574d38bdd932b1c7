"""Whether padding that a mask hides changes what a model says of the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxviz.analysis.axes import Dimension
from onnxviz.analysis.comparison import OutputParity, compare
from onnxviz.analysis.size_trials import SizeTrials

__all__ = ["Padding", "try_padding"]

_MASK = re.compile(r"mask", re.IGNORECASE)
_PAD = 3


@dataclass(frozen=True)
class Padding:
    """A dimension with a mask, tried with padding behind its end.

    Attributes:
        dimension: The dimension.
        mask: The input that hides the padding.
        size, padded: Its size without and with padding.
        compared: Outputs that were compared.
        worst: The output that changes most, beyond its tolerance; None where none does.
        problem: Why nothing was compared; None where something was.
    """

    dimension: str
    mask: str
    size: int
    padded: int
    compared: tuple[str, ...] = ()
    worst: OutputParity | None = None
    problem: str | None = None


def _mask_of(dimension: Dimension, feeds: Mapping[str, Any]) -> str | None:
    """Return the input that says which places of a dimension count: it is called a mask, and other inputs have them.

    >>> ids, mask = np.zeros((1, 4), np.int64), np.ones((1, 4), np.int64)
    >>> _mask_of(Dimension("tokens", {"ids": 1, "attention_mask": 1}), {"ids": ids, "attention_mask": mask})
    'attention_mask'
    """
    masks = [n for n in dimension.axes if _MASK.search(n) and np.ndim(feeds[n]) == 2]
    others = [name for name in dimension.axes if name not in masks]
    return masks[0] if len(masks) == 1 and others and np.asarray(feeds[masks[0]]).dtype.kind in "biuf" else None


def try_padding(trials: SizeTrials, dimension: Dimension, limits: Mapping[str, float]) -> Padding | None:
    """Compare a run with one whose inputs have places behind their end that the mask hides.

    A mask may hold 1, or 0, where something counts: it is enough that one of the two works.

    Returns:
        None where the dimension has no mask.
    """
    mask = _mask_of(dimension, trials.feeds)
    if mask is None:
        return None
    size = trials.usual[dimension.name]
    padded = size + _PAD
    tried = [_compared(trials, dimension, mask, padded, limits, counts) for counts in (1, 0)]
    return next((one for one in tried if one.problem is None and one.worst is None), tried[0])


def _compared(
    trials: SizeTrials, dimension: Dimension, mask: str, padded: int, limits: Mapping[str, float], counts: int
) -> Padding:
    size = trials.usual[dimension.name]
    feeds = dict(trials.feeds)
    feeds[mask] = np.full_like(np.asarray(feeds[mask]), counts)
    longer = dict(feeds)
    for name, axis in dimension.axes.items():
        array = np.asarray(feeds[name])
        widths = [(0, _PAD if i == axis else 0) for i in range(array.ndim)]
        longer[name] = np.pad(array, widths, constant_values=1 - counts if name == mask else 0)
    plain, behind = trials.run_feeds(feeds), trials.run_feeds(longer, {**trials.usual, dimension.name: padded})
    if not plain.ran or not behind.ran:
        return Padding(dimension.name, mask, size, padded, problem=plain.trouble or behind.trouble)
    worst: OutputParity | None = None
    compared = []
    for name, array in plain.outputs.items():
        other = _without(array, behind.outputs.get(name), size)
        if other is None or array.dtype.kind not in "fV":
            continue
        compared.append(name)
        parity = compare(name, array, other, limits.get(name) or None, peak=10)
        if parity.problem and (worst is None or parity.relative_l2 > worst.relative_l2):
            worst = parity
    problem = None if compared else "no output can be compared"
    return Padding(dimension.name, mask, size, padded, tuple(compared), worst, problem)


def _without(array: Any, longer: Any, size: int) -> Any:
    """Return the longer output without what stands for padding; None where it has no part for each place."""
    if longer is None or array.ndim != longer.ndim:
        return None
    grown = [i for i, (a, b) in enumerate(zip(array.shape, longer.shape, strict=True)) if a != b]
    if any(array.shape[i] != size or longer.shape[i] != size + _PAD for i in grown):
        return None
    return longer[tuple(slice(0, size) if i in grown else slice(None) for i in range(array.ndim))]
