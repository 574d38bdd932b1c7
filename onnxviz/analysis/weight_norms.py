"""Norms of kernels: how strongly each output of a layer reads each of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.weight_forms import WeightName, has_kernels, matrix_of
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import SelectionError

__all__ = ["KernelNorms", "kernel_norms"]

_WIDEST = 768  # input channels up to which groups are laid out as blocks on the diagonal


@dataclass(frozen=True, eq=False)
class KernelNorms:
    """A weight as one matrix of numbers.

    Attributes:
        name: Which weight.
        values: ``(rows, columns)``. Of spatial kernels the L2 norm of each, ``(outputs, inputs / groups)``, never
            negative; of other weights the values themselves, signed. float64 or float32.
        norms: Whether ``values`` are norms.
        signed: Whether values may be negative.
        rows: What a row is.
        columns: What a column is.
        groups: Groups of a convolution; 1 elsewhere.
        filters: ``(rows,)`` L2 norm of each row, float64.
    """

    name: WeightName
    values: npt.NDArray[Any]
    norms: bool
    signed: bool
    rows: str
    columns: str
    groups: int
    filters: npt.NDArray[np.float64]

    @property
    def laid_out(self) -> np.ma.MaskedArray[Any, Any]:
        """``values`` against all input channels: groups lie on the diagonal, what does not exist is masked.

        Depthwise layers and those with more than 768 input channels are left as they are.
        """
        outputs, own = self.values.shape
        if self.groups == 1 or own == 1 or own * self.groups > _WIDEST:
            return np.ma.MaskedArray(self.values, np.zeros(self.values.shape, bool))
        empty = np.zeros((outputs, own * self.groups), self.values.dtype)
        picture: np.ma.MaskedArray[Any, Any] = np.ma.MaskedArray(empty, np.ones(empty.shape, bool))
        step = outputs // self.groups
        for group in range(self.groups):
            rows = slice(group * step, (group + 1) * step)
            picture[rows, group * own : (group + 1) * own] = self.values[rows]
        return picture


def kernel_norms(lw: LayerWeights) -> KernelNorms:
    """Return the L2 norm of each kernel of a convolution, or the matrix of another weight.

    Args:
        lw: A weight of two axes or more. Axes of 1 × 1 kernels count for nothing: such a layer is a matrix.

    Raises:
        SelectionError: It is a vector or empty.
        ModelError: It cannot be read.

    >>> from onnxviz.analysis.weights import layer_weights
    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 4] x) => (float[1, 1, 3] y) <float[1, 1, 2] w = {3, 4}> {y = Conv(x, w)}''')
    >>> kernel_norms(layer_weights(model)[0]).values.tolist()
    [[5.0]]
    """
    kernel = lw.kernel
    if kernel.ndim < 2 or not kernel.size:
        raise SelectionError(
            f"{lw.tensor} is {'a vector' if kernel.size else 'empty'}: it has no kernels and no matrix"
        )
    spatial = has_kernels(lw)
    groups = lw.groups if lw.groups > 0 and kernel.shape[0] % lw.groups == 0 else 1
    if spatial:
        values, rows, columns = _norms(kernel.reshape(*kernel.shape[:2], -1)), "filter", "input channel"
    else:
        values, rows, columns = matrix_of(lw)
    return KernelNorms(
        WeightName.of(lw), values, spatial, lw.signed and not spatial, rows, columns, groups, _norms(values)
    )


def _norms(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the L2 norm along the last axis, summed in float64 without widening the array."""
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.einsum("...i,...i->...", values, values, dtype=np.float64, casting="unsafe")
        return np.asarray(np.sqrt(squares), np.float64)
