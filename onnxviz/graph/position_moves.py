"""How operators that move positions about pass on what their input sees: padding, slicing, reshaping, transposing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxviz.graph.position_facts import Facts, is_given
from onnxviz.graph.position_maps import PositionMap, bordered, resample
from onnxviz.graph.position_sights import Sight, axes_of, dims, ints, kept, text

__all__ = [
    "blockwise", "crop", "gather", "pad", "reshape", "slice_rule", "split_starts", "squeeze", "tile", "transpose",
    "unsqueeze",
]  # fmt: skip


def _moved(entry: PositionMap | None, start: int, step: int = 1) -> PositionMap | None:
    return None if entry is None else resample(entry, 1, step, lambda i: (start + step * i,))


def pad(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Return what a padded map sees; padding by zeros sees positions beyond the border, other padding those inside."""
    rank = len(sight.axes)
    pads = facts.whole(node, "pads" if "pads" in node.attributes else "paddings", 1)
    axes = axes_of(facts.whole(node, "axes", 3), rank) if is_given(node, "axes", 3) else list(range(rank))
    sizes = dims(node.inputs[0])
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    mode = text(node, "mode", "constant")
    maps = list(sight.axes)
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        entry, size = maps[axis], sizes[axis] if sizes is not None and len(sizes) == rank else None
        if entry is None or before == after == 0:
            continue
        known = before is not None and (mode == "constant" or after is not None)
        maps[axis] = _padded(entry, before or 0, after or 0, mode, size) if known else None
    return kept(sight, maps)


def _padded(entry: PositionMap, before: int, after: int, mode: str, size: int | str | None) -> PositionMap | None:
    """Return the map of a padded axis: its border positions are written out where padding repeats what is inside."""
    plain = _moved(entry, -before)
    if mode == "constant" or (before <= 0 and after <= 0):
        return plain
    inside = _INSIDE.get(mode)
    if inside is None:
        return None
    if not isinstance(size, int) or size < 1:
        return None if mode == "wrap" else plain
    # What negative padding cuts off is cut off first: the border that is repeated lies within.
    cut, left = max(-before, 0), size + min(before, 0) + min(after, 0)
    if left < 1:
        return None
    found = bordered(entry, 1, 1, lambda i: (cut + inside(i - max(before, 0), left),), size + before + after)
    return found or (None if mode == "wrap" else plain)


def _mirrored(at: int, size: int) -> int:
    at %= max(2 * size - 2, 1)
    return min(at, 2 * size - 2 - at) if size > 1 else 0


_INSIDE: dict[str, Callable[[int, int], int]] = {
    "reflect": _mirrored,
    "edge": lambda at, size: min(max(at, 0), size - 1),
    "wrap": lambda at, size: at % size,
}


def slice_rule(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Return what a slice sees; steps backwards see everything."""
    rank = len(sight.axes)
    starts, sizes = facts.whole(node, "starts", 1), dims(node.inputs[0]) or [None] * rank
    if starts is None:
        count = dims(node.inputs[1]) if len(node.inputs) > 1 else None
        starts = [None] * (count[0] if count and isinstance(count[0], int) else rank)
    axes = axes_of(facts.whole(node, "axes", 3), rank) if is_given(node, "axes", 3) else list(range(rank))
    steps = facts.whole(node, "steps", 4) if is_given(node, "steps", 4) else [1] * len(starts)
    if axes is None or len(axes) < len(starts) or len(sizes) != rank:
        return None
    maps = list(sight.axes)
    for at, start in enumerate(starts):
        axis, step = axes[at], steps[at] if steps is not None and at < len(steps) else None
        size = sizes[axis]
        if start is not None and start < 0:
            start = max(start + size, 0) if isinstance(size, int) else None
        known = start is not None and step is not None and step > 0
        maps[axis] = _moved(maps[axis], start or 0, step or 1) if known else None
    return kept(sight, maps)


def crop(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
    """Return what a cropped map sees: an operator of the first opsets, ``border`` is left, top, right and bottom."""
    border = ints(node, "border")
    if border is None or len(border) != 4 or len(sight.axes) != 4:
        return None
    return kept(sight, [*sight.axes[:2], _moved(sight.axes[2], border[1]), _moved(sight.axes[3], border[0])])


def split_starts(node: ir.Node, sight: Sight) -> list[Sight] | None:
    """Return what each part of a split sees."""
    axes = axes_of(ints(node, "axis") or [0], len(sight.axes))
    if axes is None or len(axes) != 1:
        return None
    (axis,) = axes
    if sight.axes[axis] is None:
        return [sight] * len(node.outputs)
    found: list[Sight] = []
    start: int | None = 0
    for output in node.outputs:
        maps = list(sight.axes)
        maps[axis] = None if start is None else _moved(maps[axis], start)
        found.append(kept(sight, maps))
        sizes = dims(output)
        size = sizes[axis] if sizes is not None and len(sizes) == len(maps) else None
        start = start + size if start is not None and isinstance(size, int) else None
    return found


def tile(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Return what a repeated map sees: along axes that are repeated, everything."""
    repeats = facts.whole(node, "repeats", 1)
    if repeats is None or len(repeats) != len(sight.axes):
        return None
    return kept(sight, [entry if count == 1 else None for entry, count in zip(sight.axes, repeats, strict=True)])


def gather(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
    """Return what chosen entries of an axis see: positions that are chosen may be any, other axes stay."""
    axes = axes_of(ints(node, "axis") or [0], len(sight.axes))
    chosen = dims(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or len(axes) != 1 or chosen is None:
        return None
    return kept(sight, [*sight.axes[: axes[0]], *([None] * len(chosen)), *sight.axes[axes[0] + 1 :]])


def transpose(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
    """Return what a map sees whose axes are in another order."""
    rank = len(sight.axes)
    perm = ints(node, "perm") or list(range(rank))[::-1]
    return Sight(tuple(sight.axes[p] for p in perm), sight.lost) if sorted(perm) == list(range(rank)) else None


def squeeze(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Return what a map sees without some axes of one entry."""
    rank, sizes = len(sight.axes), dims(node.inputs[0])
    if is_given(node, "axes", 1):
        axes = axes_of(facts.whole(node, "axes", 1), rank)
    else:
        known = sizes is not None and all(isinstance(dim, int) for dim in sizes)
        axes = [axis for axis, dim in enumerate(sizes or []) if dim == 1] if known else None
    return None if axes is None else kept(sight, [entry for at, entry in enumerate(sight.axes) if at not in axes])


def unsqueeze(node: ir.Node, sight: Sight, facts: Facts) -> Sight | None:
    """Return what a map sees with more axes of one entry."""
    listed = facts.whole(node, "axes", 1)
    new = axes_of(listed, len(sight.axes) + len(listed or []))
    if new is None:
        return None
    rest = iter(sight.axes)
    return Sight(tuple(None if at in new else next(rest, None) for at in range(len(sight.axes) + len(new))), sight.lost)


def reshape(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
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
        if old == 1 and sight.axes[i] is None:  # an axis of one entry orders nothing, wherever it stands
            i += 1
            continue
        if new == 1:
            maps.append(None)
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


def blockwise(node: ir.Node, sight: Sight, _: Facts) -> Sight | None:
    """Return what a map sees whose blocks of positions become channels, or the other way round."""
    size = (ints(node, "blocksize") or [0])[0]
    if size < 1:
        return None
    change = _repeated if node.op_type == "DepthToSpace" else _blocks
    return kept(sight, [change(entry, size) if at >= 2 else entry for at, entry in enumerate(sight.axes)])
