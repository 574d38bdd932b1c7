"""Runs that may go wrong in any way, in a process of their own: odd sizes crash a kernel here and there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxviz.errors import ExecutionError, OnnxvizError
from onnxviz.graph.io import external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.isolated import Wording, Worker

__all__ = ["Source", "source_of", "trial"]

#: A model as bytes with the folder of its external weights, or as a file.
Source = tuple[bytes | str, str | None]
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_WORDING = Wording(task="a trial run", hint="")


@contextmanager
def source_of(model: ir.Model) -> Iterator[Source]:
    """Give a model as another process can read it; a file that had to be written is gone afterwards."""
    folders = {os.path.realpath(os.fspath(tensor.base_dir)) for _, tensor in external_tensors(model)}
    data = model_bytes(model) if len(folders) < 2 else None
    if data is not None:
        yield data, folders.pop() if folders else None
        return
    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        save_model(model, Path(folder) / "model.onnx", external_data=True)
        yield str(Path(folder) / "model.onnx"), None


def trial(
    source: Source,
    feeds: Sequence[Mapping[str, Any]],
    *,
    threads: int = 0,
    shapes_only: bool = False,
    op_library: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
    memory: int | None = None,
) -> list[dict[str, Any] | str]:
    """Run a model on several feeds in a fresh process, nothing fused, on the CPU.

    Args:
        source: What :func:`source_of` gives.
        feeds: Each a mapping of input name to array.
        threads: Threads of the session; 0 leaves the number to onnxruntime.
        shapes_only: Give the shape of each output in place of its values.
        op_library: A shared library of custom operators to register; its code is executed.
        timeout: Seconds that one feed may take.
        memory: Most resident memory of the process in bytes; None for any.

    Returns:
        For each feed the outputs by name, or in one line why there are none: an error, a crash, too long, too much.
    """
    results: list[dict[str, Any] | str] = []
    with Worker(timeout=timeout, memory=memory, wording=_WORDING) as worker:
        library = None if op_library is None else os.fspath(op_library)
        for one in feeds:
            try:
                results.append(worker.call(_run, source, dict(one), threads, shapes_only, library))
            except OnnxvizError as error:
                results.append(error.message)
    return results


def _run(source: Source, feeds: Mapping[str, Any], threads: int, shapes_only: bool, library: str | None) -> Any:
    """Run once; called in the child."""
    import onnxruntime as ort

    from onnxviz.runtime.explain import explain_failure, explain_refusal
    from onnxviz.runtime.options import new_options
    from onnxviz.runtime.values import extended_dtypes, to_array, to_value

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a crash is told in one line, not by what the runtime says last
    options = new_options(op_library=library, threads=threads)
    data, folder = source
    if folder is not None:
        options.add_session_config_entry(_FOLDER_KEY, folder)
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise explain_refusal(error) from error
    names = [output.name for output in session.get_outputs()]
    try:
        if any(getattr(array, "dtype", None) in extended_dtypes() for array in feeds.values()):
            values = session.run_with_ort_values(names, {name: to_value(name, array) for name, array in feeds.items()})
            results = [to_array(value) for value in values]
        else:
            results = session.run(names, feeds)
    except ExecutionError:
        raise
    except Exception as error:
        raise explain_failure(error) from error
    found = dict(zip(names, results, strict=True))
    return {name: getattr(value, "shape", None) for name, value in found.items()} if shapes_only else found
