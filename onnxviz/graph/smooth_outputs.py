"""Where a model can be compared if its outputs jump: before operators that choose by rank or by threshold."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import reads
from onnxviz.graph.select import FLOAT_TYPES

__all__ = ["smooth_outputs"]

#: A number that moves a little makes these give other places, or more or fewer of them.
_CHOOSE = frozenset({"NonMaxSuppression", "NonZero", "TopK", "Compress", "Unique"})


def smooth_outputs(model: ir.Model) -> tuple[list[ir.Value], list[ir.Value]]:
    """Return the outputs that can be compared number by number, and the tensors to compare in place of the others.

    An output behind a NonMaxSuppression, NonZero, TopK, Compress or Unique of computed numbers may change its shape or
    order when nothing but a last bit changed. In its place stand the floating-point tensors that the nodes behind the
    first such choice read and that no choice has touched, such as the scores and boxes of a detector.

    Args:
        model: Functions inlined, types inferred.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[4] x, int64[1] k) => (float[1] v, float[4] s) {s = Sigmoid(x) v, i = TopK(s, k)}''')
    >>> smooth, instead = smooth_outputs(model)
    >>> [value.name for value in smooth], [value.name for value in instead]
    (['s'], ['s'])
    """
    outputs = list(model.graph.outputs)
    needed = _ancestors(outputs)
    computed: set[ir.Value] = set()  # numbers, and what follows from them: comparisons, masks, places
    sized: set[ir.Value] = set()  # what follows from shapes alone
    jumping: set[ir.Value] = set()
    for node in model.graph:
        sources = [value for value in reads(node) if constant_tensor(value) is None]
        if node.op_type in ("Shape", "Size") or (sources and all(value in sized for value in sources)):
            sized.update(node.outputs)
            continue
        floats = any(value.dtype in FLOAT_TYPES for value in (*sources, *node.outputs))
        if (sources and floats) or any(value in computed for value in sources):
            computed.update(node.outputs)
        chooses = node.op_type in _CHOOSE and any(value in computed for value in sources)
        if node in needed and (chooses or any(value in jumping for value in sources)):
            jumping.update(node.outputs)
    instead: dict[ir.Value, None] = {}
    for node in model.graph:
        if node in needed and any(value in jumping for value in node.outputs):
            for value in reads(node):
                instead.update(dict.fromkeys(_numbers(value, jumping, computed)))
    return [v for v in outputs if v not in jumping], list(instead)


def _numbers(value: ir.Value, jumping: set[ir.Value], computed: set[ir.Value]) -> list[ir.Value]:
    """Return the floating-point tensors that a value is or, being a mask or places, follows from."""
    found, pending, seen = [], [value], set()
    while pending:
        one = pending.pop()
        if one in seen or one in jumping or one not in computed:
            continue
        seen.add(one)
        if one.dtype in FLOAT_TYPES:
            found.append(one)
        else:
            node = one.producer()
            pending.extend(reads(node) if node is not None else ())
    return found


def _ancestors(values: list[ir.Value]) -> set[ir.Node]:
    nodes: set[ir.Node] = set()
    pending = list(values)
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in nodes:
            nodes.add(node)
            pending.extend(reads(node))
    return nodes
