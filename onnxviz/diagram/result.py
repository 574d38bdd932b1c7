"""A finished drawing, and what is written of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from onnxviz.diagram.blocks import Block
from onnxviz.diagram.elements import Element, Wire
from onnxviz.diagram.exchange import WRITERS, DiagramEdge, DiagramNode, Network, to_networkx
from onnxviz.diagram.layout import FloatArray, Layout
from onnxviz.diagram.names import element_parameters
from onnxviz.diagram.scene import Group, Scene
from onnxviz.diagram.seen import Seen
from onnxviz.diagram.svg import scene_to_svg
from onnxviz.errors import OutputError
from onnxviz.graph.files import atomic_path
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.scopes import scope_name
from onnxviz.graph.shapes import dtype_name, symbolic_shape

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["FORMATS", "Architecture", "diagram_edge", "diagram_node"]

#: File endings that :meth:`Architecture.save` writes.
FORMATS = (".svg", ".png", ".pdf", *WRITERS)


@dataclass(frozen=True)
class Architecture:
    """A model's block diagram.

    Attributes:
        scene: Everything that is drawn, with positions in px.
        layout: The positions of the boxes and lines alone; its origin is the corner of the graph, below the header.
        note: What a reader of the saved file should know, such as that a huge PNG was scaled down; empty otherwise.
    """

    scene: Scene
    layout: Layout
    _as_data: Callable[[], Network] = field(repr=False, compare=False)
    note: str = ""

    @cached_property
    def network(self) -> Network:
        """The boxes and lines as data, with the scene's positions."""
        return self._as_data()

    def save(self, path: str | os.PathLike[str]) -> Architecture:
        """Write the diagram in the format that the ending of ``path`` names; return it with its ``note`` filled in.

        SVG, PNG and PDF are drawn; DOT, Mermaid (``.mmd``), GraphML and JSON hold the boxes and lines as data.

        The same diagram gives the same bytes.

        Raises:
            OutputError: The ending is none of :data:`FORMATS`, or the file cannot be written.
        """
        ending = _format_of(path)
        note = None
        with atomic_path(path) as temporary:
            if ending in WRITERS:
                temporary.write_text(WRITERS[ending](self.network), encoding="utf-8", newline="\n")
            elif ending == ".svg":
                temporary.write_text(scene_to_svg(self.scene), encoding="utf-8", newline="\n")
            else:
                from onnxviz.diagram.raster import write_pdf, write_png

                note = (write_png if ending == ".png" else write_pdf)(self.scene, temporary)
        return replace(self, note=note or "")

    def to_networkx(self) -> nx.MultiDiGraph:
        """Return the boxes and lines as a networkx graph: see :func:`onnxviz.diagram.exchange.to_networkx`."""
        return to_networkx(self.network)

    def _repr_svg_(self) -> str:
        return scene_to_svg(self.scene, standalone=False)


def _format_of(path: str | os.PathLike[str]) -> str:
    ending = FilePath(path).suffix.lower()
    if ending not in FORMATS:
        what = f"as {ending!r}" if ending else "to a file without an ending"
        raise OutputError(f"cannot write a diagram {what}", hint=f"use {', '.join(FORMATS)}")
    return ending


def diagram_node(element: Element, block: Block, group: Group, value: float | None, parent: str = "") -> DiagramNode:
    """Return a block as data."""
    node, box = element.node, group.box
    assert box is not None
    name = node.name if node is not None else element.value.name if element.value is not None else None
    name = scope_name(element.members.scope) if element.members is not None else name
    source = provenance_of(node) if node is not None else None
    return DiagramNode(
        group.id, element.role, name or "", node.op_type if node is not None else "",
        node.domain if node is not None else "", element.kind,
        tuple(filter(None, (block.heading, block.note, *block.lines))),
        element_parameters(element), str(source or ""), value,
        round(box.x, 2), round(box.y, 2), round(box.width, 2), round(box.height, 2),
        parent,
    )  # fmt: skip


def diagram_edge(source: str, target: str, wire: Wire, seen: Seen, stub: bool, corners: FloatArray) -> DiagramEdge:
    """Return a wire as data."""
    points = tuple((round(float(x), 2), round(float(y), 2)) for x, y in corners)
    value = wire.value
    return DiagramEdge(
        source, target, value.name or "", dtype_name(value) or "", symbolic_shape(value), stub, wire.outer, points,
        seen.kind(value), seen.shape_of(value),
    )  # fmt: skip
