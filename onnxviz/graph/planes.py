"""Which tensors are maps whose channel axis was taken away, such as class maps and depth maps."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.kinds import KINDS

__all__ = ["plane_tensors"]

_SAME = KINDS["activation"] | KINDS["elementwise"] | KINDS["quantize"] | {"Identity", "Cast", "Dropout"}
_REDUCED = frozenset({"ArgMax", "ArgMin", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2",
                      "ReduceLogSumExp", "ReduceSumSquare", "ReduceProd", "ReduceLogSum"})  # fmt: skip


def plane_tensors(model: ir.Model, layouts: Mapping[str, str]) -> dict[str, str]:
    """Return the tensors that are maps without an axis of channels, and a letter for each of their axes.

    ArgMax and other reductions, Squeeze, Gather of one index and Reshape may take the axis of channels from a map;
    what works element by element carries on what is left.

    Args:
        model: A model with inferred shapes; it is not changed.
        layouts: What :func:`onnxviz.graph.layouts.tensor_layouts` returned for it.

    >>> from onnxviz.graph.layouts import tensor_layouts
    >>> from onnxviz.graph.shapes import infer_shapes
    >>> model = infer_shapes(ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 3, 8, 9] x) => (int64[1, 6, 7] y) <float[4, 3, 3, 3] w>
    ...   {c = Conv(x, w) y = ArgMax<axis = 1, keepdims = 0>(c)}'''))
    >>> plane_tensors(model, tensor_layouts(model))
    {'y': 'NHW'}
    """
    found: dict[str, str] = {}
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        value = node.outputs[0] if node.outputs else None
        if source is None or value is None or not value.name or value.name in layouts:
            continue
        layout = layouts.get(str(source.name))
        rank = None if source.shape is None else source.shape.rank()
        letters: str | None = None
        if layout is not None and rank in (4, 5) and value.shape is not None and value.shape.rank() == rank - 1:
            if _taken(node, source, value, rank) == (1 if layout == "NCHW" else rank - 1):
                letters = "N" + "DHW"[5 - rank :]
        elif node.op_type in _SAME:
            known = [v for v in node.inputs if v is not None and str(v.name) in found]
            if known and value.shape is not None and known[0].shape is not None:
                same = value.shape.rank() == known[0].shape.rank()
                letters = found[str(known[0].name)] if same else None
        if letters is not None:
            found[str(value.name)] = letters
    return found


def _taken(node: ir.Node, source: ir.Value, value: ir.Value, rank: int) -> int | None:
    """Return the one axis that a node takes away; None where it takes none, or something else."""
    if node.op_type == "Reshape" and source.shape is not None and value.shape is not None:
        sizes, left = list(source.shape), list(value.shape)
        ones = [axis for axis, size in enumerate(sizes) if size == 1 and [*sizes[:axis], *sizes[axis + 1 :]] == left]
        return 1 if 1 in ones else ones[-1] if ones else None
    if node.op_type in ("ArgMax", "ArgMin", "Gather"):
        return node.attributes.get_int("axis", 0) % rank
    if node.op_type == "Squeeze" or node.op_type in _REDUCED:
        axes = list(node.attributes.get_ints("axes", ()))
        told = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = axes if told is None else told.numpy().reshape(-1).tolist()
        if len(axes) == 1:
            return int(axes[0]) % rank
        if not axes and node.op_type == "Squeeze" and source.shape is not None:
            ones = [axis for axis, size in enumerate(source.shape) if size == 1]
            return ones[0] if len(ones) == 1 else None
    return None
