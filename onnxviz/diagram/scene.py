"""The drawing as data: rectangles, paths and text with positions, made once; every format is a writer of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxviz.diagram.text import text_width

__all__ = ["FONT_FAMILIES", "Group", "Image", "Item", "Path", "Rect", "Scene", "Text"]

#: Fonts that writers ask for, the first that is installed counts.
FONT_FAMILIES = ("DejaVu Sans", "Verdana", "Arial", "sans-serif")


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle with its top left corner at (x, y), in px; colours are ``#rrggbb`` or None."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    stroke: str | None = None
    stroke_width: float = 1.0
    radius: float = 0.0
    dashed: bool = False

    def overlaps(self, other: Rect) -> bool:
        """Whether the insides of two rectangles share any point.

        >>> Rect(0, 0, 10, 10).overlaps(Rect(10, 0, 5, 5))
        False
        """
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True, slots=True)
class Path:
    """Lines and curves.

    ``codes`` has one letter a point: ``M`` starts a line, ``L`` draws a straight one to the point, three ``C`` in a row
    are the two control points and the end of a cubic Bézier curve, ``Z`` closes the figure (its point is ignored).
    """

    points: tuple[tuple[float, float], ...]
    codes: str
    fill: str | None = None
    stroke: str | None = None
    stroke_width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; (x, y) is the start, middle or end of its baseline, ``size`` the font size in px."""

    x: float
    y: float
    text: str
    size: float
    fill: str = "#1b1b1b"
    bold: bool = False
    anchor: str = "start"
    italic: bool = False

    @property
    def width(self) -> float:
        """How wide the text is at most, in px."""
        return text_width(self.text, self.size, bold=self.bold)

    @property
    def extent(self) -> tuple[float, float]:
        """The left and the right end of the text."""
        left = self.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * self.width
        return left, left + self.width


@dataclass(frozen=True, slots=True)
class Image:
    """A picture with its top left corner at (x, y), ``width`` × ``height`` px large; themes leave its colours.

    ``rgb`` holds ``rows`` × ``columns`` pixels of three bytes each, row by row.
    """

    x: float
    y: float
    width: float
    height: float
    columns: int
    rows: int
    rgb: bytes


Item = Rect | Path | Text | Image


@dataclass(frozen=True, slots=True)
class Group:
    """Items that belong together: a node, an edge, a label, the legend.

    Attributes:
        id: Unique in the scene, safe as an XML id, and the same for the same node in every drawing of the model.
        role: ``node``, ``input``, ``output``, ``constant``, ``missing``, ``edge``, ``frame``, ``label``,
            ``header`` or ``legend``.
        tooltip: What a pointer over the group shows; lines are separated by newlines.
        items: Drawn in this order.
        box: The outline of a node or terminal; None for everything else.
        kind: The node's kind of operator, a key of ``graph.kinds.KINDS``; empty for everything else.
    """

    id: str
    role: str
    tooltip: str
    items: tuple[Item, ...]
    box: Rect | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A finished drawing of ``width`` × ``height`` px, groups in drawing order."""

    width: float
    height: float
    title: str
    groups: tuple[Group, ...]
    background: str = "#ffffff"

    def boxes(self) -> Iterator[tuple[str, Rect]]:
        """Yield id and outline of every node and terminal."""
        for group in self.groups:
            if group.box is not None:
                yield group.id, group.box

    def texts(self) -> Iterator[Text]:
        """Yield every line of text."""
        for group in self.groups:
            yield from (item for item in group.items if isinstance(item, Text))
