"""Operators that are attention as a whole, made to give their weights."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.errors import printable
from onnxviz.graph.fused_weights import OLDEST, FusedSite, KeepsWeightsError, WeightsBuilder, same_type
from onnxviz.graph.node_attributes import int_attribute, node_label
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.tidy import fresh_name

__all__ = ["FUSED", "FusedSite", "RefusedAttention", "expand_fused"]

#: Operators that hold a whole attention.
FUSED = {"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention", "PackedAttention",
         "PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention",
         "DecoderAttention", "LongformerAttention", "SparseAttention", "PagedAttention",
         "QOrderedAttention", "QOrderedLongformerAttention", "RelativePositionAttention"}  # fmt: skip
_MODE = "qk_matmul_output_mode"
_AFTER_SOFTMAX = 3
_EXPANDED = ("Attention", "MultiHeadAttention", "QAttention")


@dataclass(frozen=True)
class RefusedAttention:
    """A fused operator whose weights cannot be had.

    Attributes:
        node: The operator.
        reason: Why.
    """

    node: ir.Node
    reason: str

    @property
    def line(self) -> str:
        """The operator by type and name, and why."""
        domain = f"{self.node.domain}." if self.node.domain not in ("", "ai.onnx") else ""
        what = f"{domain}{self.node.op_type} {printable(node_label(self.node), 80)!r}"
        return f"{what} keeps its weights: {self.reason}"


def expand_fused(model: ir.Model) -> tuple[list[FusedSite], list[RefusedAttention]]:
    """Make the fused attention of a model's main graph give its weights, in place.

    ONNX ``Attention`` gets its fourth output, with ``qk_matmul_output_mode = 3``: the weights after the softmax.
    com.microsoft ``Attention``, ``MultiHeadAttention`` and ``QAttention`` get nodes before them that compute
    softmax(scale · Q Kᵀ + mask); the operator itself stays as it is.

    Returns:
        What can be had, and the operators that cannot.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 23]>
    ...   g (float[1, 2, 5, 4] q) => (float[1, 2, 5, 4] y) { y = Attention(q, q, q) }''')
    >>> expand_fused(model)[0][0].weights.name
    'y.weights'
    """
    found, refused = [], []
    taken = {str(v.name) for node in model.graph.all_nodes() for v in (*node.inputs, *node.outputs) if v is not None}
    fused = [node for node in model.graph if node.op_type in FUSED]
    shapes = _shapes(model, fused)
    for node in fused:
        before, constants = set(model.graph), set(model.graph.initializers)
        try:
            found.append(_expand(model, node, taken, shapes))
        except KeepsWeightsError as why:
            model.graph.remove(set(model.graph) - before, safe=True)
            for name in set(model.graph.initializers) - constants:
                del model.graph.initializers[name]
            refused.append(RefusedAttention(node, str(why)))
    return found, refused


def _shapes(model: ir.Model, fused: list[ir.Node]) -> dict[str, ir.Shape]:
    """Return the inferred shapes of what fused operators read, where the file does not tell them all."""
    read = [v for node in fused if node.domain == "com.microsoft" for v in node.inputs if v is not None and v.name]
    if all(value.shape is not None for value in read):
        return {}
    names = {str(value.name) for value in read}
    inferred = infer_shapes(model).graph
    values = [*inferred.inputs, *inferred.initializers.values(), *(v for node in inferred for v in node.outputs)]
    return {str(v.name): v.shape for v in values if v.name in names and v.shape is not None}


def _expand(model: ir.Model, node: ir.Node, taken: set[str], shapes: dict[str, ir.Shape]) -> FusedSite:
    if node.domain in ("", "ai.onnx") and node.op_type == "Attention":
        return _fourth_output(node, taken)
    if node.domain != "com.microsoft" or node.op_type not in _EXPANDED:
        raise KeepsWeightsError("the operator does not return them")
    if model.opset_imports.get("", 17) < OLDEST:
        raise KeepsWeightsError(f"only models of opset {OLDEST} and above are expanded")
    build = WeightsBuilder(model, node, taken, shapes)
    if node.op_type == "QAttention":
        return build.quantised()
    return build.attention() if node.op_type == "Attention" else build.multi_head()


def _fourth_output(node: ir.Node, taken: set[str]) -> FusedSite:
    query, key = (node.inputs[i] if i < len(node.inputs) else None for i in (0, 1))
    if query is None or key is None:
        raise KeepsWeightsError("it lacks an input")
    mode = int_attribute(node, _MODE, 0)
    used = len(node.outputs) > 3 and bool(node.outputs[3].name)
    if used and mode != _AFTER_SOFTMAX:
        raise KeepsWeightsError(f"its fourth output is in use with {_MODE} = {mode}")
    if not used:
        present = len(node.outputs)
        node.resize_outputs(4)
        for place in range(present, 3):
            node.outputs[place].name = ""
        node.outputs[3].name = fresh_name(f"{node.outputs[0].name}.weights", taken)
        same_type(node.outputs[3], query)
        node.attributes[_MODE] = ir.AttrInt64(_MODE, _AFTER_SOFTMAX)
    return FusedSite(node, node.outputs[3], query, key, node)
