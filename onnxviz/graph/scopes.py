"""The hierarchy of a model: which nodes belong together, as exporters and their names tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import translate
from re import compile as compile_pattern

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.provenance import provenance_of

__all__ = ["Scope", "choose_groups", "scope_name", "scopes"]

#: A path from the outermost group to the innermost: ``("encoder", "layer1", "conv")``.
Scope = tuple[str, ...]


def scopes(graph: ir.Graph) -> dict[ir.Node, Scope]:
    """Return for each node the groups that it lies in, the outermost first; empty where nothing tells.

    Read are, in this order: the layer that a converter or exporter wrote on the node
    (:mod:`onnxviz.graph.provenance`), and the node's name as a path (``/encoder/layer.0/conv/Conv``,
    ``encoder/conv/BiasAdd``) where names of the graph are paths.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Neg(x) z = Relu(y)}'
    >>> graph = ir.from_onnx_text(text).graph
    >>> graph[0].name, graph[1].name = "/enc/fc/MatMul", "/enc/act/Relu"
    >>> list(scopes(graph).values())
    [('enc', 'fc'), ('enc', 'act')]
    """
    named = _by_name(list(graph))
    found = {}
    for node in graph:
        source = provenance_of(node)
        found[node] = _split(source.layer) if source is not None and source.layer else named.get(node, ())
    return found


def scope_name(scope: Scope) -> str:
    """Return a group's path as one writes it: ``"encoder/layer1/conv"``."""
    return "/".join(scope)


def _split(layer: str) -> Scope:
    return tuple(part for part in layer.replace(".", "/").split("/") if part)


def _by_name(nodes: Sequence[ir.Node]) -> dict[ir.Node, Scope]:
    """Read the names of nodes as paths, where at least two nodes share their first step."""
    paths = {node: tuple(filter(None, (node.name or "").split("/")))[:-1] for node in nodes}
    steps = Counter(path[0] for path in paths.values() if path)
    return {node: _without_repeats(path) for node, path in paths.items() if path and steps[path[0]] > 1}


def _without_repeats(path: Scope) -> Scope:
    """Take out the name that a part of a Sequential repeats: ``("seq", "seq.0")`` becomes ``("seq", "0")``."""
    kept: list[str] = []
    around = ""
    for part in path:
        kept.append(part.removeprefix(f"{around}.") if around and part.startswith(f"{around}.") else part)
        around = part
    return tuple(kept)


def _matcher(pattern: str, groups: Sequence[Scope]) -> Callable[[str], object]:
    match = compile_pattern(translate(pattern)).match
    names = [scope_name(group) for group in groups]
    if not any(match(name) for name in names):
        near = get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
        hint = (
            f"the nearest are {', '.join(near)}" if near else "neither its nodes' names nor their metadata tell of any"
        )
        raise SelectionError(f"no group matches {pattern!r}", hint=hint)
    return match


def choose_groups(
    found: dict[ir.Node, Scope], depth: int | None, fold: Iterable[str] = (), unfold: Iterable[str] = ()
) -> dict[ir.Node, Scope]:
    """Return for each node the group that it is folded into; nodes that stand for themselves are left out.

    A group of one node is no group.

    Args:
        found: The hierarchy, from :func:`scopes`.
        depth: How many levels stay open: 1 folds everything inside the outermost groups. None folds nothing by itself,
            and so does a depth beyond the hierarchy's own.
        fold: Globs of groups to fold as well, over paths such as ``encoder/layer1``.
        unfold: Globs of groups to leave open: their parts are folded instead.

    Raises:
        SelectionError: A glob fits no group; the text has the nearest ones.
    """
    groups = list(dict.fromkeys(path[:end] for path in found.values() for end in range(1, len(path) + 1)))
    closed, opened = ([_matcher(pattern, groups) for pattern in patterns] for patterns in (fold, unfold))
    chosen = {}
    for node, path in found.items():
        levels = [path[:end] for end in range(1, len(path) + 1)]
        group = next((level for level in levels if any(match(scope_name(level)) for match in closed)), None)
        if group is None and depth is not None:
            group = next(
                (level for level in levels[depth - 1 :] if not any(match(scope_name(level)) for match in opened)), None
            )
        if group is not None:
            chosen[node] = group
    sizes = Counter(chosen.values())
    return {node: group for node, group in chosen.items() if sizes[group] > 1}
