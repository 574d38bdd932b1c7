"""Gates of one number a channel, as squeeze-and-excitation has them, and how to look past them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.graph.kinds import KINDS
from onnxviz.graph.model import copy_model
from onnxviz.graph.shapes import shape_list

__all__ = ["without_gates"]

_ELEMENTWISE = KINDS["elementwise"]


def without_gates(model: ir.Model) -> ir.Model | None:
    """Return a copy in which no map is combined with something that has one number a channel; None if none is.

    Such a number comes from the whole map, so that formally every position behind it sees everything, though each still
    lies where it lay before. The copy is for following positions; it computes something else.

    Args:
        model: A model with inferred shapes; it is not changed.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
    ...   {p = GlobalAveragePool(x) s = Sigmoid(p) y = Mul(x, s)}''')
    >>> from onnxviz.graph.shapes import infer_shapes
    >>> [value.name for value in without_gates(infer_shapes(model)).graph.node(2).inputs]
    ['x', 'gate left out']
    """
    if not any(_gates(node) for node in model.graph):
        return None
    copy = copy_model(model)
    for node in copy.graph:
        for index in _gates(node):
            one = ir.Value(name="gate left out", shape=ir.Shape(()), type=ir.TensorType(ir.DataType.FLOAT))
            one.const_value = ir.Tensor(np.float32(1.0), name="gate left out")
            node.replace_input_with(index, one)
    return copy


def _gates(node: ir.Node) -> list[int]:
    """Return the inputs of an elementwise node that have one number a channel beside another that is a map."""
    if node.op_type not in _ELEMENTWISE or len(node.inputs) < 2:
        return []
    shapes = [shape_list(value) if value is not None and value.const_value is None else None for value in node.inputs]
    return [
        index
        for index, gate in enumerate(shapes)
        if gate is not None
        and any(s is not None and s is not gate and len(s) == len(gate) and _opens(gate, s) for s in shapes)
    ]


def _opens(gate: list[int | str | None], other: list[int | str | None]) -> bool:
    """Whether one shape has a single entry along every axis but batch and channels where the other has more."""
    along = [a == 1 and b != 1 for a, b in zip(gate, other, strict=True)]
    return len(gate) >= 3 and sum(along) >= len(gate) - 2 and sum(n != 1 for n in gate) <= 2
