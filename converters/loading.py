"""From what the user named to a :class:`Source`: files, ``file.py:function`` factories, live objects."""

from __future__ import annotations

import ast
import importlib.util
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from onnxviz.converters.base import Source
from onnxviz.converters.keras_start import start_keras
from onnxviz.errors import ConversionError, MissingDependencyError, TrustError, listed
from onnxviz.graph.model import summary_line

__all__ = ["load_source"]

_FILE_OPERATORS = ("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PyFuncStateless", "PrintV2")
_OWN = ModuleType("own")
_OWN.__dict__["__onnxviz_factory__"] = True


def load_source(source: object, *, trust: bool, seed: int) -> Source:
    """Find out what is to be converted; a factory is called, but only with ``trust``.

    Args:
        source: A path, ``file.py:function``, a live network, or one with example inputs.
        trust: Run the Python file that a factory is in.
        seed: Seed set before the factory is called, so that untrained weights are the same each time.

    Raises:
        ConversionError: The file does not exist, is no network, or the factory fails.
        TrustError: A factory or the folder of a SavedModel was named without ``trust``.
    """
    if isinstance(source, tuple) and len(source) == 2:
        return Source(type(source[0]).__name__, network=source[0], example_inputs=source[1])
    if not isinstance(source, (str, os.PathLike)):
        return Source(type(source).__name__, network=source)
    text = os.fspath(source)
    head, colon, name = text.rpartition(":")
    if colon and head.lower().endswith(".py"):
        return _from_factory(Path(head), name, trust=trust, seed=seed)
    path = Path(text)
    if not path.exists():
        raise ConversionError(f"there is no file {path}")
    if path.is_dir():
        return _from_folder(path, trust=trust)
    suffix = path.suffix.lower()
    if suffix == ".py":
        found = ", ".join(f"{path.name}:{name}" for name in _functions(_parse(path))) or "it defines no function"
        raise ConversionError(f"{path} is a Python file", hint=f"name the function that returns the network: {found}")
    if suffix == ".onnx":
        raise ConversionError(f"{path} is ONNX already", hint=f"use it as it is: onnxviz inspect {path.name}")
    if not path.stat().st_size:
        raise ConversionError(f"{path} is empty", hint="save or download it again")
    return Source(path.name, path=path)


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise ConversionError(f"{path} is not readable Python: {summary_line(error)}") from error


def _functions(tree: ast.Module) -> list[str]:
    """List the public functions of a Python file that has not been run."""
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]


def _imports(tree: ast.Module) -> set[str]:
    """Return the packages that a Python file imports at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _also_run(path: Path, tree: ast.Module) -> str:
    """Say what a Python file imports anywhere in it, and which of that are files beside it."""
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names[node.module.split(".")[0]] = None
    names.pop("__future__", None)
    beside = {name: f"{name} (beside it)" for name in names if _is_module(path.parent / name)}
    return f"; it imports {listed([*beside.values(), *(n for n in names if n not in beside)], 8)}" if names else ""


def _is_module(path: Path) -> bool:
    return path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file()


def _from_folder(path: Path, *, trust: bool) -> Source:
    """Take the folder of a TensorFlow SavedModel; say what its graph could do where it is not trusted."""
    saved = path / "saved_model.pb"
    if not saved.is_file():
        raise ConversionError(
            f"{path} is a folder", hint="name a .keras, .h5 or .pt2 file, a SavedModel, or file.py:function"
        )
    if not trust:
        graph = saved.read_bytes()
        # A node's operator is field 2 of its NodeDef (tensorflow/core/framework/node_def.proto): tag, length, name.
        found = [name for name in _FILE_OPERATORS if bytes((0x12, len(name))) + name.encode() in graph]
        held = f" (its graph holds {listed(found)})" if found else ""
        raise TrustError(
            f"{path} is a TensorFlow program: its operators can read and write files{held}",
            hint="add --trust if you know where it comes from",
        )
    return Source(path.resolve().name, path=path)


def _from_factory(path: Path, name: str, *, trust: bool, seed: int) -> Source:
    if not path.is_file():
        raise ConversionError(f"there is no file {path}")
    tree = _parse(path)
    functions = _functions(tree)
    if not trust:
        raise TrustError(
            f"converting {path.name}:{name} would run the Python file {path} and call its function {name}()"
            f"{_also_run(path, tree)}",
            hint="add --trust if you know what it does",
        )
    if _imports(tree) & {"keras", "tensorflow"}:  # before the file does, so that its backend is one that is installed
        start_keras()
    with _importable(path.parent):
        module = _run_file(path)
        factory = getattr(module, name, None)
        if not callable(factory):
            listed = f"it defines {', '.join(functions)}" if functions else "it defines no function"
            raise ConversionError(f"{path} has no function {name!r}", hint=listed)
        _seed(seed)
        try:
            made = factory()
        except (Exception, SystemExit) as error:
            _explain_missing(error)
            raise ConversionError(
                f"{path.name}:{name}() raised {type(error).__name__}: {summary_line(error)}",
                hint="the factory is called with no arguments and returns the network",
            ) from error
    network, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if network is None:
        raise ConversionError(f"{path.name}:{name}() returned None", hint="return the network")
    return Source(f"{path.name}:{name}", path=path, factory=name, network=network, example_inputs=example)


def _run_file(path: Path) -> ModuleType:
    """Run a Python file as a module of its own name, or with ``_factory`` behind it where that is taken."""
    name = path.stem
    if not getattr(sys.modules.get(name, _OWN), "__onnxviz_factory__", False):
        name = f"{name}_factory"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ConversionError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    module.__dict__["__onnxviz_factory__"] = True
    sys.modules[name] = module  # torch.export and dataclasses look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        _explain_missing(error)
        raise ConversionError(f"running {path} raised {type(error).__name__}: {summary_line(error)}") from error
    return module


def _explain_missing(error: BaseException) -> None:
    """Raise the error that names the pip command, where a file failed for want of its framework."""
    of = {
        "torch": ("torch", "onnxscript"), "tensorflow": ("keras", "tensorflow", "tf2onnx"),
        "sklearn": ("sklearn", "skl2onnx"), "jax": ("jax", "flax", "jax2onnx"),
    }  # fmt: skip
    extras = {package: extra for extra, packages in of.items() for package in packages}
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing in extras:
        raise MissingDependencyError(
            f"{missing} is not installed", hint=f"pip install 'onnxviz[{extras[missing]}]'"
        ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours, as it can when it is run as a script, and leave no bytecode beside it."""
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder.resolve()))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode


def _seed(seed: int) -> None:
    """Seed the frameworks that the factory's file imported; none is imported here."""
    random.seed(seed)
    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
    if (keras := sys.modules.get("keras")) is not None:
        keras.utils.set_random_seed(seed)
