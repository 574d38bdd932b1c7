"""Every tensor of a run, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import ExecutionError
from onnxviz.graph.expose import expose
from onnxviz.graph.model import model_name
from onnxviz.graph.select import node_tensors, select
from onnxviz.runtime.inputs import InputRecord, Inputs, load_inputs
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.session import Session
from onnxviz.runtime.storage import keys_of, read_arrays, unsaved, write_arrays

__all__ = ["Capture", "TensorRecord", "capture", "load_capture"]


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of a run.

    Attributes:
        name: Of the tensor.
        array: Its values, read-only.
        shape: Sizes.
        dtype: As numpy spells it, such as ``"float32"``.
        producer: Name of the node that wrote it (its op type if it has no name).
        op_type: Of that node.
        provider: Execution provider of the session, such as ``"cpu"``.
        seconds: Time that the node took; None where it was not measured.
        mode: ``"semantic"``: nothing fused, the value is what the graph in the file says.
        iteration: Position inside Loop or Scan bodies; empty in the main graph.
    """

    name: str
    array: np.ndarray = field(repr=False)
    shape: tuple[int, ...]
    dtype: str
    producer: str | None
    op_type: str | None
    provider: str
    seconds: float | None = None
    mode: str = "semantic"
    iteration: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the array as plain JSON types."""
        return {
            "name": self.name, "shape": list(self.shape), "dtype": self.dtype, "producer": self.producer,
            "op_type": self.op_type, "provider": self.provider, "seconds": self.seconds, "mode": self.mode,
            "iteration": list(self.iteration),
        }  # fmt: skip


@dataclass(frozen=True)
class Capture(Mapping[str, TensorRecord]):
    """The tensors of one run, by name, in the graph's order.

    Attributes:
        records: The tensors.
        inputs: What the model was fed.
        model_name: Of the model.
        providers: The session's execution providers.
        outputs: Names of the model's own outputs.
        not_captured: Tensor name -> why no array holds it.
    """

    records: dict[str, TensorRecord] = field(repr=False)
    inputs: tuple[InputRecord, ...]
    model_name: str
    providers: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    not_captured: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> TensorRecord:
        return self.records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def picture(self) -> np.ndarray | None:
        """The first picture that was fed, as the model saw it: (H, W, 3) uint8 RGB."""
        return next((r.picture for r in self.inputs if r.picture is not None), None)

    def manifest(self) -> dict[str, Any]:
        """Return all but the arrays as plain JSON types."""
        return {
            "format": "onnxviz.capture/1",
            "model": self.model_name,
            "providers": list(self.providers),
            "outputs": list(self.outputs),
            "inputs": [record.to_dict() for record in self.inputs],
            "tensors": [record.to_dict() for record in self.records.values()],
            "not_captured": self.not_captured,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays and the manifest, as ``.safetensors`` or ``.npz``.

        A safetensors file holds the manifest as its metadata entry ``onnxviz``, an npz archive as a string named
        ``__onnxviz__``. In an npz archive bfloat16 and float8 are stored as their bits; the manifest tells the type.
        What a format cannot hold is in :meth:`unsaved`.

        Raises:
            OutputError: Another ending, or the folder cannot be written.
        """
        write_arrays(Path(path), {name: record.array for name, record in self.records.items()}, self.manifest())

    def unsaved(self, path: str | os.PathLike[str]) -> list[str]:
        """Return the names of the tensors that the format of ``path`` cannot hold: strings in safetensors."""
        return unsaved({name: record.array for name, record in self.records.items()}, Path(path).suffix.lower())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(r.name)}</td><td>{escape(r.op_type or '')}</td><td>{r.dtype}</td><td>{r.shape}</td></tr>"
            for r in self.records.values()
        )
        head = "<tr><th>tensor</th><th>op</th><th>dtype</th><th>shape</th></tr>"
        return f"<table><caption>{escape(self.model_name)}: {len(self)} tensors</caption>{head}{rows}</table>"


def capture(
    model: ir.Model,
    inputs: Inputs | Mapping[str, Any] | Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    tensors: str | Sequence[str] = "*",
    *,
    providers: str | Sequence[str] = "auto",
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    op_library: str | os.PathLike[str] | None = None,
) -> Capture:
    """Run a model once and return its intermediate tensors.

    Nothing is fused or reordered (``ORT_DISABLE_ALL``), so every tensor is what the graph in the file says. Functions
    are inlined. Tensors in the bodies of If, Loop and Scan are not captured.

    Args:
        model: The model; it is not changed.
        inputs: Arrays by name; a path or a list of sources as :func:`onnxviz.runtime.inputs.load_inputs` takes them;
            None feeds seeded random numbers.
        tensors: Which, as :func:`onnxviz.graph.select.select` takes them.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        preprocessing, dims, seed: As :func:`onnxviz.runtime.inputs.load_inputs` takes them.
        op_library: A shared library with custom operators.

    Raises:
        SelectionError, InputError, ProviderError, ExecutionError, ModelError: As the functions named above.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {y = Neg(x) z = Relu(y)}'
    ... )
    >>> captured = capture(model, {"x": np.float32([1, -2])}, providers="cpu")
    >>> {name: record.array.tolist() for name, record in captured.items()}
    {'y': [-1.0, 2.0], 'z': [0.0, 2.0]}
    """
    if not isinstance(inputs, Inputs):
        sources = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs or ()
        inputs = load_inputs(model, sources, preprocessing=preprocessing, dims=dims, seed=seed)
    exposed, _ = expose(model, tensors)
    wanted = {str(value.name) for value in select(exposed, tensors)}
    session = Session(exposed, providers, op_library=op_library)
    try:
        results = session.run(inputs.feeds, [name for name in session.outputs if name in wanted])
    except ExecutionError as error:
        if inputs.assumed:
            sizes = ", ".join(f"{name}={size}" for name, size in inputs.assumed.items())
            error.hint = f"sizes were assumed ({sizes}): set them with --dim NAME=N, or give --input"
        raise
    producers = {str(v.name): v.producer() for v in node_tensors(exposed)}
    records, missing = {}, {}
    for name, node in producers.items():
        if name not in results:
            continue
        value = results[name]
        if not isinstance(value, np.ndarray):
            missing[name] = f"it is {session.outputs[name]}, not one array"
            continue
        value.flags.writeable = False
        records[name] = TensorRecord(
            name, value, value.shape, "string" if value.dtype == object else str(value.dtype),
            producer=None if node is None else node.name or node.op_type,
            op_type=None if node is None else node.op_type,
            provider=session.providers[0],
        )  # fmt: skip
    return Capture(
        records,
        inputs.records,
        model_name(model),
        tuple(session.providers),
        tuple(str(output.name) for output in model.graph.outputs),
        missing,
    )


def load_capture(path: str | os.PathLike[str]) -> Capture:
    """Read what :meth:`Capture.save` wrote.

    Raises:
        InputError: The file is missing, damaged, or was not written by onnxviz.
    """
    arrays, manifest = read_arrays(Path(path))
    keys = keys_of([t["name"] for t in manifest["tensors"]])
    inputs = tuple(
        InputRecord(**{**r, "shape": tuple(r["shape"]), "steps": tuple(r["steps"])}) for r in manifest["inputs"]
    )
    records = {
        t["name"]: TensorRecord(
            array=arrays[keys[t["name"]]], **{**t, "shape": tuple(t["shape"]), "iteration": tuple(t["iteration"])}
        )
        for t in manifest["tensors"]
        if keys[t["name"]] in arrays
    }
    return Capture(
        records,
        inputs,
        manifest["model"],
        tuple(manifest["providers"]),
        tuple(manifest["outputs"]),
        manifest["not_captured"],
    )
