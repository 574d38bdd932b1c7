"""Attributes of operators, read without trust: one of another type or length than it should have counts as absent."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

__all__ = ["int_of", "ints_of", "text_of"]


def ints_of(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    """Return integers, as many as the default has.

    >>> ints_of(ir.node("Conv", [], {"strides": [2, 2]}), "strides", [1, 1])
    [2, 2]
    >>> ints_of(ir.node("Conv", [], {"strides": 2}), "strides", [1, 1])
    [1, 1]
    """
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.INTS:
        return list(default)
    found = [int(value) for value in attribute.value]
    return found if len(found) == len(default) else list(default)


def int_of(node: ir.Node, name: str, default: int) -> int:
    """Return an integer."""
    attribute = node.attributes.get(name)
    wrong = attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.INT
    return default if attribute is None or wrong else int(attribute.value)


def text_of(node: ir.Node, name: str, default: str) -> str:
    """Return a string."""
    attribute = node.attributes.get(name)
    wrong = attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.STRING
    return default if attribute is None or wrong else str(attribute.value)
