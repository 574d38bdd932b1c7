"""Converting sources that bring code in a process of their own: no network, a time limit and a memory limit."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz import errors
from onnxviz.analysis.comparison import OutputParity
from onnxviz.analysis.layer_parity import LayerError, LayerParity
from onnxviz.converters.parity import Parity
from onnxviz.converters.registry import ConversionResult, convert
from onnxviz.converters.torch_files import TORCH_SUFFIXES, runs_code
from onnxviz.errors import ConversionError, MemoryLimitError, OnnxvizError
from onnxviz.graph.io import external_tensors, open_model, save_model
from onnxviz.graph.model import summary_line
from onnxviz.runtime.confine import call_confined, refused
from onnxviz.runtime.isolated import Wording, Worker

__all__ = ["IsolatedResult", "convert_isolated", "executes_code"]

_MODEL = "model.onnx"
_ERRORS: tuple[type[OnnxvizError], ...] = tuple(
    kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)
)
_ANSWERS = (*_ERRORS, Parity, OutputParity, LayerParity, LayerError)
_DATA = (".onnx", ".safetensors")
_SHARE = 0.8  # of the machine's memory


@dataclass(frozen=True)
class IsolatedResult(ConversionResult):
    """A network that was converted in a process of its own.

    Attributes:
        isolation: What kept that process from the network: ``"network namespace"`` (the kernel) or ``"audit hook"``
            (Python only: native code was not kept from it).
    """

    isolation: str = ""


def executes_code(source: object) -> bool:
    """Say whether opening a source can run code: factories, programs, pickles, Keras files, what other converters read.

    A live network is here already; a state dict, safetensors, ONNX and a file that is not there run nothing.

    >>> executes_code("net.py:resnet"), executes_code("weights.safetensors"), executes_code([])
    (True, False, False)
    """
    if not isinstance(source, (str, os.PathLike)):
        return False
    if _is_factory(source):
        return True
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (*_DATA, ".py") or not path.exists():
        return False
    if suffix not in TORCH_SUFFIXES or path.is_dir():
        return not path.is_dir() or (path / "saved_model.pb").is_file()
    try:
        return runs_code(path)
    except ConversionError:  # nothing that torch can open
        return False


def convert_isolated(
    source: str | os.PathLike[str], *, timeout: float | None = 1800.0, memory: int | None = None, **options: Any
) -> ConversionResult:
    """Convert in a fresh process without a network, which is ended when it takes too long or too much memory.

    The process reads and writes files as the user can, in the same folder. What keeps it from the network is in
    :attr:`IsolatedResult.isolation`: where it is Python only (see :mod:`onnxviz.runtime.confine`), a note says so too.

    Args:
        source: A path or ``file.py:function``.
        timeout: Seconds that it may take; None for any time.
        memory: Most memory of the process in bytes; by default 80 % of the machine's. Only Linux tells how much a
            process has.
        options: Those of :func:`onnxviz.converters.registry.convert`.

    Returns:
        The result. Weights of a model of 16 MB or more stay in a file that has no name any more (on Windows they are
        loaded).

    Raises:
        ConversionError: As ``convert``; or the process crashed, took too long or asked for the network.
        MemoryLimitError: It needed more memory.
        TrustError, ParityError, MissingDependencyError: As ``convert``.
        InputError: The time is not above 0.
    """
    if not options.get("trust") and _only_refused(source):
        return convert(source, **options)
    label = Path(source).name
    wording = Wording(
        task=f"the conversion of {label}",
        crashed=f"the process that converted {label} ended before it was done ({{code}})",
        hint="its own code or its framework ended it: run that alone to see why",
        error=ConversionError,
    )
    memory = _default_memory() if memory is None else memory
    with tempfile.TemporaryDirectory(prefix="onnxviz-", ignore_cleanup_errors=True) as folder:
        arguments = pickle.dumps((os.fspath(source), folder, _keras_backend(), options))
        with Worker(timeout=timeout, memory=memory, wording=wording, allowed=_ANSWERS) as worker:
            isolation, values = worker.call(call_confined, f"{__name__}:convert_here", arguments)
        model = _keep_weights(open_model(Path(folder) / _MODEL))
    if isolation != "network namespace":
        weaker = "the network was closed to the source's code by Python only: native code could have used it"
        values["notes"] = (*values["notes"], weaker)
    return IsolatedResult(model=model, isolation=isolation, **values)


def _is_factory(source: str | os.PathLike[str]) -> bool:
    head, colon, _ = os.fspath(source).rpartition(":")
    return bool(colon) and head.lower().endswith(".py")


def _only_refused(source: str | os.PathLike[str]) -> bool:
    """Say whether a source is refused without trust before anything of it runs, whatever is in it."""
    path = Path(source)
    return _is_factory(source) or path.suffix.lower() in TORCH_SUFFIXES or path.is_dir()


def _keras_backend() -> str | None:
    """Return the backend that Keras runs on here, so that the child takes the same."""
    keras = sys.modules.get("keras")
    return None if keras is None else str(keras.backend.backend())


def _default_memory() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return None
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        total = min(total, int(text)) if text.isdigit() else total
    return int(_SHARE * total)


def _keep_weights(model: ir.Model) -> ir.Model:
    """Make a model independent of its file's name; weights in the file itself are open already."""
    for value, tensor in list(external_tensors(model)):
        assert value is not None  # save_model brings those in attributes into the model
        array = np.array(tensor.numpy()) if sys.platform == "win32" else tensor.numpy()  # maps the file
        value.const_value = ir.Tensor(
            array, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name, doc_string=tensor.doc_string
        )
    model.meta.pop("path", None)
    return model


def convert_here(source: str, folder: str, keras_backend: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Convert in this process, the child: write the model into ``folder`` and return the result's other fields.

    Raises:
        OnnxvizError: Of a class that the parent knows; its notes hold the traceback.
    """
    _print_to_stderr()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # factories may import TensorFlow before onnxviz does
    if keras_backend is not None:
        os.environ["KERAS_BACKEND"] = keras_backend
    try:
        result = convert(source, **options)
        save_model(result.model, Path(folder) / _MODEL)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is raised in the parent
        raise _told(error, Path(source).name) from None
    return {f.name: getattr(result, f.name) for f in fields(result) if f.name != "model"}


def _print_to_stderr() -> None:
    """Send what the source prints to stderr: stdout is for what onnxviz says."""
    sys.stdout = sys.stderr
    try:
        os.dup2(2, 1)
    except OSError:  # a process without stderr
        sys.stdout = None


def _told(error: BaseException, label: str) -> OnnxvizError:
    """Turn an error into one that the parent can read, with the traceback in its notes."""
    where = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        told: OnnxvizError = MemoryLimitError(f"the conversion of {label} found no more memory")
    elif isinstance(error, OnnxvizError):
        kind = next(k for k in type(error).__mro__ if k in _ERRORS)
        told = error if kind is type(error) else kind(error.message, hint=error.hint)
    else:
        told = ConversionError(f"the conversion of {label} raised {type(error).__name__}: {summary_line(error)}")
    if (asked := refused()) and isinstance(told, ConversionError):
        if "may not use the network" not in told.message:
            told.message += f" (it asked for {asked[0]}, and code run with --trust may not use the network)"
        told.hint = "download it once outside of onnxviz (frameworks keep it), or give --weights"
    told.add_note(f"In the process that converted it:\n{where}")
    return told
