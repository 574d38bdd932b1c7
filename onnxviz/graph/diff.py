"""What differs between two models: nodes matched by name, by structure, and by their place between matched ones."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.shapes import dtype_name, shape_list

__all__ = ["GraphDiff", "diff_graphs"]

_MOST_ALIGNED = 4000  # nodes a side that are aligned by their place: that takes quadratic time at worst
_SHOWN = 60  # characters of a value
_TOLD = 8  # values of a tensor that are written out


@dataclass(frozen=True)
class GraphDiff:
    """Two graphs beside one another.

    Attributes:
        pairs: Node of the second graph -> the node of the first that it is.
        added: Nodes that only the second graph has, in its order.
        removed: Nodes that only the first graph has, in its order.
        changes: Node of the second graph -> what differs from its partner, one line each; only where something does.
        interface: What differs in the inputs and outputs of the graphs, one line each.
    """

    pairs: Mapping[ir.Node, ir.Node]
    added: tuple[ir.Node, ...]
    removed: tuple[ir.Node, ...]
    changes: Mapping[ir.Node, tuple[str, ...]]
    interface: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """True where nothing was added, removed or changed."""
        return not (self.added or self.removed or self.changes or self.interface)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""

        def told(node: ir.Node) -> dict[str, Any]:
            outputs = [value.name for value in node.outputs if value.name]
            return {"name": node.name or "", "op_type": node.op_type, "domain": node.domain, "outputs": outputs}

        changed = [
            {**told(node), "was": told(self.pairs[node]), "changes": list(lines)}
            for node, lines in self.changes.items()
        ]
        return {
            "equal": self.equal, "matched": len(self.pairs), "added": [told(node) for node in self.added],
            "removed": [told(node) for node in self.removed], "changed": changed, "interface": list(self.interface),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.equal:
            return f"no difference in {len(self.pairs):,} nodes"
        counts = (("added", len(self.added)), ("removed", len(self.removed)), ("changed", len(self.changes)))
        listed = ", ".join(f"{count:,} {what}" for what, count in counts if count)
        return "; ".join([f"{len(self.pairs):,} nodes matched: {listed or 'all the same'}", *self.interface])


def diff_graphs(before: ir.Model, after: ir.Model) -> GraphDiff:
    """Match the nodes of the main graphs of two models and tell what differs.

    Nodes are matched by name, then by the tensors that they write, then where they are the same operation on the same
    things (from the inputs down, and from the outputs up), then in order where the same operators stand between nodes
    that are matched.

    Args:
        before: The first model, shapes inferred where shapes are to be compared.
        after: The second.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = %s}'
    >>> one, other = (ir.from_onnx_text(text % op) for op in ("Relu(x)", "LeakyRelu<alpha = 0.5>(x)"))
    >>> print(diff_graphs(one, other))
    1 nodes matched: 1 changed
    >>> list(diff_graphs(one, other).changes.values())
    [('operator Relu → LeakyRelu', 'alpha: added, 0.5')]
    """
    job = _Matching(list(before.graph), list(after.graph))
    job.by(lambda node: node.name or None)
    job.by(lambda node: next((value.name for value in node.outputs if value.name), None))
    job.by_structure(forward=True)
    job.by_structure(forward=False)
    job.by_place()
    pairs = {node: job.partner[node] for node in job.after if node in job.partner}
    changes = {
        node: lines for node, was in pairs.items() if (lines := (*_changes(was, node), *_rewired(job, was, node)))
    }
    taken = set(pairs.values())
    return GraphDiff(
        pairs,
        tuple(node for node in job.after if node not in pairs),
        tuple(node for node in job.before if node not in taken),
        changes,
        tuple(_interface(job, before.graph, after.graph)),
    )


class _Matching:
    """Pairs of nodes, found one rule after another."""

    def __init__(self, before: list[ir.Node], after: list[ir.Node]) -> None:
        self.before, self.after = before, after
        self.partner: dict[ir.Node, ir.Node] = {}
        self.taken: dict[ir.Node, ir.Node] = {}

    def pair(self, was: ir.Node, node: ir.Node) -> None:
        self.partner[node] = was
        self.taken[was] = node

    def left(self) -> tuple[list[ir.Node], list[ir.Node]]:
        return [n for n in self.before if n not in self.taken], [n for n in self.after if n not in self.partner]

    def by(self, key: Callable[[ir.Node], Hashable | None]) -> None:
        """Pair the nodes whose key is the same, and that of no other node on either side."""
        sides = []
        for nodes in self.left():
            keys = [key(node) for node in nodes]
            counts = Counter(keys)
            sides.append({k: n for k, n in zip(keys, nodes, strict=True) if k is not None and counts[k] == 1})
        for found, node in sides[1].items():
            if found in sides[0]:
                self.pair(sides[0][found], node)

    def by_structure(self, *, forward: bool) -> None:
        """Pair the nodes that are the same operation on the same things, in order where several are."""
        waiting: dict[int, list[ir.Node]] = defaultdict(list)
        before, after = self.left()
        marks = _hashes(self.before, {node: i for i, node in enumerate(self.taken)}, forward=forward)
        numbers = {self.taken[node]: i for i, node in enumerate(self.taken)}
        for node in before:
            waiting[marks[node]].append(node)
        marks = _hashes(self.after, numbers, forward=forward)
        for node in after:
            if candidates := waiting.get(marks[node]):
                self.pair(candidates.pop(0), node)

    def by_place(self) -> None:
        """Pair the same operators that stand, in order, between the same matched nodes."""
        before, after = self.left()
        if not before or not after or max(len(before), len(after)) > _MOST_ALIGNED:
            return
        numbers = {node: i for i, node in enumerate(self.taken)}
        one: list[Hashable] = [numbers.get(node, node.op_type) for node in self.before]
        other: list[Hashable] = [
            numbers[self.partner[node]] if node in self.partner else node.op_type for node in self.after
        ]
        for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
            for offset in range(block.size):
                was, node = self.before[block.a + offset], self.after[block.b + offset]
                if was not in self.taken and node not in self.partner:
                    self.pair(was, node)


def _hashes(nodes: list[ir.Node], known: Mapping[ir.Node, int], *, forward: bool) -> dict[ir.Node, int]:
    """Return a number for each node that is the same for the same operation on the same things.

    A matched node stands for itself, so what hangs on it is told apart from the same thing elsewhere.
    """
    marks: dict[ir.Node, int] = {}
    for node in nodes if forward else reversed(nodes):
        if node in known:
            marks[node] = hash(("matched", known[node]))
            continue
        own = (node.domain, node.op_type, tuple(sorted((name, _text(a)) for name, a in node.attributes.items())))
        around: list[Hashable] = []
        if forward:
            around = [_mark(value, marks) for value in node.inputs]
        else:
            uses = ((user, index, place) for place, v in enumerate(node.outputs) for user, index in v.uses())
            around += sorted((marks.get(user, 0), index, place) for user, index, place in uses)
            around += [value.name for value in node.outputs if value.is_graph_output()]
        marks[node] = hash((own, tuple(around)))
    return marks


def _mark(value: ir.Value | None, marks: Mapping[ir.Node, int]) -> Hashable:
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer in marks:
        return marks[producer], value.index()
    tensor = constant_tensor(value)
    return (value.name,) if tensor is None else (str(tensor.dtype), tuple(map(str, tensor.shape)))


def _changes(was: ir.Node, node: ir.Node) -> Iterator[str]:
    if (was.domain, was.op_type) != (node.domain, node.op_type):
        yield f"operator {was.op_type} → {node.op_type}"
    for name in sorted({*was.attributes, *node.attributes}):
        one, other = (n.attributes.get(name) for n in (was, node))
        texts = [None if attribute is None else _text(attribute) for attribute in (one, other)]
        if texts[0] != texts[1]:
            old, new = (None if text is None else _cut(text) for text in texts)
            yield (
                f"{name}: added, {new}"
                if old is None
                else f"{name}: gone, was {old}"
                if new is None
                else (f"{name}: {old} → {new}")
            )
    for index in range(max(len(was.inputs), len(node.inputs))):
        yield from _changed_input(was, node, index)
    for index, (one_value, other_value) in enumerate(zip(was.outputs, node.outputs, strict=False)):
        old, new = (_type(value) for value in (one_value, other_value))
        if old != new and old and new:
            yield f"output{f' {index}' if len(node.outputs) > 1 else ''}: {old} → {new}"


def _rewired(job: _Matching, was: ir.Node, node: ir.Node) -> Iterator[str]:
    """Tell which inputs come from elsewhere."""
    for index, (old, new) in enumerate(zip(was.inputs, node.inputs, strict=False)):
        if old is None or new is None or constant_tensor(old) is not None or constant_tensor(new) is not None:
            continue
        if not _same_source(job, old, new):
            yield f"input {index}: {_cut(old.name or '?')} → {_cut(new.name or '?')}"


def _same_source(job: _Matching, old: ir.Value, new: ir.Value) -> bool:
    """Say whether two tensors come from the same place, or from one that is new or gone and tells of itself."""
    before, after = old.producer(), new.producer()
    if before is None and after is None:
        return old.name == new.name
    if (before is not None and before not in job.taken) or (after is not None and after not in job.partner):
        return True
    return before is not None and job.taken[before] is after and old.index() == new.index()


def _interface(job: _Matching, before: ir.Graph, after: ir.Graph) -> Iterator[str]:
    """Tell which inputs and outputs of the graph came, went, or are something else."""
    for what, olds, news in (("input", before.inputs, after.inputs), ("output", before.outputs, after.outputs)):
        old, new = ({str(v.name): v for v in values if constant_tensor(v) is None} for values in (olds, news))
        yield from (f"{what} {name!r} is gone" for name in old if name not in new)
        yield from (f"{what} {name!r} is new" for name in new if name not in old)
        for name in (name for name in new if name in old):
            types = [_type(values[name]) for values in (old, new)]
            if types[0] != types[1] and all(types):
                yield f"{what} {name!r}: {types[0]} → {types[1]}"
            if what == "output" and not _same_source(job, old[name], new[name]):
                yield f"output {name!r} comes from another node"


def _changed_input(was: ir.Node, node: ir.Node, index: int) -> Iterator[str]:
    values = [n.inputs[index] if index < len(n.inputs) else None for n in (was, node)]
    one, other = (None if value is None else constant_tensor(value) for value in values)
    name = next((value.name for value in reversed(values) if value is not None and value.name), f"input {index}")
    if (values[0] is None) != (values[1] is None):
        yield f"input {index}: {'added' if values[0] is None else 'gone'}"
    elif (one is None) != (other is None):
        yield f"{_cut(str(name))}: {'is computed now' if other is None else 'is constant now'}"
    elif one is not None and other is not None:
        old, new = (f"{t.dtype} {'×'.join(map(str, t.shape.numpy())) or 'scalar'}" for t in (one, other))
        if old != new:
            yield f"{_cut(str(name))}: {old} → {new}"
        elif not _equal(one, other):
            yield f"{_cut(str(name))}: other values"


def _equal(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one is other:
        return True
    a, b = one.numpy(), other.numpy()
    if a.dtype == object:
        return bool(np.array_equal(a, b))
    return a.tobytes() == b.tobytes() if a.size < 1 << 16 else bool(np.array_equal(a.view(np.uint8), b.view(np.uint8)))


def _text(attribute: ir.Attr) -> str:
    """Return an attribute as text that differs wherever the attribute does."""
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    if attribute.type == ir.AttributeType.TENSOR:
        return _digest(attribute.as_tensor())
    if attribute.type == ir.AttributeType.TENSORS:
        return "; ".join(map(_digest, attribute.as_tensors()))
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        graphs = attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else [attribute.as_graph()]
        return "; ".join(map(_body, graphs))
    value = attribute.value
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _digest(tensor: ir.TensorProtocol) -> str:
    """Return type, shape and what tells the values of one tensor from those of another; few values are told."""
    array = tensor.numpy()
    data = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    values = str(array.tolist()) if array.size <= _TOLD else hashlib.sha256(data).hexdigest()[:12]
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape.numpy())) or 'scalar'} {values}"


def _body(graph: ir.Graph) -> str:
    """Return a body as text in which tensors of its own are numbered, so that other names make no difference."""
    numbers: dict[ir.Value, str] = {value: f"%{i}" for i, value in enumerate(graph.inputs)}
    lines = []
    for node in graph:
        read = [_operand(value, numbers) for value in node.inputs]
        own = ", ".join(f"{name}={_text(attribute)}" for name, attribute in sorted(node.attributes.items()))
        numbers |= {value: f"%{len(numbers) + i}" for i, value in enumerate(node.outputs)}
        lines.append(f"{node.domain}:{node.op_type}<{own}>({', '.join(read)})")
    return f"{' '.join(lines)} → {', '.join(_operand(value, numbers) for value in graph.outputs)}"


def _operand(value: ir.Value | None, numbers: Mapping[ir.Value, str]) -> str:
    if value is None or value in numbers:
        return "" if value is None else numbers[value]
    tensor = constant_tensor(value)
    return "outside" if tensor is None else _digest(tensor)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _type(value: ir.Value) -> str:
    shape = shape_list(value)
    if shape is None:
        return ""
    return f"{dtype_name(value) or '?'} {'×'.join('?' if n is None else str(n) for n in shape) or 'scalar'}"
