"""Which tensors are functions of which: element by element, or by statistics such as a mean and a deviation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from onnxviz.gradient.overrides.kinds import UNARY
from onnxviz.graph.constants import constant_tensor

__all__ = ["normalisations", "same_variable"]

_ARITHMETIC = ("Neg", "Add", "Sub", "Mul", "Div")
_COPIES = ("Cast", "Identity")
_MEANS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "GlobalAveragePool")
_OF_MEANS = ("Sqrt", "Reciprocal", "Pow", "Abs", "Max", "Clip", *_ARITHMETIC, *_COPIES)  # a gate's sigmoid is none
_DEPTH = 32


def _moving(node: ir.Node, fixed: Collection[ir.Value]) -> list[ir.Value]:
    """Return the operands that are no constants, each once."""
    return [
        value
        for value in dict.fromkeys(node.inputs)
        if value is not None and value not in fixed and constant_tensor(value) is None
    ]


def same_variable(a: ir.Value, b: ir.Value, fixed: Collection[ir.Value]) -> int | None:
    """Return which of two factors is nearer to a tensor that both are functions of, element by element; None for none.

    So GELU and SiLU that were exported as ``x`` times a function of x count as functions of x.

    Args:
        a: A factor.
        b: The other.
        fixed: What is computed from constants alone.
    """
    chain_a, chain_b = _chain(a, fixed), _chain(b, fixed)
    shared = [value for value in chain_a if value in chain_b]
    if not shared:
        return None
    return 0 if chain_a.index(shared[0]) <= chain_b.index(shared[0]) else 1


def _chain(value: ir.Value, fixed: Collection[ir.Value]) -> list[ir.Value]:
    """Return a tensor and what it is a function of, element by element, nearest first."""
    found = [value]
    while len(found) < _DEPTH:
        node = found[-1].producer()
        if node is None or node.op_type not in (*UNARY, *_ARITHMETIC, *_COPIES):
            return found
        moving = _moving(node, fixed)
        if node.op_type in _COPIES or len(moving) == 1:
            operand = moving[0] if moving else None
        else:
            operand = _joined(moving, fixed)
        if operand is None:
            return found
        found.append(operand)
    return found


def _joined(moving: Sequence[ir.Value], fixed: Collection[ir.Value]) -> ir.Value | None:
    """Return what both operands of a node are functions of."""
    if len(moving) != 2:
        return None
    first, second = _simple_chain(moving[0], fixed), _simple_chain(moving[1], fixed)
    return next((value for value in first if value in second), None)


def _simple_chain(value: ir.Value, fixed: Collection[ir.Value]) -> list[ir.Value]:
    found = [value]
    while len(found) < _DEPTH and (node := found[-1].producer()) is not None:
        moving = _moving(node, fixed)
        if len(moving) != 1 or node.op_type not in (*UNARY, *_ARITHMETIC):
            return found
        found.append(moving[0])
    return found


def normalisations(nodes: Sequence[ir.Node], fixed: Collection[ir.Value]) -> dict[ir.Node, int]:
    """Return the parts of normalisations that an exporter wrote in parts, each with the operand that is normalised.

    A product or quotient of a tensor and a statistic of it makes one, ``(x - mean x) / sqrt(mean (x - mean x)²)``; with
    it go the mean that was taken off before, that which is taken off behind, as in ``x k - k mean x``, and the shift.

    Args:
        nodes: The nodes of the model.
        fixed: What is computed from constants alone.
    """
    found: dict[ir.Node, int] = {}
    scaled: set[ir.Value] = set()
    for node in nodes:
        moving = _moving(node, fixed)
        if node.op_type not in ("Mul", "Div", "Add", "Sub") or not moving:
            continue
        if len(moving) == 1:
            if moving[0] in scaled and node.op_type != "Div":  # scale and shift belong to it
                scaled.add(node.outputs[0])
                found |= {} if node.op_type == "Mul" else {node: list(node.inputs).index(moving[0])}
            continue
        for place in (0,) if node.op_type in ("Div", "Sub") else (0, 1):
            carriers, parts = _carriers(node.inputs[place], fixed)
            behind = node.op_type in ("Add", "Sub")
            if (behind and not scaled.intersection(carriers)) or not _is_statistic(
                node.inputs[1 - place], carriers, fixed
            ):
                continue
            found[node] = place
            if not behind:
                found |= parts
            scaled.add(node.outputs[0])
            break
    return found


def _carriers(value: ir.Value | None, fixed: Collection[ir.Value]) -> tuple[list[ir.Value], dict[ir.Node, int]]:
    """Return a tensor and what it is after statistics and constants are taken off, and the nodes that took off some."""
    found, parts = [value] if value is not None else [], {}
    while 0 < len(found) < _DEPTH:
        node = found[-1].producer()
        if node is None or node.op_type not in (*_ARITHMETIC, *_COPIES):
            break
        moving = _moving(node, fixed)
        if len(moving) == 1 and moving[0] is not None:
            found.append(moving[0])
            continue
        place = next((p for p in (0, 1) if len(moving) == 2 and _is_statistic(moving[1 - p], [moving[p]], fixed)), None)
        if place is None or (place == 1 and node.op_type in ("Sub", "Div")):
            break
        parts[node] = place
        found.append(moving[place])
    return found, parts


def _is_statistic(value: ir.Value | None, of: Sequence[ir.Value], fixed: Collection[ir.Value]) -> bool:
    """Whether a tensor is computed from means of some tensors, and from nothing else."""
    todo, seen = [(value, False)], set()
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        current, averaged = item
        if averaged and current in of:
            continue
        node = current.producer() if current is not None else None
        if node is None or len(seen) > 2 * _DEPTH:
            return False
        if node.op_type in _MEANS:
            todo.append((node.inputs[0], True))
        elif node.op_type in _OF_MEANS:
            todo += [(operand, averaged) for operand in _moving(node, fixed)]
        else:
            return False
    return True
