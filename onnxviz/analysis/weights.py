"""The learned tensors of a model, found by the operators that use them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.histogram import Histogram, histogram
from onnxviz.analysis.statistics import TensorStatistics, describe, is_numeric, to_float
from onnxviz.analysis.weight_roles import GENERIC, ROLES, Slot, orient, orientation
from onnxviz.analysis.weight_values import Source, apply_slot, codes_of, quantization_of, trace
from onnxviz.errors import ModelError
from onnxviz.graph.affine import integer_attribute
from onnxviz.graph.inline import inline_functions

__all__ = ["LayerWeights", "layer_weights", "weights_in_words"]

_MOST_SUMMARISED = 200_000_000  # learned elements of a model


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One learned tensor as one node uses it. Nothing is read from the file until an array or a number is asked for.

    Attributes:
        layer: The node's name; a node without one is called by its operator and position, such as ``"Conv_3"``.
            Nodes in the body of an If, Loop or Scan carry their owner's name in front.
        op_type: The node's operator.
        tensor: Name of the stored tensor; ``"name + 3 more"`` where several are joined.
        role: What it is to the node: ``"weight"``, ``"bias"``, ``"scale"``, ``"mean"``, ``"variance"``,
            ``"recurrence"``, ``"embedding"``, ``"slope"`` …
        position: Index among the node's inputs.
        shape: Shape as stored; where several stored tensors are joined (the gates of an LSTM), the shape of the whole.
        dtype: Type as stored.
        orientation: What the axes of :attr:`kernel` are, such as ``"(out, in)"``; empty where the role says it.
        quantization: How it is quantised, such as ``"int8, a scale per channel (64)"``; None where it is not.
        steps: Operators between the stored tensor and the node, in the order they run.
        as_codes: Whether :attr:`kernel` gives stored integers in place of what they stand for: see :meth:`codes`.
    """

    layer: str
    op_type: str
    tensor: str
    role: str
    position: int
    shape: tuple[int, ...]
    dtype: str
    orientation: str
    quantization: str | None
    steps: tuple[str, ...]
    _source: Source = field(repr=False)
    _slot: Slot = field(repr=False)
    _node: ir.Node = field(repr=False)
    as_codes: bool = False

    def codes(self) -> LayerWeights:
        """Return the same weight with the stored integers as its :attr:`kernel`; one that is not quantised as it is."""
        return replace(self, as_codes=True) if self.quantization else self

    @property
    def node(self) -> ir.Node:
        """The node that uses the tensor, in the model with functions inlined."""
        return self._node

    @property
    def form(self) -> str:
        """How it is stored, as :func:`onnxviz.analysis.weight_roles.orient` takes it; empty where it stays as it is."""
        return self._slot.form

    @property
    def bits(self) -> int:
        """Bits of a stored value; of packed codes (MatMulNBits) those of one code."""
        if self._slot.form == "nbits":
            return integer_attribute(self._node, "bits", 4)
        return round(8 * float(self._source.tensor.dtype.itemsize))

    @property
    def groups(self) -> int:
        """Number of groups of a convolution, which each read input channels of their own; 1 elsewhere."""
        if not self.orientation.endswith("*kernel)"):
            return 1
        return integer_attribute(self._node, "group", 1)

    @property
    def signed(self) -> bool:
        """Whether a picture of :attr:`kernel` has a scale symmetric about 0: all but unsigned codes."""
        return not (self.as_codes and "uint" in self._source.tensor.dtype.numpy().name)

    @property
    def parameters(self) -> int:
        """Number of elements as stored (packed 4-bit weights count a byte as one)."""
        return math.prod(self.shape)

    @property
    def raw(self) -> npt.NDArray[Any]:
        """The tensor as the file stores it, read anew at each access.

        Raises:
            ModelError: Its data is missing or damaged.
        """
        return self._read(self._source.stored)

    @property
    def kernel(self) -> npt.NDArray[np.float32]:
        """The values that the node computes with: dequantised, float32, turned output-first; made anew at each access.

        Conv and ConvTranspose: ``(out, in / groups, *kernel)``. Linear layers: ``(out, in)``. Recurrent layers:
        ``(directions, gates × units, in)``. Embeddings: ``(entries, features)``. Others: as stored.

        Raises:
            ModelError: The tensor's data is missing or damaged, or it does not fit its node.
        """
        return self._read(self._values)

    def _values(self) -> npt.NDArray[np.float32]:
        if self.as_codes:
            codes = codes_of(self._source.values(as_codes=True), self._slot, self._node)
            return to_float(orient(codes, self._slot.form, self._node))
        values = apply_slot(self._source.values(), self._slot, self._node)
        return to_float(orient(values, self._slot.form, self._node))

    def _read(self, load: Any) -> npt.NDArray[Any]:
        try:
            array: npt.NDArray[Any] = load()
        except (OSError, ValueError, TypeError, IndexError, ZeroDivisionError, MemoryError) as error:
            raise ModelError(f"the weights {self.tensor} of {self.layer} cannot be read: {error}") from error
        return array

    @cached_property
    def statistics(self) -> TensorStatistics:
        """Statistics of :attr:`kernel`, under the stored tensor's name, shape and type.

        Raises:
            ModelError: As :attr:`kernel`.
        """
        return describe(self.tensor, self.kernel, shape=self.shape, dtype=self.dtype)

    @cached_property
    def histogram(self) -> Histogram:
        """Histogram of :attr:`kernel`.

        Raises:
            ModelError: As :attr:`kernel`.
        """
        kernel = self.kernel
        return histogram(kernel, step=self._step(kernel))

    def _step(self, kernel: npt.NDArray[np.float32]) -> float | None:
        """Return the distance between two values of a tensor that is quantised with one scale."""
        if self.as_codes:
            return 1.0
        if self.quantization is None or not self.quantization.endswith("one scale") or not kernel.size:
            return None
        levels = int(self.raw.max()) - int(self.raw.min())
        return (float(kernel.max()) - float(kernel.min())) / levels if 0 < levels < 1 << 16 else None


def layer_weights(model: ir.Model) -> list[LayerWeights]:
    """Return every learned tensor that a node of the model uses, in the order of the nodes.

    A tensor is chosen by what its operator does with it (:data:`onnxviz.analysis.weight_roles.ROLES`), not by its rank;
    beyond that table, a floating-point constant of more than one element that is added, multiplied, concatenated,
    expanded or tiled counts too (biases apart from their MatMul, class tokens). Weights behind Cast, Transpose,
    Reshape, QuantizeLinear and DequantizeLinear are followed to where they are stored. A tensor that two nodes share is
    listed for both. Bodies of If, Loop and Scan and model-local functions are included. No weight is loaded.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 3] y)'
    ...     ' <float[2, 3] w = {1, 2, 3, 4, 5, 6}> {y = MatMul(x, w)}'
    ... )
    >>> weight = layer_weights(model)[0]
    >>> weight.layer, weight.role, weight.shape, weight.kernel.shape
    ('MatMul_0', 'weight', (2, 3), (3, 2))
    """
    found = []
    for layer, node in _nodes(inline_functions(model).graph, ""):
        for slot in _learned_slots(node):
            source = trace(node.inputs[slot.position])
            if source is not None and _is_learned(source, slot, node):
                found.append(_layer_weights(layer, node, slot, source))
    return found


def weights_in_words(model: ir.Model, layers: Sequence[LayerWeights] | None = None) -> dict[str, str]:
    """Return in words how the values of each learned tensor are spread, by its name.

    Tensors beyond 200 million elements in all are not read.

    Args:
        model: The model.
        layers: Its weights, where they were found already: what is known of them is not worked out again.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {0, 1, 2, 3}> {y = MatMul(x, w)}''')
    >>> weights_in_words(model)
    {'w': '0 … 3 · mean 1.5 · std 1.118 · 25 % zeros'}
    """
    found: dict[str, str] = {}
    seen = 0
    for layer in layer_weights(model) if layers is None else layers:
        seen += layer.parameters
        if seen > _MOST_SUMMARISED:
            found[layer.tensor] = "not summarised: the model is too large"
            continue
        try:
            row = layer.statistics
        except ModelError as error:
            found[layer.tensor] = str(error)
            continue
        if row.min is None or row.max is None:
            if row.size:
                found[layer.tensor] = "no finite values"
            continue
        parts = [f"{row.min:.4g} … {row.max:.4g}"]
        parts += [f"mean {row.mean:.4g}"] if row.mean is not None else []
        parts += [f"std {row.std:.4g}"] if row.std is not None else []
        parts += [f"{100 * row.zero / row.size:.3g} % zeros"] if row.zero else []
        found[layer.tensor] = " · ".join(parts)
    return found


def _layer_weights(layer: str, node: ir.Node, slot: Slot, source: Source) -> LayerWeights:
    try:
        shape = source.shape()
    except (ValueError, TypeError, IndexError) as error:
        raise ModelError(f"the weights {source.name} of {layer} do not fit together: {error}") from error
    return LayerWeights(
        layer=layer,
        op_type=node.op_type,
        tensor=source.name,
        role=slot.role,
        position=slot.position,
        shape=shape,
        dtype=str(source.tensor.dtype.numpy()),
        orientation=orientation(slot.form),
        quantization=quantization_of(source, slot, node),
        steps=tuple(step.op_type for step in source.steps),
        _source=source,
        _slot=slot,
        _node=node,
    )


def _nodes(graph: ir.Graph, prefix: str) -> Iterator[tuple[str, ir.Node]]:
    """Yield every node with its layer name, those of bodies after their owner."""
    for position, node in enumerate(graph):
        layer = prefix + (node.name or f"{node.op_type}_{position}")
        yield layer, node
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _nodes(attribute.as_graph(), f"{layer}/{attribute.name}/")
            elif attribute.type == ir.AttributeType.GRAPHS:
                for number, body in enumerate(attribute.as_graphs()):
                    yield from _nodes(body, f"{layer}/{attribute.name}_{number}/")


def _learned_slots(node: ir.Node) -> list[Slot]:
    if node.op_type == "Attention" and node.domain != "com.microsoft":
        return []
    role = GENERIC.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    constant = all(value is None or trace(value) is not None for value in node.inputs)
    if role is not None and constant and node.op_type not in ("Expand", "Tile"):
        return []  # arithmetic of constants: what uses its result is the layer
    slots = ROLES.get(node.op_type, ()) if role is None else [Slot(i, role) for i in range(len(node.inputs))]
    return [slot for slot in slots if slot.position < len(node.inputs)]


def _is_learned(source: Source, slot: Slot, node: ir.Node) -> bool:
    """Leave out text, shape arithmetic, and the scalars of elementwise formulas."""
    dtype = source.tensor.dtype
    if dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED) or not is_numeric(dtype.numpy()):
        return False
    if node.op_type not in GENERIC and node.op_type not in ("Gather", "MatMul", "Gemm", "Einsum"):
        return True
    if node.op_type == "Gather" and len(source.tensor.shape) < 2:
        return False  # a list that is looked up, not a table of vectors
    real = dtype.is_floating_point() or any(step.op_type == "DequantizeLinear" for step in source.steps)
    return real and (node.op_type not in GENERIC or source.tensor.size > 1)
