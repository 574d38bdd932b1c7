"""Which tensors of a model are left in its optimised form, and what became of the others.

Pure work on two graphs: nothing runs, and no weights are loaded but the scales of quantised tensors. Names that both
graphs produce are anchors. From them the optimised graph is walked backwards, and its nodes are laid over the original
ones: what a fused node reads and writes must be what the nodes that it replaced read and wrote. Where that cannot be
shown, the entry says so and names the smallest set of nodes in which the tensor disappeared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

import onnx_ir as ir

from onnxviz.errors import listed, printable
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.correspondence import VIEWS, Correspondence
from onnxviz.graph.equality import Side, is_copy, label, reads
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shapes import infer_shapes

__all__ = ["Lineage", "TensorLineage", "not_in_production", "trace_lineage"]

Status = Literal["survived", "fused", "folded", "removed"]

_MOST_NODES = 20_000  # of one walk: a graph that no anchor divides is not walked for each of its tensors
_SHOWN = 3  # names that a reason lists
_SHAPES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class TensorLineage:
    """What became of one tensor of the original model.

    Attributes:
        name: Of the tensor, as :func:`onnxviz.graph.select.all_tensors` names it.
        status: ``"survived"``: the optimised graph computes it under the same name; ``"fused"``: it exists only inside
            a node of the optimised graph, or in another layout or type; ``"folded"``: it is a constant there;
            ``"removed"``: nothing computes it, for it equals another tensor or nothing needs it.
        by: The nodes of the optimised graph that replaced the one that wrote it: names, or ``"Conv of y"`` for one
            without a name.
        by_op: Their op types, such as ``"FusedConv"``.
        equals: A tensor of the original that always has the same values.
        stored_as: A tensor of the optimised graph that holds the same values in another layout or type.
        reason: One sentence for the reader.
    """

    name: str
    status: Status
    by: tuple[str, ...] = ()
    by_op: str = ""
    equals: str | None = None
    stored_as: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Lineage:
    """Result of :func:`trace_lineage`.

    Attributes:
        entries: Name of an original tensor -> what became of it, in the original's order.
        new: Tensors that only the optimised graph computes.
    """

    entries: dict[str, TensorLineage] = field(repr=False)
    new: tuple[str, ...] = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each status."""
        found = Counter(entry.status for entry in self.entries.values())
        return {status: found[status] for status in ("survived", "fused", "folded", "removed")}

    def to_dict(self) -> dict[str, Any]:
        """Return the lineage as plain JSON types."""
        entries = [{**asdict(entry), "by": list(entry.by)} for entry in self.entries.values()]
        return {"counts": self.counts, "tensors": entries, "new": list(self.new)}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(e.name))}</td><td>{e.status}</td><td>{escape(printable(e.reason))}</td></tr>"
            for e in self.entries.values()
        )
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        head = "<tr><th>tensor</th><th>status</th><th>what became of it</th></tr>"
        return f"<table><caption>{counts}, {len(self.new)} new</caption>{head}{rows}</table>"


def trace_lineage(original: ir.Model, optimized: ir.Model) -> Lineage:
    """Tell for every tensor of a model what became of it in the optimised form of the model.

    Args:
        original: The model; its functions are inlined first, so that the tensors inside them have names.
        optimized: The same model as :func:`onnxviz.runtime.production.optimized_model` returns it.

    Raises:
        ModelError: A function of the original calls itself.

    >>> original = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}> {c = Conv(x, w) y = Relu(c)}''')
    >>> optimized = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
    ...   g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}>
    ...   {[fused] y = com.microsoft.FusedConv<activation = "Relu">(x, w)}''')
    >>> {name: entry.status for name, entry in trace_lineage(original, optimized).entries.items()}
    {'c': 'fused', 'y': 'survived'}
    >>> trace_lineage(original, optimized).entries["c"].reason
    "fused into 'fused' (FusedConv)"
    """
    shaped = infer_shapes(inline_functions(original))
    trace = _Trace(Side(shaped.graph), Side(optimized.graph))
    there = set(all_tensors(optimized).values())
    entries = {}
    for value, name in all_tensors(shaped).items():
        holder = value.producer()
        inside = holder is None or holder.graph is not shaped.graph
        entries[name] = trace.body_entry(value, name, name in there) if inside else trace.entry(name)
    return Lineage(entries, tuple(name for name in all_tensors(optimized).values() if name not in entries))


def not_in_production(lineage: Lineage) -> dict[str, str]:
    """Return name -> why for each tensor that the optimised graph does not compute under its own name."""
    return {name: entry.reason for name, entry in lineage.entries.items() if entry.status != "survived"}


@dataclass(frozen=True)
class _Cover:
    """The nodes of the optimised graph between one tensor and the nearest ones that the original has too.

    Attributes:
        nodes: In the graph's order.
        sources: The original tensors at its upper end.
        shapes: Whether it works on shapes.
    """

    nodes: tuple[ir.Node, ...]
    sources: frozenset[str]
    shapes: bool


class _Trace:
    """What is known about the tensors of the original while they are looked up one by one."""

    def __init__(self, original: Side, optimized: Side) -> None:
        self.original = original
        self.optimized = optimized
        self.pairs = Correspondence(original, optimized)
        self.sizes = _sizes(original)
        self.order = {id(node): index for index, node in enumerate(optimized.graph)}
        self.covers: dict[str, list[_Cover]] = {}
        while not self._lay_out():
            self.pairs.match()
        self.holders = {held: name for name, held in reversed(self.pairs.held.items()) if name != held}
        self.written = {t: here for here, t in reversed(self.pairs.held.items()) if here in optimized.producer}
        self.twins: dict[int, str] = {}
        for name in (*optimized.producer, *(str(v.name) for v in optimized.graph.inputs)):
            if self.pairs.held.get(name) == name and name in self.pairs.classes:
                self.twins.setdefault(self.pairs.classes[name], name)
        self.needed = _needed(original)
        self.folded = self._folded()
        self.outer = _outer_nodes(original.graph)

    def _lay_out(self) -> bool:
        """Lay every stretch of the optimised graph over the original nodes that it replaced.

        Returns:
            False if a name turned out not to mean the same in both graphs, and what followed from it has to go.
        """
        self.covers = {}
        sound = True
        for here, name in list(self.pairs.held.items()):
            if here not in self.optimized.producer:
                continue
            cover = self._stretch(here)
            inside, fits = self._lay(name, cover)
            if not fits and here == name:  # what was moved past other nodes may fit between tensors of the same name
                cover = self._stretch(here, named=True)
                inside, fits = self._lay(name, cover)
            rounded = _rounds(cover.nodes) and not self._rounded_before(name, inside)
            if fits and not rounded:
                for tensor in inside:
                    self.covers.setdefault(tensor, []).append(cover)
            elif here == name and name not in self.original.outputs:
                writer = self.optimized.producer[here]
                how = "rounded to a quantised type" if rounded else "from other tensors than the original does"
                self.pairs.rejected[name] = f"{label(writer)!r} ({writer.op_type}) writes this name {how}"
                sound = False
            elif here != name and rounded:
                self.pairs.barred.add(here)
                sound = False
        return sound

    def _rounded_before(self, name: str, inside: Iterable[str]) -> bool:
        return _rounds(node for t in (*inside, name) if (node := self.original.producer.get(t)) is not None)

    def _stretch(self, name: str, *, named: bool = False) -> _Cover:
        """Return the nodes that compute a tensor of the optimised graph from tensors that the original has.

        Args:
            name: The tensor.
            named: Only from tensors that have the same name in both graphs.
        """
        nodes: dict[int, ir.Node] = {}
        sources: set[str] = set()
        pending = [name]
        shapes = False
        while pending:
            node = self.optimized.producer.get(pending.pop())
            if node is None or id(node) in nodes:
                continue
            nodes[id(node)] = node
            if node.op_type in _SHAPES:
                shapes = True
                continue
            for source in reads(node):
                if source in self.optimized.constants:
                    continue
                held = self.pairs.held.get(source)
                if held is None or (named and held != source):
                    pending.append(source)
                else:
                    sources.add(held)
        chosen = tuple(nodes[key] for key in sorted(nodes, key=self.order.__getitem__))
        return _Cover(chosen, frozenset(sources), shapes or not sources.isdisjoint(self.sizes))

    def _lay(self, name: str, cover: _Cover) -> tuple[list[str], bool]:
        """Return the original tensors between a tensor and the sources of a cover, and whether the two agree."""
        if any(self.pairs.same(name, source) for source in cover.sources):
            return [], True  # only the layout or type was changed
        ends = {self.pairs.classes.get(source, source) for source in cover.sources}
        reached: set[object] = set()
        inside: dict[str, None] = {}
        loose = False
        pending = [name]
        while pending:
            tensor = pending.pop()
            key = self.pairs.classes.get(tensor, tensor)
            if tensor != name and key in ends:
                reached.add(key)
            elif tensor in inside or tensor in self.original.constants or self._is_weight(tensor):
                continue
            elif (node := self.original.producer.get(tensor)) is None or len(inside) > _MOST_NODES:
                loose = True
            else:
                inside[tensor] = None
                if node.op_type in _SHAPES:
                    reached.update(self.pairs.classes.get(source, source) for source in reads(node))
                    continue
                if any(bodies_of(node)):
                    reached |= ends  # a branch that is never taken reads nothing
                pending.extend(reads(node))
        inside.pop(name, None)
        if any(any(bodies_of(self.original.producer[t])) for t in (*inside, name)):
            loose = False
        return list(inside), not loose and ends <= reached

    def _is_weight(self, name: str) -> bool:
        return name in self.optimized.initializers

    def _folded(self) -> set[str]:
        """Return the tensors that are constants in the optimised graph, and those that only such tensors needed."""
        folded = {name for name in self.original.producer if self._is_weight(name) or name in self.original.constants}
        for node in reversed(list(self.original.graph)):
            for name in (str(value.name) for value in node.outputs if value.name):
                readers = [reader for reader in self.original.readers.get(name, ()) if reader in self.needed]
                results = [str(value.name) for reader in readers for value in reader.outputs if value.name]
                if results and name not in self.original.outputs and all(result in folded for result in results):
                    folded.add(name)
        return folded

    def entry(self, name: str) -> TensorLineage:
        """Return what became of a tensor of the main graph."""
        node = self.original.producer[name]
        if self.pairs.held.get(name) == name:
            return TensorLineage(
                name,
                "survived",
                (label(self.optimized.producer[name]),),
                self.optimized.producer[name].op_type,
                reason="computed under the same name",
            )
        if name in self.pairs.rejected:
            return self._fused(name, [self.optimized.producer[name]], self.pairs.rejected[name])
        if name in self.folded:
            return TensorLineage(name, "folded", reason=_why_folded(name, self.original, self.optimized))
        if node not in self.needed or not (name in self.original.outputs or self._is_read(name)):
            return TensorLineage(name, "removed", reason="no output depends on it")
        twin = self.twins.get(self.pairs.classes.get(name, -1))
        if twin is None and is_copy(node) and node.inputs[0] is not None and node.outputs[0].name == name:
            twin = str(node.inputs[0].name)
        if twin is not None:
            return TensorLineage(name, "removed", equals=twin, reason=f"always equal to {twin!r}")
        return self._replaced(name)

    def _is_read(self, name: str) -> bool:
        return any(reader in self.needed for reader in self.original.readers.get(name, ()))

    def _replaced(self, name: str) -> TensorLineage:
        if (holder := self.holders.get(name)) is not None:
            writer = self.optimized.producer[holder]
            where = f"computed by {label(writer)!r} ({writer.op_type}) as {holder!r}, in another layout or type"
            return self._fused(name, [writer], where, holder)
        covers = self.covers.get(name, [])
        if covers and name in self.sizes and not any(cover.shapes for cover in covers):
            return TensorLineage(name, "folded", reason="computed from shapes, which are known beforehand")
        if covers:
            nodes = {id(node): node for cover in covers for node in cover.nodes}
            return self._fused(name, [nodes[key] for key in sorted(nodes, key=self.order.__getitem__)])
        return self._lost(name)

    def _fused(self, name: str, nodes: list[ir.Node], reason: str = "", stored_as: str | None = None) -> TensorLineage:
        main = [node for node in nodes if node.op_type not in VIEWS] or nodes
        ops = ", ".join(dict.fromkeys(node.op_type for node in main))
        if not reason:
            reason = f"fused into {listed([repr(label(node)) for node in main], _SHOWN)} ({ops})"
        return TensorLineage(name, "fused", tuple(label(node) for node in main), ops, None, stored_as, reason)

    def _lost(self, name: str) -> TensorLineage:
        """Return where a tensor disappeared that no node can be shown to have replaced."""
        below = self._nearest_below(name)
        if below is None:
            return TensorLineage(name, "fused", reason="not found in the optimised graph")
        cover = self._stretch(below)
        after = self.pairs.held[below]
        before = ", ".join(repr(source) for source in sorted(cover.sources)[:_SHOWN]) or "the inputs"
        return self._fused(name, list(cover.nodes), f"lost somewhere between {before} and {after!r}")

    def _nearest_below(self, name: str) -> str | None:
        pending, seen = [name], {name}
        for tensor in pending:
            if tensor != name and tensor in self.written:
                return self.written[tensor]
            for reader in self.original.readers.get(tensor, ()):
                fresh = [str(v.name) for v in reader.outputs if v.name and v.name not in seen]
                seen.update(fresh)
                pending.extend(fresh)
        return None

    def body_entry(self, value: ir.Value, name: str, exists: bool) -> TensorLineage:
        """Return what became of a tensor in the body of an If, Loop or Scan."""
        if exists:
            return TensorLineage(name, "survived", reason="computed under the same name")
        if constant_tensor(value) is not None:
            return TensorLineage(name, "folded", reason="a constant")
        outer = self.outer[value]
        written = [str(v.name) for v in outer.outputs if v.name in self.optimized.producer]
        if not written:
            return TensorLineage(name, "removed", reason=f"{label(outer)!r} ({outer.op_type}) is not there any more")
        nodes = list({id(n): n for n in (self.optimized.producer[w] for w in written)}.values())
        if nodes[0].op_type != outer.op_type:
            reason = f"{label(outer)!r} ({outer.op_type}) was replaced by the branch that is always taken"
            return self._fused(name, nodes, reason)
        return self._fused(name, nodes, f"fused inside {label(nodes[0])!r} ({nodes[0].op_type})")


def _rounds(nodes: Iterable[ir.Node]) -> bool:
    return any(node.op_type in {"QuantizeLinear", "DynamicQuantizeLinear"} for node in nodes)


def _outer_nodes(graph: ir.Graph) -> dict[ir.Value, ir.Node]:
    """Return value of a body -> the node of the main graph in which the body lies."""
    found = {}
    for node in graph:
        for outermost in bodies_of(node):
            for body in (outermost, *outermost.subgraphs()):
                found.update(dict.fromkeys((value for inner in body for value in inner.outputs), node))
    return found


def _needed(side: Side) -> set[ir.Node]:
    """Return the nodes that an output depends on."""
    needed: set[ir.Node] = set()
    wanted = set(side.outputs)
    for node in reversed(list(side.graph)):
        if any(value.name in wanted for value in node.outputs):
            needed.add(node)
            wanted.update(reads(node))
    return needed


def _sizes(side: Side) -> set[str]:
    """Return the tensors that depend on nothing but the shapes of others."""
    found: set[str] = set()
    for node in side.graph:
        sources = [name for name in reads(node) if name not in side.constants]
        if node.op_type in _SHAPES or (sources and all(name in found for name in sources)):
            found.update(str(value.name) for value in node.outputs if value.name)
    return found


def _why_folded(name: str, original: Side, optimized: Side) -> str:
    if name in optimized.initializers:
        return "computed beforehand: a constant of the same name"
    return "computed beforehand: a constant" if name in original.constants else "only constants were computed from it"
