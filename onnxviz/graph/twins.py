"""Which tensors of two models stand for the same, as far as names and weights tell."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor

__all__ = ["match_tensors"]

_NUMBERED = re.compile(r"[\W_]*[A-Za-z]{0,2}[\W_]*\d+[\W_]*|val_\d+")
_LEAST = 4  # elements of a weight from which it tells a node


def match_tensors(reference: ir.Model, model: ir.Model) -> dict[str, tuple[str, str]]:
    """Return tensors of a model -> the reference's tensor, and how it was found: ``"name"`` or ``"weights"``.

    A name counts where both nodes have the same operator, or where it is no mere number of an exporter. Weights count
    by their values to the precision of float16, so that a model that was converted to it is recognised; layers with
    equal weights are paired in their order.

    Args:
        reference: The reference, functions inlined.
        model: The model, functions inlined.

    >>> text = '''<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] %s)
    ...   <float[2, 2] w = {1, 2, 3, 4}> { %s = MatMul(x, w) }'''
    >>> match_tensors(ir.from_onnx_text(text % ("y", "y")), ir.from_onnx_text(text % ("z", "z")))
    {'z': ('y', 'weights')}
    """
    theirs = {str(v.name): node for node in reference.graph for v in node.outputs if v.name}
    found: dict[str, tuple[str, str]] = {}
    for node in model.graph:
        for value in node.outputs:
            name = str(value.name or "")
            twin = theirs.get(name)
            if twin is not None and (twin.op_type == node.op_type or not _NUMBERED.fullmatch(name)):
                found[name] = (name, "name")
    taken = {name for name, _ in found.values()}
    left, right = _by_weights(reference, taken), _by_weights(model, set(found))
    for digest, names in right.items():
        twins = left.get(digest, [])
        if len(twins) == len(names):
            found |= {name: (twin, "weights") for name, twin in zip(names, twins, strict=True)}
    return found


def _by_weights(model: ir.Model, without: Mapping[str, object] | set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for node in model.graph:
        name = str(node.outputs[0].name or "") if node.outputs else ""
        if not name or name in without:
            continue
        digest = _fingerprint(node)
        if digest:
            found[digest].append(name)
    return found


def _fingerprint(node: ir.Node) -> str:
    """Return a digest of the operator and its first large weight; empty where it has none."""
    for value in node.inputs:
        tensor = constant_tensor(value)
        if tensor is None or tensor.size < _LEAST or not tensor.dtype.is_floating_point():
            continue
        with np.errstate(over="ignore"):
            half = tensor.numpy().astype(np.float16)
        head = f"{node.op_type} {half.shape} ".encode()
        return hashlib.sha256(head + half.tobytes()).hexdigest()
    return ""
