"""What a run leaves behind: the tensors by name, as arrays or as statistics, and where they came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from onnxviz.errors import SelectionError, printable
from onnxviz.runtime.inputs import InputRecord
from onnxviz.runtime.nonfinite import NonFinite
from onnxviz.runtime.storage import keys_of, read_arrays, unsaved, write_arrays

__all__ = ["Capture", "Mergeable", "TensorRecord", "load_capture"]


class Mergeable(Protocol):
    """What is kept of a tensor in place of its array: two of them make one."""

    def merge(self, other: Self, /) -> Self:
        """Return what both sets of values give together."""


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of a run.

    Attributes:
        name: Of the tensor; a tensor of a body has the name of :func:`onnxviz.graph.select.all_tensors`.
        kept: Its values, read-only; None where only statistics were kept.
        shape: Sizes.
        dtype: As numpy spells it, such as ``"float32"``.
        producer: Name of the node that wrote it (its op type if it has no name).
        op_type: Of that node.
        provider: Execution provider that ran the node, such as ``"cpu"``.
        seconds: Time that the node took; None where it ran together with others.
        mode: ``"semantic"``: nothing fused, the value is what the graph in the file says; ``"production"``: the value
            that the optimised session computes.
        iteration: Position inside Loop or Scan bodies, outermost first; empty in the main graph.
        statistics: What ``reduce`` made of the values; None where none was given.
    """

    name: str
    kept: np.ndarray | None = field(repr=False)
    shape: tuple[int, ...]
    dtype: str
    producer: str | None
    op_type: str | None
    provider: str
    seconds: float | None = None
    mode: str = "semantic"
    iteration: tuple[int, ...] = ()
    statistics: Any = field(default=None, repr=False, compare=False)

    @property
    def array(self) -> np.ndarray:
        """The values, read-only.

        Raises:
            SelectionError: Only the statistics of this tensor were kept.
        """
        if self.kept is None:
            raise SelectionError(
                f"only statistics of tensor {self.name!r} were kept", hint="capture it with its array to see its values"
            )
        return self.kept

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

    A tensor inside a Loop or Scan has a record an iteration, under its name followed by the position: ``"y[0]"``,
    ``"y[1]"``; in nested ones ``"y[0,3]"``.

    Attributes:
        records: The tensors.
        inputs: What the model was fed; of several batches, the first.
        model_name: Of the model.
        providers: The execution providers that were registered, the preferred one first.
        outputs: Names of the model's own outputs.
        not_captured: Tensor name -> why no record holds it.
        mode: ``"semantic"`` or ``"production"``.
        samples: Number of samples that were run, all batches together.
        fallbacks: Node -> the provider that it was assigned to, for nodes that the preferred provider did not take.
        interrupted: True if the run was stopped before its end; what is here is complete as far as it went.
        notes: What a reader of the values should know, one line each.
        nonfinite: Where the run was stopped because of NaN or Inf; None if it was not.
    """

    records: dict[str, TensorRecord] = field(repr=False)
    inputs: tuple[InputRecord, ...]
    model_name: str
    providers: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    not_captured: dict[str, str] = field(default_factory=dict)
    mode: str = "semantic"
    samples: int = 1
    fallbacks: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    nonfinite: NonFinite | None = None

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

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that were kept, by key."""
        return {key: record.kept for key, record in self.records.items() if record.kept is not None}

    def manifest(self) -> dict[str, Any]:
        """Return all but the arrays as plain JSON types."""
        return {
            "format": "onnxviz.capture/1",
            "model": self.model_name,
            "mode": self.mode,
            "samples": self.samples,
            "providers": list(self.providers),
            "fallbacks": self.fallbacks,
            "outputs": list(self.outputs),
            "inputs": [record.to_dict() for record in self.inputs],
            "tensors": [{**r.to_dict(), "key": key} for key, r in self.records.items() if r.kept is not None],
            "not_captured": self.not_captured,
            "interrupted": self.interrupted,
            "notes": list(self.notes),
            "nonfinite": None if self.nonfinite is None else self.nonfinite.to_dict(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays and the manifest, as ``.safetensors`` or ``.npz``.

        A safetensors file holds the manifest as its metadata entry ``onnxviz``, an npz archive as a string named
        ``__onnxviz__``. In an npz archive bfloat16 and float8 are stored as their bits, in both formats types of
        4 bits and fewer are, a byte each; the manifest tells the type.
        What a format cannot hold is in :meth:`unsaved`.

        Raises:
            OutputError: Another ending, or the folder cannot be written.
        """
        write_arrays(Path(path), self.arrays, self.manifest())

    def unsaved(self, path: str | os.PathLike[str]) -> list[str]:
        """Return the names of the tensors that the format of ``path`` cannot hold: strings in safetensors."""
        return unsaved(self.arrays, Path(path).suffix.lower())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(key))}</td><td>{escape(r.op_type or '')}</td>"
            f"<td>{r.dtype}</td><td>{r.shape}</td></tr>"
            for key, r in self.records.items()
        )
        head = "<tr><th>tensor</th><th>op</th><th>dtype</th><th>shape</th></tr>"
        caption = escape(f"{self.model_name}: {len(self)} tensors, {self.mode}")
        return f"<table><caption>{caption}</caption>{head}{rows}</table>"


def load_capture(path: str | os.PathLike[str]) -> Capture:
    """Read what :meth:`Capture.save` wrote.

    Raises:
        InputError: The file is missing, damaged, or was not written by onnxviz.
    """
    arrays, manifest = read_arrays(Path(path))
    keys = keys_of([t["key"] for t in manifest["tensors"]])
    inputs = tuple(
        InputRecord(**{**r, "shape": tuple(r["shape"]), "steps": tuple(r["steps"])}) for r in manifest["inputs"]
    )
    records = {}
    for tensor in manifest["tensors"]:
        key = tensor.pop("key")
        if (stored := keys[key]) in arrays:
            shape, iteration = tuple(tensor.pop("shape")), tuple(tensor.pop("iteration"))
            records[key] = TensorRecord(kept=arrays[stored], shape=shape, iteration=iteration, **tensor)
    return Capture(
        records,
        inputs,
        manifest["model"],
        tuple(manifest["providers"]),
        tuple(manifest["outputs"]),
        manifest["not_captured"],
        manifest["mode"],
        manifest["samples"],
        manifest["fallbacks"],
        manifest["interrupted"],
        tuple(manifest["notes"]),
        None if manifest["nonfinite"] is None else NonFinite.from_dict(manifest["nonfinite"]),
    )
