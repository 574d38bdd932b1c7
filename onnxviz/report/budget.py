"""Keeps the page within its size: large pictures are made coarser, all alike, before any is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LEVELS", "Panel", "fill", "fitting_cap"]

#: How often a picture can be halved.
LEVELS = 5
_OVERHEAD = 300  # bytes of a picture beside its PNG and its labels

Picture = tuple[dict[str, Any], str]


@dataclass
class Panel:
    """One layer or weight of the page.

    Attributes:
        row: What the template prints of it.
        draw: Makes its picture (an atlas) and caption; 0 is full detail, each level above about halves its bytes. None
            where it has no picture.
        picture: The atlas that the page ships; None until it is drawn, and where it was left out.
    """

    row: dict[str, Any]
    draw: Callable[[int], Picture] | None = None
    picture: dict[str, Any] | None = field(default=None, repr=False)

    def size(self) -> int:
        """Bytes that the picture takes on the page."""
        if self.picture is None:
            return 0
        labels = sum(len(label) + 3 for label in self.picture["labels"])
        marks = sum(len(str(mark)) + 1 for tile in self.picture.get("marks") or () for mark in tile)
        tokens = sum(2 * len(label) + 3 for side in self.picture.get("tokens") or () for label in side)
        return len(self.picture["png"]) + labels + marks + tokens + 26 * len(self.picture["ranges"]) + _OVERHEAD

    def make(self, level: int) -> None:
        if self.draw is not None:
            self.picture, self.row["caption"] = self.draw(level)


def fitting_cap(sizes: Sequence[int], room: int) -> int:
    """Return the largest size a part may have so that all of them, cut down to it, fit into ``room``.

    >>> fitting_cap([10, 50, 90], 100), fitting_cap([10, 20], 100)
    (45, 20)
    """
    left = max(room, 0)
    for position, size in enumerate(sorted(sizes)):
        each = left // (len(sizes) - position)
        if size > each:
            return each
        left -= size
    return max(sizes, default=0)


def fill(panels: Sequence[Panel], room: int) -> list[str]:
    """Draw the pictures of the panels within ``room`` bytes, and return what became coarser or was left out."""
    drawn = [panel for panel in panels if panel.draw is not None]
    for panel in drawn:
        panel.make(0)
    cap = fitting_cap([panel.size() for panel in drawn], room)
    coarser = dropped = 0
    for panel in drawn:
        if panel.size() <= cap:
            continue
        for level in range(min(LEVELS, max(1, round(math.log2(panel.size() / max(cap, 1))))), LEVELS + 1):
            panel.make(level)
            if panel.size() <= cap:
                break
        if panel.size() > cap:
            panel.picture = None
            dropped += 1
        else:
            coarser += 1
    notes = []
    if coarser:
        notes.append(f"{coarser} of {len(drawn)} pictures show fewer channels or less detail, to keep the page small")
    if dropped:
        notes.append(f"{dropped} of {len(drawn)} pictures are left out, to keep the page small")
    return notes
