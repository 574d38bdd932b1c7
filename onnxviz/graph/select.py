"""Naming tensors: globs, operator types and kinds."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.kinds import KINDS, kind_of
from onnxviz.graph.shapes import model_inputs

__all__ = ["FLOAT_TYPES", "node_tensors", "select"]

#: Element types that count as floating point.
FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16})

_NEAREST_POOL = 20_000  # names that are compared for "did you mean"; comparing is slow


def node_tensors(model: ir.Model) -> list[ir.Value]:
    """Return every tensor that a node of the main graph produces, in topological order."""
    return [value for node in model.graph for value in node.outputs if value.name]


def select(model: ir.Model, patterns: str | Sequence[str], *, inputs: bool = False) -> list[ir.Value]:
    """Return the tensors of the main graph that any of the patterns names, in topological order.

    A pattern is

    - a tensor's name, or a glob (``*``, ``?``, ``[abc]``) over the names of tensors and of the nodes that produce them;
    - ``op:Conv``: the outputs of nodes of that type (globs allowed); a bare type works where no name matches;
    - ``@conv``: the outputs of nodes of that kind, one of :data:`onnxviz.graph.kinds.KINDS`;
    - ``!`` before any of these: leave out what it names. Patterns are applied from left to right.

    Args:
        model: The model; it is not changed.
        patterns: One pattern or several.
        inputs: Let patterns match graph inputs as well.

    Raises:
        SelectionError: A pattern matches nothing; the text has the nearest names.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Relu(x) z = Exp(y)}'
    ... )
    >>> [value.name for value in select(model, "@activation")]
    ['y']
    """
    candidates = node_tensors(model)
    if inputs:
        candidates = model_inputs(model) + candidates
    chosen: dict[ir.Value, None] = {}
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for position, pattern in enumerate(patterns):
        exclude = pattern.startswith("!") and not any(v.name == pattern for v in candidates)
        if exclude and position == 0:
            chosen = dict.fromkeys(candidates)
        try:
            matches = _match(candidates, pattern[1:] if exclude else pattern)
        except SelectionError as error:
            if _in_a_body(model, pattern):
                error.hint = "it lies in the body of an If, Loop or Scan, where tensors cannot be reached yet"
            raise
        if exclude:
            for value in matches:
                chosen.pop(value, None)
        else:
            chosen.update(dict.fromkeys(matches))
    return [value for value in candidates if value in chosen]


def _in_a_body(model: ir.Model, name: str) -> bool:
    return any(value.name == name for body in model.graph.subgraphs() for node in body for value in node.outputs)


def _match(candidates: Sequence[ir.Value], pattern: str) -> list[ir.Value]:
    if pattern == "*":
        return list(candidates)
    exact = [v for v in candidates if v.name == pattern]
    if exact:
        return exact
    if pattern.startswith("@"):
        return _match_kind(candidates, pattern[1:])
    by_type = pattern.startswith("op:")
    test = re.compile(fnmatch.translate(pattern.removeprefix("op:"))).match
    if not by_type:
        named = [v for v in candidates if test(v.name or "") or (_node_name(v) and test(_node_name(v)))]
        if named:
            return named
    typed = [v for v in candidates if (node := v.producer()) is not None and test(node.op_type)]
    if not typed:
        raise SelectionError(f"no tensor matches {pattern!r}", hint=_nearest(candidates, pattern, by_type))
    return typed


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
