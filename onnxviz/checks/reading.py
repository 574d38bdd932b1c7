"""Reading the data of constants, which may be damaged or lie in a file that is not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import CheckError
from onnxviz.graph.model import summary_line

__all__ = ["read_array"]


def read_array(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    """Return the elements of a tensor.

    Raises:
        CheckError: They cannot be read; the text says why.

    >>> read_array(ir.Tensor(np.float32([1, 2]))).tolist()
    [1.0, 2.0]
    """
    try:
        return tensor.numpy()
    except Exception as error:
        raise CheckError(f"the weight {tensor.name!r} cannot be read: {summary_line(error)}") from error
