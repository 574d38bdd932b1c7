"""What an exporter made of a BatchNorm becomes one BatchNormalization again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.affine import affine_chain, affine_step, constant_array
from onnxviz.graph.provenance import provenance_of, set_provenance
from onnxviz.graph.tidy import add_initializer, drop_unread

__all__ = ["BatchNorm", "gather_batchnorms"]

Floats = npt.NDArray[np.float64]
_NEAR = 1e-4  # relative: the exporter rounded scale and shift to float32


@dataclass(frozen=True)
class BatchNorm:
    """The parameters of a BatchNorm layer, a value a channel each.

    Attributes:
        gamma: Scale.
        beta: Shift.
        mean: Moving mean.
        variance: Moving variance.
        epsilon: What is added to the variance.
    """

    gamma: Floats
    beta: Floats
    mean: Floats
    variance: Floats
    epsilon: float

    @property
    def affine(self) -> tuple[Floats, Floats]:
        """Scale and shift for inference (Ioffe and Szegedy 2015, algorithm 2, step 11)."""
        scale = self.gamma / np.sqrt(self.variance + self.epsilon)
        return scale, self.beta - self.mean * scale


def gather_batchnorms(model: ir.Model, layers: Mapping[str, BatchNorm]) -> int:
    """Replace the Sub, Mul, Add that one BatchNorm layer was exported as by a BatchNormalization, in place.

    A chain is replaced where all its nodes are of one layer of ``layers``, the channels are axis 1, and together they
    compute what the layer's parameters say.

    Args:
        model: The model, with provenance on its nodes.
        layers: The parameters by path of the layer.

    Returns:
        How many BatchNormalization nodes were made.

    >>> from onnxviz.graph.provenance import Provenance
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2, 3] x) => (float[1, 2, 3] y) <float[2, 1] m = {1, 2}, float k = {3}> {
    ...     s = Sub(x, m) y = Mul(s, k) }''')
    >>> for node in model.graph:
    ...     set_provenance(node, Provenance("bn"))
    >>> norm = BatchNorm(np.full(2, 3.0), np.zeros(2), np.array([1.0, 2.0]), np.ones(2), 0.0)
    >>> gather_batchnorms(model, {"bn": norm}), [node.op_type for node in model.graph]
    (1, ['BatchNormalization'])
    """
    made = 0
    for node in list(model.graph):
        source = provenance_of(node)
        if node.graph is model.graph and source is not None and source.layer in layers:
            made += _gather(model.graph, node, source.layer, layers[source.layer])
    return made


def _gather(graph: ir.Graph, node: ir.Node, layer: str, norm: BatchNorm) -> int:
    index = next((i for i, v in enumerate(node.inputs) if v is not None and constant_array(node, i) is None), None)
    data = node.inputs[index] if index is not None else None
    rank = _rank(data)
    if node.op_type == "BatchNormalization" or index is None or data is None or rank is None or rank < 2:
        return 0

    def same_layer(other: ir.Node) -> bool:
        source = provenance_of(other)
        return source is not None and source.layer == layer and not source.folded

    channels = norm.gamma.size
    first = affine_step(node, index, channels, rank, 1)
    if first is None or not same_layer(node):
        return 0
    nodes: tuple[ir.Node, ...] = (node,)
    scale, shift = first
    rest = affine_chain(node.outputs[0], channels, rank, 1, same_layer)
    if rest is not None:
        nodes, scale, shift = (node, *rest.nodes), scale * rest.scale, shift * rest.scale + rest.shift
    for found, wanted in zip((scale, shift), norm.affine, strict=True):
        if not np.allclose(found, wanted, rtol=0, atol=_NEAR * float(np.abs(wanted).max(initial=0.0))):
            return 0
    _replace(graph, nodes, data, norm)
    return 1


def _rank(value: ir.Value | None) -> int | None:
    if value is None:
        return None
    if value.shape is not None:
        return len(value.shape)
    producer = value.producer()
    weight = constant_array(producer, 1) if producer is not None and producer.op_type.startswith("Conv") else None
    return None if weight is None else weight.ndim


def _replace(graph: ir.Graph, nodes: tuple[ir.Node, ...], data: ir.Value, norm: BatchNorm) -> None:
    old = nodes[-1].outputs[0]
    dtype = next(a.dtype for a in (constant_array(nodes[0], i) for i in (0, 1)) if a is not None)
    roles = {"gamma": norm.gamma, "beta": norm.beta, "mean": norm.mean, "variance": norm.variance}
    operands = [add_initializer(graph, array.astype(dtype), f"{nodes[0].name}/{role}") for role, array in roles.items()]
    new = ir.node("BatchNormalization", [data, *operands], {"epsilon": float(norm.epsilon)}, name=nodes[0].name)
    source = provenance_of(nodes[0])
    if source is not None:
        set_provenance(new, source)
    graph.insert_before(nodes[0], new)
    fresh, name = new.outputs[0], old.name
    fresh.type, fresh.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, fresh, replace_graph_outputs=True)
    drop_unread(graph, old)
    fresh.name = name
