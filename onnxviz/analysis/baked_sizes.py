"""Sizes that a model has as constants where they should follow from its inputs: which node, and which numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.size_plan import Symbols
from onnxviz.errors import printable
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import reads

__all__ = ["BakedSize", "baked_sizes", "failing_node", "joining_node", "named_nodes", "node_words", "with_node_words"]

_SIZED_BY = {"Reshape": 1, "Expand": 1, "Slice": 2, "Resize": 3, "Upsample": 1, "Tile": 1}
_NODE = re.compile(r"(\w+) node (?:'([^']*)'|\"([^\"]*)\")")
_MADE_UP = "onnxviz:node:"
_MOST = 8  # numbers of a size that are told


@dataclass(frozen=True)
class BakedSize:
    """A node whose constant fixes a size.

    Attributes:
        node: What to call the node.
        op_type: Its operator.
        tensor: What it writes.
        dimension: The dimension that it fixes.
        constant: The constant.
    """

    node: str
    op_type: str
    tensor: str
    dimension: str
    constant: tuple[int, ...]

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.constant[:_MOST])) + (" …" if len(self.constant) > _MOST else "")
        return f"{self.node} has the constant [{numbers}] where {self.dimension!r} should decide"


def node_words(node: ir.Node) -> str:
    """Return what to call a node: its name, else its operator and what it writes."""
    made_up = not node.name or node.name.startswith(_MADE_UP)
    writes = next((str(value.name) for value in node.outputs), "nothing")
    return f"{node.op_type} that writes {printable(writes, 80)!r}" if made_up else (
        f"{node.op_type} node {printable(str(node.name), 80)!r}"
    )  # fmt: skip


def named_nodes(model: ir.Model) -> None:
    """Give every node a name of its own, so that an error tells which it was; the model is changed."""
    seen: set[str] = set()
    for place, node in enumerate(model.graph.all_nodes()):
        if not node.name or node.name in seen:
            node.name = f"{_MADE_UP}{place}"
        seen.add(node.name)


def failing_node(model: ir.Model, error: str) -> ir.Node | None:
    """Return the node that an error names; None where it names none, or one that is not there.

    Args:
        model: The model that ran, after :func:`named_nodes`.
        error: The error.
    """
    found = _NODE.search(error)
    name = None if found is None else found[2] or found[3]
    return next((node for node in model.graph.all_nodes() if node.name == name), None) if name else None


def with_node_words(model: ir.Model, error: str) -> str:
    """Return an error that speaks of its node as the model does."""
    node = failing_node(model, error)
    if node is not None and str(node.name).startswith(_MADE_UP):
        error = _NODE.sub(lambda _: node_words(node), error, count=1)
    return re.sub(r"^onnxruntime failed while running the model: ", "", error)


def baked_sizes(symbols: Symbols, dimension: str, end: str | None = None) -> Iterator[BakedSize]:
    """Yield the nodes whose constant stands where a dimension should, in order of execution.

    These are nodes that read a tensor with that dimension, take the size of what they write from a constant, and write
    something in which the dimension is no size any more. A Slice that leaves a size of 1 takes what it wants.

    Args:
        symbols: The model.
        dimension: The dimension.
        end: A node, or an output, that has to depend on them; None for any.
    """
    token = symbols.tokens[dimension]
    before = None if end is None else _before(symbols.model, end)
    for node in symbols.model.graph:
        place = _SIZED_BY.get(node.op_type)
        if place is None or node.domain not in ("", "ai.onnx") or place >= len(node.inputs) or node.inputs[0] is None:
            continue
        constant = _constant(node.inputs[place])
        source, written = _texts(node.inputs[0]), _texts(node.outputs[0])
        if constant is None or not written or token not in source or (before is not None and node not in before):
            continue
        lost = not any(token in text for text in written)
        if token not in written and (lost or _stands_there(source, token, constant)):
            if node.op_type == "Slice" and "1" in written:
                continue
            yield BakedSize(node_words(node), node.op_type, str(node.outputs[0].name), dimension, constant)


def joining_node(symbols: Symbols, dimension: str, output: str) -> tuple[str, list[str]] | None:
    """Return the first node before an output that puts a dimension and others into one size, and those others."""
    token = symbols.tokens[dimension]
    before = _before(symbols.model, output)
    for node in symbols.model.graph:
        if node not in before:
            continue
        read = {text for value in node.inputs if value is not None for text in _texts(value)}
        for text in {text for value in node.outputs for text in _texts(value)} - read:
            others = [name for name, other in symbols.tokens.items() if other != token and other in text]
            if token in text and others and token in read:
                return node_words(node), others
    return None


def _before(model: ir.Model, end: str) -> set[ir.Node]:
    """Return a node, or what writes an output, and all nodes that it depends on."""
    pending = [n for n in model.graph.all_nodes() if n.name == end or any(v.name == end for v in n.outputs)]
    found: set[ir.Node] = set()
    while pending:
        node = pending.pop()
        if node in found:
            continue
        found.add(node)
        pending += [p for value in reads(node) if (p := value.producer()) is not None]
    return found


def _stands_there(source: list[str], token: str, constant: tuple[int, ...]) -> bool:
    """Whether a number of a Reshape stands where the tensor has the dimension, and all before it is as it was."""
    axis = source.index(token)
    before = zip(source[:axis], constant[:axis], strict=False)
    return axis < len(constant) and constant[axis] > 0 and all(size in (0, -1) or str(size) == t for t, size in before)


def _texts(value: ir.Value) -> list[str]:
    return [str(dim if isinstance(dim, int) else dim.value) for dim in value.shape or ()]


def _constant(value: ir.Value | None) -> tuple[int, ...] | None:
    tensor = None if value is None else constant_tensor(value)
    if tensor is None or tensor.size > 64:
        return None
    array = np.ravel(tensor.numpy())
    return tuple(int(n) for n in array) if array.dtype.kind in "iu" else None
