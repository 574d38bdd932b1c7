"""Methods that cover parts of the input and see how far the score falls; they need no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.baselines import BaselineSpec, baselines
from onnxviz.analysis.attribution.case import Case
from onnxviz.analysis.attribution.methods import Found, method
from onnxviz.analysis.attribution.windows import Sizes, Windows, windows
from onnxviz.analysis.scale import number
from onnxviz.errors import InputError

__all__ = ["feature_ablation", "occlusion"]

Array = npt.NDArray[Any]
#: Which entries of a sample a copy covers.
Cover = Callable[[int], Any]
_MOST_FEATURES = 4096
_MANY, _FEW = 64, 3  # falls that are looked at, and how many different ones are steps of the score


@method("occlusion", "how far the score falls where a patch that slides over the input is covered",
        source="Zeiler and Fergus 2014, arXiv:1311.2901, section 4.1", needs=(), unit="score")  # fmt: skip
def occlusion(
    case: Case, *, patch: Sizes = "auto", stride: Sizes = "auto", fill: BaselineSpec = "zeros", seed: int = 0
) -> Found:
    """Return at each position the mean of ``y(x) - y(x covered)`` over the patches that cover it, all channels alike.

    Args:
        case: What is explained.
        patch: Size of the patch along each axis of positions: of a picture, a volume, a signal, tokens or features.
        stride: From one patch to the next; half of the patch where that is a patch of a picture or signal.
        fill: What it is covered with, as baselines are given; of several the mean.
        seed: Of ``fill="uniform"``.
    """
    fills = baselines(case, fill, seed)
    totals: dict[str, Array] = {}
    told: dict[str, Any] = {"fill": ", ".join(one.name for one in fills)}
    for name in case.sources:
        over = windows(case, name, patch, stride)
        rank = case.value(name).ndim
        found = [_drops(case, name, one.rows[name], over.count, lambda i, o=over, r=rank: o.at(i, r)) for one in fills]  # type: ignore[misc]
        totals[name] = np.mean(found, axis=0)
        told |= _told(name, over, told)
    return Found(totals, parameters=told)


@method("feature-ablation", "how far the score falls where a feature, or a group of features, is taken away",
        source="Kokhlikyan et al. 2020, arXiv:2009.07896, section 4", needs=(), unit="score")  # fmt: skip
def feature_ablation(case: Case, *, groups: Any = "auto", fill: BaselineSpec = "zeros", seed: int = 0) -> Found:
    """Return for each feature ``y(x) - y(x without its group)``.

    Args:
        case: What is explained.
        groups: Whole numbers of a sample's shape, or that broadcast to it: features with the same number go together;
            an array or a ``.npy`` file. ``"auto"``: each feature, or of more than 4096 blocks that do not overlap.
        fill: What takes the place of a feature; of several the mean.
        seed: Of ``fill="uniform"``.
    """
    fills = baselines(case, fill, seed)
    totals: dict[str, Array] = {}
    for name in case.sources:
        numbers, count = _groups(case, name, groups)
        found = [_drops(case, name, one.rows[name], count, lambda i, n=numbers: n == i) for one in fills]  # type: ignore[misc]
        totals[name] = np.mean(found, axis=0)
    told = {"groups": "auto" if isinstance(groups, str) and groups == "auto" else "given"}
    told["fill"] = ", ".join(one.name for one in fills)
    return Found(totals, notes=_coarse(totals.values()) if len(fills) == 1 else (), parameters=told)


def _drops(case: Case, name: str, fill: Array, count: int, cover: Cover) -> Array:
    """Return the mean fall of the score over the copies that cover a place, ``(N, …)``."""
    fed = case.value(name)
    total, times = np.zeros(fed.shape), np.zeros(fed.shape)
    for sample, places in case.forward.copies(count):
        rows = fed[sample][None].repeat(len(places), axis=0)
        covers = [cover(int(place)) for place in places]
        for row, covered in enumerate(covers):
            rows[row, ...][covered] = fill[sample, ...][covered]
        falls = case.scores[sample] - case.forward(*case.changed(sample, {name: rows})).scores
        for fall, covered in zip(falls, covers, strict=True):
            total[sample, ...][covered] += fall
            times[sample, ...][covered] += 1
    return np.asarray(total / np.maximum(times, 1))


def _coarse(totals: Iterable[Array]) -> tuple[str, ...]:
    """Say where the score moves in steps that are larger than what a feature moves it, as of a quantised model."""
    falls = np.concatenate([np.abs(array).reshape(-1) for array in totals])
    most = float(falls.max(initial=0.0))
    steps = most * np.unique((falls[falls > 0] / most).round(5))
    if len(falls) < _MANY or not 0 < len(steps) <= _FEW:
        return ()
    return (
        f"the score moves in steps of {number(float(steps[0]))}, more than most features move it: cover larger parts",
    )


def _told(name: str, over: Windows, told: dict[str, Any]) -> dict[str, Any]:
    sizes = {"patch": "x".join(map(str, over.patch)), "stride": "x".join(map(str, over.stride))}
    return sizes if "patch" not in told else {f"{k} of {name}": v for k, v in sizes.items() if v != told[k]}


def _groups(case: Case, name: str, groups: Any) -> tuple[Array, int]:
    """Return the number of each feature's group from 0, of a sample's shape, and how many groups there are."""
    shape = case.value(name).shape[1:]
    if isinstance(groups, str) and groups == "auto":
        size = int(np.prod(shape))
        if size <= _MOST_FEATURES:
            return np.arange(size).reshape(shape), size
        whole = windows(case, name)
        over = Windows(whole.axes, whole.shape, whole.patch, whole.patch)
        numbers = np.zeros(shape, np.intp)
        for place in range(over.count):
            numbers[over.at(place, len(shape) + 1)] = place
        return numbers, over.count
    given = _read(groups)
    if given.dtype.kind not in "iub":
        raise InputError(f"groups of {given.dtype} are no numbers of groups", hint="give whole numbers")
    try:
        wide = np.broadcast_to(given, shape)
    except ValueError:
        raise InputError(f"groups of shape {given.shape} do not fit {name!r}, of which a sample is {shape}") from None
    values, numbers = np.unique(wide, return_inverse=True)
    return numbers.reshape(shape), len(values)


def _read(groups: Any) -> Array:
    if not isinstance(groups, str):
        return np.asarray(groups)
    try:
        return np.asarray(np.load(groups, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise InputError(f"groups cannot be read from {groups}: {error}", hint="give a .npy file") from None
