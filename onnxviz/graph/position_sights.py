"""What a tensor sees of the model's input, and how to read the nodes that decide it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.position_facts import Facts
from onnxviz.graph.position_maps import PositionMap
from onnxviz.graph.shapes import shape_list

__all__ = ["Rule", "Sight", "Sights", "axes_of", "dims", "forget", "ints", "kept", "on_first", "text"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What a tensor sees.

    Attributes:
        axes: The map of each of its axes; None for batch, channels and the like.
        lost: Axes of the input that are seen from end to end.
    """

    axes: tuple[PositionMap | None, ...]
    lost: frozenset[int] = frozenset()


Sights = Sequence[Sight | None]
Rule = Callable[[ir.Node, Sights, Facts], list[Sight | None]]


def dims(value: ir.Value | None) -> list[int | str | None] | None:
    """Return a shape; None where it is unknown."""
    return None if value is None else shape_list(value)


def ints(node: ir.Node, name: str) -> list[int] | None:
    """Return an attribute of whole numbers; None where the node has none."""
    found = node.attributes.get(name)
    if found is None or found.is_ref():
        return None
    value = [found.value] if isinstance(found.value, int) else found.value
    fits = isinstance(value, (list, tuple)) and all(isinstance(v, int) and abs(v) < 2**31 for v in value)
    return list(value) if fits else None


def text(node: ir.Node, name: str, default: str) -> str:
    """Return an attribute that is a string."""
    found = node.attributes.get(name)
    return found.value if found is not None and isinstance(found.value, str) else default


def axes_of(listed: Sequence[int | None] | None, rank: int) -> list[int] | None:
    """Return axes counted from the first one; None where one is open or out of range."""
    if listed is None or not all(axis is not None and -rank <= axis < rank for axis in listed):
        return None
    return [axis % rank for axis in listed if axis is not None]


def forget(node: ir.Node, sights: Sights) -> Sight:
    """Return the sight of an output that may depend on everything that the inputs see any part of."""
    lost: set[int] = set()
    for sight in sights:
        if sight is not None:
            lost |= sight.lost | {entry.axis for entry in sight.axes if entry is not None}
    rank = len(dims(node.outputs[0]) or []) if node.outputs else 0
    return Sight((None,) * rank, frozenset(lost))


def kept(sight: Sight, axes: Sequence[PositionMap | None]) -> Sight:
    """Return a sight with other maps; what those that went saw is seen from end to end.

    An attention score lies along the same axis of the input twice: one of the two is enough to lose it.
    """
    before = Counter(entry.axis for entry in sight.axes if entry is not None)
    after = Counter(entry.axis for entry in axes if entry is not None)
    return Sight(tuple(axes), sight.lost | set(before - after))


def on_first(change: Callable[[ir.Node, Sight, Facts], Sight | None]) -> Rule:
    """Make a rule of one that looks at the first input alone; where it fails, everything is seen."""

    def rule(node: ir.Node, sights: Sights, facts: Facts) -> list[Sight | None]:
        sight = sights[0]
        found = change(node, sight, facts) if sight is not None and all(s is None for s in sights[1:]) else None
        return [found or forget(node, sights)] * len(node.outputs)

    return rule
