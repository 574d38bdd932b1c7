"""What checks remember of a tensor over all runs: extremes, odd values, channels, and whether anything varied."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.numeric import is_integer, is_numeric, to_float
from onnxviz.analysis.precisions import FLUSHED
from onnxviz.graph.layouts import tensor_layouts

__all__ = ["Observed", "Observer"]

Array = npt.NDArray[Any]

#: Operator -> the two values that it saturates at.
_ENDS: dict[str, tuple[float, float]] = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
_CLOSE = 1e-3  # of the range: that near an end counts as saturated


@dataclass(frozen=True)
class Observed:
    """What one tensor held over all runs.

    Attributes:
        dtype: As numpy spells it.
        shape: In the first run.
        count: Elements, over all runs.
        low, high: Smallest and largest finite value; inf and -inf where there is none.
        nan, plus, minus: Number of NaN, Inf and -Inf.
        nonzero: Elements that are not 0.
        flushed: Those of them that float16 makes 0.
        saturated: Elements at an end of what the operator can give; 0 for operators without ends.
        channel_high: The largest value of each channel; None where the tensor has no channels.
        channel_axis: Which axis that is.
        digests: A digest of the values of each run.
    """

    dtype: str
    shape: tuple[int, ...]
    count: int
    low: float = np.inf
    high: float = -np.inf
    nan: int = 0
    plus: int = 0
    minus: int = 0
    nonzero: int = 0
    flushed: int = 0
    saturated: int = 0
    channel_high: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    channel_axis: int | None = None
    digests: tuple[str, ...] = ()

    @property
    def largest(self) -> float:
        """The largest finite magnitude; 0 where there is none."""
        return max(abs(self.low), abs(self.high)) if self.low <= self.high else 0.0

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return "float" in self.dtype

    @property
    def finite(self) -> bool:
        """Whether no element was NaN or infinite."""
        return not (self.nan or self.plus or self.minus)

    def merge(self, other: Self, /) -> Self:
        """Return what both sets of runs saw together."""
        channels = None
        one, two = self.channel_high, other.channel_high
        if one is not None and two is not None and one.shape == two.shape:
            channels = np.maximum(one, two)
        return type(self)(
            self.dtype, self.shape, self.count + other.count, min(self.low, other.low), max(self.high, other.high),
            self.nan + other.nan, self.plus + other.plus, self.minus + other.minus, self.nonzero + other.nonzero,
            self.flushed + other.flushed, self.saturated + other.saturated, channels, self.channel_axis,
            self.digests + other.digests,
        )  # fmt: skip


@dataclass(frozen=True)
class Observer:
    """Makes an :class:`Observed` of a tensor.

    Attributes:
        channels: Tensor -> the axis of its channels.
        ends: Tensor -> what it saturates at.
    """

    channels: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model) -> Observer:
        """Return one that knows which tensors of a model come from rectifiers and from operators that saturate."""
        layouts = tensor_layouts(model)
        channels: dict[str, int] = {}
        ends: dict[str, tuple[float, float]] = {}
        for node in model.graph:
            name = str(node.outputs[0].name) if node.outputs else ""
            if node.op_type in _ENDS:
                ends[name] = _ENDS[node.op_type]
            if node.op_type == "Relu" or _is_relu6(node):
                channels[name] = 1 if layouts.get(name) == "NCHW" else -1
        return cls(channels, ends)

    def __call__(self, name: str, array: Array) -> Observed:
        """Observe the values of one run."""
        if not isinstance(array, np.ndarray) or not is_numeric(array.dtype):
            shape = array.shape if isinstance(array, np.ndarray) else ()
            return Observed(str(getattr(array, "dtype", "other")), shape, int(np.size(array)))
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        dtype, count = str(array.dtype), array.size
        if not count:
            return Observed(dtype, array.shape, 0, digests=(digest,))
        if is_integer(array.dtype):
            low, high = float(array.min()), float(array.max())
            return Observed(
                dtype, array.shape, count, low, high, nonzero=int(np.count_nonzero(array)), digests=(digest,)
            )
        return self._floats(name, array, digest)

    def _floats(self, name: str, array: Array, digest: str) -> Observed:
        values = to_float(array, np.float64 if array.dtype == np.float64 else np.float32)
        finite = values[np.isfinite(values)]
        size = np.abs(finite)
        nan = int(np.isnan(values).sum())
        plus, minus = int(np.isposinf(values).sum()), int(np.isneginf(values).sum())
        axis = self.channels.get(name)
        channels = None
        if axis is not None and values.ndim > 1:
            others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
            channels = np.asarray(values.max(axis=others), np.float64)
        saturated = 0
        if (ends := self.ends.get(name)) is not None:
            close = _CLOSE * (ends[1] - ends[0])
            saturated = int(((finite <= ends[0] + close) | (finite >= ends[1] - close)).sum())
        return Observed(
            str(array.dtype), array.shape, array.size, float(finite.min(initial=np.inf)),
            float(finite.max(initial=-np.inf)), nan, plus, minus, int((size > 0).sum()),
            int(((size > 0) & (size <= FLUSHED)).sum()), saturated, channels, axis, (digest,),
        )  # fmt: skip


def _is_relu6(node: ir.Node) -> bool:
    """Whether a node is a Clip at 0 from below."""
    if node.op_type != "Clip":
        return False
    if "min" in node.attributes:
        return node.attributes.get_float("min", -1.0) == 0.0
    low = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = None if low is None else low.const_value
    return tensor is not None and tensor.size == 1 and not bool(tensor.numpy().any())
