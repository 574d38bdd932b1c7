"""Naming tensors: globs, operator types and kinds."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.kinds import KINDS, kind_of
from onnxviz.graph.provenance import leaving, nodes_by_layer, provenance_of
from onnxviz.graph.shapes import model_inputs

__all__ = ["FLOAT_TYPES", "all_tensors", "node_tensors", "select"]

#: Element types that count as floating point.
FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16})

_NEAREST_POOL = 20_000  # names that are compared for "did you mean"; comparing is slow


def node_tensors(model: ir.Model) -> list[ir.Value]:
    """Return every tensor that a node of the main graph produces, in topological order."""
    return [value for node in model.graph for value in node.outputs if value.name]


def all_tensors(model: ir.Model) -> dict[ir.Value, str]:
    """Return every tensor that a node produces, bodies of If, Loop and Scan included -> a name that no other has.

    Tensors of a body stand before the outputs of the node that holds it. A name that occurs in several bodies is made
    unique by the name of the node around it: ``"loop1/y"``.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (bool c, float[2] x) => (float[2] y) {
    ...     y = If(c) <then_branch = a () => (float[2] p) {p = Neg(x)}, else_branch = b () => (float[2] q) {q = Abs(x)}>
    ...   }''')
    >>> list(all_tensors(model).values())
    ['p', 'q', 'y']
    """
    found: list[tuple[ir.Value, str]] = []
    _collect(model.graph, "", found)
    counts = Counter(str(value.name) for value, _ in found)
    own = {str(value.name) for value, where in found if not where}
    taken: set[str] = set()
    names: dict[ir.Value, str] = {}
    for value, where in found:
        plain = str(value.name)
        name = plain if not where or counts[plain] == 1 else f"{where}{plain}"
        number = 2
        while where and (name in taken or (name in own and name != plain)):
            name, number = f"{where}{plain}#{number}", number + 1
        taken.add(name)
        names[value] = name
    return names


def _collect(graph: ir.Graph, where: str, found: list[tuple[ir.Value, str]]) -> None:
    for node in graph:
        for body in bodies_of(node):
            _collect(body, f"{where}{node.name or node.op_type}/", found)
        found.extend((value, where) for value in node.outputs if value.name)


def select(
    model: ir.Model, patterns: str | Sequence[str], *, inputs: bool = False, bodies: bool = False
) -> list[ir.Value]:
    """Return the tensors of a model that any of the patterns names, in topological order.

    A pattern is

    - a tensor's name, or a glob (``*``, ``?``, ``[abc]``) over the names of tensors and of the nodes that produce them;
    - ``op:Conv``: the outputs of nodes of that type (globs allowed); a bare type works where no name matches;
    - ``source:layers.0.conv1``: what leaves a layer of the source network (globs allowed), where converters wrote down
      which nodes are whose;
    - ``@conv``: the outputs of nodes of that kind, one of :data:`onnxviz.graph.kinds.KINDS`;
    - ``!`` before any of these: leave out what it names. Patterns are applied from left to right.

    Args:
        model: The model; it is not changed.
        patterns: One pattern or several.
        inputs: Let patterns match graph inputs as well.
        bodies: Let patterns match tensors in the bodies of If, Loop and Scan as well, by the names of
            :func:`all_tensors`.

    Raises:
        SelectionError: A pattern matches nothing; the text has the nearest names.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Relu(x) z = Exp(y)}'
    ... )
    >>> [value.name for value in select(model, "@activation")]
    ['y']
    """
    names = all_tensors(model) if bodies else {value: str(value.name) for value in node_tensors(model)}
    if inputs:
        names = {**{value: str(value.name) for value in model_inputs(model)}, **names}
    candidates = list(names)
    exact: dict[str, list[ir.Value]] = {}
    for value, name in names.items():
        exact.setdefault(name, []).append(value)
    chosen: dict[ir.Value, None] = {}
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for position, pattern in enumerate(patterns):
        exclude = pattern.startswith("!") and pattern not in exact
        if exclude and position == 0:
            chosen = dict.fromkeys(candidates)
        try:
            asked = pattern[1:] if exclude else pattern
            matches = exact[asked] if asked in exact and asked != "*" else _match(names, asked)
        except SelectionError as error:
            if not bodies and _in_a_body(model, pattern):
                error.hint = "it lies in the body of an If, Loop or Scan: only `capture` reaches it there"
            raise
        if exclude:
            for value in matches:
                chosen.pop(value, None)
        else:
            chosen.update(dict.fromkeys(matches))
    return [value for value in candidates if value in chosen]


def _in_a_body(model: ir.Model, name: str) -> bool:
    return any(value.name == name for body in model.graph.subgraphs() for node in body for value in node.outputs)


def _match(names: Mapping[ir.Value, str], pattern: str) -> list[ir.Value]:
    candidates = list(names)
    if pattern == "*":
        return candidates
    if pattern.startswith("source:"):
        return _match_source(candidates, pattern.removeprefix("source:"))
    if pattern.startswith("@"):
        return _match_kind(candidates, pattern[1:])
    by_type = pattern.startswith("op:")
    test = re.compile(fnmatch.translate(pattern.removeprefix("op:"))).match
    if not by_type:
        named = [v for v in candidates if test(names[v]) or (_node_name(v) and test(_node_name(v)))]
        if named:
            return named
    typed = [v for v in candidates if (node := v.producer()) is not None and test(node.op_type)]
    if not typed:
        raise SelectionError(f"no tensor matches {pattern!r}", hint=_nearest(candidates, pattern, by_type))
    return typed


def _match_source(candidates: Sequence[ir.Value], pattern: str) -> list[ir.Value]:
    graphs = dict.fromkeys(node.graph for v in candidates if (node := v.producer()) is not None)
    layers: dict[str, list[ir.Node]] = {}
    for graph in graphs:
        if isinstance(graph, ir.Graph):
            for layer, nodes in nodes_by_layer(graph).items():
                layers.setdefault(layer, []).extend(nodes)
    if not any(layers):
        raise SelectionError(
            "the model does not say which layers it came from",
            hint="convert it with `onnxviz convert`, or name a tensor",
        )
    test = re.compile(fnmatch.translate(pattern)).match
    everything = {**_folded_away(layers), **layers}
    chosen = [nodes for layer, nodes in everything.items() if layer == pattern or (layer and test(layer))]
    if not chosen:
        near = difflib.get_close_matches(pattern, list(filter(None, layers)), n=3, cutoff=0.4) or list(layers)[:3]
        raise SelectionError(
            f"no layer of the source matches {pattern!r}", hint=f"the nearest are {', '.join(filter(None, near))}"
        )
    found = {value for nodes in chosen for value in leaving(nodes)}
    return [value for value in candidates if value in found]


def _folded_away(layers: Mapping[str, Sequence[ir.Node]]) -> dict[str, list[ir.Node]]:
    """Return the layers that others were folded into: what they gave themselves is nowhere, this is what is nearest."""
    found: dict[str, list[ir.Node]] = {}
    for node in dict.fromkeys(node for nodes in layers.values() for node in nodes):
        source = provenance_of(node)
        for layer in (source.layer, *source.folded[:-1]) if source is not None and source.folded else ():
            found.setdefault(layer, []).append(node)
    return found


def _match_kind(candidates: Sequence[ir.Value], kind: str) -> list[ir.Value]:
    if kind not in KINDS and kind not in ("ml", "other"):
        raise SelectionError(f"there is no kind @{kind}", hint=f"the kinds are {', '.join('@' + k for k in KINDS)}")
    matches = [v for v in candidates if (node := v.producer()) is not None and kind_of(node) == kind]
    if not matches:
        present = sorted({kind_of(node) for v in candidates if (node := v.producer()) is not None})
        raise SelectionError(
            f"no tensor is of kind @{kind}", hint=f"this model has {', '.join('@' + k for k in present)}"
        )
    return matches


def _node_name(value: ir.Value) -> str:
    node = value.producer()
    return node.name or "" if node is not None else ""


def _nearest(candidates: Sequence[ir.Value], pattern: str, by_type: bool) -> str:
    def types() -> Iterable[str]:
        return sorted({node.op_type for v in candidates if (node := v.producer()) is not None})

    if by_type:
        return f"this model's op types are {', '.join(types())}"
    bare = re.sub(r"[*?\[\]!]", "", pattern)
    names = list(
        dict.fromkeys(name for v in candidates[:_NEAREST_POOL] for name in (v.name or "", _node_name(v)) if name)
    )
    lowered = {name.lower(): name for name in reversed(names)}
    near = [lowered[n] for n in difflib.get_close_matches(bare.lower(), lowered, n=3, cutoff=0.4)]
    near = near or [name for name in names if bare and bare.lower() in name.lower()][:3] or names[:3]
    return f"the nearest names are {', '.join(near)}" if near else "the model has no nodes"
