"""The architecture of a model as a block diagram, straight from the ONNX file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from onnxviz.diagram.comparison import STATUSES, notes_of, status_of, union_elements
from onnxviz.diagram.comparison import legend_group as comparison_legend
from onnxviz.diagram.drawing import FORMATS, Architecture, Drawing, Paint
from onnxviz.diagram.elements import Elements, collect_elements
from onnxviz.diagram.groups import fold_elements
from onnxviz.diagram.header import model_line
from onnxviz.diagram.overlay import Overlay, Scale, legend_group, metric_overlay, number_text, value_of
from onnxviz.diagram.themes import apply_theme, check_theme
from onnxviz.graph.cost import model_parameters
from onnxviz.graph.diff import GraphDiff, diff_graphs
from onnxviz.graph.model import model_name
from onnxviz.graph.scopes import choose_groups, scopes
from onnxviz.graph.shapes import infer_shapes

__all__ = ["FORMATS", "Architecture", "architecture", "architecture_diff"]


def architecture(
    model: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
    color_by: str | Overlay | None = None,
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

    Raises:
        InputError: There is no such theme or metric.
        SelectionError: A glob fits no group; the text has the nearest ones.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y) <float[1, 1, 1, 1] w = {2}> {y = Conv(x, w)}''')
    >>> [group.id for group in architecture(model).scene.groups if group.box]
    ['input-x', 'node-y', 'output-y']
    """
    check_theme(theme)
    inferred = infer_shapes(model)
    hierarchy = scopes(inferred.graph)
    found = fold_elements(collect_elements(inferred), choose_groups(hierarchy, depth, fold, unfold))
    overlay = metric_overlay(model, color_by) if isinstance(color_by, str) else color_by
    drawing = Drawing(found, None if overlay is None else _numbered(found, overlay))
    kinds = [element.kind for element in found.elements if element.kind]
    line = model_line(model, model_parameters(model)[0])
    finished = drawing.finish(title or model_name(model), line, kinds)
    return replace(finished, scene=apply_theme(finished.scene, theme))


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
    old, new = infer_shapes(before), infer_shapes(after)
    diff = diff_graphs(old, new)
    union, fresh = union_elements(old, new, diff)
    hierarchy = {**scopes(old.graph), **scopes(new.graph)}
    shown = {element.node for element in union.elements if element.node is not None}
    hierarchy = {node: scope for node, scope in hierarchy.items() if node in shown}
    found = fold_elements(union, choose_groups(hierarchy, depth, fold, unfold))
    marks = dict.fromkeys(diff.pairs, "same")
    marks |= dict.fromkeys(diff.changes, "changed") | dict.fromkeys(diff.added, "added")
    marks |= dict.fromkeys(diff.removed, "removed")
    statuses = [status_of(element, marks, fresh) for element in found.elements]
    paint = Paint(
        [STATUSES[status][0] for status in statuses],
        [notes_of(element, diff, marks) for element in found.elements],
        lambda x, y: comparison_legend(diff, x, y),
        [STATUSES[status][1] for status in statuses],
    )
    drawing = Drawing(found, paint)
    finished = drawing.finish(title or f"{model_name(before)} → {model_name(after)}", str(diff), [])
    return replace(finished, scene=apply_theme(finished.scene, theme)), diff


def _numbered(found: Elements, overlay: Overlay) -> Paint:
    values = [value_of(overlay, element) for element in found.elements]
    scale = Scale.of([value for value in values if value is not None])
    told = [[] if value is None else [f"{overlay.title}: {number_text(value, overlay.unit)}"] for value in values]
    blocks = zip(found.elements, values, strict=True)
    unknown = any(value is None for element, value in blocks if element.role in ("node", "group"))
    return Paint(
        [scale.colour(value) for value in values],
        told,
        lambda x, y: legend_group(overlay, scale, x, y, unknown=unknown),
        values=values,
    )
