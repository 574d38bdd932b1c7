"""The architecture as one HTML page to walk about in, which needs nothing but a browser."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
from markupsafe import Markup

from onnxviz._version import __version__
from onnxviz.diagram.architecture import overlay_paint
from onnxviz.diagram.comparison import compare
from onnxviz.diagram.drawing import Paint
from onnxviz.diagram.elements import Element, Elements, collect_elements
from onnxviz.diagram.header import model_line
from onnxviz.diagram.hierarchy import shown_tree
from onnxviz.diagram.html import content_hash, page_environment, save_page
from onnxviz.diagram.overlay import Overlay, metric_overlay
from onnxviz.diagram.page_data import packed, page_data
from onnxviz.diagram.scene import Scene
from onnxviz.diagram.seen import Seen
from onnxviz.diagram.svg import scene_to_svg
from onnxviz.diagram.text import ellipsize
from onnxviz.diagram.themes import check_theme
from onnxviz.diagram.thumbnails import Thumbnail
from onnxviz.errors import printable
from onnxviz.graph.calls import opened_calls
from onnxviz.graph.cost import model_parameters
from onnxviz.graph.diff import GraphDiff
from onnxviz.graph.model import model_name
from onnxviz.graph.scopes import Scope, scopes
from onnxviz.graph.shapes import infer_shapes

__all__ = ["SCRIPTS", "STYLE", "GraphData", "GraphPage", "asset", "graph_data", "interactive", "interactive_diff"]

#: Files beside this one that make up the viewer.
SCRIPTS = ("graph_layout.js", "graph_canvas.js", "graph_viewer.js")
STYLE = "graph.css"
_OPEN = 150  # blocks up to which all groups are open at first
_PAGE_STYLE = (
    "html, body { height: 100%; margin: 0; } body { display: flex; flex-direction: column; } "
    "header { padding: 8px 12px; font: 13px/1.35 'DejaVu Sans', Verdana, Arial, sans-serif; } "
    "header h1 { margin: 0; font-size: 17px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } "
    "header p { margin: 0; color: #5a6068; } main { flex: 1; min-height: 0; } "
    "body:has([data-theme='dark']) { background: #121212; color: #f0f0f0; } "
    "body:has([data-theme='dark']) header p { color: #a9b0b8; }\n"
)


@dataclass(frozen=True)
class GraphPage:
    """A finished page.

    Attributes:
        html: The page.
        blocks: How many blocks it shows when everything is open.
        groups: How many of them open.
    """

    html: str = field(repr=False)
    blocks: int
    groups: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all.

        Raises:
            OutputError: The ending is not ``.html``, or the folder cannot be written.
        """
        save_page(self.html, path, "a page")

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html)}" style="width: 100%; height: 600px; border: 1px solid #ccc"></iframe>'
        )


def interactive(
    model: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
    color_by: str | Overlay | None = None,
    weights: Mapping[str, str] | None = None,
    observed: Mapping[str, tuple[int, ...]] | None = None,
    thumbnails: Mapping[str, Thumbnail | npt.NDArray[Any]] | None = None,
) -> GraphPage:
    """Make the page of a model's architecture: groups open and close, blocks are found, clicked and traced.

    All positions are computed here and shipped with the page. Bodies of If, Loop and Scan open like groups.

    Args:
        model: The model; it is not changed. Cyclic and damaged graphs are drawn as they are.
        title: The heading; by default the model's name.
        depth: How many levels of the hierarchy are open at first. A depth beyond the model's own shows everything
            flat, without groups. By default everything is open in small models, and nothing in large ones.
        fold: Globs of groups to close at first.
        unfold: Globs of groups to leave open in spite of ``depth``.
        theme: Colours at first: ``"light"``, ``"dark"`` or ``"print"``.
        color_by: A number that colours the blocks, as :func:`onnxviz.diagram.architecture.architecture` takes it.
        weights: Name of an initializer -> how its values are spread, in words, for the panel beside the graph.
        observed: Name of a tensor -> the shape that a run showed of it.
        thumbnails: Name of a tensor -> a small picture of it, drawn on the block that makes it.

    Raises:
        InputError: There is no such theme or metric.
        SelectionError: A glob fits no group; the text has the nearest ones.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Neg(x)}'
    ... )
    >>> interactive(model).blocks
    3
    """
    check_theme(theme)
    opened = opened_calls(model)
    inferred = infer_shapes(opened)
    overlay = metric_overlay(opened, color_by) if isinstance(color_by, str) else color_by
    view = _View(inferred, collect_elements(inferred), scopes(inferred.graph), depth, fold, unfold)
    paint = None if overlay is None else overlay_paint(view.tree.elements, overlay)
    line = model_line(model, model_parameters(model)[0])
    seen = Seen(observed or {}, thumbnails or {})
    return _page(title or model_name(model), line, theme, view, paint, weights, seen)


def interactive_diff(
    before: ir.Model,
    after: ir.Model,
    *,
    title: str | None = None,
    depth: int | None = None,
    fold: Iterable[str] = (),
    unfold: Iterable[str] = (),
    theme: str = "light",
) -> tuple[GraphPage, GraphDiff]:
    """Make the page of two models in one: what was added, removed and changed, and what is the same.

    Arguments are those of :func:`onnxviz.diagram.architecture.architecture_diff` and :func:`interactive`.

    Returns:
        The page, and the difference as data.

    Raises:
        InputError: There is no such theme.
        SelectionError: A glob fits no group.
    """
    check_theme(theme)
    both = compare(opened_calls(before), opened_calls(after))
    view = _View(both.model, both.found, both.hierarchy, depth, fold, unfold, inside_nodes=False)
    heading = title or f"{model_name(before)} → {model_name(after)}"
    return _page(heading, str(both.diff), theme, view, both.paint(view.tree.elements)), both.diff


class _View:
    """What is on the page, and what of it is closed at first."""

    def __init__(
        self,
        model: ir.Model,
        found: Elements,
        hierarchy: dict[ir.Node, Scope],
        depth: int | None,
        fold: Iterable[str],
        unfold: Iterable[str],
        *,
        inside_nodes: bool = True,
    ) -> None:
        fold, unfold = list(fold), list(unfold)
        self.tree, self.closed = shown_tree(model, found, hierarchy, depth, fold, unfold, inside_nodes=inside_nodes)
        if depth is None and not fold and len(self.tree.elements) > _OPEN:
            self.closed = {index for index in self.tree.levels if index >= 0}


@dataclass(frozen=True, eq=False)
class GraphData:
    """The graph for a page that has the viewer.

    Attributes:
        elements: Blocks, terminals, groups, in the order of ``ids``.
        ids: The id of each, the same as in the SVG.
        data: What the viewer draws from, packed.
        details: What it shows of a block that is clicked, packed.
    """

    elements: list[Element]
    ids: list[str]
    data: str = field(repr=False)
    details: str = field(repr=False)


def graph_data(model: ir.Model, weights: Mapping[str, str] | None = None) -> GraphData:
    """Return a model's graph for a page of one's own, open or closed as :func:`interactive` does by default."""
    inferred = infer_shapes(opened_calls(model))
    view = _View(inferred, collect_elements(inferred), scopes(inferred.graph), None, (), ())
    return _packed(view, None, weights)


def _packed(view: _View, paint: Paint | None, weights: Mapping[str, str] | None, seen: Seen | None = None) -> GraphData:
    data, details = page_data(view.tree, paint, view.closed, weights, seen)
    return GraphData(view.tree.elements, data["boxes"]["id"], packed(data), packed(details))


def asset(name: str) -> str:
    """Return a file of the viewer."""
    return resources.files("onnxviz.diagram").joinpath(name).read_text(encoding="utf-8")


def _page(
    title: str,
    line: str,
    theme: str,
    view: _View,
    paint: Paint | None,
    weights: Mapping[str, str] | None = None,
    seen: Seen | None = None,
) -> GraphPage:
    found = _packed(view, paint, weights, seen)
    style = _PAGE_STYLE + asset(STYLE)
    scripts = [asset(name) for name in SCRIPTS]
    html = (
        page_environment("onnxviz.diagram")
        .get_template("graph.html.j2")
        .render(
            title=printable(title, 300),
            short=ellipsize(title, 40),
            line=line,
            theme=theme,
            version=__version__,
            data=found.data,
            details=found.details,
            legend=Markup(_legend(paint)) if paint is not None else "",
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            style_hash=content_hash(style),
            script_hashes=[content_hash(script) for script in scripts],
        )
    )
    blocks = sum(element.role != "group" for element in found.elements)
    return GraphPage(html, blocks, len(view.tree.levels) - 1)


def _legend(paint: Paint) -> str:
    group, below = paint.legend(0.0, 0.0)
    right = max([item.extent[1] for item in group.items if hasattr(item, "extent")], default=0.0)
    return scene_to_svg(Scene(max(right, 200.0) + 8.0, below + 4.0, "", (group,)), standalone=False)
