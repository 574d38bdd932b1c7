"""Putting a state dict into a module: read without executing anything, and strict about what fits."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxviz.converters.pickles import foreign_globals, pickled_parts
from onnxviz.errors import ConversionError, TrustError, listed
from onnxviz.graph.model import summary_line
from onnxviz.runtime.quiet import quiet

__all__ = ["load_weights", "read_state_dict"]

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep the state dict


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read tensors by name from ``.safetensors`` or from a PyTorch file, which is unpickled with ``weights_only``.

    Raises:
        ConversionError: The file is missing, damaged, or holds no state dict.
        TrustError: The pickle would run code.
    """
    if not path.is_file():
        raise ConversionError(f"there is no weights file {path}")
    import torch

    try:
        with quiet():
            if path.suffix.lower() == ".safetensors":
                from safetensors.torch import load_file

                return dict(load_file(path))
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TrustError(
            f"{path} holds more than weights: unpickling it would run code ({_code_in(path) or summary_line(error)})",
            hint="save only module.state_dict(), or safetensors",
        ) from error
    except Exception as error:
        raise ConversionError(f"{path} is not a weights file, or it is truncated: {summary_line(error)}") from error
    for key in _WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping) or not any(isinstance(v, torch.Tensor) for v in held.values()):
        raise ConversionError(f"{path} holds no state dict", hint="save module.state_dict()")
    return {str(name): value for name, value in held.items()}


def load_weights(module: Any, path: Path) -> tuple[str, ...]:
    """Load a state dict into ``module``, in place, where every key and shape fits.

    The ``module.`` that DataParallel puts before every key is taken off. A key may be missing where its parameter is
    tied to one that is there.

    Returns:
        What the user should know, one line each.

    Raises:
        ConversionError: Keys are missing or unexpected, or shapes differ; all of them are named in one line.
        TrustError: As :func:`read_state_dict`.
    """
    state = read_state_dict(path)
    notes: tuple[str, ...] = ()
    own = module.state_dict()
    if state and all(name.startswith("module.") for name in state) and not any(n.startswith("module.") for n in own):
        state = {name.removeprefix("module."): value for name, value in state.items()}
        notes = (f"the prefix 'module.' was taken off the keys of {path.name}",)
    present = {own[name].data_ptr() for name in state if name in own and own[name].numel()}
    missing = [n for n, t in own.items() if n not in state and not (t.numel() and t.data_ptr() in present)]
    unexpected = [name for name in state if name not in own]
    wrong = [
        f"{name} is {_size(state[name])} but the network has {_size(own[name])}"
        for name in state
        if name in own and getattr(state[name], "shape", None) != own[name].shape
    ]
    problems = [
        _several(what, names) for what, names in (("missing", missing), ("unexpected", unexpected), ("", wrong))
    ]
    if any(problems):
        raise ConversionError(
            f"{path} does not fit {type(module).__name__}: {'; '.join(filter(None, problems))}",
            hint="give the factory that the weights were trained with",
        )
    module.load_state_dict(state, strict=False)
    return notes


def _size(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "scalar" if hasattr(value, "shape") else type(value).__name__


def _several(what: str, names: list[str]) -> str:
    return f"{what} {listed(names)}".strip() if names else ""


def _code_in(path: Path) -> str:
    """Name what a pickle loads beside tensors."""
    found = foreign_globals(name for names in pickled_parts(path).values() for name in names)
    return f"it loads {listed(found)}" if found else ""
