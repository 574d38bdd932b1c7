"""Opening torch files that hold a network of their own, and saying what they would run where they are not trusted."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from onnxviz.converters.base import ConvertOptions, Source, comes_from
from onnxviz.converters.quiet import quiet
from onnxviz.errors import ConversionError, TrustError
from onnxviz.graph.model import summary_line

__all__ = ["TORCH_SUFFIXES", "open_torch_file"]

#: Endings of files that torch writes.
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pt2", ".safetensors")


def open_torch_file(source: Source, options: ConvertOptions) -> object:
    """Load a torch file that holds a network of its own; explain why, where it holds none or is not trusted."""
    path = source.path
    assert path is not None
    how = f"onnxviz convert net.py:factory --weights {path.name} --input-shape 1,3,224,224 --trust"
    if path.suffix.lower() == ".safetensors":
        raise ConversionError(f"{path} holds weights but no network", hint=f"name the factory too: {how}")
    kind = _kind(path)
    if kind == "pickle" and not options.trust:
        raise _not_a_network(path, how)
    if not options.trust:
        what = "a torch.export program, parts of which are unpickled" if kind == "program" else "a TorchScript program"
        raise TrustError(
            f"{path} is {what}: opening it can run code", hint="add --trust if you know where it comes from"
        )
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
        raise ConversionError(f"cannot open {path}: {summary_line(error)}") from error
    if not comes_from(held, "torch", "Module"):
        raise ConversionError(f"{path} holds weights but no network", hint=f"name the factory too: {how}")
    return held


def _kind(path: Path) -> str:
    """Tell a torch.export program, a TorchScript archive and a pickle apart by what the archive holds."""
    if not zipfile.is_zipfile(path):
        if path.suffix.lower() == ".pt2":
            raise ConversionError(f"{path} is not a torch.export program, or it is truncated", hint="save it again")
        return "pickle"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "program"
    return "script" if any("/code/" in name for name in names) else "pickle"


def _not_a_network(path: Path, how: str) -> ConversionError | TrustError:
    import torch

    try:
        with quiet():
            torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = next((line for line in str(error).splitlines() if "GLOBAL" in line), summary_line(error))
        what = found.split("GLOBAL ")[-1].split(" was not")[0].strip()
        return TrustError(
            f"{path} is a pickle that would run code: it loads {what}",
            hint=f"add --trust if you know where it comes from, or save its state_dict and use: {how}",
        )
    except Exception as error:  # noqa: BLE001 - a damaged file makes torch raise anything; it is reported
        return ConversionError(f"{path} is not a PyTorch file, or it is truncated: {summary_line(error)}")
    return ConversionError(f"{path} holds weights but no network", hint=f"name the factory too: {how}")
