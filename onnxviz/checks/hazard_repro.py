"""An operator outside of its domain, as a model of its own: what N02 says may happen, made to happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.checks.repro import Repro, piece_repro, ran
from onnxviz.checks.subject import Subject
from onnxviz.errors import CheckError, OnnxvizError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.shapes import shape_list

__all__ = ["hazard_repro"]

#: What an operand is tried at: where a division, a logarithm, a root, an exponential, an arc function have no result.
_TRIED = (0.0, -1.0, 2.0, 100.0, 1000.0)
_MOST = 1 << 16  # elements of a tensor that is made up


def hazard_repro(subject: Subject, node: ir.Node, operand: int) -> Callable[[], Repro]:
    """Return what makes a model of one node, fed an operand of one number at which the result is NaN or infinite.

    Other inputs that are no constants are ones; open sizes are 1.

    Args:
        subject: The model.
        node: Of its main graph, types inferred.
        operand: Which of its inputs is outside of the domain.

    Raises:
        CheckError: (by what is returned) None of the numbers that are tried has such a result.
    """

    def make() -> Repro:
        own = next(
            (n for n in subject.inlined.graph if [v.name for v in n.outputs] == [v.name for v in node.outputs]), None
        )
        if own is None:
            raise CheckError("the node is not in the main graph")
        shapes = {str(v.name): _made(v) for v in node.inputs if v is not None and constant_tensor(v) is None}
        name = str(node.inputs[operand].name) if node.inputs[operand] is not None else ""  # type: ignore[union-attr]
        for number in _TRIED:
            values = {n: np.ones_like(a) if n != name else np.full_like(a, number) for n, a in shapes.items()}
            repro = piece_repro(subject, [own], own.outputs[0], values)
            try:
                results = ran(subject, repro)
            except OnnxvizError:  # made-up sizes need not fit each other
                continue
            if any(not np.isfinite(array).all() for array in results.values() if array.dtype.kind == "f"):
                return repro
        raise CheckError("none of the numbers that were tried shows it")

    return make


def _made(value: ir.Value) -> npt.NDArray[Any]:
    sizes = [size if isinstance(size, int) else 1 for size in shape_list(value) or ()]
    if np.prod(sizes, dtype=np.float64) > _MOST:
        sizes = [min(size, 4) for size in sizes]
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    return np.ones(sizes, dtype)
