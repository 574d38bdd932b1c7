"""What the tensors of a model hold as numbers, whatever they are stored as: codes of a quantisation are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.quantised import quantisation

if TYPE_CHECKING:
    from onnxviz.runtime.record import Capture

__all__ = ["HeldNumbers", "passed_on"]

Array = npt.NDArray[Any]
_ZERO = 1e-2  # of the largest: a range of codes that begins nearer to 0 than that begins there


def passed_on(model: ir.Model) -> dict[str, ir.Value]:
    """Return tensors that are quantised -> what DequantizeLinear makes of their codes, which is what others read.

    A quantiser leaves out a Relu or Clip whose range its codes have: the tensor before the codes then holds other
    numbers than the one of its name in the float model.
    """
    found: dict[str, ir.Value] = {}
    outputs = set(model.graph.outputs)
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if source is None or source.producer() is None or source in outputs:
            continue
        readers = [user for user in node.outputs[0].consumers() if user.op_type == "DequantizeLinear"]
        if readers and all(user is node for user in source.consumers()):
            found[str(source.name)] = readers[0].outputs[0]
    return found


class HeldNumbers:
    """The tensors of one model.

    Args:
        model: The model, functions inlined.
    """

    def __init__(self, model: ir.Model) -> None:
        self.passed = passed_on(model)
        self._values = {str(v.name): v for node in model.graph for v in node.outputs if v.name}
        self._captured: Mapping[str, Any] = {}
        self._codes = {name: codes for name, v in self._values.items() if (codes := quantisation(v)) is not None}

    def take(self, captured: Capture) -> None:
        """Read from this capture from now on."""
        self._captured = captured

    def read(self, name: str) -> ir.Value:
        """Return the tensor that stands for one: itself, or what DequantizeLinear makes of it."""
        return self.passed.get(name, self._values[name])

    def array(self, name: str) -> Array | None:
        """Return what a tensor holds, as numbers; None where it was not captured or holds none."""
        record = self._captured.get(str(self.read(name).name))
        return None if record is None or record.kept is None else self.numbers(str(self.read(name).name), record.array)

    def numbers(self, name: str, array: Array) -> Array:
        """Return what a tensor of this name means: codes become float32."""
        scale_zero = self._codes.get(name)
        if scale_zero is None or array.dtype.kind not in "iu":
            return array
        return np.asarray((array.astype(np.float64) - scale_zero[1]) * scale_zero[0], np.float32)

    def as_held(self, name: str, numbers: Array) -> Array:
        """Return numbers in the type that a tensor has: rounded to a narrower float, or to the nearest codes."""
        from onnxviz.runtime.storage import numpy_type

        record = self._captured.get(name)
        dtype = numpy_type(str(numbers.dtype) if record is None else record.dtype)
        scale_zero = self._codes.get(name)
        with np.errstate(all="ignore"):
            if scale_zero is None or dtype.kind not in "iu":
                return numbers.astype(dtype, copy=False)
            limits = np.iinfo(dtype)
            return np.clip(np.rint(numbers / scale_zero[0]) + scale_zero[1], limits.min, limits.max).astype(dtype)

    def expected(self, name: str, reference: Array) -> Array:
        """Return what the reference holds, as these codes can say it: a range that begins at 0 stands for a Relu."""
        codes = str(self.read(name).name)
        node = self._values[codes].producer()
        if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            codes = str(node.inputs[0].name)
        scale_zero, record = self._codes.get(codes), self._captured.get(codes)
        if scale_zero is None or record is None or _numpy_kind(record) not in "iu" or reference.dtype.kind != "f":
            return reference
        limits = np.iinfo(record.dtype)
        low, high = ((limit - scale_zero[1]) * scale_zero[0] for limit in (limits.min, limits.max))
        return np.maximum(reference, reference.dtype.type(0)) if -low < _ZERO * high else reference


def _numpy_kind(record: Any) -> str:
    """Return the kind of a record's type, as numpy spells it; ``"V"`` for types that numpy does not have."""
    try:
        return str(np.dtype(record.dtype).kind)
    except TypeError:
        return "V"
