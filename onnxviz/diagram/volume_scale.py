"""How large a volume is drawn: sides to scale, on a scale that stays readable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxviz.diagram.volume_labels import NOMINAL, Naming, make_naming
from onnxviz.diagram.volume_stages import Extent, Stage

__all__ = ["Axis", "Cuboid", "Scales", "make_scales"]

#: How far a side that runs into the page goes to the right and up, in parts of its length.
RIGHT, UP = 0.36, 0.28
_HEIGHT = (13.0, 150.0)  # px of the smallest and the largest map
_THIN, _THICK = 4.0, 64.0
_BAR = (16.0, 120.0)  # px of a vector
_BAR_THICK, _BAR_DEEP = 9.0, 9.0
_SIGN = 18.0
_CLAMPED = 4.0  # how far below the least size a side may fall before a scale is given up


@dataclass(frozen=True, slots=True)
class Axis:
    """Sizes to px; ``how`` is ``linear``, ``sqrt`` or ``log``, ``low`` and ``high`` the sizes that occur."""

    how: str
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, sizes: Iterable[float], least: float, most: float) -> Axis:
        """Return the plainest scale on which the smallest size is still as large as ``least`` px.

        >>> Axis.of([3, 2048], 3.0, 90.0).how, round(Axis.of([8, 64], 10.0, 150.0).px(32))
        ('sqrt', 75)
        """
        found = [size for size in sizes if size > 1]
        low, high = (min(found), max(found)) if found else (1.0, 1.0)
        room, span = most / least, high / low
        return cls(
            "linear" if span <= room else "sqrt" if math.sqrt(span) <= room * _CLAMPED else "log",
            low,
            high,
            least,
            most,
        )

    @property
    def clamped(self) -> bool:
        """Whether the smallest sizes are drawn larger than the scale has it."""
        return self.how == "sqrt" and self.most * math.sqrt(self.low / self.high) < self.least

    def window(self, size: float, whole: float) -> float:
        """Return the px of a window on a map: on the map's scale, or, on a logarithmic one, its share."""
        if self.how == "log" or size >= whole:
            return self.px(whole) * min(size / whole, 1.0)
        share = size / whole if self.how == "linear" else math.sqrt(size / whole)
        return self.px(whole) * share

    def px(self, size: float) -> float:
        """Return the px of a size, never less than the least."""
        part = min(max(size, 1e-9) / self.high, 1.0)
        if self.how == "log":
            reach = math.log(max(size, 1.0) / self.low) / math.log(self.high / self.low) if size > self.low else 0.0
            return self.least + (self.most - self.least) * min(reach, 1.0)
        return max(self.least, self.most * (part if self.how == "linear" else math.sqrt(part)))


@dataclass(frozen=True, slots=True)
class Cuboid:
    """A box in px: its front face, and how far its depth reaches to the right and up."""

    thick: float
    height: float
    right: float = 0.0
    up: float = 0.0


@dataclass(frozen=True)
class Scales:
    """The scales of one figure: for positions, for channels, for the length of vectors."""

    sides: Axis
    channels: Axis
    bars: Axis
    naming: Naming
    folded: bool = False  # tokens are drawn as high as a square map of as many positions

    def number(self, size: int | str | None) -> float:
        """Return a size as a number; an open one at its nominal size."""
        return self.naming.number(size, NOMINAL / 4)

    def positions(self, extent: Extent) -> tuple[float, float]:
        """Return rows and columns; a signal or tokens have one column."""
        sizes = [self.number(size) for size in extent.spatial[-2:]]
        if self.folded and (len(sizes) == 1 or max(sizes, default=0.0) > self.sides.high):
            sizes = [math.sqrt(size) for size in sizes]
        return (sizes[0], sizes[1] if len(sizes) > 1 else 1.0) if sizes else (1.0, 1.0)

    def cuboid(self, stage: Stage) -> Cuboid:
        """Return the box of a stage."""
        extent = stage.extent
        if stage.sign:
            return Cuboid(_SIGN, _SIGN)
        if not extent.known:
            return Cuboid(36.0, 46.0, 14.0, 11.0)
        if extent.is_vector:
            return Cuboid(_BAR_THICK, self.bars.px(self.number(extent.channels)), _BAR_DEEP * RIGHT, _BAR_DEEP * UP)
        rows, columns = self.positions(extent)
        deep = self.sides.px(columns) if len(extent.spatial) > 1 else _BAR_DEEP
        return Cuboid(self.channels.px(self.number(extent.channels)), self.sides.px(rows), deep * RIGHT, deep * UP)


def make_scales(stages: Sequence[Stage], inputs: Sequence[Extent], drawn: int) -> Scales:
    """Return scales for the stages of a figure with so many volumes side by side."""
    naming = make_naming(inputs)
    maps = [s.extent for s in stages if s.extent.known and not s.extent.is_vector and not s.sign and s.role != "output"]
    vectors = [s.extent for s in stages if s.extent.known and s.extent.is_vector and not s.sign and s.role != "output"]
    lists = {s.extent for s in stages if s.kind == "linear"}  # attention maps have tokens on both sides
    sizes = [
        (len(e.spatial) > 1 and e not in lists, naming.number(v, NOMINAL / 4)) for e in maps for v in e.spatial[-2:]
    ]
    flat, long = ([size for is_flat, size in sizes if is_flat is which] for which in (True, False))
    folded = bool(flat) and max(long, default=0.0) > max(flat)
    sides = flat + [math.sqrt(size) if folded else size for size in long]
    thick = min(max(1000.0 / max(drawn, 1), 28.0), _THICK)
    tall = _HEIGHT[1] if drawn <= 24 else 120.0
    return Scales(
        Axis.of(sides, _HEIGHT[0], tall),
        Axis.of([naming.number(extent.channels, NOMINAL / 4) for extent in maps], _THIN, thick),
        Axis.of([naming.number(extent.channels, NOMINAL / 4) for extent in vectors], *_BAR),
        naming,
        folded,
    )
