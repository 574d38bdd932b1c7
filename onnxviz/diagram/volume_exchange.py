"""A figure of volumes as data: its geometry, and its network for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from onnxviz.diagram.exchange import DiagramEdge, DiagramNode, Network
from onnxviz.diagram.layout import Layout
from onnxviz.diagram.scene import Group, Rect, Scene
from onnxviz.diagram.volume_stages import Stage
from onnxviz.graph.cost import node_cost
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.shapes import dtype_name, shape_list

if TYPE_CHECKING:
    from onnxviz.diagram.volume_figure import Figure

__all__ = ["layout_of", "network_of"]

Point = tuple[float, float]


def layout_of(figure: Figure) -> Layout:
    """Return the geometry of a figure, as other diagrams give it."""
    boxes = np.array([(b.x, b.y, b.size.thick, b.size.height) for b in (figure.boxes[s] for s in figure.stages)])
    index = {stage: at for at, stage in enumerate(figure.stages)}
    pairs = [(index[source], at) for stage, at in index.items() for source in stage.sources]
    lines = [_line(figure, figure.stages[a], figure.stages[b]) for a, b in pairs]
    offsets = np.cumsum([0, *(len(line) for line in lines)]).astype(np.int64)
    points = np.array([point for line in lines for point in line], dtype=np.float64).reshape(-1, 2)
    bands = np.array(list(zip([0.0, *figure.placement.bottoms[:-1]], figure.placement.bottoms, strict=True)))
    ranks = np.array([figure.placement.row[figure.unit_of[stage]] for stage in figure.stages], np.int64)
    none = np.zeros(len(pairs), bool)
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    width, height = figure.placement.width, figure.placement.height
    return Layout(boxes, ranks, edges, none, none.copy(), points, offsets, bands, width, height)


def _line(figure: Figure, source: Stage, target: Stage) -> list[Point]:
    if figure.unit_of[source] == figure.unit_of[target]:
        return [figure.boxes[source].exit, figure.boxes[target].entry]
    link = (figure.unit_of[source], figure.unit_of[target])
    route = next(r for r in figure.routes if (r.link.source, r.link.target) == link)
    return [point for piece in route.pieces for point in piece]


def network_of(
    figure: Figure, scene: Scene, ids: Mapping[Stage, str], groups: Mapping[str, Group], dx: float, dy: float
) -> Network:
    """Return a figure as data: its volumes and lines with their places; ``dx`` and ``dy`` are the figure's own."""
    nodes = []
    for stage in figure.stages:
        group, node = groups[ids[stage]], stage.node
        box = group.box or Rect(0.0, 0.0, 0.0, 0.0)
        name = node.name if node is not None else stage.value.name
        lines = tuple(figure.tooltip(stage).split("\n"))
        nodes.append(
            DiagramNode(
                group.id, stage.role, name or "", node.op_type if node is not None else "",
                node.domain if node is not None else "", group.kind, lines,
                sum(node_cost(n).parameters for n in stage.nodes),
                str((provenance_of(node) if node is not None else None) or ""), None,
                round(box.x, 2), round(box.y, 2), round(box.width, 2), round(box.height, 2),
            )
        )  # fmt: skip
    edges = []
    for stage in figure.stages:
        for source, value in stage.sources.items():
            shape = shape_list(value)
            corners = [(round(x + dx, 2), round(y + dy, 2)) for x, y in _line(figure, source, stage)]
            edges.append(
                DiagramEdge(
                    ids[source], ids[stage], value.name or "", dtype_name(value) or "",
                    None if shape is None else tuple(shape), False, False, tuple(corners),
                )
            )  # fmt: skip
    return Network(scene.title, round(scene.width, 2), round(scene.height, 2), tuple(nodes), tuple(edges))
