"""Inputs that stand for nothing: what integrated gradients, SHAP and perturbations compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.axes import spatial_axes
from onnxviz.errors import InputError, SelectionError

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case

__all__ = ["BASELINES", "Baseline", "BaselineSpec", "baselines", "blurred", "seen_through"]

Array = npt.NDArray[Any]
#: Name -> what it is.
BASELINES = {
    "zeros": "0 everywhere, in the units that the model takes",
    "blurred": "the sample under a Gaussian blur of 1/20 of its longest side",
    "mean": "the mean of each channel of the sample",
    "uniform": "uniform random numbers between the lowest and the highest value of the sample",
}
#: Names joined by commas, files, arrays, or a list of those.
BaselineSpec = str | Array | Mapping[str, Array] | Sequence[Any]
_BLUR = 20  # longest side over the standard deviation of the blur


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline of all samples.

    Attributes:
        name: What it is.
        rows: Attributed input -> ``(N, …)``.
    """

    name: str
    rows: Mapping[str, Array]


def baselines(case: Case, wanted: BaselineSpec, seed: int = 0) -> list[Baseline]:
    """Return baselines of everything that is attributed.

    Args:
        case: What is explained.
        wanted: Names of :data:`BASELINES`, joined by commas where there are several; a picture, ``.npy`` or ``.npz``
            file; an array of a sample's shape or of all; a mapping of inputs to such; or a list of these.
        seed: Of ``"uniform"``.

    Raises:
        InputError: A name is none, or a shape does not fit.
        SelectionError: An input without positions is to be blurred.
    """
    if isinstance(wanted, str):
        parts: list[Any] = [wanted] if Path(wanted).exists() else [part.strip() for part in wanted.split(",")]
    else:
        parts = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    return [_baseline(case, part, seed) for part in parts]


def _baseline(case: Case, wanted: Any, seed: int) -> Baseline:
    if isinstance(wanted, str) and wanted in BASELINES:
        return Baseline(wanted, {name: _made(case, name, wanted, seed) for name in case.sources})
    if isinstance(wanted, str):
        if not Path(wanted).exists():
            hint = f"choose {', '.join(BASELINES)}, or name a file"
            raise InputError(f"there is no baseline {wanted!r}", hint=hint)
        if case.read is None or case.inner:
            raise InputError(
                f"{wanted} cannot be read as a tensor inside the model", hint="give zeros, mean or uniform"
            )
        name, given = Path(wanted).name, dict(case.read(wanted))
    else:
        name, given = "array", dict(wanted) if isinstance(wanted, Mapping) else {case.sources[0]: wanted}
    rows = {n: _fitted(case, n, given[n]) if n in given else np.zeros_like(case.value(n)) for n in case.sources}
    return Baseline(name, rows)


def _fitted(case: Case, name: str, given: Any) -> Array:
    array, fed = np.asarray(given), case.value(name)
    for shape in (array.shape, array.shape[1:]):
        if shape == fed.shape[1:] and (shape == array.shape or len(array) in (1, len(fed))):
            return np.broadcast_to(array, fed.shape)
    raise InputError(f"a baseline of shape {array.shape} does not fit {name!r}, of which a sample is {fed.shape[1:]}")


def _made(case: Case, name: str, kind: str, seed: int) -> Array:
    fed = np.asarray(case.value(name), np.float64)
    if kind == "zeros":
        return np.zeros_like(fed)
    if kind == "uniform":
        low, high = fed.reshape(len(fed), -1).min(axis=1), fed.reshape(len(fed), -1).max(axis=1)
        ends = enumerate(zip(low, high, strict=True))
        return np.stack([np.random.default_rng((seed, i)).uniform(*end, fed.shape[1:]) for i, end in ends])
    axes = spatial_axes(case, name)
    if kind == "mean":
        return np.broadcast_to(fed.mean(axis=axes or tuple(range(1, fed.ndim)), keepdims=True), fed.shape)
    if not axes:
        raise SelectionError(f"{name} has no positions, so it cannot be blurred", hint="give zeros, mean or uniform")
    return blurred(fed, axes, max(fed.shape[axis] for axis in axes) / _BLUR)


def seen_through(case: Case, name: str, sample: int, fill: Array, masks: Array) -> Array:
    """Return a sample seen through masks: itself where they are 1, the fill where they are 0.

    Args:
        case: What is explained.
        name: The attributed input.
        sample: Which sample.
        fill: ``(N, …)``.
        masks: ``(R, …)``, that broadcast with a sample.

    Returns:
        ``(R, …)`` of the input's type, made row by row: in double all of them would take more than the run itself.
    """
    fed = case.value(name)
    own, other = np.float64(fed[sample]), np.float64(fill[sample])
    made = np.empty((len(masks), *own.shape), fed.dtype)
    for row, mask in zip(made, masks, strict=True):
        row[...] = other + mask * (own - other)
    return made


def blurred(array: Array, axes: Sequence[int], sigma: float) -> Array:
    """Return an array under a Gaussian blur along some axes, its edges continued.

    >>> blurred(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), [0], 0.5).round(3).tolist()
    [0.0, 0.106, 0.787, 0.106, 0.0]
    """
    reach = max(int(4 * sigma + 0.5), 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in axes:
        length = array.shape[axis]
        # Each position is a sum over positions within reach, those beyond an end counted as the end.
        places = np.clip(np.arange(length)[:, None] + np.arange(-reach, reach + 1), 0, length - 1)
        weights = np.zeros((length, length))
        np.add.at(weights, (np.arange(length)[:, None], places), kernel)
        array = np.moveaxis(np.tensordot(weights, array, axes=([1], [axis])), 0, axis)
    return array
