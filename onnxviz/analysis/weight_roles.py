"""How learned tensors are turned for a picture; which they are stands in :mod:`onnxviz.graph.learned`."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.learned import GENERIC, ROLES, Slot

__all__ = ["GENERIC", "ROLES", "Slot", "orient", "orientation"]

Array = npt.NDArray[Any]


_ORIENTATION = {
    "conv": "(out, in / groups, *kernel)",
    "conv_transpose": "(out, in / groups, *kernel)",
    "rnn": "(directions, gates × units, in)",
    "rnn_transposed": "(directions, gates × units, in)",
    "rows": "(entries, features)",
    "gemm_a": "(out, in)",
    "gemm_b": "(out, in)",
    "matmul_a": "(out, in)",
    "matmul_b": "(out, in)",
    "nbits": "(out, in)",
}


def orientation(form: str) -> str:
    """Return what the axes are after :func:`orient`; empty where they are just those of the file.

    >>> orientation("gemm_b")
    '(out, in)'
    """
    return _ORIENTATION.get(form, "")


def orient(array: Array, form: str, node: ir.Node) -> Array:
    """Return a weight turned output-first, as pictures show it.

    A ConvTranspose's ``(in, out / groups, *kernel)`` becomes ``(out, in / groups, *kernel)``, group by group; the
    second factor of a matrix product becomes ``(out, in)``, its transpose flag honoured.

    >>> import numpy as np
    >>> orient(np.zeros((3, 5)), "matmul_b", ir.node("MatMul", inputs=[])).shape
    (5, 3)
    """
    if form == "conv_transpose" and array.ndim >= 2:
        groups = _flag(node, "group", 1)
        rest = array.shape[1:]
        split = array.reshape(groups, array.shape[0] // groups, *rest).swapaxes(1, 2)
        return split.reshape(groups * rest[0], array.shape[0] // groups, *rest[1:])
    if array.ndim < 2:
        return array
    # As the second factor (in, out) is turned; as the first factor (out, in) stays.
    turned = {
        "matmul_b": True,
        "rnn_transposed": True,
        "gemm_b": not _flag(node, "transB", 0),
        "gemm_a": bool(_flag(node, "transA", 0)),
    }
    return array.swapaxes(-1, -2) if turned.get(form, False) else array


def _flag(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else int(attribute.as_int())
