"""Arrays on disk instead of in memory."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxviz.errors import OutputError
from onnxviz.runtime.memory import release

__all__ = ["Spill", "release"]


class Spill:
    """A temporary folder that holds arrays; it lasts as long as any of them is used.

    Args:
        folder: Where to make it; the system's folder for temporary files by default.

    >>> spill = Spill()
    >>> spill.put(np.arange(3)).tolist()
    [0, 1, 2]
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="onnxviz-", dir=folder))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._count = 0
        self.bytes = 0

    def put(self, array: np.ndarray) -> np.ndarray:
        """Write an array and return it as one whose memory is the file; text and empty arrays stay as they are.

        Raises:
            OutputError: The disk is full.
        """
        return self._written([array], array.shape)

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Write arrays one after the other as one array, joined along the first axis."""
        rows = sum(a.shape[0] for a in arrays)
        return self._written(arrays, (rows, *arrays[0].shape[1:]))

    def _written(self, arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        dtype = arrays[0].dtype
        if dtype.hasobject or not sum(a.nbytes for a in arrays):
            return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        path = self._folder / f"{self._count}"
        self._count += 1
        try:
            with path.open("wb") as file:
                for array in arrays:
                    np.ascontiguousarray(array).view(np.uint8).reshape(-1).tofile(file)
                    release(array)
                    self.bytes += array.nbytes
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OutputError(f"cannot write {self.bytes:,} bytes of tensors to disk: {error.strerror}") from error
        raw = _Held(np.memmap(path, np.uint8, "r"), self)
        return np.asarray(raw).view(dtype).reshape(shape)


class _Held:
    """Lends an array's memory to others, and keeps the folder that it lies in."""

    def __init__(self, array: np.ndarray, owner: Spill) -> None:
        self._array = array
        self._owner = owner
        self.mapped: mmap.mmap | None = array._mmap  # type: ignore[attr-defined]
        self.__array_interface__ = array.__array_interface__
