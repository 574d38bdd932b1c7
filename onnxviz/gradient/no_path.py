"""Why no gradient leads from a target to a tensor."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.errors import GradientError
from onnxviz.gradient.build import Walk
from onnxviz.gradient.ops import label
from onnxviz.graph.extract import reads

__all__ = ["no_path"]


def no_path(target: str, end: ir.Value, name: str, value: ir.Value, walk: Walk) -> GradientError:
    """Return the error of a tensor to which no gradient leads: what cuts it, or that nothing depends on it.

    Args:
        target: What is differentiated, as it was given.
        end: The tensor where the walk began.
        name: Of the tensor that was asked for.
        value: That tensor.
        walk: The walk that has ended.
    """
    block = _blocks(walk, value, end)
    if walk.cuts:
        cuts = "; ".join(str(cut) for cut in walk.cuts[:3])
        more = f" and {len(walk.cuts) - 3} more" if len(walk.cuts) > 3 else ""
        return GradientError(
            f"no gradient leads from {target} to {name}: all paths are cut ({cuts}{more})",
            hint="ask for the gradient at a tensor behind the cut (--wrt)",
        )
    if block is not None:
        return GradientError(
            f"no gradient leads from {target} to {name}: all that leads there are nodes such as {block.op_type} at "
            f"{label(block)!r} ({walk.reason(block)})",
            hint="ask for the gradient at a tensor behind them (--wrt)",
        )
    return GradientError(
        f"no gradient leads from {target} to {name}: {target} does not depend on it",
        hint="name a tensor that it is computed from, or another target",
    )


def _blocks(walk: Walk, value: ir.Value, end: ir.Value) -> ir.Node | None:
    """Return the first node without a gradient on the ways from one tensor to another; None where there is no way."""
    behind, before = {value}, {end}
    nodes = [node for node in end.graph or () if isinstance(node, ir.Node)]
    for node in nodes:
        if any(one in behind for one in reads(node)):
            behind.update(node.outputs)
    for node in reversed(nodes):
        if any(one in before for one in node.outputs):
            before.update(reads(node))
    ways = (node for node in nodes if any(one in behind for one in reads(node)) and before & set(node.outputs))
    return next((node for node in ways if walk.table.reason(node) is not None), None)
