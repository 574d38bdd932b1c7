"""What the axes of an attributed input are: samples, channels or features, and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxviz.analysis.map_axes import axis_letters
from onnxviz.graph.layouts import input_layout

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.case import Case

__all__ = ["input_letters", "position_axes", "spatial_axes"]


def input_letters(case: Case, name: str) -> str:
    """Return a letter an axis of an attributed input.

    ``N`` samples, ``D``, ``H`` and ``W`` positions of volumes, pictures and signals, ``T`` tokens, ``C`` channels and
    features.

    Args:
        case: What is explained.
        name: The input, or the attributed tensor inside the model.
    """
    rank = case.value(name).ndim
    spatial = _spatial(case, name)
    if not spatial and rank == 3 and name in case.inner:
        return "NTC"  # embeddings
    left = iter("DHW"[-len(spatial) :] if spatial else "")
    return "N" + "".join(next(left) if axis in spatial else "C" for axis in range(1, rank))


def spatial_axes(case: Case, name: str) -> tuple[int, ...]:
    """Return the axes of an attributed input whose positions have neighbours; none where nothing tells."""
    return tuple(axis for axis, letter in enumerate(input_letters(case, name)) if letter in "DHW")


def position_axes(case: Case, name: str) -> tuple[int, ...]:
    """Return the axes of positions of an attributed input: of pictures and signals, tokens, else of all features."""
    letters = input_letters(case, name)
    found = tuple(axis for axis, letter in enumerate(letters) if letter not in "NC")
    return found or tuple(range(1, len(letters)))


def _spatial(case: Case, name: str) -> tuple[int, ...]:
    rank, around = case.value(name).ndim, case.around
    known = around.letters(name)
    value = next((v for v in around.model.graph.inputs if v.name == name), None)
    if known is None and value is not None:
        told = input_layout(around.model, value, around.layouts)
        if told == "CHW" and rank == 3:
            return (1, 2)  # the one channel stands in the place of the samples
        known = told if told is None or len(told) == 4 else f"N{told}"
    if known is None or rank not in (3, 4, 5):
        return ()
    letters = axis_letters(case.value(name).shape, name, None, known)
    return tuple(axis for axis, letter in enumerate(letters) if letter not in "NC")
