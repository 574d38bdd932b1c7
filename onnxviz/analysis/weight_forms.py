"""The shapes in which weights are studied: kernels, the matrix that is drawn, the matrices that a layer multiplies
by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.threads import one_thread
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import InputError, ModelError, SelectionError, printable

__all__ = ["Blocks", "WeightName", "WeightStudy", "has_kernels", "matrix_of", "study_weights", "values_of",
           "weight_blocks"]  # fmt: skip

Array = npt.NDArray[Any]
T = TypeVar("T")


def values_of(weight: WeightName | LayerWeights) -> str:
    """Return what a weight's numbers are: ``"stored"`` as they are, ``"dequantised"``, or the stored ``"codes"``."""
    return "codes" if weight.as_codes else "dequantised" if weight.quantization else "stored"


@dataclass(frozen=True)
class WeightName:
    """Which weight a result is about; fields as of :class:`onnxviz.analysis.weights.LayerWeights`."""

    layer: str
    op_type: str
    tensor: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    quantization: str | None
    as_codes: bool = False

    @classmethod
    def of(cls, lw: LayerWeights) -> WeightName:
        """Return the name of a weight."""
        return cls(lw.layer, lw.op_type, lw.tensor, lw.role, lw.shape, lw.dtype, lw.quantization, lw.as_codes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return {
            "layer": self.layer, "operator": self.op_type, "tensor": self.tensor, "role": self.role,
            "shape": list(self.shape), "dtype": self.dtype, "quantization": self.quantization,
            "values": values_of(self),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Blocks:
    """A weight as the matrices that its layer multiplies by: one, or one a group, direction or head.

    Attributes:
        values: ``(blocks, outputs, inputs)`` float32; the columns of a convolution are input channel × kernel.
        note: What the blocks are, where there are several; else empty.
    """

    values: npt.NDArray[np.float32]
    note: str = ""


@dataclass(frozen=True)
class WeightStudy(Generic[T]):
    """One kind of result for the weights of a model.

    Attributes:
        model_name: The model.
        chosen: How many weights were asked for; where that is more than ``most``, an even spread of them is studied.
        views: A result a weight, in the model's order.
        not_drawn: What was tried and refused, with the reason.
    """

    model_name: str
    chosen: int
    views: tuple[T, ...]
    not_drawn: tuple[NotDrawn, ...]


def has_kernels(lw: LayerWeights) -> bool:
    """Whether a layer's weight is a set of spatial kernels: a convolution's, of more than one element each."""
    return lw.orientation.endswith("*kernel)") and len(lw.shape) >= 3 and math.prod(lw.shape[2:]) > 1


def matrix_of(lw: LayerWeights) -> tuple[Array, str, str]:
    """Return a weight as a matrix with the names of its rows and columns: all but the last axis are rows."""
    kernel = lw.kernel
    if has_kernels(lw) or lw.orientation.endswith("*kernel)"):
        return (
            kernel.reshape(kernel.shape[0], math.prod(kernel.shape[1:])),
            "output",
            "input × kernel" if has_kernels(lw) else "input",
        )
    if kernel.ndim < 2:
        return kernel.reshape(1, kernel.size), "", "index"
    rows, columns = {
        "(entries, features)": ("entry", "feature"),
        "(out, in)": ("output", "input"),
        "(directions, gates × units, in)": ("direction × gate × unit", "input"),
    }.get(lw.orientation, ("row", "column"))
    return kernel.reshape(math.prod(kernel.shape[:-1]), kernel.shape[-1]), rows, columns


def weight_blocks(lw: LayerWeights) -> Blocks:
    """Return a weight as the matrices that its layer multiplies by.

    A convolution is ``(out, in × kernel)``, one matrix a group, as each group reads input channels of its own; the
    whole operator is their block-diagonal matrix. Directions of recurrent layers and leading axes of batched products
    are blocks too. Other tensors are one matrix, all axes but the last folded into its rows.

    Raises:
        SelectionError: It is a vector or empty.
        ModelError: It cannot be read.
    """
    kernel = lw.kernel
    if kernel.ndim < 2 or not kernel.size:
        what = "empty" if not kernel.size else "a vector"
        raise SelectionError(f"{lw.tensor} is {what}: it has no rows and columns", hint="draw it with --view sheet")
    if lw.orientation.endswith("*kernel)"):
        groups = lw.groups if lw.groups > 0 and kernel.shape[0] % lw.groups == 0 else 1
        note = f"{groups} groups, each with inputs of its own" if groups > 1 else ""
        return Blocks(kernel.reshape(groups, kernel.shape[0] // groups, -1), note)
    if lw.orientation in ("(out, in)", "(directions, gates × units, in)"):
        values = kernel.reshape(-1, *kernel.shape[-2:])
        what = "directions" if lw.orientation.startswith("(dir") else "matrices"
        return Blocks(values, f"{len(values)} {what}" if len(values) > 1 else "")
    return Blocks(kernel.reshape(1, -1, kernel.shape[-1]))


@one_thread()
def study_weights(
    layers: Sequence[LayerWeights],
    study: Callable[[LayerWeights], T],
    model_name: str,
    *,
    most: int = 24,
    progress: Callable[[int, int], None] | None = None,
) -> WeightStudy[T]:
    """Apply a study to weights, an even spread of ``most`` of them; what it refuses is told, the rest goes on.

    Args:
        layers: The weights.
        study: Such as :func:`onnxviz.analysis.weight_spectra.spectrum`.
        model_name: What to call the model.
        most: Most weights to study.
        progress: Called after each weight with how many are done and of how many.

    Raises:
        SelectionError: None of them could be studied; the text is the reason of the first.
    """
    some = (
        list(layers)
        if len(layers) <= most
        else [layers[round(i * (len(layers) - 1) / max(most - 1, 1))] for i in range(most)]
    )
    views: list[T] = []
    refused: list[NotDrawn] = []
    for done, lw in enumerate(some, start=1):
        try:
            views.append(study(lw))
        except (SelectionError, ModelError, InputError) as error:
            refused.append(NotDrawn(lw.layer, printable(error.message, 200)))
        if progress is not None:
            progress(done, len(some))
    if not views:
        first = f"{refused[0].name}: {refused[0].reason}" if refused else "there are no weights"
        raise SelectionError(f"nothing can be drawn: {first}", hint="choose other layers with --layer")
    return WeightStudy(model_name, len(layers), tuple(views), tuple(refused))
