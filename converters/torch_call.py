"""Calling a ``torch.nn.Module``: its arguments as one value, and running it the way it is compared.

Everything here imports torch lazily: the functions are called only once torch is known to be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.converters.base import Array
from onnxviz.errors import ConversionError, MissingDependencyError
from onnxviz.runtime.quiet import quiet

__all__ = ["Call", "evaluating", "output_names", "require_torch", "run_module", "to_array", "to_tensor", "with_batch"]

FRESH_BATCH = 2  # torch.export takes sizes 0 and 1 for constants


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a module; tensors may lie anywhere in nested tuples, lists and dicts."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def tensors(self) -> list[Any]:
        """Return the tensors in the order of flattening, which is the order of the ONNX inputs."""
        import torch
        from torch.utils import _pytree as pytree

        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]

    def map(self, change: Callable[[Any], Any]) -> Call:
        """Return the call with ``change(tensor)`` in place of every tensor."""
        import torch
        from torch.utils import _pytree as pytree

        args, kwargs = pytree.tree_map_only(torch.Tensor, change, (self.args, self.kwargs))
        return Call(args, kwargs)


def require_torch() -> None:
    """Raise where torch or the library behind its exporter is missing.

    Raises:
        MissingDependencyError: torch or onnxscript is not installed.
    """
    missing = [name for name in ("torch", "onnxscript") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"converting PyTorch networks needs {' and '.join(missing)}", hint="pip install 'onnxviz[torch]'"
        )


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put a module and its parts into evaluation mode, and each back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def run_module(module: Any, call: Call, *, evaluate: bool = True) -> list[Array]:
    """Run a module without gradients and in evaluation mode; return its tensors, flattened, as arrays.

    An exported program has its mode baked in and refuses to change it: run it with ``evaluate=False``.
    """
    import torch
    from torch.utils import _pytree as pytree

    with torch.no_grad(), evaluating(module) if evaluate else nullcontext(), quiet():
        leaves = pytree.tree_leaves(module(*call.args, **call.kwargs))
    return [to_array(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def output_names(module: Any, call: Call, *, evaluate: bool = True) -> list[str]:
    """Return a name for each tensor that a module returns: its key in a dict, else ``output``, ``output_1``, …"""
    import torch
    from torch.utils import _pytree as pytree

    with torch.no_grad(), evaluating(module) if evaluate else nullcontext(), quiet():
        paths, _ = pytree.tree_flatten_with_path(module(*call.args, **call.kwargs))
    names: list[str] = []
    for path, leaf in paths:
        if isinstance(leaf, torch.Tensor):
            found = [getattr(entry, "key", None) for entry in path]
            keys = [key for key in found if isinstance(key, str)]
            names.append(".".join(keys) or (f"output_{len(names)}" if names else "output"))
    return names


def to_array(tensor: Any) -> Array:
    """Copy a tensor into an array; ``bfloat16``, which numpy lacks, becomes ml_dtypes' type."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        return np.array(tensor.view(torch.int16).numpy().view(ir.DataType.BFLOAT16.numpy()))
    return np.array(tensor.resolve_conj().resolve_neg().numpy())


def to_tensor(array: Array, device: Any) -> Any:
    """Copy an array into a tensor on ``device``; the way back of :func:`to_array`."""
    import torch

    if array.dtype == ir.DataType.BFLOAT16.numpy():
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).to(device)
    return torch.from_numpy(array.copy()).to(device)


def with_batch(call: Call) -> tuple[Call, int]:
    """Return a call whose batch is at least two, by repeating a batch of one, and its batch size.

    The batch is the first axis of the first tensor; every tensor whose first axis has that size shares it.
    """
    import torch

    tensors = [t for t in call.tensors() if t.ndim]
    if not tensors:
        raise ConversionError("no input has a batch axis", hint="convert it with --static")
    batch = int(tensors[0].shape[0])
    if batch >= FRESH_BATCH:
        return call, batch
    repeated = call.map(lambda t: torch.cat([t] * FRESH_BATCH) if t.ndim and t.shape[0] == batch else t)
    return repeated, FRESH_BATCH
