"""Which layers of a model are pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxviz.analysis.paired import NotDrawn, asked_for
from onnxviz.errors import SelectionError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.values import constant_array

__all__ = ["GLOBAL", "WINDOWED", "Method", "PoolPlan", "is_pool", "plan_pooling"]

Method = Literal["max", "average", "Lp"]

WINDOWED: dict[str, Method] = {
    "MaxPool": "max", "NhwcMaxPool": "max", "AveragePool": "average", "QLinearAveragePool": "average",
    "LpPool": "Lp",
}  # fmt: skip
GLOBAL: dict[str, Method] = {
    "GlobalMaxPool": "max", "GlobalAveragePool": "average", "QLinearGlobalAveragePool": "average",
    "GlobalLpPool": "Lp", "ReduceMean": "average", "ReduceMax": "max",
}  # fmt: skip
_OTHER = {"MaxRoiPool", "RoiAlign", "MaxUnpool", "MaxpoolWithMask"}


@dataclass(frozen=True, eq=False)
class PoolPlan:
    """Which pooling layers to look at.

    Attributes:
        model: The model that the nodes are of.
        nodes: The pooling nodes.
        not_drawn: Tensors that were asked for and leave no pooling.
        layouts: Tensor name -> layout, where the graph tells.
    """

    model: ir.Model
    nodes: tuple[ir.Node, ...]
    not_drawn: tuple[NotDrawn, ...]
    layouts: dict[str, str]

    @property
    def tensors(self) -> list[str]:
        """Names of what enters and leaves, each once."""
        return list(dict.fromkeys(str(v.name) for n in self.nodes for v in (n.inputs[0], n.outputs[0]) if v))


def is_pool(node: ir.Node) -> bool:
    """Whether a node may be a pooling layer; a mean or maximum may, where it runs over all of a map."""
    return node.op_type in WINDOWED or node.op_type in GLOBAL


def plan_pooling(model: ir.Model, tensors: str | Sequence[str] | None = None) -> PoolPlan:
    """Find the pooling layers to look at: pooling operators, and means or maxima over all spatial axes.

    Args:
        model: As :func:`onnxviz.analysis.paired.observable` returns it.
        tensors: Which, by what leaves them; None for all.

    Raises:
        SelectionError: There is none.
    """
    inferred = infer_shapes(model)
    layouts = tensor_layouts(inferred)
    ranks = {str(v.name): v.shape.rank() for n in inferred.graph for v in n.outputs if v.shape is not None}
    nodes = [node for node in model.graph if is_pool(node) and _is_layer(node, layouts, ranks)]
    asked = asked_for(model, tensors)
    refused: list[NotDrawn] = []
    if asked is not None:
        outputs = {node.outputs[0] for node in nodes}
        refused = sorted((_refused(value) for value in asked if value not in outputs), key=lambda one: one.name)
        nodes = [node for node in nodes if node.outputs[0] in asked]
    if not nodes:
        if refused:
            raise SelectionError(f"{refused[0].name}: {refused[0].reason}", hint="leave --tensor out to see all")
        raise SelectionError(
            "the model has no pooling layer", hint="strided convolutions shrink maps too: see `features`"
        )
    return PoolPlan(model, tuple(nodes), tuple(refused), layouts)


def _refused(value: ir.Value) -> NotDrawn:
    node = value.producer()
    op = node.op_type if node is not None else "an input"
    if op in _OTHER:
        return NotDrawn(str(value.name), f"the windows of {op} depend on another input: see `features`")
    return NotDrawn(str(value.name), f"it leaves {op}, which is no pooling")


def _is_layer(node: ir.Node, layouts: dict[str, str], ranks: dict[str, int]) -> bool:
    if not node.inputs or node.inputs[0] is None or constant_tensor(node.inputs[0]) is not None:
        return False
    if not node.op_type.startswith("Reduce"):
        return True
    name = str(node.inputs[0].name)
    rank = ranks.get(name)
    if rank is None or (rank < 4 and name not in layouts):
        return False
    axes = node.attributes.get_ints("axes", None)
    if axes is None and len(node.inputs) > 1 and (tensor := constant_tensor(node.inputs[1])) is not None:
        axes = constant_array(tensor).reshape(-1).tolist()
    spatial = range(1, rank - 1) if layouts.get(name) == "NHWC" else range(2, rank)
    return axes is not None and {axis % rank for axis in axes} == set(spatial)
