"""Ways through a graph as strong lines over a finished drawing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from onnxviz.diagram.exchange import DiagramEdge, Network
from onnxviz.diagram.palette import KEY
from onnxviz.diagram.result import Architecture
from onnxviz.diagram.scene import Group
from onnxviz.diagram.wires import strong_items

__all__ = ["path_edges", "with_paths"]


def with_paths(drawing: Architecture, paths: Sequence[Sequence[str]]) -> Architecture:
    """Return a drawing with the lines of some ways drawn strong, below the boxes and above all other lines.

    Args:
        drawing: What is drawn; its data stay as they are.
        paths: The tensors of each way, from an input to an output. Tensors that lie inside a folded group, and lines
            that are drawn as labelled ends, are passed over.
    """
    edges = [edge for path in paths for edge in path_edges(drawing.network, path) if edge.points]
    courses = [np.array(edge.points) for edge in dict.fromkeys(edges)]
    if not courses:
        return drawing
    groups = list(drawing.scene.groups)
    at = 1 + max((i for i, group in enumerate(groups) if group.role in ("edge", "frame")), default=-1)
    told = f"{len(paths)} key path{'s' if len(paths) != 1 else ''}"
    groups.insert(at, Group("key-paths", "path", told, strong_items(courses, KEY)))
    return replace(drawing, scene=replace(drawing.scene, groups=tuple(groups)))


def path_edges(network: Network, path: Sequence[str]) -> list[DiagramEdge]:
    """Return the lines of a diagram that a way takes.

    Args:
        network: The boxes and lines.
        path: The tensors of the way; the last one leads to an output.
    """
    roles = {node.id: node.role for node in network.nodes}
    lines: dict[str, list[DiagramEdge]] = defaultdict(list)
    for edge in network.edges:
        lines[edge.tensor].append(edge)
    shown = [tensor for tensor in path if tensor in lines]
    found: list[DiagramEdge] = []
    for tensor, after in pairwise(shown):
        makers = {edge.source for edge in lines[after]}
        found += [edge for edge in lines[tensor] if edge.target in makers]
    if shown and shown[-1] == path[-1]:
        found += [edge for edge in lines[shown[-1]] if roles.get(edge.target) == "output"]
    return found
