"""What rearrangements do to the sides of a map: exporters write upsampling and pixel shuffle as reshapes and tiles."""

from __future__ import annotations

from math import prod

from onnxviz.diagram.volume_extents import Extent
from onnxviz.diagram.volume_labels import Naming

__all__ = ["change_of", "factor_text"]

_REARRANGING = ("Reshape", "Transpose", "Tile", "Expand", "Concat", "QLinearConcat")
_CUTTING = ("Slice", "Split", "Crop", "CenterCropPad")


def change_of(op: str, before: Extent, after: Extent, naming: Naming) -> str:
    """Return what a rearrangement did to a map: ``"upsample ×2"``, ``"pixel shuffle ×3"``, ``"pad"``, ``"crop"``, …

    Empty where the sides stay, are not known, or only change places.

    >>> change_of("Reshape", Extent(9, (8, 8)), Extent(1, (24, 24)), Naming())
    'pixel shuffle ×3'
    >>> change_of("Transpose", Extent(3, (8, 6)), Extent(8, (6, 3)), Naming())
    ''
    """
    sizes = _numbers(before, naming), _numbers(after, naming)
    if op == "Pad" and sizes[0] and not sizes[1]:
        return "pad"  # by how much is computed at run time
    if not all(sizes) or len(sizes[0]) != len(sizes[1]) or before.is_vector or after.is_vector:
        return ""
    (channels, *old), (wide, *new) = sizes
    if old == new or sorted(sizes[0]) == sorted(sizes[1]):
        return ""
    larger = all(b >= a for a, b in zip(old, new, strict=True))
    smaller = all(b <= a for a, b in zip(old, new, strict=True))
    if op == "Pad" and larger and wide == channels:
        return "pad"
    if op in _CUTTING:
        return "crop" if smaller and wide == channels else ""
    if op not in _REARRANGING or (not larger and not smaller):
        return ""
    kept = channels * prod(old) == wide * prod(new)
    factor = _factor(old, new)
    if larger:
        return f"pixel shuffle{factor}" if kept else f"upsample{factor}" if channels == wide else ""
    return "space to depth" if kept else ""


def factor_text(before: Extent, after: Extent, naming: Naming) -> str:
    """Return by how much sides grew, behind a blank: ``" ×2"``; empty where that is not known or nothing changed."""
    sizes = _numbers(before, naming), _numbers(after, naming)
    if before.is_vector or not all(sizes) or len(sizes[0]) != len(sizes[1]):
        return ""
    return _factor(sizes[0][1:], sizes[1][1:])


def _numbers(extent: Extent, naming: Naming) -> list[float]:
    """Return channels and sides of a map of two or three axes; empty for anything else, or where one is not known."""
    if not extent.known or extent.tokens or len(extent.spatial) < 2:
        return []
    found = [naming.number(size, 0.0) for size in (extent.channels, *extent.spatial)]
    return found if all(found) else []


def _factor(old: list[float], new: list[float]) -> str:
    ratios = {round(b / a, 2) for a, b in zip(old, new, strict=True)}
    return f" ×{ratios.pop():g}" if len(ratios) == 1 and ratios != {1.0} else ""
