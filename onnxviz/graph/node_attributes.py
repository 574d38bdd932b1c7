"""Attributes of nodes, read with their types checked: a file may hold any type under any name."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.errors import ModelError, printable

__all__ = ["float_attribute", "int_attribute", "ints_attribute", "node_label", "string_attribute"]


def node_label(node: ir.Node) -> str:
    """Return a node's name, or its type and first output.

    >>> node_label(ir.Node("", "Relu", [], num_outputs=1, name="relu1"))
    'relu1'
    """
    return node.name or f"{node.op_type} of {node.outputs[0].name if node.outputs else 'nothing'}"


def int_attribute(node: ir.Node, name: str, default: int | None = None) -> int:
    """Return an integer attribute.

    Args:
        node: The node.
        name: Of the attribute.
        default: What an attribute that is absent stands for; None where the operator demands it.

    Raises:
        ModelError: It is of another type, or absent with no default.

    >>> node = ir.node("Softmax", [None], attributes={"axis": 1.5})
    >>> int_attribute(node, "axis", -1)
    Traceback (most recent call last):
    onnxviz.errors.ModelError: the attribute axis of Softmax of None is FLOAT, not INT; run onnx.checker on the file
    """
    found = _typed(node, name, ir.AttributeType.INT, required=default is None)
    if found is None:
        assert default is not None
        return default
    return found.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute.

    Raises:
        ModelError: It is of another type.
    """
    found = _typed(node, name, ir.AttributeType.FLOAT)
    return default if found is None else found.as_float()


def ints_attribute(node: ir.Node, name: str) -> Sequence[int] | None:
    """Return an attribute of several integers; None where it is absent.

    Raises:
        ModelError: It is of another type.
    """
    found = _typed(node, name, ir.AttributeType.INTS)
    return None if found is None else tuple(found.as_ints())


def string_attribute(node: ir.Node, name: str) -> str:
    """Return an attribute of text that the operator demands.

    Raises:
        ModelError: It is of another type, or absent.
    """
    found = _typed(node, name, ir.AttributeType.STRING, required=True)
    assert found is not None
    return found.as_string()


def _typed(node: ir.Node, name: str, kind: ir.AttributeType, *, required: bool = False) -> ir.Attr | None:
    found = node.attributes.get(name)
    hint = "run onnx.checker on the file"
    where = printable(node_label(node), 80)
    if found is None or found.is_ref():
        if required:
            raise ModelError(f"{where} lacks the attribute {name}", hint=hint)
        return None
    if found.type != kind:
        raise ModelError(f"the attribute {name} of {where} is {found.type.name}, not {kind.name}", hint=hint)
    return found
