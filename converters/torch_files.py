"""Opening torch files that hold a network of their own, and saying what they would run where they are not trusted."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from onnxviz.converters.base import ConvertOptions, Source, comes_from
from onnxviz.converters.pickles import foreign_globals, pickled_parts
from onnxviz.errors import ConversionError, TrustError, listed
from onnxviz.graph.model import summary_line
from onnxviz.runtime.quiet import quiet

__all__ = ["TORCH_SUFFIXES", "open_torch_file", "runs_code"]

#: Endings of files that torch writes.
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pt2", ".safetensors")

_TRUST = "add --trust if you know where it comes from"
_PROGRAM = ("archive_format", "serialized_exported_program.json")


def runs_code(path: Path) -> bool:
    """Say whether opening a torch file can run code; a state dict and safetensors cannot.

    Raises:
        ConversionError: It is no torch file, or truncated.
    """
    if path.suffix.lower() == ".safetensors":
        return False
    return _kind(path) != "pickle" or bool(_foreign(path))


def open_torch_file(source: Source, options: ConvertOptions) -> object:
    """Load a torch file that holds a network of its own; explain why, where it holds none or is not trusted.

    Raises:
        ConversionError: It is no torch file, truncated, or holds no network.
        TrustError: Opening it would run code, and ``options.trust`` is not set.
    """
    path = source.path
    assert path is not None
    how = f"onnxviz convert net.py:factory --weights {path.name} --input-shape 1,3,224,224 --trust"
    if path.suffix.lower() == ".safetensors":
        raise ConversionError(f"{path} holds weights but no network", hint=f"name the factory too: {how}")
    kind = _kind(path)
    if kind == "pickle" and not (options.trust and _foreign(path)):
        raise _not_a_network(path, how)
    if not options.trust:
        raise TrustError(_program(path) if kind == "program" else _script(path), hint=_TRUST)
    import torch

    script: Any = torch.jit
    try:
        with quiet():
            if kind == "program":
                return torch.export.load(path)
            if kind == "script":
                loaded: object = script.load(path, map_location="cpu")
                return loaded
            held = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        lacks = isinstance(error, ModuleNotFoundError)
        raise ConversionError(
            f"cannot open {path}: {summary_line(error)}",
            hint="put the folder of that code on PYTHONPATH, or name a factory in it" if lacks else None,
        ) from error
    if not comes_from(held, "torch", "Module"):
        raise ConversionError(f"{path} holds weights but no network", hint=f"name the factory too: {how}")
    return held


def _kind(path: Path) -> str:
    """Tell a torch.export program, a TorchScript archive and a pickle apart by what the archive holds."""
    if not zipfile.is_zipfile(path):
        if path.suffix.lower() == ".pt2":
            raise ConversionError(f"{path} is not a torch.export program, or it is truncated", hint="save it again")
        return "pickle"
    names = _members(path)
    if any(name.endswith(_PROGRAM) for name in names):
        return "program"
    return "script" if any("/code/" in name for name in names) else "pickle"


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ConversionError(f"{path} is a damaged archive: {summary_line(error)}", hint="save it again") from error


def _parts(path: Path) -> dict[str, list[str]]:
    try:
        return pickled_parts(path)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:  # or encrypted, or packed oddly
        raise ConversionError(f"{path} is a damaged archive: {summary_line(error)}", hint="save it again") from error


def _foreign(path: Path) -> list[str]:
    return foreign_globals(name for names in _parts(path).values() for name in names)


def _program(path: Path) -> str:
    """Say what opening and running a torch.export program would do."""
    foreign = {part: names for part, found in _parts(path).items() if (names := foreign_globals(found))}
    says = [f"unpickles {part.partition('/')[2] or part}, which loads {listed(f)}" for part, f in foreign.items()]
    native = [name for name in _members(path) if name.endswith((".so", ".dll", ".dylib"))]
    says += [f"brings the native library {name}" for name in native]
    if not says:
        return f"{path} is a torch.export program: the pickles in it hold only tensors, but it is run as it stands"
    return f"{path} is a torch.export program that would run code: it {'; it '.join(says[:3])}"


def _script(path: Path) -> str:
    code = [n.partition("/code/")[2] for n in _members(path) if "/code/" in n and n.endswith(".py")]
    return f"{path} is a TorchScript program of {len(code)} code files, which would be run: {listed(code)}"


def _not_a_network(path: Path, how: str) -> ConversionError | TrustError:
    import torch

    what = listed(_foreign(path))
    if not what:
        try:
            with quiet():
                torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = next((line for line in str(error).splitlines() if "GLOBAL" in line), None)
            if found is None:
                return ConversionError(f"{path} is not a PyTorch file, or it is truncated: {summary_line(error)}")
            what = found.split("GLOBAL ")[-1].split(" was not")[0].strip()
        except Exception as error:  # noqa: BLE001 - a damaged file makes torch raise anything; it is reported
            return ConversionError(f"{path} is not a PyTorch file, or it is truncated: {summary_line(error)}")
    if what:
        return TrustError(
            f"{path} is a pickle that would run code: it loads {what}",
            hint=f"{_TRUST}, or save its state_dict and use: {how}",
        )
    return ConversionError(f"{path} holds weights but no network", hint=f"name the factory too: {how}")
