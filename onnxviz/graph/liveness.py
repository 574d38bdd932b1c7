"""How long tensors live and how many bytes are alive at once, found without running anything.

A tensor comes alive with the node that writes it and dies after the last node that reads it. Reuse of an input's buffer
for the output (as runtimes do for Relu or Reshape) is not assumed, so a runtime's allocator may need less; padding and
scratch buffers of kernels are not seen, so it may need more.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

__all__ = ["Timeline", "activation_timeline", "last_readers", "tensor_bytes"]


@dataclass(frozen=True)
class Timeline:
    """Bytes of activations alive during each node of the main graph, in the graph's order.

    Attributes:
        bytes: During each node: what later nodes still read, what the node reads, and what it writes.
        peak: The most of them; 0 for a graph without nodes.
        peak_index: The first node at which they are alive; None for a graph without nodes.
        alive: Names of the tensors alive there, in the order in which they were written; those inside bodies are not
            named.
        unknown: Names of the tensors whose size is not known, and which therefore count as 0 bytes.
    """

    bytes: tuple[int, ...]
    peak: int
    peak_index: int | None
    alive: tuple[str, ...]
    unknown: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the timeline as plain JSON types."""
        return {
            "bytes": list(self.bytes), "peak": self.peak, "peak_index": self.peak_index, "alive": list(self.alive),
            "unknown": list(self.unknown),
        }  # fmt: skip


def tensor_bytes(value: ir.Value) -> int | None:
    """Return the bytes of a tensor's elements, packed as ONNX packs them (two int4 a byte); None where unknown.

    Unknown are open or missing shapes, strings, sequences, optionals and maps.

    >>> tensor_bytes(ir.Value(name="x", type=ir.TensorType(ir.DataType.INT4), shape=ir.Shape([3, 3])))
    5
    """
    if value.const_value is not None:
        return None if value.const_value.dtype == ir.DataType.STRING else value.const_value.nbytes
    if value.shape is None or not isinstance(value.type, ir.TensorType):
        return None
    if value.dtype is None or value.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    sizes = [dim for dim in value.shape if isinstance(dim, int) and dim >= 0]
    if len(sizes) < len(value.shape):
        return None
    return (math.prod(sizes) * value.dtype.bitwidth + 7) // 8


def last_readers(graph: ir.Graph) -> dict[str, int]:
    """Return the index of the last node that reads each tensor of a graph (inputs and initializers included).

    What a body of If, Loop or Scan reads of this graph, at any depth, counts as read by the node that holds the body.
    The graph's outputs never die: their index is that after the last node, ``len(graph)``. A tensor that nothing reads
    has no entry.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Relu(x) z = Add(x, y)}'
    ... )
    >>> last_readers(model.graph)
    {'x': 1, 'y': 1, 'z': 2}
    """
    own = {*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)}
    readers: dict[str, int] = {}
    index = -1
    for index, node in enumerate(graph):
        for value in _reads(node):
            if value in own and value.name:
                readers[value.name] = index
    return readers | {value.name: index + 1 for value in graph.outputs if value.name}


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the bodies that it holds read, at any depth."""
    pending = [node]
    while pending:
        reader = pending.pop()
        yield from (value for value in reader.inputs if value is not None)
        for body in _bodies(reader):
            yield from (value for value in body.outputs if value is not None)  # may be handed through from outside
            pending.extend(body)


def activation_timeline(
    model: ir.Model | ir.Graph, sizes: Mapping[str, int] | None = None, *, inputs: bool = True
) -> Timeline:
    """Return the bytes of activations alive during each node of a model, its nodes run in the file's order.

    Weights and constants are not counted; the model's inputs are, from the first node to their last reader. An output
    that nothing reads dies with its node, the model's outputs never do. While a node with bodies runs, the peak of its
    largest body is alive too; the outputs of If are those of a branch and count once.

    Args:
        model: A model with inferred shapes (:func:`onnxviz.graph.shapes.infer_shapes`), or a graph of one.
        sizes: Bytes by tensor name where they were observed; they overrule the inferred ones.
        inputs: Count the model's inputs, which whoever runs it holds.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] z)'
    ...     '{a = Relu(x) b = Exp(a) c = Neg(a) z = Add(b, c)}'
    ... )
    >>> for node in model.graph:
    ...     node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([4])
    >>> activation_timeline(model).bytes
    (32, 32, 48, 48)
    """
    graph = model.graph if isinstance(model, ir.Model) else model
    walk = _Walk(graph, sizes or {})
    if inputs:
        for value in graph.inputs:
            if value.const_value is None and (value.name or "") in walk.readers:
                walk.born(value)
    for index, node in enumerate(graph):
        walk.step(index, node)
    return walk.timeline()


class _Walk:
    """The tensors alive while the nodes of a graph run one after another."""

    def __init__(self, graph: ir.Graph, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.readers = last_readers(graph)
        self.dying: dict[int, list[str]] = {}
        self.alive: dict[str, int] = {}
        self.lives: dict[str, list[int]] = {}  # the nodes during which a tensor is alive: first and last
        self.total = 0
        self.bytes: list[int] = []
        self.unknown: dict[str, None] = {}

    def born(self, value: ir.Value) -> int:
        name = value.name or ""
        size = self.sizes.get(name, tensor_bytes(value))
        if size is None:
            self.unknown[name] = None
        self.alive[name] = size or 0
        self.lives[name] = [len(self.bytes), sys.maxsize]
        self.total += size or 0
        if name in self.readers:
            self.dying.setdefault(self.readers[name], []).append(name)
        return size or 0

    def dies(self, name: str) -> None:
        self.total -= self.alive.pop(name, 0)
        self.lives[name][1] = len(self.bytes) - 1

    def timeline(self) -> Timeline:
        peak = max(self.bytes, default=0)
        at = self.bytes.index(peak) if self.bytes else None
        alive = () if at is None else tuple(n for n, (first, last) in self.lives.items() if first <= at <= last)
        return Timeline(tuple(self.bytes), peak, at, alive, tuple(self.unknown))

    def step(self, index: int, node: ir.Node) -> None:
        written = [v for v in node.outputs if v.name and v.const_value is None and node.op_type != "Constant"]
        outputs = sum(self.born(value) for value in written)
        inside = 0
        for body in _bodies(node):
            timeline = activation_timeline(body, self.sizes)
            inside = max(inside, timeline.peak)
            self.unknown.update(dict.fromkeys(timeline.unknown))
        self.bytes.append(self.total + (max(inside - outputs, 0) if node.op_type == "If" else inside))
        for name in self.dying.pop(index, ()):
            self.dies(name)
        for value in written:
            if value.name not in self.readers:
                self.dies(str(value.name))
