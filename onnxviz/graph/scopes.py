"""The hierarchy of a model: which nodes belong together, as exporters, names, calls and repetition tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import translate
from re import compile as compile_pattern

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.patterns import find_chains, is_pattern
from onnxviz.graph.provenance import provenance_of

__all__ = ["CALLS", "Scope", "choose_groups", "fold_patterns", "match_groups", "named_scopes", "scope_name", "scopes"]

#: A path from the outermost group to the innermost: ``("encoder", "layer1", "conv")``.
Scope = tuple[str, ...]

#: Key of a node's metadata under which its groups are written as they are, a list in JSON.
CALLS = "onnxviz.scope"


def scopes(graph: ir.Graph) -> dict[ir.Node, Scope]:
    """Return for each node the groups that it lies in, the outermost first; empty where nothing tells.

    Read are, in this order: the function calls that a node was inlined from
    (:func:`onnxviz.graph.calls.inline_with_scopes`), the layer that a converter or exporter wrote on the node
    (:mod:`onnxviz.graph.provenance`), and the node's name as a path (``/encoder/layer.0/conv/Conv``,
    ``encoder/conv/BiasAdd``) where names of the graph are paths. Where all of that tells nothing of most nodes, blocks
    that repeat are groups (:func:`onnxviz.graph.repeats.repeat_scopes`).

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Neg(x) z = Relu(y)}'
    >>> graph = ir.from_onnx_text(text).graph
    >>> graph[0].name, graph[1].name = "/enc/fc/MatMul", "/enc/act/Relu"
    >>> list(scopes(graph).values())
    [('enc', 'fc'), ('enc', 'act')]
    """
    found = named_scopes(graph)
    nameless = [node for node, scope in found.items() if not scope]
    if 2 * len(nameless) > len(found):
        # Constants often have no name, or one that is no path, where all else has.
        telling = [bool(scope) for node, scope in found.items() if node.op_type not in ("Constant", "Identity")]
        if 2 * sum(telling) < len(telling):
            from onnxviz.graph.repeats import repeat_scopes  # only models without names need numpy's part

            found |= repeat_scopes(graph, nameless)
    return found


def named_scopes(graph: ir.Graph) -> dict[ir.Node, Scope]:
    """Return for each node the groups that metadata and names tell of, as :func:`scopes` without repeats."""
    named = _by_name(list(graph))
    found = {}
    for node in graph:
        called = _called(node)
        source = provenance_of(node) if called is None else None
        if called is not None:
            found[node] = called
        else:
            found[node] = _split(source.layer) if source is not None and source.layer else named.get(node, ())
    return found


def _called(node: ir.Node) -> Scope | None:
    text = node.metadata_props.get(CALLS)
    try:
        path = json.loads(text) if text else None
    except ValueError:
        return None
    return tuple(map(str, path)) if isinstance(path, list) else None


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
        fold: Globs of groups to fold as well, over paths such as ``encoder/layer1``, and patterns of operators such as
            ``Conv > *Relu*``, whose chains become a group each where their nodes are in no folded one.
        unfold: Globs of groups to leave open: their parts are folded instead.

    Raises:
        SelectionError: A glob fits no group, or a pattern no chain; the text has the nearest or most frequent ones.
    """
    groups = list(dict.fromkeys(path[:end] for path in found.values() for end in range(1, len(path) + 1)))
    globs, patterns = _sorted_out(fold, groups)
    closed, opened = ([_matcher(pattern, groups) for pattern in texts] for texts in (globs, unfold))
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
    chosen = {node: group for node, group in chosen.items() if sizes[group] > 1}
    return chosen | _chain_scopes(found, patterns, found.keys() - chosen.keys())


def match_groups(found: dict[ir.Node, Scope], globs: Iterable[str]) -> set[Scope]:
    """Return the groups of a hierarchy that any glob fits; patterns of operators among the globs are passed over.

    Raises:
        SelectionError: A glob fits no group; the text has the nearest ones.
    """
    groups = list(dict.fromkeys(path[:end] for path in found.values() for end in range(1, len(path) + 1)))
    matches = [_matcher(glob, groups) for glob in _sorted_out(globs, groups)[0]]
    return {group for group in groups if any(match(scope_name(group)) for match in matches)}


def fold_patterns(found: dict[ir.Node, Scope], fold: Iterable[str]) -> dict[ir.Node, Scope]:
    """Return a hierarchy in which every chain that a pattern matches is a group, inside the groups that it lies in.

    Args:
        found: The hierarchy, from :func:`scopes`.
        fold: Patterns such as ``Conv > BatchNormalization > Relu``; globs of groups among them are passed over.

    Raises:
        SelectionError: A pattern matches no chain; the text has the most frequent ones.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Neg(x) z = Relu(y)}'
    >>> list(fold_patterns(scopes(ir.from_onnx_text(text).graph), ["Neg > Relu"]).values())
    [('Neg > Relu', '1'), ('Neg > Relu', '1')]
    """
    groups = list(dict.fromkeys(path[:end] for path in found.values() for end in range(1, len(path) + 1)))
    return found | _chain_scopes(found, _sorted_out(fold, groups)[1], found.keys())


def _sorted_out(fold: Iterable[str], groups: Sequence[Scope]) -> tuple[list[str], list[str]]:
    """Tell globs of groups and patterns of operators apart: names such as ``<lambda>`` may have a ``>`` as well."""
    globs: list[str] = []
    patterns: list[str] = []
    for text in fold:
        match = compile_pattern(translate(text)).match
        whole = is_pattern(text) and not any(match(scope_name(group)) for group in groups)
        (patterns if whole else globs).append(text)
    return globs, patterns


def _chain_scopes(
    found: dict[ir.Node, Scope], patterns: Sequence[str], free: Container[ir.Node]
) -> dict[ir.Node, Scope]:
    if not patterns:
        return {}
    numbers: Counter[Scope] = Counter()
    chosen: dict[ir.Node, Scope] = {}
    for chain in find_chains(found, patterns, free):
        around = _shared([found[node] for node in chain])
        group = (*around, " > ".join(node.op_type for node in chain))
        numbers[group] += 1
        chosen |= dict.fromkeys(chain, (*group, str(numbers[group])))
    return chosen


def _shared(paths: Sequence[Scope]) -> Scope:
    first = paths[0]
    end = 0
    while end < len(first) and all(path[: end + 1] == first[: end + 1] for path in paths):
        end += 1
    return first[:end]
