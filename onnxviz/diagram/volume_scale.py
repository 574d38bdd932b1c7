"""How large a volume is drawn: sides to scale, on a scale that stays readable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from onnxviz.diagram.volume_extents import Extent
from onnxviz.diagram.volume_labels import Naming, make_naming
from onnxviz.diagram.volume_sizes import Sizes, resolve_sizes
from onnxviz.diagram.volume_stages import Stage

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
    """Sizes to px.

    Attributes:
        how: ``linear``, ``sqrt`` or ``log``.
        low, high: The smallest size above 1 and the largest: the scale is made for them.
        least, most: Their px.
        smallest, largest: The sizes that a legend tells.
    """

    how: str
    low: float
    high: float
    least: float
    most: float
    smallest: float = 1.0
    largest: float = 1.0

    @classmethod
    def of(cls, sizes: Iterable[float], least: float, most: float) -> Axis:
        """Return the plainest scale on which the smallest size is still as large as ``least`` px.

        >>> Axis.of([3, 2048], 3.0, 90.0).how, round(Axis.of([8, 64], 10.0, 150.0).px(32))
        ('sqrt', 75)
        """
        every = list(sizes)
        found = [size for size in every if size > 1]
        low, high = (min(found), max(found)) if found else (1.0, 1.0)
        room, span = most / least, high / low
        return cls(
            "linear" if span <= room else "sqrt" if math.sqrt(span) <= room * _CLAMPED else "log",
            low,
            high,
            least,
            most,
            min(every, default=1.0),
            max(every, default=1.0),
        )

    @property
    def clamped(self) -> bool:
        """Whether the smallest sizes are drawn larger than the scale has it."""
        if self.how == "log":
            return self.smallest < self.low
        part = self.smallest / self.high
        return self.most * (part if self.how == "linear" else math.sqrt(part)) < self.least - 1e-9

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
    sizes: Sizes
    folded: bool = False  # tokens are drawn as high as a square map of as many positions

    def positions(self, stage: Stage) -> tuple[float, float]:
        """Return rows and columns; a signal or tokens have one column."""
        sizes = list(self.sizes.spatial[stage][-2:])
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
            return Cuboid(_BAR_THICK, self.bars.px(self.sizes.channels[stage]), _BAR_DEEP * RIGHT, _BAR_DEEP * UP)
        rows, columns = self.positions(stage)
        deep = self.sides.px(columns) if len(extent.spatial) > 1 else _BAR_DEEP
        return Cuboid(self.channels.px(self.sizes.channels[stage]), self.sides.px(rows), deep * RIGHT, deep * UP)


def make_scales(stages: Sequence[Stage], inputs: Sequence[Extent], drawn: int) -> Scales:
    """Return scales for the stages of a figure with so many volumes side by side."""
    naming = make_naming(inputs)
    sizes = resolve_sizes(stages, naming)
    shown = [s for s in stages if s.extent.known and not s.sign and s.role != "output"]
    maps = [s for s in shown if not s.extent.is_vector]
    lists = {s.extent for s in stages if s.kind == "linear"}  # attention maps have tokens on both sides
    sides = [
        (len(s.extent.spatial) > 1 and s.extent not in lists, size)
        for s in maps
        for told, size in zip(s.extent.spatial[-2:], sizes.spatial[s][-2:], strict=True)
        if naming.number(told, 0.0)  # what is guessed sets no scale
    ]
    flat, long = ([size for is_flat, size in sides if is_flat is which] for which in (True, False))
    folded = bool(flat) and max(long, default=0.0) > max(flat)
    thick = min(max(1000.0 / max(drawn, 1), 28.0), _THICK)
    wide = [(s.extent.is_vector, sizes.channels[s]) for s in shown if naming.number(s.extent.channels, 0.0)]
    lengths = [size for is_vector, size in wide if is_vector]
    bar = _BAR[1]
    if len(set(lengths)) == 1:  # a lone length has nothing to compare with: 1000 fill the bar
        bar = min(max(bar * math.sqrt(lengths[0] / 1000.0), 1.5 * _BAR[0]), bar)
    axis = Axis.of(
        flat + [math.sqrt(size) if folded else size for size in long], _HEIGHT[0], _HEIGHT[1] if drawn <= 24 else 120.0
    )
    if folded:  # roots of counts of tokens are nobody's sides
        axis = replace(axis, smallest=min(flat), largest=max(flat))
    return Scales(
        axis,
        Axis.of([size for is_vector, size in wide if not is_vector], _THIN, thick),
        Axis.of(lengths, _BAR[0], bar),
        naming,
        sizes,
        folded,
    )
