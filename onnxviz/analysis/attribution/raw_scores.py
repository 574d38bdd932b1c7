"""Scores before the softmax or sigmoid that an output was made with, in the places that they have in that output."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.gradient.names import named_tensors
from onnxviz.graph.extract import reads
from onnxviz.graph.model import copy_model
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.tidy import fresh_name

__all__ = ["MOVES", "UNDONE", "ancestors", "raw_scores"]

#: Operators that only move numbers about: nothing of the scores is lost behind them.
MOVES = frozenset({
    "Identity", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Concat", "Slice", "Split",
    "Gather", "Cast",
})  # fmt: skip
#: Operators that make probabilities of scores, and their names.
UNDONE = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid"}


def raw_scores(model: ir.Model, name: str) -> tuple[ir.Model, str, str]:
    """Return a model with a tensor as it would be without the softmax or sigmoid that makes it, however it was moved.

    What moves numbers is repeated on the scores, so that each has the place of its probability: also where only some
    of the columns are probabilities, as of a YOLO.

    Args:
        model: The model, functions inlined; it is not changed.
        name: Of the tensor.

    Returns:
        The model, the name of the tensor in it, and what was undone; the same model and name and an empty text where
        there is nothing to undo.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 3, 4] x) => (float[1, 4, 3] y) {s = Softmax<axis=1>(x) y = Transpose<perm=[0, 2, 1]>(s)}''')
    >>> changed, tensor, undone = raw_scores(model, "y")
    >>> tensor, undone, [node.op_type for node in changed.graph]
    ('y.raw', 'softmax', ['Softmax', 'Transpose', 'Transpose'])
    """
    copy = copy_model(model)
    named = named_tensors(copy)
    undone: dict[str, None] = {}
    made = _undone(copy.graph, named[name], undone, set(named), {})
    if made is named[name]:
        return model, name, ""
    return infer_shapes(copy), str(made.name), ", ".join(undone)


def _undone(
    graph: ir.Graph, value: ir.Value, undone: dict[str, None], taken: set[str], done: dict[ir.Value, ir.Value]
) -> ir.Value:
    """Return a value without softmax or sigmoid: another of the graph, or what new nodes make."""
    node = value.producer()
    if value in done or node is None or node.domain not in ("", "ai.onnx"):
        return done.get(value, value)
    done[value] = value
    if node.op_type in UNDONE and node.inputs[0] is not None:
        undone[UNDONE[node.op_type]] = None
        done[value] = node.inputs[0]
    elif node.op_type in MOVES:
        count = len(node.inputs) if node.op_type == "Concat" else 1
        inputs = [
            _undone(graph, v, undone, taken, done) if v is not None and i < count else v
            for i, v in enumerate(node.inputs)
        ]
        if any(new is not old for new, old in zip(inputs, node.inputs, strict=True)):
            made = ir.Node(
                node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs),
                version=node.version,
            )  # fmt: skip
            for new, old in zip(made.outputs, node.outputs, strict=True):
                new.name, new.type = fresh_name(f"{old.name}.raw", taken), old.type
                done[old] = new
            graph.append(made)
    return done[value]


def ancestors(value: ir.Value, stop: frozenset[str] = frozenset()) -> Iterator[ir.Value]:
    """Yield a value and all that it is made of, the nearest first; what nodes of some types are made of is left out."""
    seen, queue = {value}, deque([value])
    while queue:
        one = queue.popleft()
        yield one
        node = one.producer()
        if node is None or node.op_type in stop:
            continue
        for other in reads(node):
            if other not in seen:
                seen.add(other)
                queue.append(other)
