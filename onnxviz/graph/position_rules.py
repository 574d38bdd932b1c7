"""How each operator passes on what its inputs see of the model's input, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.graph.kinds import KINDS
from onnxviz.graph.position_maps import PositionMap, merge, resample
from onnxviz.graph.position_sights import (
    Rule,
    Sight,
    Sights,
    dims,
    forget,
    ints,
    kept,
    numbers,
    on_first,
    whole_numbers,
)
from onnxviz.graph.position_windows import pool_globally, resize, transposed_window, window

__all__ = ["rule_of"]


def _default(node: ir.Node, sights: Sights) -> list[Sight | None]:
    return [forget(node, sights)] * len(node.outputs)


def _elementwise(node: ir.Node, sights: Sights) -> list[Sight | None]:
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


def _moved(entry: PositionMap | None, start: int, step: int = 1) -> PositionMap | None:
    return None if entry is None else resample(entry, 1, step, lambda i: (start + step * i,))


def _pad(node: ir.Node, sight: Sight) -> Sight | None:
    pads = whole_numbers(node, "pads", 1) or ints(node, "paddings")
    axes = [int(axis) for axis in numbers(node, 3) or []] if len(node.inputs) > 3 and node.inputs[3] else None
    rank = len(sight.axes)
    axes = list(range(rank)) if axes is None else [axis % max(rank, 1) for axis in axes]
    if pads is None or len(pads) != 2 * len(axes):
        return None
    maps = list(sight.axes)
    for at, axis in enumerate(axes):
        maps[axis] = _moved(maps[axis], -pads[at])
    return kept(sight, maps)


def _slice(node: ir.Node, sight: Sight) -> Sight | None:
    starts = whole_numbers(node, "starts", 1)
    axes = whole_numbers(node, "axes", 3)
    steps = whole_numbers(node, "steps", 4)
    sizes = dims(node.inputs[0])
    if starts is None or sizes is None or (len(node.inputs) > 4 and steps is None):
        return None
    maps = list(sight.axes)
    for at, start in enumerate(starts):
        axis = axes[at] if axes is not None and at < len(axes) else at
        step = steps[at] if steps is not None and at < len(steps) else 1
        if not -len(sizes) <= axis < len(sizes):
            return None
        size = sizes[axis]
        if maps[axis] is None:
            continue
        known = start >= 0 or isinstance(size, int)
        begin = start if start >= 0 else max(start + size, 0) if isinstance(size, int) else 0
        maps[axis] = _moved(maps[axis], begin, step) if known and step > 0 else None
    return kept(sight, maps)


def _split(node: ir.Node, sights: Sights) -> list[Sight | None]:
    sight = sights[0]
    axis = (ints(node, "axis") or [0])[0]
    if sight is None or not -len(sight.axes) <= axis < len(sight.axes):
        return _default(node, sights)
    if sight.axes[axis] is None:
        return [sight] * len(node.outputs)
    found: list[Sight | None] = []
    start: int | None = 0
    for output in node.outputs:
        maps = list(sight.axes)
        maps[axis] = None if start is None else _moved(maps[axis], start)
        found.append(kept(sight, maps))
        sizes = dims(output)
        size = sizes[axis] if sizes is not None and len(sizes) == len(maps) else None
        start = start + size if start is not None and isinstance(size, int) else None
    return found


def _concat(node: ir.Node, sights: Sights) -> list[Sight | None]:
    axis = (ints(node, "axis") or [1])[0]
    ranks = {len(sight.axes) for sight in sights if sight is not None}
    if len(ranks) != 1 or not -min(ranks) <= axis < min(ranks):
        return _default(node, sights)
    axis %= ranks.pop()
    found: list[Sight | None] = []
    for sight in sights:  # along the axis that grows, positions no longer run in step
        maps = [] if sight is None else [None if at == axis else entry for at, entry in enumerate(sight.axes)]
        found.append(None if sight is None else kept(sight, maps))
    return _elementwise(node, found)


def _transpose(node: ir.Node, sight: Sight) -> Sight | None:
    rank = len(sight.axes)
    perm = ints(node, "perm") or list(range(rank))[::-1]
    return Sight(tuple(sight.axes[p] for p in perm), sight.lost) if sorted(perm) == list(range(rank)) else None


def _squeeze(node: ir.Node, sight: Sight) -> Sight | None:
    axes, sizes = whole_numbers(node, "axes", 1), dims(node.inputs[0])
    rank = len(sight.axes)
    if axes is None and sizes is not None:
        axes = [axis for axis, dim in enumerate(sizes) if dim == 1]
    gone = None if axes is None else {axis % max(rank, 1) for axis in axes}
    return None if gone is None else kept(sight, [entry for at, entry in enumerate(sight.axes) if at not in gone])


def _unsqueeze(node: ir.Node, sight: Sight) -> Sight | None:
    axes = whole_numbers(node, "axes", 1)
    if axes is None:
        return None
    rank = len(sight.axes) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(sight.axes)
    return Sight(tuple(None if at in new else next(rest, None) for at in range(rank)), sight.lost)


def _reduce(node: ir.Node, sight: Sight) -> Sight | None:
    single = node.op_type in ("ArgMax", "ArgMin")
    axes = ints(node, "axis") or [0] if single else whole_numbers(node, "axes", 1)
    rank = len(sight.axes)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return None
    gone = {axis % max(rank, 1) for axis in axes} if axes else set(range(rank))
    keep = (ints(node, "keepdims") or [1])[0] != 0
    return kept(sight, [None if at in gone else entry for at, entry in enumerate(sight.axes) if keep or at not in gone])


def _along_axis(node: ir.Node, sight: Sight) -> Sight | None:
    """Softmax and the like: everything along one axis."""
    axis = (ints(node, "axis") or [-1])[0]
    if not -len(sight.axes) <= axis < len(sight.axes):
        return None
    axis %= len(sight.axes)
    return kept(sight, [None if at == axis else entry for at, entry in enumerate(sight.axes)])


def _product(node: ir.Node, sights: Sights) -> list[Sight | None]:
    """Matrix products: rows of the first, columns of the second, all of what lies between."""
    left, right = (sights[0], sights[1]) if len(sights) > 1 else (sights[0], None)
    out = dims(node.outputs[0])
    if out is None or len(out) < 2 or any(s is not None and len(s.axes) < 2 for s in (left, right)):
        return _default(node, sights)
    lost: set[int] = set()
    axes: list[PositionMap | None] = [None] * len(out)
    for sight, taken, own in ((left, -1, -2), (right, -2, -1)):
        if sight is None:
            continue
        lost |= sight.lost
        entry = sight.axes[taken]
        lost |= {entry.axis} if entry is not None else set()
        axes[own] = sight.axes[own]
        for at in range(-3, -len(sight.axes) - 1, -1):
            entry, before = sight.axes[at], axes[at] if -at <= len(axes) else None
            joined = entry if before is None else before if entry is None else merge(before, entry)
            if joined is None and entry is not None:
                lost |= {entry.axis}
            if -at <= len(axes):
                axes[at] = joined
    return [Sight(tuple(axes), frozenset(lost))]


def _reshape(node: ir.Node, sight: Sight) -> Sight | None:
    """Axes that stay, that are split in two, or that are repeated into a longer one keep their maps."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None or len(before) != len(sight.axes):
        return None
    maps: list[PositionMap | None] = []
    i = 0
    while len(maps) < len(after) and i < len(before):
        old, new = before[i], after[len(maps)]
        if old == new and old is not None:
            maps.append(sight.axes[i])
            i += 1
            continue
        rest = after[len(maps) + 1] if len(maps) + 1 < len(after) else None
        entry = sight.axes[i]
        split = all(isinstance(d, int) for d in (old, new, rest)) and new * rest == old  # type: ignore[operator]
        if not split or not isinstance(rest, int):
            break
        maps += [_blocks(entry, rest), None]
        i += 1
    back: list[PositionMap | None] = []
    j = len(before)
    while (
        len(back) + len(maps) < len(after) and j > i and before[j - 1] == after[len(after) - 1 - len(back)] is not None
    ):
        j -= 1
        back.append(sight.axes[j])
    middle = len(after) - len(maps) - len(back)
    merged = _runs(before[i:j], sight.axes[i:j], after[len(maps) : len(maps) + middle])
    return kept(sight, [*maps, *merged, *back[::-1]])


def _blocks(entry: PositionMap | None, length: int) -> PositionMap | None:
    return None if entry is None else resample(entry, 1, length, lambda i: range(length * i, length * (i + 1)))


def _runs(
    before: Sequence[int | str | None], axes: Sequence[PositionMap | None], after: Sequence[int | str | None]
) -> list[PositionMap | None]:
    """Return the maps of axes that are products of two neighbours, as behind the transpose of a pixel shuffle."""
    pairs = list(zip(before[::2], before[1::2], strict=False))
    fits = len(before) == 2 * len(after) and all(
        isinstance(a, int) and isinstance(b, int) and a * b == c for (a, b), c in zip(pairs, after, strict=True)
    )
    if not fits:
        return [None] * len(after)
    found: list[PositionMap | None] = []
    for (_, length), entry, inner in zip(pairs, axes[::2], axes[1::2], strict=True):
        found.append(_repeated(entry, length) if inner is None and isinstance(length, int) else None)
    return found


def _repeated(entry: PositionMap | None, length: int) -> PositionMap | None:
    return None if entry is None else resample(entry, length, 1, lambda i: (i // length,))


def _blockwise(node: ir.Node, sight: Sight) -> Sight | None:
    size = (ints(node, "blocksize") or [0])[0]
    if size < 1:
        return None
    change = _repeated if node.op_type == "DepthToSpace" else _blocks
    return kept(sight, [change(entry, size) if at >= 2 else entry for at, entry in enumerate(sight.axes)])


_POOLS = ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool", "NhwcMaxPool", "MaxpoolWithMask")
_ALONG = ("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax", "CumSum", "CumProd")
_PRODUCTS = ("MatMul", "MatMulInteger", "FusedMatMul", "MatMulNBits", "Gemm")
_ALIKE = (
    KINDS["elementwise"] | KINDS["activation"] | KINDS["norm"] | KINDS["quantize"]
    | {"Identity", "Cast", "CastLike", "Dropout", "Expand", "Trilu"}
)  # fmt: skip
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ALIKE, _elementwise),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv"), on_first(window)),
    **dict.fromkeys(_POOLS, on_first(window)),
    **dict.fromkeys((op for op in KINDS["pool"] if "Global" in op), on_first(pool_globally)),
    **dict.fromkeys((op for op in KINDS["reduce"] if op.startswith(("Reduce", "Arg"))), on_first(_reduce)),
    **dict.fromkeys(_ALONG, on_first(_along_axis)),
    **dict.fromkeys(_PRODUCTS, _product),
    **dict.fromkeys(("Resize", "Upsample"), on_first(resize)),
    **dict.fromkeys(("Reshape", "Flatten"), on_first(_reshape)),
    **dict.fromkeys(("Concat", "QLinearConcat"), _concat),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), on_first(_blockwise)),
    "ConvTranspose": on_first(transposed_window),
    "Pad": on_first(_pad),
    "Slice": on_first(_slice),
    "Split": _split,
    "Transpose": on_first(_transpose),
    "Squeeze": on_first(_squeeze),
    "Unsqueeze": on_first(_unsqueeze),
    "Shape": lambda node, sights: [None] * len(node.outputs),
    "Size": lambda node, sights: [None] * len(node.outputs),
}


def rule_of(node: ir.Node) -> Rule:
    """Return the rule of an operator; of one that is not known, everything is seen."""
    return _RULES.get(node.op_type, _default)
