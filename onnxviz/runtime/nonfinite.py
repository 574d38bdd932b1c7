"""The first NaN or Inf of a run: where it comes from, and a model as small as can be that shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import InputError, OutputError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import cut, piece_proto
from onnxviz.graph.files import atomic_folder
from onnxviz.runtime.explain import message
from onnxviz.runtime.inputs import Inputs
from onnxviz.runtime.nodewise import Observation
from onnxviz.runtime.options import new_options
from onnxviz.runtime.storage import write_npz
from onnxviz.runtime.values import constant_array, to_array, to_value, type_proto

__all__ = ["NonFinite", "Range", "StopOn", "Watch"]

StopOn = Literal["nan", "inf", "nonfinite"]


@dataclass(frozen=True)
class Range:
    """What an input of a node holds.

    Attributes:
        name: Of the tensor.
        shape: Sizes.
        dtype: As numpy spells it.
        min: Smallest finite value; None where there is none.
        max: Largest finite value; None where there is none.
        nan: Number of NaN.
        inf: Number of infinite values.
        constant: Whether it is a weight of the model.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    min: float | None
    max: float | None
    nan: int
    inf: int
    constant: bool

    @classmethod
    def of(cls, name: str, array: np.ndarray, constant: bool = False) -> Range:
        """Return the range of an array."""
        low = high = None
        nan = inf = 0
        if array.dtype.kind in "iufb" or array.dtype.kind == "V":
            values = array.astype(np.float64)
            finite = values[np.isfinite(values)]
            nan = int(np.isnan(values).sum())
            inf = int(values.size - finite.size - nan)
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
        dtype = "string" if array.dtype == object else str(array.dtype)
        return cls(name, array.shape, dtype, low, high, nan, inf, constant)

    def __str__(self) -> str:
        low, high = ("none" if v is None else f"{v:.6g}" for v in (self.min, self.max))
        odd = "".join(f", {count} {what}" for count, what in ((self.nan, "NaN"), (self.inf, "Inf")) if count)
        return f"{self.name} {self.dtype} {self.shape}: {low} … {high}{odd}"


@dataclass(frozen=True)
class NonFinite:
    """The first tensor of a run that holds NaN or Inf.

    Attributes:
        tensor: Its name.
        node: The node that wrote it (its op type if it has no name); None where the model was fed it.
        op_type: Of that node.
        nan: Number of NaN.
        inf: Number of infinite values.
        size: Number of elements.
        index: Position of the first of them.
        iteration: Position in the Loop and Scan nodes around it.
        batch: Number of the batch, from 0.
        inputs: What the node read.
    """

    tensor: str
    node: str | None
    op_type: str | None
    nan: int
    inf: int
    size: int
    index: tuple[int, ...]
    iteration: tuple[int, ...]
    batch: int
    inputs: tuple[Range, ...]
    _repro: tuple[onnx.ModelProto, Mapping[str, np.ndarray]] | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON types."""
        return {
            "tensor": self.tensor, "node": self.node, "op_type": self.op_type, "nan": self.nan, "inf": self.inf,
            "size": self.size, "index": list(self.index), "iteration": list(self.iteration), "batch": self.batch,
            "inputs": [{**vars(r), "shape": list(r.shape)} for r in self.inputs],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NonFinite:
        """Return the finding that :meth:`to_dict` made plain; it has no repro."""
        inputs = tuple(Range(**{**r, "shape": tuple(r["shape"])}) for r in data["inputs"])
        sizes = {"index": tuple(data["index"]), "iteration": tuple(data["iteration"])}
        return cls(**{**data, **sizes, "inputs": inputs})

    def __str__(self) -> str:
        what = " and ".join(f"{count:,} {name}" for count, name in ((self.nan, "NaN"), (self.inf, "Inf")) if count)
        where = f" in iteration {','.join(map(str, self.iteration))}" if self.iteration else ""
        where += f" of batch {self.batch}" if self.batch else ""
        source = f"{self.op_type} node {self.node!r}" if self.op_type else "the input"
        return f"{source} gives {what} among {self.size:,} values of {self.tensor!r}{where}, the first at {self.index}"

    def save_repro(self, path: str | os.PathLike[str]) -> Path:
        """Write the node as a model of its own, with its weights, and its inputs beside it as ``.npz``.

        Returns:
            The ``.npz`` file.

        Raises:
            InputError: The model was fed the values, so no node makes them.
            OutputError: The folder cannot be written, or the node alone does not give them in plain onnxruntime, or it
                reads a sequence or an optional.
        """
        if self.node is None:
            raise InputError(f"no node makes these values: {self.tensor!r} was fed to the model")
        if self._repro is None:
            raise OutputError(f"node {self.node!r} reads what is no array, so its inputs cannot be written as .npz")
        proto, feeds = self._repro
        try:
            shown = _reproduces(proto, feeds)
        except Exception as error:
            raise OutputError(
                f"node {self.node!r} does not run alone: {message(error)}; no repro was written"
            ) from error
        if not shown:
            raise OutputError(f"node {self.node!r} alone does not give these values; no repro was written")
        path = Path(path)
        beside = path.with_suffix(".npz")
        with atomic_folder(path) as folder:
            (folder / path.name).write_bytes(proto.SerializeToString())
            write_npz(folder / beside.name, feeds)
        return beside


def _reproduces(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> bool:
    """Run the node in plain onnxruntime; its outputs are given the types that they turn out to have."""
    session = ort.InferenceSession(proto.SerializeToString(), new_options(), providers=["CPUExecutionProvider"])
    values = {name: to_value(name, array) for name, array in feeds.items()}
    results = session.run_with_ort_values([o.name for o in session.get_outputs()], values)
    for output, described, result in zip(proto.graph.output, session.get_outputs(), results, strict=True):
        output.type.CopyFrom(type_proto(described.type, len(result.shape()) if result.is_tensor() else None))
    return any(_bad(to_array(result), "nonfinite") for result in results)


def _bad(array: Any, kind: StopOn) -> bool:
    """Whether an array holds what is looked for."""
    if not isinstance(array, np.ndarray) or not array.size:
        return False
    if array.dtype.kind not in "fc" and not array.dtype.name.startswith(("bfloat", "float8")):
        return False
    values = array.astype(np.float32) if array.dtype.kind not in "fc" else array
    with np.errstate(all="ignore"):
        low, high = values.min(), values.max()  # NaN spreads to both
    if np.isnan(low):
        return kind != "inf" or bool(np.isinf(values).any())
    return kind != "nan" and bool(np.isinf(low) or np.isinf(high))


class Found(Exception):  # noqa: N818 - it stops a run; nothing has failed
    """Raised by :class:`Watch`; holds the finding."""

    def __init__(self, finding: NonFinite) -> None:
        super().__init__(str(finding))
        self.finding = finding


class Watch:
    """Looks at each value and stops the run at the first that is not finite.

    Args:
        model: The model that runs.
        kind: ``"nan"``, ``"inf"``, or ``"nonfinite"`` for both.
        names: Name of each tensor.
    """

    def __init__(self, model: ir.Model, kind: StopOn, names: Mapping[ir.Value, str]) -> None:
        self._model = model
        self._kind = kind
        self._names = names
        self.batch = 0

    def check_inputs(self, inputs: Inputs) -> None:
        """Stop where the model is fed what is looked for."""
        for name, array in inputs.feeds.items():
            if _bad(array, self._kind):
                raise Found(self._finding(name, None, np.asarray(array), (), (), None))

    def check(self, seen: Observation) -> None:
        """Stop where a value holds what is looked for."""
        array = seen.array()
        if not _bad(array, self._kind):
            return
        feeds = {name: to_array(value) for name, value in seen.inputs.items()}
        piece = cut([seen.node], [seen.value])
        read = [Range.of(n, a) for n, a in feeds.items() if isinstance(a, np.ndarray)]
        weights = {str(v.name): constant_tensor(v) for v in piece.constants if str(v.name) not in feeds}
        read += [Range.of(n, constant_array(t), constant=True) for n, t in weights.items() if t is not None]
        repro = None
        if all(isinstance(feeds.get(str(value.name)), np.ndarray) for value in piece.inputs):
            repro = (self._repro(seen), {name: np.array(a) for name, a in feeds.items()})
        name = self._names[seen.value]
        raise Found(self._finding(name, seen.node, array, seen.iteration, read, repro))

    def _repro(self, seen: Observation) -> onnx.ModelProto:
        piece = cut([seen.node], [seen.value], lambda v: None if str(v.name) in seen.inputs else constant_tensor(v))
        types = {
            value: type_proto(held.data_type(), len(held.shape()))
            for value in piece.inputs
            if (held := seen.inputs.get(str(value.name))) is not None
        }
        weights = []
        for value in piece.constants:
            if (tensor := constant_tensor(value)) is not None:
                held_tensor = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)
                weights.append(ir.serde.serialize_tensor(held_tensor))
        return piece_proto(self._model, piece, types, weights)

    def _finding(
        self,
        tensor: str,
        node: ir.Node | None,
        array: np.ndarray,
        iteration: tuple[int, ...],
        inputs: Sequence[Range],
        repro: tuple[onnx.ModelProto, Mapping[str, np.ndarray]] | None,
    ) -> NonFinite:
        values = array.astype(np.float32) if array.dtype.kind != "f" else array
        bad = {"nan": np.isnan, "inf": np.isinf}.get(self._kind, lambda v: ~np.isfinite(v))(values)
        nan = int(np.isnan(values).sum())
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape)) if bad.ndim else ()
        return NonFinite(
            tensor, None if node is None else node.name or node.op_type, None if node is None else node.op_type,
            nan, int(np.isinf(values).sum()), values.size, index, iteration, self.batch, tuple(inputs), repro,
        )  # fmt: skip
