"""Which node belongs to which layer, found by what both compute: for exporters that lose or mix up the names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxviz.converters.base import Array, LayerCall
from onnxviz.converters.layers import layouts
from onnxviz.graph.provenance import Provenance, provenance_of, set_provenance
from onnxviz.runtime.capture import capture

__all__ = ["claim_by_value"]

_NEAR = 1e-4  # relative L2 distance below which a tensor is what a layer gave


def claim_by_value(model: ir.Model, calls: Sequence[LayerCall], feed: Mapping[str, Array]) -> None:
    """Write on the node that gives what a layer gave that it is this layer's, in place.

    Nodes of no layer that lead only to nodes of one then belong to that one.

    Args:
        model: The ONNX model.
        calls: What each layer of the source gave on ``feed``.
        feed: Inputs by name.
    """
    by_size: dict[int, list[tuple[str, Array]]] = defaultdict(list)
    for name, record in capture(model, dict(feed), providers="cpu", bodies=False).items():
        if record.kept is not None and record.array.dtype.kind == "f":
            by_size[record.array.size].append((name, record.array))
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    claimed: set[str] = set()
    for call in calls:
        if call.hands_on:
            continue
        for output in call.outputs:
            like = _first_like(output, by_size[output.size], claimed)
            node = values[like].producer() if like is not None else None
            if like is not None and node is not None:
                claimed.add(like)
                set_provenance(node, Provenance(call.layer, call.class_name))
    _claim_leftovers(model)


def _first_like(output: Array, tensors: Sequence[tuple[str, Array]], claimed: set[str]) -> str | None:
    if output.dtype.kind != "f":
        return None
    limit = _NEAR * float(np.linalg.norm(output))
    for name, array in tensors:
        if name not in claimed and limit:
            for _, seen in layouts(array, output.shape):
                if float(np.linalg.norm(seen.astype(np.float64) - output)) <= limit:
                    return name
    return None


def _claim_leftovers(model: ir.Model) -> None:
    for node in reversed(list(model.graph)):
        source = provenance_of(node)
        if source is not None and source.layer:
            continue
        readers = [provenance_of(user) for value in node.outputs for user in value.consumers()]
        near = {s.layer: s for s in readers if s is not None}
        if len(near) == 1:
            (found,) = near.values()
            set_provenance(node, Provenance(found.layer, found.class_name))
