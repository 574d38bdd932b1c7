"""What a pickle would import, read from its opcodes: nothing is unpickled.

Unpickling calls whatever the pickle names, so the names tell what it can do. Source: the module pickletools of Python.
"""

from __future__ import annotations

import pickletools
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["foreign_globals", "pickled_globals", "pickled_parts"]

_STRINGS = frozenset(
    ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")
)
_DAMAGE = (ValueError, IndexError, KeyError, EOFError, OverflowError, MemoryError, struct.error)
_MOST_PICKLES = 16  # in a row in one file; torch wrote five before it wrote archives
_DATA = re.compile(
    r"""collections\.(OrderedDict|Counter) | (builtins|__builtin__)\.(set|frozenset|bytearray|complex) | _codecs\.encode
    | torch\.(bool|Size|device|\w+Storage|(b?float|complex|q?u?int|bits)\d\w*) | torch(\.cuda)?\.\w*Tensor
    | torch\.nn\.parameter\.Parameter | torch\.storage\.(Typed|Untyped)Storage | torch\.serialization\._get_layout
    | torch\._utils\._rebuild_(tensor(_v[23])?|parameter(_with_state)?|qtensor|sparse_tensor|nested_tensor)""",
    re.VERBOSE,
)


def foreign_globals(names: Iterable[str]) -> list[str]:
    """Return the names that are more than tensors and containers, each once, those outside of torch first.

    >>> foreign_globals(["torch.nn.modules.linear.Linear", "collections.OrderedDict", "posix.system"])
    ['posix.system', 'torch.nn.modules.linear.Linear']
    """
    found = dict.fromkeys(name for name in names if not _DATA.fullmatch(name))
    return sorted(found, key=lambda name: name.startswith("torch."))


def pickled_parts(path: Path) -> dict[str, list[str]]:
    """Return the pickles in a file, archives inside of an archive included, with everything that each imports.

    Args:
        path: A zip archive, or a file of pickles.

    Returns:
        Name of the part (``""`` for a file that is no archive) -> names such as ``"posix.system"``.

    Raises:
        zipfile.BadZipFile: The archive is damaged.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(path):
            return {"": list(pickled_globals(file))}
        return dict(_archived(file, ""))


def _archived(file: IO[bytes], where: str) -> Iterator[tuple[str, list[str]]]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            name = f"{where}/{entry.filename}" if where else entry.filename
            with archive.open(entry) as part:
                head = part.read(2)
                part.seek(0)
                if head == b"PK" and where.count("/") < 32:
                    yield from _archived(part, name)
                elif name.endswith((".pkl", ".pt")) or (head[:1] == b"\x80" and head[1:] in b"\1\2\3\4\5"):
                    names = list(pickled_globals(part))
                    if names or name.endswith((".pkl", ".pt")):  # the bytes of a weight can look like a pickle
                        yield name, names


def pickled_globals(stream: IO[bytes]) -> Iterator[str]:
    r"""Yield everything that the pickles in a stream import, as far as they can be read.

    >>> import io, pickle
    >>> list(pickled_globals(io.BytesIO(pickle.dumps(print))))
    ['builtins.print']
    """
    for _ in range(_MOST_PICKLES):
        reader = _Reader()
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if (name := reader.step(opcode, argument)) is not None:
                    yield name
        except _DAMAGE:
            return


class _Reader:
    """Follows the stack of a pickle as far as it holds text, which is where STACK_GLOBAL takes its names from."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: Any, argument: Any) -> str | None:
        """Take an opcode; return what it imports."""
        stack, kind = self._stack, opcode.name
        if kind in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = stack[-1]
        elif kind == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        if kind in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            return None
        names = stack[-2:] if kind == "STACK_GLOBAL" else []
        top = stack[-1] if stack else None
        self._pop(opcode)
        for produced in opcode.stack_after:
            if produced is pickletools.markobject:
                stack.append(pickletools.markobject)
            elif kind in _STRINGS:
                stack.append(argument if isinstance(argument, str) else argument.decode(errors="replace"))
            elif kind in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(self._memo.get(int(argument)))
            else:
                stack.append(top if kind == "DUP" else None)
        if kind in ("GLOBAL", "INST"):
            return str(argument).replace(" ", ".", 1)
        if kind.startswith("EXT"):
            return f"the registered extension {argument}"
        if kind == "STACK_GLOBAL":
            told = len(names) == 2 and all(isinstance(name, str) for name in names)
            return ".".join(names) if told else "a name that it computes"
        return None

    def _pop(self, opcode: Any) -> None:
        before, mark = list(opcode.stack_before), pickletools.markobject
        if mark in before or (opcode.name == "POP" and self._stack and self._stack[-1] is mark):
            while self._stack.pop() is not mark:
                pass
            before = before[: before.index(mark)] if mark in before else []
        if before:
            del self._stack[-len(before) :]
