"""Arrays and a manifest in one file: safetensors, or an npz archive that numpy reads."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from onnxviz.errors import InputError, OutputError
from onnxviz.graph.files import atomic_path

__all__ = ["FORMATS", "keys_of", "numpy_type", "read_arrays", "unsaved", "write_arrays"]

#: Endings of the formats.
FORMATS = (".safetensors", ".npz")
_MANIFEST = "__onnxviz__"  # of an npz archive; safetensors has a place for metadata


def numpy_type(name: str) -> np.dtype[Any]:
    """Return the numpy type of a name such as ``"float32"`` or ``"bfloat16"`` (from ml_dtypes); strings are objects.

    >>> numpy_type("bfloat16").itemsize
    2

    Raises:
        TypeError: There is no such type.
    """
    return np.dtype(object) if name == "string" else np.dtype(getattr(ml_dtypes, name, name))


def keys_of(names: Sequence[str]) -> dict[str, str]:
    """Return the key under which each tensor is stored: its name, but for the few that a format cannot take."""
    reserved = {"__metadata__", _MANIFEST}
    return {name: f"tensor {i}" if name in reserved or "\0" in name else name for i, name in enumerate(names)}


def unsaved(arrays: Mapping[str, np.ndarray], ending: str) -> list[str]:
    """Return the names of the arrays that a format cannot hold: strings and complex numbers in safetensors."""
    return [name for name, a in arrays.items() if ending == ".safetensors" and a.dtype.kind in "OUSc"]


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], manifest: dict[str, Any]) -> None:
    """Write named arrays and a manifest; the file appears whole or not at all.

    Raises:
        OutputError: The ending is none of :data:`FORMATS`, or the folder cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise OutputError(
            f"cannot write a capture as {Path(path).name!r}", hint=f"end the name in {' or '.join(FORMATS)}"
        )
    left_out = set(unsaved(arrays, ending))
    keys = keys_of(list(arrays))
    stored = {keys[name]: np.asarray(a, order="C") for name, a in arrays.items() if name not in left_out}
    with atomic_path(path) as temporary:
        (_write_safetensors if ending == ".safetensors" else _write_npz)(temporary, stored, json.dumps(manifest))


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], manifest: str) -> None:
    from safetensors.numpy import save_file

    save_file(dict(arrays), path, metadata={"onnxviz": manifest})


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray], manifest: str) -> None:
    # numpy.savez takes names as keyword arguments, so a tensor named "file" would break it.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, array in {**arrays, _MANIFEST: np.array(manifest)}.items():
            if array.dtype.kind == "O":
                array = array.astype(str)
            if array.dtype.kind == "V" or array.dtype.name in ml_dtypes.__all__:
                array = array.view(f"u{array.dtype.itemsize}")  # bits: the manifest tells the type
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`write_arrays` wrote; arrays are as they were, by key.

    Raises:
        InputError: The file is missing, damaged, or something else.
    """
    try:
        stored, manifest = (_read_safetensors if path.suffix.lower() == ".safetensors" else _read_npz)(path)
        types = {
            keys[t["key"]]: t
            for keys in [keys_of([t["key"] for t in manifest["tensors"]])]
            for t in manifest["tensors"]
        }
        return {key: _restored(array, types[key]) for key, array in stored.items() if key in types}, manifest
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:
        raise InputError(f"{path} is not a capture of onnxviz, or it is damaged") from error


def _restored(stored: np.ndarray | bytes, tensor: dict[str, Any]) -> np.ndarray:
    dtype = numpy_type(tensor["dtype"])
    if isinstance(stored, (bytes, bytearray)):
        return np.frombuffer(stored, dtype).reshape(tensor["shape"])
    if stored.dtype.kind == "U":
        return stored.astype(object)
    return stored if stored.dtype == dtype else stored.view(dtype)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import deserialize, safe_open

    with safe_open(path, framework="numpy") as file:
        manifest = json.loads(file.metadata()["onnxviz"])
    entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    return {name: entry["data"] for name, entry in entries}, manifest


def _read_npz(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        manifest = json.loads(str(archive[_MANIFEST]))
        return {key: archive[key] for key in archive.files if key != _MANIFEST}, manifest
