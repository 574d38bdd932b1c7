"""What a model needs so that one run of it serves every section of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxviz.analysis.paired import observable
from onnxviz.errors import ExecutionError, SelectionError
from onnxviz.graph.attention import AttentionGraph, find_attention
from onnxviz.graph.fused_attention import FUSED
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.select import node_tensors
from onnxviz.runtime.record import Capture

__all__ = ["Prepared", "prepare", "without_extras"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model that shows more than its own tensors when it is run.

    Attributes:
        model: The model to run: functions inlined, what enters it captured too, fused attention made to give its
            weights. Tensors of the original have their names.
        attention: The attention that was found; None where there is none.
        refused: Why attention that is there cannot be seen; empty where it can, or there is none.
        extras: Names of tensors that the original does not have.
    """

    model: ir.Model
    attention: AttentionGraph | None
    refused: str
    extras: frozenset[str]

    def run(self, original: ir.Model, run: Callable[[ir.Model], Capture]) -> Capture:
        """Run the prepared model, or the original where only that runs (a provider may refuse what was added)."""
        try:
            return run(self.model)
        except ExecutionError:
            return run(original)


def prepare(model: ir.Model) -> Prepared:
    """Prepare a model, which is not changed, for the run that the page shows.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y) {y = Relu(x)}'
    ... )
    >>> sorted(prepare(model).extras)
    ['x (input)']
    """
    flat = inline_functions(model)
    attention, refused = None, ""
    try:
        attention = find_attention(flat)
    except SelectionError as error:
        refused = str(error) if any(node.op_type in FUSED for node in flat.graph) else ""
    shown = observable(attention.model if attention is not None else flat, lambda node: True)
    own = {str(value.name) for value in node_tensors(flat)}
    extras = frozenset(str(value.name) for value in node_tensors(shown)) - own
    return Prepared(shown, attention, refused, extras)


def without_extras(captured: Capture, extras: frozenset[str]) -> Capture:
    """Return a run of a prepared model with the tensors of the original alone."""
    if not extras.intersection((*captured, *captured.not_captured)):
        return captured
    return replace(
        captured,
        records={name: record for name, record in captured.items() if name not in extras},
        not_captured={name: why for name, why in captured.not_captured.items() if name not in extras},
    )
