"""The architecture of a model as a block diagram, straight from the ONNX file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxviz.diagram.comparison import compare
from onnxviz.diagram.drawing import Drawing, Paint
from onnxviz.diagram.elements import Element, Elements, collect_elements
from onnxviz.diagram.groups import fold_elements
from onnxviz.diagram.header import model_line
from onnxviz.diagram.hierarchy import shown_tree
from onnxviz.diagram.nested import draw_nested
from onnxviz.diagram.overlay import Overlay, Scale, legend_group, metric_overlay, number_text, value_of
from onnxviz.diagram.paths import with_paths
from onnxviz.diagram.result import FORMATS, Architecture
from onnxviz.diagram.seen import Seen
from onnxviz.diagram.text import ellipsize
from onnxviz.diagram.themes import apply_theme, check_theme
from onnxviz.diagram.thumbnails import Thumbnail
from onnxviz.errors import InputError
from onnxviz.graph.calls import opened_calls
from onnxviz.graph.cost import model_parameters
from onnxviz.graph.diff import GraphDiff
from onnxviz.graph.model import model_name
from onnxviz.graph.scopes import Scope, choose_groups, scopes
from onnxviz.graph.shapes import infer_shapes

__all__ = ["FORMATS", "Architecture", "architecture", "architecture_diff", "overlay_paint"]


def architecture(
    model: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
    color_by: str | Overlay | None = None,
    observed: Mapping[str, tuple[int, ...]] | None = None,
    thumbnails: Mapping[str, Thumbnail | npt.NDArray[Any]] | None = None,
) -> Architecture:
    """Draw a model as blocks, one a node, with shapes, parameter counts and kinds of operators.

    Initializers and Constant nodes are shown in the blocks that use them. A node with bodies (If, Loop, Scan) and a
    call of a model-local function are one block each. Edges that would run across more than 40 ranks, or leave a tensor
    with a great many consumers, are drawn as labelled ends. Nothing is run and no weights are loaded.

    Args:
        model: The model; it is not changed. Cyclic and damaged graphs are drawn as they are.
        title: The heading; by default the model's name.
        depth: How many levels of the hierarchy stay open: 1 draws each outermost group as one block. A depth beyond
            the model's own, or None, draws everything.
        fold: Globs of groups to draw as one block, such as ``"encoder/layer*"``.
        unfold: Globs of groups to leave open in spite of ``depth``.
        theme: ``"light"``, ``"dark"``, or ``"print"`` (greyscale).
        color_by: A number that colours the blocks: ``"parameters"``, ``"macs"`` or ``"bytes"`` (written), or any other
            as an :class:`~onnxviz.diagram.overlay.Overlay`.
        observed: Name of a tensor -> the shape that a run showed of it. It is drawn, with a mark, where the file
            leaves the shape open.
        thumbnails: Name of a tensor -> a small picture of it, ``(h, w, 3)`` uint8, RGB, or with a caption: see
            :func:`onnxviz.plots.thumbnails.thumbnails`. It is drawn on the block that makes the tensor.

    Raises:
        InputError: There is no such theme or metric, or a thumbnail is no picture.
        SelectionError: A glob fits no group; the text has the nearest ones.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y) <float[1, 1, 1, 1] w = {2}> {y = Conv(x, w)}''')
    >>> [group.id for group in architecture(model).scene.groups if group.box]
    ['input-x', 'node-y', 'output-y']
    """
    check_theme(theme)
    fold, unfold = list(fold), list(unfold)
    opened = opened_calls(model) if depth is not None or fold or unfold else model
    inferred = infer_shapes(opened)
    overlay = metric_overlay(opened, color_by) if isinstance(color_by, str) else color_by
    name, line = title or model_name(model), model_line(model, model_parameters(model)[0])

    def paint(elements: Sequence[Element]) -> Paint | None:
        return None if overlay is None else overlay_paint(elements, overlay)

    plan = _Plan(inferred, collect_elements(inferred), scopes(inferred.graph), depth, fold, unfold)
    return plan.draw(name, line, paint, Seen(observed or {}, thumbnails or {}), theme)


def architecture_diff(
    before: ir.Model,
    after: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
) -> tuple[Architecture, GraphDiff]:
    """Draw two models in one: what was added, removed and changed, and what is the same.

    Args:
        before: The first model.
        after: The second, which gives the drawing its shape; what only the first has is added to it.
        title: The heading; by default both names.
        depth, fold, unfold, theme: As :func:`architecture` takes them. A group in which anything differs is coloured.

    Returns:
        The drawing, and the difference as data.

    Raises:
        InputError: There is no such theme.
        SelectionError: A glob fits no group.
    """
    check_theme(theme)
    fold, unfold = list(fold), list(unfold)
    if depth is not None or fold or unfold:
        before, after = opened_calls(before), opened_calls(after)
    both = compare(before, after)
    name = title or f"{model_name(before)} → {model_name(after)}"
    plan = _Plan(both.model, both.found, both.hierarchy, depth, fold, unfold, inside_nodes=False)
    return plan.draw(name, str(both.diff), both.paint, Seen(), theme), both.diff


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is drawn, and how much of its hierarchy."""

    model: ir.Model
    found: Elements
    hierarchy: dict[ir.Node, Scope]
    depth: int | None
    fold: list[str]
    unfold: list[str]
    inside_nodes: bool = True

    def draw(
        self, name: str, line: str, paint: Callable[[Sequence[Element]], Paint | None], seen: Seen, theme: str
    ) -> Architecture:
        """Draw it: with frames around what is open of the hierarchy where a depth is asked for, else without."""
        fold, unfold = self.fold, self.unfold
        if self.depth is not None:
            tree, closed = shown_tree(
                self.model, self.found, self.hierarchy, self.depth, fold, unfold, inside_nodes=self.inside_nodes
            )
            painted = paint(tree.elements)
            finished = draw_nested(tree, closed, name, line, paint=painted, seen=seen)
        else:
            found = fold_elements(self.found, choose_groups(self.hierarchy, None, fold, unfold))
            kinds = [element.kind for element in found.elements if element.kind]
            painted = paint(found.elements)
            finished = Drawing(found, painted, seen=seen).finish(name, line, kinds)
        if painted is not None and painted.paths:
            finished = with_paths(finished, painted.paths)
        return replace(finished, scene=apply_theme(finished.scene, theme))


def overlay_paint(elements: Sequence[Element], overlay: Overlay) -> Paint:
    """Return the colours and legend of an overlay."""
    values = [value_of(overlay, element) for element in elements]
    known = [value for value in values if value is not None]
    if overlay.values and not known:
        names = ", ".join(ellipsize(name, 30) for name in list(overlay.values)[:3])
        raise InputError(
            f"no number of {overlay.title} fits a node or tensor of the model", hint=f"it has numbers for {names}"
        )
    scale = Scale.of(known)
    told = [[] if value is None else [f"{overlay.title}: {number_text(value, overlay.unit)}"] for value in values]
    blocks = zip(elements, values, strict=True)
    shown = [value for element, value in blocks if element.role in ("node", "group")]
    return Paint(
        [scale.colour(value) for value in values],
        told,
        lambda x, y: legend_group(overlay, scale, x, y, shown),
        values=[value if value is None or math.isfinite(value) else None for value in values],
        paths=overlay.paths,
    )
