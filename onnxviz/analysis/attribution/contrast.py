"""Several targets of one input contrasted: the difference of their maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.attribution.result import Attribution
from onnxviz.errors import SelectionError

__all__ = ["contrast", "contrasts"]


def contrast(one: Attribution, other: Attribution) -> Attribution:
    """Return the difference of two attributions by one method, ``one − other``: above 0 where ``one`` counts more.

    It is the map of the difference of the scores where a method is linear in the score, as gradients are; where a map
    is cut off at 0 it is the difference of what is left.

    Args:
        one: Of a target.
        other: Of another, by the same method, of the same samples and tensors.

    Raises:
        SelectionError: They are of different tensors or samples, so that positions do not compare.

    >>> import numpy as np
    >>> made = [Attribution("saliency", {"x": np.float32([[1, k]])}, {}, (f"class {k}",), np.ones(1)) for k in (2, 5)]
    >>> found = contrast(*made)
    >>> found.values.tolist(), found.target
    ([[0.0, -3.0]], ('class 2 − class 5',))
    """
    same = list(one.maps) == list(other.maps) and all(one.maps[n].shape == other.maps[n].shape for n in one.maps)
    if one.method != other.method or not same:
        here, there = one.tensor, other.tensor
        raise SelectionError(
            f"the maps of {here} and {there} have no difference: their positions are not the same",
            hint="name one layer for both with --layer",
        )
    regions = tuple(a if a is not None else b for a, b in zip(one.regions, other.regions, strict=False))
    maps: dict[str, npt.NDArray[np.float32]] = {
        n: np.asarray(one.maps[n] - other.maps[n], np.float32) for n in one.maps
    }
    return replace(
        one, maps=_sealed(maps), target=tuple(f"{a} − {b}" for a, b in zip(one.target, other.target, strict=True)),
        score=one.score - other.score, classes=None, baseline_score=None, completeness=None, certificate=None,
        cuts=tuple(dict.fromkeys((*one.cuts, *other.cuts))), notes=tuple(dict.fromkeys((*one.notes, *other.notes))),
        regions=regions, contrast=True,
    )  # fmt: skip


def _sealed(maps: Mapping[str, npt.NDArray[np.float32]]) -> Mapping[str, npt.NDArray[np.float32]]:
    for array in maps.values():
        array.flags.writeable = False
    return maps


def contrasts(found: Sequence[Sequence[Attribution]]) -> tuple[list[Attribution], list[str]]:
    """Return the differences of the maps of two targets, a method each, and why some are missing.

    Args:
        found: For each target its attributions, a method each; of one target, or of more than two, nothing is made.
    """
    made, notes = [], []
    if len(found) == 2:
        for one, other in zip(*found, strict=True):
            try:
                made.append(contrast(one, other))
            except SelectionError as error:
                notes.append(f"{one.method}: no difference is drawn: {error.message}")
    return made, notes
