"""Shapes as a reader meets them: known, symbolic, or observed in a run, each with a look of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy.typing as npt
import onnx_ir as ir

from onnxviz.diagram.details import dims_text, typed
from onnxviz.diagram.palette import INK, MUTED
from onnxviz.diagram.scene import Group, Item, Path, Text
from onnxviz.diagram.text import text_width
from onnxviz.diagram.thumbnails import Strip, Thumbnail, make_strip
from onnxviz.graph.shapes import dtype_name, symbolic_shape

__all__ = ["Seen", "ShapeKind", "ShapeLabel", "label_items", "shapes_legend"]

#: ``known``: numbers only. ``symbolic``: names of open dimensions, or expressions of them. ``observed``: open in the
#: file, but seen in a run. ``unknown``: any size, or all, cannot be told.
ShapeKind = Literal["known", "symbolic", "observed", "unknown"]

Inferred = tuple[str | None, tuple[int | str | None, ...] | None]

SYMBOLIC, OBSERVED = "#5b2c91", "#0b5c4a"
_EYE = 12.0  # room of the mark before an observed shape, px
_LEGEND = 9.5
_NAME_LENGTHS = (14, 9, 6)  # characters of a dimension's name
_TITLES: dict[ShapeKind, str] = {"symbolic": "depends on open dimensions", "observed": "seen in a run"}


@dataclass(frozen=True, slots=True)
class ShapeLabel:
    """A shape in words, and how sure it is."""

    text: str
    kind: ShapeKind = "known"

    def width(self, size: float) -> float:
        """Return how wide it is drawn, its mark included, in px."""
        return text_width(self.text, size) + self.mark if self.text else 0.0

    @property
    def mark(self) -> float:
        """Room of the mark before the text, in px."""
        return _EYE if self.kind == "observed" else 0.0


@dataclass(frozen=True)
class Seen:
    """What a run showed of tensors, by name.

    Attributes:
        shapes: Their sizes.
        pictures: Small pictures of them, ``(h, w, 3)`` uint8, or with a caption.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pictures: Mapping[str, Thumbnail | npt.NDArray[Any]] = field(default_factory=dict)
    _inferred: dict[ir.Value, Inferred] = field(default_factory=dict, init=False, repr=False, compare=False)

    def inferred(self, value: ir.Value) -> Inferred:
        """Return element type and shape as the file tells them; worked out once, as every reader of a tensor asks."""
        found = self._inferred.get(value)
        if found is None:
            found = self._inferred[value] = (dtype_name(value), symbolic_shape(value))
        return found

    def shape_of(self, value: ir.Value) -> tuple[int, ...] | None:
        """Return the shape that was seen of a tensor."""
        found = self.shapes.get(value.name or "")
        return None if found is None else tuple(found)

    def kind(self, value: ir.Value) -> ShapeKind:
        """Return how a tensor's shape is known."""
        _, dims = self.inferred(value)
        if dims is not None and all(isinstance(dim, int) for dim in dims):
            return "known"
        if self.shape_of(value) is not None:
            return "observed"
        return "unknown" if dims is None or None in dims else "symbolic"

    def label(
        self, value: ir.Value, *, usual: str | None = "float32", size: float = 9.0, room: float = 210.0
    ) -> ShapeLabel:
        """Return the shape to write: the observed one where the file leaves anything open.

        Names of dimensions are cut, all alike, until it is at most ``room`` px wide at font size ``size``.
        """
        kind = self.kind(value)
        dtype, inferred = self.inferred(value)
        dims = self.shape_of(value) if kind == "observed" else inferred
        text = ""
        for longest in _NAME_LENGTHS:
            text = typed(dtype, dims, usual=usual, longest=longest)
            if kind == "known" or text_width(text, size) <= room:
                break
        return ShapeLabel(text, kind)

    def in_words(self, value: ir.Value) -> str:
        """Return type and shape at length, for tooltips: what is inferred, and what was seen where that differs."""
        (dtype, inferred), observed = self.inferred(value), self.shape_of(value)
        text = typed(dtype, inferred, usual=None, longest=80)
        if observed is None or observed == inferred:
            return text
        return f"{text}, observed {dims_text(observed)}".removeprefix(", ")

    @cached_property
    def strips(self) -> dict[str, Strip]:
        """The thumbnails, measured."""
        return {name: make_strip(name, shown) for name, shown in self.pictures.items()}

    def strip(self, *values: ir.Value | None) -> tuple[str, Strip] | None:
        """Return the first thumbnail among tensors, and its tensor's name."""
        names = [value.name for value in values if value is not None and value.name in self.pictures]
        return (str(names[0]), self.strips[str(names[0])]) if names else None

    def describe(self, name: str) -> str:
        """Return what a thumbnail shows, at length."""
        shown = self.pictures[name]
        return (shown.description or shown.caption) if isinstance(shown, Thumbnail) else ""


def label_items(
    label: ShapeLabel, x: float, y: float, size: float, *, ink: str = MUTED, middle: bool = False
) -> list[Item]:
    """Return a shape's text with its mark: slanted where symbolic, after an eye where observed.

    Args:
        label: What to write.
        x, y: Start of its baseline, or its middle.
        size: Font size, px.
        ink: Of known shapes.
        middle: ``x`` is the middle.
    """
    left = x - label.width(size) / 2 if middle else x
    if label.kind == "symbolic":
        return [_written(label.text, x, y, size, SYMBOLIC, middle=middle, italic=True)]
    if label.kind == "observed":
        return [_eye(left, y - 0.36 * size), Text(left + _EYE, y, label.text, size, OBSERVED)]
    return [_written(label.text, x, y, size, ink, middle=middle)]


def _written(text: str, x: float, y: float, size: float, ink: str, *, middle: bool, italic: bool = False) -> Text:
    return Text(x, y, text, size, ink, anchor="middle" if middle else "start", italic=italic)


def _eye(x: float, y: float) -> Path:
    """Return an open eye, 9 px wide, its left corner at (x, y)."""
    points = [
        (x, y),
        (x + 2.4, y - 3.8),
        (x + 6.6, y - 3.8),
        (x + 9.0, y),
        (x + 6.6, y + 3.8),
        (x + 2.4, y + 3.8),
        (x, y),
    ]
    pupil = [(x + 4.5, y - 1.0), (x + 5.9, y - 1.0), (x + 5.9, y + 1.0), (x + 4.5, y + 1.0)]
    pupil += [(x + 3.1, y + 1.0), (x + 3.1, y - 1.0), (x + 4.5, y - 1.0)]
    return Path((*points, *pupil), "MCCCCCCMCCCCCC", stroke=OBSERVED, stroke_width=1.0)


def shapes_legend(kinds: set[ShapeKind], x: float, y: float) -> tuple[Group, float] | None:
    """Return what the looks of shapes mean, for those that occur, and the y below; None where all are known."""
    items: list[Item] = []
    left = x
    for kind, title in _TITLES.items():
        if kind in kinds:
            label = ShapeLabel("N×H" if kind == "symbolic" else "1×56", kind)
            items += label_items(label, left, y + 11.0, _LEGEND)
            left += label.width(_LEGEND) + 6.0
            items.append(Text(left, y + 11.0, title, _LEGEND, INK))
            left += text_width(title, _LEGEND) + 16.0
    return (Group("shapes-legend", "legend", "", tuple(items)), y + 15.0) if items else None
