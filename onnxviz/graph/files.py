"""Writing files so that an interrupted or failed run leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnxviz.errors import OutputError

__all__ = ["atomic_folder", "atomic_path", "atomic_write", "check_output"]


def check_output(
    path: str | os.PathLike[str], endings: Sequence[str] = (), *, source: str | os.PathLike[str] | None = None
) -> None:
    """Check, before long work, that ``path`` can be written and ends in one of ``endings`` (such as ``".png"``).

    ``source`` is a model that must not be written over.

    Raises:
        OutputError: It cannot, or does not.
    """
    target = Path(path)
    if endings and target.suffix.lower() not in endings:
        raise OutputError(f"cannot write {target.name!r}: its ending names no format", hint=f"use {', '.join(endings)}")
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder", hint="name a file")
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {target}: it is no regular file", hint="name a file")
    target = Path(os.path.realpath(target))
    if source is not None and target == Path(os.path.realpath(source)):
        raise OutputError(f"{os.fspath(path)} is the model itself", hint="name another file")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: the folder {target.parent} does not exist", hint="create it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"cannot write {target}: no permission in {target.parent}", hint="choose a writable folder")


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; on success every file in it is moved next to ``path``.

    For outputs of several files, such as a model with external data: they are written under their final names
    and appear only once all of them are complete. On an error the folder is removed and the target is untouched.

    Raises:
        OutputError: The target's folder does not exist or cannot be written, or the target is a folder.
    """
    check_output(path)
    target = Path(os.path.realpath(path))  # a link stays, and what it leads to is written
    parent = target.parent
    try:
        staging = Path(tempfile.mkdtemp(prefix=".onnxviz-", dir=parent))
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", hint="choose a writable folder"
        ) from error
    try:
        yield staging
        for file in sorted(staging.iterdir(), key=lambda f: f.name == target.name):  # the target itself comes last
            os.replace(file, parent / file.name)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path with the same name and ending as ``path``; on success it is moved to ``path``.

    Raises:
        OutputError: As :func:`atomic_folder`.
    """
    with atomic_folder(path) as folder:
        yield folder / Path(os.path.realpath(path)).name


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write ``data`` (text as UTF-8) to ``path`` in one step.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> atomic_write(target, "done")
    >>> target.read_text()
    'done'

    Raises:
        OutputError: As :func:`atomic_folder`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
