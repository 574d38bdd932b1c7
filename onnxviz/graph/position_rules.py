"""How each operator passes on what its inputs see of the model's input, axis by axis."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.kinds import KINDS
from onnxviz.graph.position_facts import Facts, is_given
from onnxviz.graph.position_maps import PositionMap, merge
from onnxviz.graph.position_moves import (
    blockwise,
    crop,
    gather,
    pad,
    reshape,
    slice_rule,
    split_starts,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from onnxviz.graph.position_resizing import resize
from onnxviz.graph.position_sights import Rule, Sight, Sights, axes_of, dims, forget, ints, kept, on_first
from onnxviz.graph.position_windows import pool_globally, transposed_window, window

__all__ = ["rule_of"]


def _default(node: ir.Node, sights: Sights, _: Facts) -> list[Sight | None]:
    return [forget(node, sights)] * len(node.outputs)


def _elementwise(node: ir.Node, sights: Sights, _: Facts) -> list[Sight | None]:
    """Merge the inputs along the axes that broadcasting aligns."""
    seen = [(value, sight) for value, sight in zip(node.inputs, sights, strict=True) if sight is not None]
    rank = max(len(sight.axes) for _, sight in seen)
    ranks = [len(known) for value in (*node.inputs, *node.outputs[:1]) if (known := dims(value)) is not None]
    rank = max([rank, *ranks])
    out = (dims(node.outputs[0]) or []) if node.outputs else []
    axes: list[PositionMap | None] = [None] * rank
    lost = frozenset[int]().union(*(sight.lost for _, sight in seen))
    for value, sight in seen:
        sizes = dims(value) or [None] * len(sight.axes)
        for at, entry in enumerate(sight.axes, rank - len(sight.axes)):
            if entry is None:
                continue
            stretched = sizes[at - rank] == 1 and len(out) == rank and out[at] != 1
            before = axes[at]
            joined = None if stretched else entry if before is None else merge(before, entry)
            axes[at] = joined
            if joined is None:
                lost |= {entry.axis} | ({before.axis} if before is not None else set())
    return [Sight(tuple(axes), lost)] * len(node.outputs)


def _normalised(node: ir.Node, sights: Sights, facts: Facts) -> list[Sight | None]:
    """Count the normalised map as elementwise; the statistics that may be returned with it see everything."""
    found = _elementwise(node, sights, facts)
    return [*found[:1], *([forget(node, sights)] * (len(node.outputs) - 1))]


def _quantized(node: ir.Node, sights: Sights, facts: Facts) -> list[Sight | None]:
    """Leave out the scale and the zero point, which are statistics of the whole map."""
    return [*_elementwise(node, sights, facts)[:1], *([None] * (len(node.outputs) - 1))]


def _split(node: ir.Node, sights: Sights, facts: Facts) -> list[Sight | None]:
    found = None if sights[0] is None else split_starts(node, sights[0])
    return list(found) if found is not None else _default(node, sights, facts)


def _concat(node: ir.Node, sights: Sights, facts: Facts) -> list[Sight | None]:
    axis = (ints(node, "axis") or [1])[0]
    ranks = {len(sight.axes) for sight in sights if sight is not None}
    if len(ranks) != 1 or not -min(ranks) <= axis < min(ranks):
        return _default(node, sights, facts)
    axis %= ranks.pop()
    found: list[Sight | None] = []
    for sight in sights:  # along the axis that grows, positions no longer run in step
        maps = [] if sight is None else [None if at == axis else entry for at, entry in enumerate(sight.axes)]
        found.append(None if sight is None else kept(sight, maps))
    return _elementwise(node, found, facts)


def _reduce(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    rank = len(sight.axes)
    if node.op_type in ("ArgMax", "ArgMin"):
        axes = axes_of(ints(node, "axis") or [0], rank)
    else:
        axes = axes_of(facts.whole(node, "axes", 1) if is_given(node, "axes", 1) else [], rank)
    if axes is None:
        return None
    gone = set(axes) or set(range(rank))
    keep = (ints(node, "keepdims") or [1])[0] != 0
    return kept(sight, [None if at in gone else entry for at, entry in enumerate(sight.axes) if keep or at not in gone])


def _along_axis(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Softmax and the like: everything along one axis; before opset 13 Softmax took all axes from one on together."""
    rank = len(sight.axes)
    opset = (ints(node, "opset") or [facts.opset])[0]
    flat = node.op_type in _FLATTENING and opset < 13
    axes = axes_of(ints(node, "axis") or [1 if flat else -1], rank)
    if axes is None or len(axes) != 1:
        return None
    gone = range(axes[0], rank) if flat else axes
    return kept(sight, [None if at in gone else entry for at, entry in enumerate(sight.axes)])


def _summed(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Running sums: everything along the axis that an input names."""
    axes = axes_of(facts.whole(node, "axis", 1), len(sight.axes))
    return None if axes is None else kept(sight, [None if a in axes else entry for a, entry in enumerate(sight.axes)])


def _product(node: ir.Node, sights: Sights, facts: Facts) -> list[Sight | None]:
    """Matrix products: rows of the first, columns of the second, all of what lies between."""
    left, right, *others = (*sights, None)[: max(len(sights), 2)]
    rank = _product_rank(node)
    batches = any((ints(node, name) or [0])[0] for name in ("transBatchA", "transBatchB"))
    ranks = [len(sight.axes) for sight in (left, right) if sight is not None]
    added = others if node.op_type == "Gemm" else [None] * len(others)
    if batches or others != added or any(not 2 <= one <= rank for one in ranks):
        return _default(node, sights, facts)
    parts: list[Sight | None] = []
    for sight, taken, own, flip in ((left, -1, -2, "transA"), (right, -2, -1, "transB")):
        if sight is None:
            parts.append(None)
            continue
        # What is summed over becomes an axis of 1, the other one lies where the product has it.
        from_axis, summed = (taken, own) if (ints(node, flip) or [0])[0] else (own, taken)
        lost = {entry.axis for entry in [sight.axes[summed]] if entry is not None}
        last: list[PositionMap | None] = [None, None]
        last[own] = sight.axes[from_axis]
        parts.append(Sight((*sight.axes[:-2], *last), sight.lost | lost))
    return _elementwise(node, [*parts, *added][: len(sights)], facts)


def _product_rank(node: ir.Node) -> int:
    """Return how many axes a product has; 0 where that is unknown."""
    out = dims(node.outputs[0])
    if out is not None:
        return len(out)
    ranks = [len(dims(value) or []) for value in node.inputs[:2]]
    return max(ranks) if min(ranks, default=0) > 1 else 0


_POOLS = ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool", "NhwcMaxPool", "MaxpoolWithMask")
_FLATTENING = ("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax")
_PRODUCTS = ("MatMul", "MatMulInteger", "FusedMatMul", "MatMulNBits", "Gemm")
_ALIKE = (
    KINDS["elementwise"] | KINDS["activation"] | KINDS["quantize"]
    | {"Identity", "Cast", "CastLike", "Dropout", "Expand", "Trilu", "ImageScaler"}
) - {"BiasSplitGelu"}  # fmt: skip
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ALIKE, _elementwise),
    **dict.fromkeys(KINDS["norm"] - {"EmbedLayerNormalization"}, _normalised),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv"), on_first(window)),
    **dict.fromkeys(_POOLS, on_first(window)),
    **dict.fromkeys((op for op in KINDS["pool"] if "Global" in op), on_first(pool_globally)),
    **dict.fromkeys((op for op in KINDS["reduce"] if op.startswith(("Reduce", "Arg"))), on_first(_reduce)),
    **dict.fromkeys((*_FLATTENING, "LpNormalization"), on_first(_along_axis)),
    **dict.fromkeys(("CumSum", "CumProd"), on_first(_summed)),
    **dict.fromkeys(_PRODUCTS, _product),
    **dict.fromkeys(("Resize", "Upsample"), on_first(resize)),
    **dict.fromkeys(("Reshape", "Flatten"), on_first(reshape)),
    **dict.fromkeys(("Concat", "QLinearConcat"), _concat),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), on_first(blockwise)),
    "ConvTranspose": on_first(transposed_window),
    "Crop": on_first(crop),
    "DynamicQuantizeLinear": _quantized,
    "Gather": on_first(gather),
    "Pad": on_first(pad),
    "Slice": on_first(slice_rule),
    "Split": _split,
    "Tile": on_first(tile),
    "Transpose": on_first(transpose),
    "Squeeze": on_first(squeeze),
    "Unsqueeze": on_first(unsqueeze),
    "Shape": lambda node, sights, facts: [None] * len(node.outputs),
    "Size": lambda node, sights, facts: [None] * len(node.outputs),
}


def rule_of(node: ir.Node, facts: Facts) -> Rule:
    """Return the rule of an operator; of one that is not known, or is a function of the model, everything is seen."""
    return _RULES.get(node.op_type, _default) if facts.is_standard(node) else _default
