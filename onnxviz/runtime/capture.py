"""Every tensor of a run, by name."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import ExecutionError, InputError, OutputError
from onnxviz.graph.expose import expose
from onnxviz.graph.files import atomic_path
from onnxviz.graph.model import model_name
from onnxviz.graph.select import node_tensors, select
from onnxviz.runtime.inputs import InputRecord, Inputs, load_inputs
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.session import Session

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

        A safetensors file holds the manifest as its metadata entry ``onnxviz``, an npz archive as ``manifest.json``.
        Strings and other arrays that a format lacks are left to the manifest.

        Raises:
            OutputError: Another ending, or the folder cannot be written.
        """
        suffix = Path(path).suffix.lower()
        writers = {".safetensors": self._write_safetensors, ".npz": self._write_npz}
        if suffix not in writers:
            raise OutputError(
                f"cannot write a capture as {Path(path).name!r}", hint="end the name in .safetensors or .npz"
            )
        with atomic_path(path) as temporary:
            writers[suffix](temporary)

    def _write_safetensors(self, path: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {
            r.name: np.ascontiguousarray(r.array) for r in self.records.values() if r.array.dtype.kind not in "OUSc"
        }
        save_file(arrays, path, metadata={"onnxviz": json.dumps(self.manifest())})

    def _write_npz(self, path: Path) -> None:
        # numpy.savez takes names as keyword arguments, so a tensor named "file" would break it.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for record in self.records.values():
                if record.array.dtype.kind in "OV":
                    continue
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(record.array), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{record.name}.npy"), buffer.getvalue())
            archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(self.manifest(), indent=1))

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
            missing[name] = f"{session.outputs[name]} is not one array"
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
    path = Path(path)
    try:
        arrays, manifest = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_npz(path)
        inputs = tuple(
            InputRecord(**{**r, "shape": tuple(r["shape"]), "steps": tuple(r["steps"])}) for r in manifest["inputs"]
        )
        records = {
            t["name"]: TensorRecord(
                array=arrays[t["name"]], **{**t, "shape": tuple(t["shape"]), "iteration": tuple(t["iteration"])}
            )
            for t in manifest["tensors"]
            if t["name"] in arrays
        }
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:
        raise InputError(f"{path} is not a capture of onnxviz, or it is damaged") from error
    return Capture(
        records,
        inputs,
        manifest["model"],
        tuple(manifest["providers"]),
        tuple(manifest["outputs"]),
        manifest["not_captured"],
    )


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["onnxviz"])  # noqa: SIM118


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        arrays = {
            n.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(n)), allow_pickle=False)
            for n in names
        }
    return arrays, manifest
