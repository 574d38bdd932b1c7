"""Looking into a Keras file before Keras opens it: is there a network in it, and what code would it run?"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onnxviz.errors import ConversionError, MissingDependencyError, TrustError, listed

__all__ = ["check_trust", "code_in", "read_config"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_BUILD = "onnxviz convert model.py:factory --weights {} --trust"


def read_config(path: Path) -> dict[str, Any]:
    """Read the network's configuration out of a ``.keras`` or HDF5 file, without Keras.

    Raises:
        ConversionError: The file is damaged, or holds weights and no network.
        MissingDependencyError: The file is HDF5 and h5py is not installed.
    """
    with path.open("rb") as file:
        magic = file.read(len(_HDF5))
    config = _from_hdf5(path) if magic == _HDF5 else _from_archive(path)
    if not isinstance(config, dict):
        raise ConversionError(f"{path} is damaged: its network configuration is no object", hint="save the model again")
    return config


def _from_archive(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ConversionError(f"{path} is not a Keras file, or it is truncated", hint="save it again with model.save()")
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except KeyError as error:
        raise ConversionError(f"{path} is a zip archive without config.json: not a Keras file") from error
    except (ValueError, zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise ConversionError(f"{path} is damaged: {error}", hint="save it again with model.save()") from error


def _from_hdf5(path: Path) -> Any:
    if find_spec("h5py") is None:
        raise MissingDependencyError(f"reading {path.name} needs h5py", hint="pip install 'onnxviz[keras]'")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"{path} is damaged: {error}", hint="save the model again") from error
    if config is None:
        raise ConversionError(
            f"{path} holds weights only, no network",
            hint=f"name the function that builds it: {_BUILD.format(path.name)}",
        )
    return json.loads(config)


def code_in(config: Any, where: str = "") -> Iterator[str]:
    """Name everything in a network's configuration that would run code of its own: Lambdas and foreign classes.

    >>> list(code_in({"module": "keras.layers", "class_name": "Lambda", "config": {"name": "double"}}))
    ["the Lambda layer 'double'"]
    >>> list(code_in({"module": "my.nets", "class_name": "Swish", "config": {"name": "s1"}}))
    ["the class my.nets.Swish ('s1')"]
    """
    if isinstance(config, list):
        for item in config:
            yield from code_in(item, where)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    name = inner.get("name", where) if isinstance(inner, dict) else where
    kind, module = config.get("class_name"), config.get("module")
    if kind == "Lambda":
        yield f"the Lambda layer {name!r}"
        return
    if kind == "__lambda__":
        yield f"a lambda in {where!r}" if where else "a lambda"
        return
    if isinstance(kind, str) and not kind.startswith("__"):
        registered = config.get("registered_name")
        foreign = isinstance(module, str) and module.split(".")[0] != "keras"
        if foreign or (isinstance(registered, str) and ">" in registered) or ("module" in config and module is None):
            what = "function" if kind == "function" else "class"
            shown = inner if kind == "function" else kind
            package = f"{module}." if foreign and module != "builtins" else ""
            yield f"the {what} {package}{shown}" + (f" ({name!r})" if name else "")
    for key, value in config.items():
        if key not in ("compile_config", "training_config"):  # never read: models are opened with compile=False
            yield from code_in(value, name if isinstance(name, str) else where)


def check_trust(path: Path, config: dict[str, Any]) -> None:
    """Refuse a Keras file that brings code.

    Raises:
        TrustError: It holds Lambda layers or classes that are not Keras's own; the first of them are named.
    """
    found = list(dict.fromkeys(code_in(config)))
    if found:
        raise TrustError(
            f"{path} would run code of its own: {listed(found)}", hint="add --trust if you know where it comes from"
        )
