"""What a tensor sees of the model's input, and how to read the nodes that decide it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.position_maps import PositionMap
from onnxviz.graph.shapes import shape_list

__all__ = ["Rule", "Sight", "Sights", "dims", "forget", "ints", "kept", "numbers", "on_first", "text", "whole_numbers"]


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
Rule = Callable[[ir.Node, Sights], list[Sight | None]]
_SMALL = 64  # elements of a constant that is read


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


def numbers(node: ir.Node, index: int) -> list[float] | None:
    """Return a small constant input that lies in the file itself."""
    tensor = constant_tensor(node.inputs[index]) if index < len(node.inputs) else None
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > _SMALL:
        return None
    try:
        return [float(number) for number in tensor.numpy().reshape(-1).tolist()]
    except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError):
        return None  # a damaged tensor


def whole_numbers(node: ir.Node, attribute: str, index: int) -> list[int] | None:
    """Return what older opsets hold in an attribute and newer ones in a constant input."""
    found = ints(node, attribute)
    constant = numbers(node, index) if found is None else None
    return found if constant is None else [int(n) for n in constant]


def forget(node: ir.Node, sights: Sights) -> Sight:
    """Return the sight of an output that may depend on everything that the inputs see any part of."""
    lost: set[int] = set()
    for sight in sights:
        if sight is not None:
            lost |= sight.lost | {entry.axis for entry in sight.axes if entry is not None}
    rank = len(dims(node.outputs[0]) or []) if node.outputs else 0
    return Sight((None,) * rank, frozenset(lost))


def kept(sight: Sight, axes: Sequence[PositionMap | None]) -> Sight:
    """Return a sight with other maps; those that went are seen from end to end."""
    before = {entry.axis for entry in sight.axes if entry is not None}
    return Sight(tuple(axes), sight.lost | (before - {entry.axis for entry in axes if entry is not None}))


def on_first(change: Callable[[ir.Node, Sight], Sight | None]) -> Rule:
    """Make a rule of one that looks at the first input alone; where it fails, everything is seen."""

    def rule(node: ir.Node, sights: Sights) -> list[Sight | None]:
        sight = sights[0]
        found = change(node, sight) if sight is not None and all(s is None for s in sights[1:]) else None
        return [found or forget(node, sights)] * len(node.outputs)

    return rule
