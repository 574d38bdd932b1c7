"""What a model tells of its tensors: which axis holds the channels, what steps and tokens stand for, what is seen."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.tokens import Tokens, token_layout
from onnxviz.errors import InputError
from onnxviz.graph.gates import without_gates
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.planes import plane_tensors
from onnxviz.graph.quantised import codes_to_numbers
from onnxviz.graph.receptive_field import ReceptiveField, receptive_fields
from onnxviz.graph.sequences import time_tensors
from onnxviz.graph.shapes import infer_shapes, open_dims
from onnxviz.graph.token_streams import TokenStream, token_stream
from onnxviz.runtime.record import Capture, TensorRecord

__all__ = ["Surroundings"]

_FUSED = {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"}
_PRODUCTS = {"MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul"}


class Surroundings:
    """What the graph around a tensor tells of it, worked out when it is first asked for.

    Attributes:
        model: The model, functions inlined, with the shapes of this run where they can be inferred.
        shapes: Shapes of the run: those captured, fed or inferred.
        batch: Samples that were fed.
    """

    def __init__(self, model: ir.Model, captured: Capture) -> None:
        flat = inline_functions(model)
        fed = {record.name: tuple(record.shape) for record in captured.inputs}
        dims = {dim: fed[name][axis] for dim, (name, axis) in open_dims(flat).items() if axis < len(fed.get(name, ()))}
        try:
            self.model = infer_shapes(flat, dims)
        except InputError:  # a size that the model states is not the one that ran
            self.model = infer_shapes(flat)
        values = [*self.model.graph.inputs, *(v for node in self.model.graph for v in node.outputs)]
        self._values = {str(value.name): value for value in values if value.name}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, value in self._values.items():
            sizes = () if value.shape is None else tuple(value.shape)
            if value.shape is not None and all(isinstance(size, int) for size in sizes):
                self.shapes[name] = tuple(size for size in sizes if isinstance(size, int))
        self.shapes |= fed | {name: record.shape for name, record in captured.items()}
        self.batch = next((record.shape[0] for record in captured.inputs if len(record.shape) > 1), 1)

    @cached_property
    def layouts(self) -> dict[str, str]:
        """Where the graph tells, ``"NCHW"`` or ``"NHWC"`` by tensor."""
        return tensor_layouts(self.model)

    @cached_property
    def planes(self) -> dict[str, str]:
        """Maps whose axis of channels was taken away, as ``"NHW"``: see :mod:`onnxviz.graph.planes`."""
        return plane_tensors(self.model, self.layouts)

    def letters(self, name: str) -> str | None:
        """Return the layout of a tensor as the graph tells it; None where nothing does."""
        return self.layouts.get(name) or self.planes.get(name)

    @cached_property
    def _times(self) -> frozenset[str]:
        return time_tensors(self.model)

    @cached_property
    def _ends(self) -> set[ir.Node]:
        """Nodes that bring in other tokens: products of attention weights and values, and fused attention."""
        ends = {node for node in self.model.graph if node.op_type in _FUSED}
        for node in self.model.graph:
            if node.op_type == "Softmax":
                ends |= {n for n in node.outputs[0].consumers() if n.op_type in _PRODUCTS}
        return ends

    def fields(self, source: str, *, gates: bool = True) -> dict[str, ReceptiveField]:
        """Return what each tensor sees of an input; empty where its axes are not known to be positions.

        Without ``gates`` what is seen through a factor of one number a channel does not count
        (:mod:`onnxviz.graph.gates`); empty where there is none.
        """
        model = self.model if gates else without_gates(self.model)
        try:
            return {} if model is None else receptive_fields(model, source)
        except InputError:
            return {}

    def in_numbers(self, record: TensorRecord) -> tuple[TensorRecord, str]:
        """Return a tensor of quantised codes as the numbers that they stand for, and what was done."""
        value = self._values.get(record.name)
        if value is None or record.kept is None or record.kept.dtype.kind not in "iu":
            return record, ""
        decode = codes_to_numbers(value)
        if decode is None:
            return record, f"codes ({record.dtype})" if record.kept.dtype.itemsize == 1 else ""
        return replace(record, kept=decode(record.kept).astype(np.float32)), "dequantised"

    def stream(self, name: str) -> TokenStream:
        """Return where the positions of a tensor come from."""
        value = self._values.get(name)
        if value is None:
            return TokenStream()
        found = token_stream(value, self._ends)
        return found if found.inputs or not self._ends else token_stream(value, ())

    def tokens(self, name: str) -> Tokens | None:
        """Return what the positions of a tensor of shape ``(N, T, C)`` stand for, where something tells."""
        shape = self.shapes.get(name, ())
        if len(shape) != 3 or self.letters(name) is not None or shape[0] != self.batch or shape[1] < 2:
            return None
        tokens = token_layout(self.stream(name), shape[1], self.shapes)
        return tokens if any(block.kind in ("image", "text") for block in tokens.blocks) else None

    def across(self, name: str, tokens: Tokens | None) -> str | None:
        """Return what the steps of a sequence are: ``"token"``, ``"time"``, or None where nothing tells."""
        if tokens is not None:
            return "token"
        return "time" if name in self._times and len(self.shapes.get(name, ())) == 3 else None
