"""What a recorded run says about the nodes of the graph that ran: which event is which node, shapes, MACs, bytes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.cost import node_bytes, node_cost
from onnxviz.graph.liveness import tensor_bytes
from onnxviz.runtime.events import EventTensor, NodeEvent

__all__ = ["Cost", "cost_of", "match_events", "observe", "observed_bytes", "set_feeds"]

_NCHWC = "com.microsoft.nchwc"


@dataclass(frozen=True)
class Cost:
    """What a node did in one run, all its calls together; None where shapes or sizes are unknown."""

    macs: int | None
    read: int | None
    weights: int | None
    written: int | None


def match_events(executed: ir.Model, events: Iterable[NodeEvent]) -> dict[tuple[str, str], ir.Node]:
    """Return the node of each event, by the event's name and op type.

    The events of a node without a name are called ``OpType_index``. They are taken in the order in which they ran,
    which is the order of the saved graph, if there are as many of them as such nodes; else they are left out.
    """
    nodes = list(executed.graph.all_nodes())
    named = {(node.name, node.op_type): node for node in nodes if node.name}
    unnamed: dict[str, list[ir.Node]] = {}
    for node in nodes:
        if not node.name:
            unnamed.setdefault(node.op_type, []).append(node)
    found: dict[tuple[str, str], ir.Node] = {}
    strangers: dict[str, dict[str, None]] = {}
    for event in events:
        key = (event.name, event.op_type)
        if key in named:
            found[key] = named[key]
        elif re.fullmatch(rf"{re.escape(event.op_type)}_\d+", event.name):
            strangers.setdefault(event.op_type, {})[event.name] = None
    for op_type, names in strangers.items():
        if len(names) == len(unnamed.get(op_type, ())):
            found |= {(name, op_type): node for name, node in zip(names, unnamed[op_type], strict=True)}
    return found


def observe(executed: ir.Model, matched: Mapping[tuple[str, str], ir.Node], events: Iterable[NodeEvent]) -> None:
    """Write the shapes that were seen into the graph; where a node ran several times, those of its last call."""
    for event in events:
        if (node := matched.get((event.name, event.op_type))) is not None:
            _write(node, event)


def _write(node: ir.Node, event: NodeEvent) -> None:
    outputs = [value for value in node.outputs if value.name]
    if len(outputs) == len(event.outputs):
        for value, tensor in zip(outputs, event.outputs, strict=True):
            _set(value, tensor)
    for value, tensor in _aligned_inputs(node, event.inputs):
        _set(value, tensor)


def _set(value: ir.Value, tensor: EventTensor) -> None:
    dtype = ir.DataType.__members__.get(tensor[0].upper())
    if dtype is not None and value.const_value is None:
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(tensor[1])


def _aligned_inputs(node: ir.Node, seen: tuple[EventTensor, ...]) -> list[tuple[ir.Value, EventTensor]]:
    """Return the computed inputs with what was seen of them; none where that leaves a doubt.

    Weights that a kernel has packed for itself are missing among what was seen.
    """
    found = []
    rest = list(seen)
    for value in node.inputs:
        if value is None:
            continue
        tensor = constant_tensor(value)
        if tensor is None:
            if not rest:
                return []
            found.append((value, rest.pop(0)))
        elif rest and tuple(tensor.shape.numpy()) == rest[0][1]:
            rest.pop(0)
    return [] if rest else found


def cost_of(node: ir.Node, events: Iterable[NodeEvent], originals: Iterable[ir.Node]) -> Cost:
    """Return what the calls of one node in one run cost, each at the shapes that it had.

    A convolution whose channels onnxruntime padded to its block size (domain com.microsoft.nchwc) counts the MACs of
    the convolution in the model. A node with bodies has the cost of its own work: none, and no bytes.
    """
    calls = Counter((event.inputs, event.outputs) for event in events)
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return Cost(0, None, None, None)
    total: list[int | None] = [0, 0, 0, 0]
    for (inputs, outputs), count in calls.items():
        _write(node, NodeEvent("", "", "", 0, 0, inputs, outputs))
        macs = _unpadded(node, originals) if node.domain == _NCHWC else None
        moved = node_bytes(node)
        parts = (node_cost(node).macs if macs is None else macs, moved.read, moved.weights, moved.written)
        total = [
            None if sum_ is None or part is None else sum_ + count * part
            for sum_, part in zip(total, parts, strict=True)
        ]
    return Cost(*total)


def _unpadded(node: ir.Node, originals: Iterable[ir.Node]) -> int | None:
    convolutions = [original for original in originals if original.op_type == "Conv"]
    shape = node.outputs[0].shape
    if node.op_type != "Conv" or len(convolutions) != 1 or shape is None or not shape.is_static():
        return None
    weight = constant_tensor(convolutions[0].inputs[1]) if len(convolutions[0].inputs) > 1 else None
    if weight is None:
        return None
    batch, _, *spatial = shape.numpy()
    return math.prod([batch, *spatial, *weight.shape.numpy()])


def observed_bytes(matched: Mapping[tuple[str, str], ir.Node], events: Iterable[NodeEvent]) -> dict[str, int]:
    """Return the bytes of each output by tensor name, the largest where a node ran several times."""
    sizes: dict[str, int] = {}
    for event in events:
        node = matched.get((event.name, event.op_type))
        outputs = [] if node is None else [value for value in node.outputs if value.name]
        if len(outputs) == len(event.outputs):
            for value, tensor in zip(outputs, event.outputs, strict=True):
                stand_in = ir.Value(name=value.name)
                _set(stand_in, tensor)
                if (size := tensor_bytes(stand_in)) is not None:
                    sizes[str(value.name)] = max(size, sizes.get(str(value.name), 0))
    return sizes


def set_feeds(executed: ir.Model, feeds: Mapping[str, Any]) -> None:
    """Write the types and shapes of what was fed into the graph's inputs."""
    for value in executed.graph.inputs:
        array = feeds.get(value.name or "")
        if isinstance(array, np.ndarray) and array.dtype.kind not in "OUS":
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape(array.shape)
