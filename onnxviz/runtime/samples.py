"""How many samples one run of a model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.graph.shapes import model_inputs, shape_list

__all__ = ["sample_count"]


def sample_count(model: ir.Model, feeds: Mapping[str, Any]) -> int:
    """Return how many samples one run is: the length of the batch axis, 1 where the model has none.

    The batch is the first axis of the inputs that leave it open, or of all where none does, if one of them has further
    axes, their arrays have one length there, and an output may begin with it.

    Args:
        model: The model.
        feeds: Input name -> array; lists, as sequences are fed, have no batch axis.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x, float[2] w) => (float[n, 2] y) {y = Mul(x, w)}'
    ... )
    >>> sample_count(model, {"x": np.ones((5, 2)), "w": np.ones(2)})
    5
    """
    fed = [
        (shape[0], array)
        for value in model_inputs(model)
        if isinstance(array := feeds.get(str(value.name)), np.ndarray) and array.ndim and (shape := shape_list(value))
    ]
    fed = [one for one in fed if not isinstance(one[0], int)] or fed
    lengths = {len(array) for _, array in fed}
    if len(lengths) != 1 or all(array.ndim == 1 for _, array in fed):
        return 1
    ends = {(shape_list(output) or [None])[0] for output in model.graph.outputs if shape_list(output) != []}
    possible = {end for end in ends if not isinstance(end, int)} or ends & {size for size, _ in fed}
    return lengths.pop() if possible or not ends else 1
