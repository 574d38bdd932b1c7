"""Arrays and a manifest in one file: safetensors, or an npz archive that numpy reads."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from onnxviz.errors import InputError, OutputError
from onnxviz.graph.files import atomic_path
from onnxviz.runtime.memory import release

__all__ = ["FORMATS", "keys_of", "numpy_type", "read_arrays", "unsaved", "write_arrays", "write_npz"]

#: Endings of the formats.
FORMATS = (".safetensors", ".npz")
_MANIFEST = "__onnxviz__"  # of an npz archive; safetensors has a place for metadata
_PART = 4 << 20  # bytes written at a time
_ZIP64 = 1 << 30  # bytes from which a member of an archive has long sizes
#: Names of the types that safetensors has; others of ml_dtypes are stored as their bits.
_SAFETENSORS = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


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
        if ending == ".safetensors":
            _write_safetensors(temporary, stored, json.dumps(manifest))
        else:
            write_npz(temporary, {**stored, _MANIFEST: np.array(json.dumps(manifest))})


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], manifest: str) -> None:
    # safetensors' own writer takes all arrays as bytes at once: memory that a limited run has not.
    entries: dict[str, Any] = {"__metadata__": {"onnxviz": manifest}}
    order = sorted(arrays, key=lambda key: -arrays[key].itemsize)  # so that all are aligned
    end = 0
    for key in order:
        array = arrays[key]
        kind = _SAFETENSORS.get(array.dtype.name, f"U{8 * array.itemsize}")
        entries[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for key in order:
            _write_bytes(file, arrays[key])


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an archive that numpy reads; types that numpy lacks are stored as their bits.

    Unlike numpy.savez it takes any name, also "file", which is an argument there.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, given in arrays.items():
            array = np.asarray(given, order="C")
            if array.dtype.kind == "O":
                array = array.astype(str)
            if array.dtype.kind == "V" or array.dtype.name in ml_dtypes.__all__:
                array = array.view(f"u{array.dtype.itemsize}")  # bits: the manifest tells the type
            start = io.BytesIO()
            np.lib.format.write_array_header_1_0(start, np.lib.format.header_data_from_array_1_0(array))
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=array.nbytes > _ZIP64) as file:
                file.write(start.getvalue())
                _write_bytes(file, array)


def _write_bytes(file: IO[bytes], array: np.ndarray) -> None:
    """Write an array a part at a time; what is mapped from a file goes back to the system after it."""
    if not array.nbytes:
        return
    raw = array.reshape(-1).view(np.uint8)
    for start in range(0, len(raw), _PART):
        file.write(raw[start : start + _PART].data)
        release(raw)


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
