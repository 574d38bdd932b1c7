"""What a table of rules carries back, and what it needs beside the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.targets import TARGET

__all__ = ["Method", "imbalance", "picks_class"]


def picks_class(node: ir.Node) -> bool:
    """Whether a node is the ``argmax`` of a target: an index that is found once, and no path."""
    return node.op_type == "ArgMax" and str(node.name).startswith(f"{TARGET}.")


class Method:
    """What the rules of a table are rules of; this one is the true gradient.

    Attributes:
        name: What messages call it.
        gives: What it carries back to a tensor: ``gradient``, ``relevance`` or ``contribution``.
        conserves: Whether what arrives adds up to what entered, so that the difference is worth an output.
    """

    name = "gradient"
    gives = "gradient"
    conserves = False

    def begin(self, ops: Ops, nodes: Sequence[ir.Node], end: ir.Value, asked: Sequence[ir.Value]) -> Any:
        """Return what the rules look up of the model as a whole, before a backward node stands.

        Args:
            ops: Writes nodes.
            nodes: The forward nodes.
            end: The tensor where the walk begins.
            asked: The tensors where it ends.
        """
        return None

    def enter(self, ops: Ops, end: ir.Value) -> ir.Value:
        """Return what enters at a target that is an expression: 1 for each sample."""
        return ops.filled(ops.shape(end), 1.0, end)

    def finish(self, ops: Ops, plan: Any, value: ir.Value, carried: ir.Value) -> ir.Value:
        """Return what is told of a tensor, from what was carried back to it."""
        return carried

    def remarks(self, plan: Any) -> tuple[str, ...]:
        """Return what is to be told of the walk as a whole, once it is done."""
        return ()

    def baselines(self, plan: Any) -> dict[str, str]:
        """Return input -> the input that holds what it is compared with."""
        return {}


def imbalance(
    ops: Ops, entered: ir.Value, end: ir.Value, arrived: Sequence[tuple[ir.Value, ir.Value]]
) -> ir.Value:  # fmt: skip
    """Return what entered less what arrived, ``(N,)``; a scalar where the first axes are not known to be alike.

    Args:
        ops: Writes nodes.
        entered: Of the shape of ``end``.
        end: The tensor where the walk began.
        arrived: Tensors, and what arrived there.
    """
    heads = [_head(value) for value in (end, *(value for value, _ in arrived))]
    each = heads[0] is not None and all(head == heads[0] for head in heads)
    total = _summed(ops, entered, end, each)
    for value, carried in arrived:
        total = ops.Sub(total, _summed(ops, carried, value, each))
    left = ops.Identity(total)
    left.type, left.shape = end.type, ir.Shape(end.shape[:1] if each and end.shape is not None else [])
    return left


def _head(value: ir.Value) -> int | str | None:
    """Return the first size, or its name."""
    if value.shape is None or not len(value.shape):
        return None
    first = value.shape[0]
    return first.value if isinstance(first, ir.SymbolicDim) else first


def _summed(ops: Ops, value: ir.Value, like: ir.Value, each: bool) -> ir.Value:
    if not each:
        return ops.ReduceSum(value, keepdims=0)
    assert like.shape is not None
    return ops.sum(value, range(1, len(like.shape)))
