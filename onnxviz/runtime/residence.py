"""How much memory one run needs, measured in a process of its own."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from onnxviz.graph.io import external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.growth import memory_growth, start_growth
from onnxviz.runtime.memory import trim
from onnxviz.runtime.options import new_options
from onnxviz.runtime.values import extended_dtypes, to_value

__all__ = ["RunMemory", "measure_run"]

_CODE = "from onnxviz.runtime.residence import child; child()"


@dataclass(frozen=True)
class RunMemory:
    """Growth of resident memory over the state before the first run.

    Attributes:
        bytes: The peak's growth; None where it was not measured.
        method: How, or why not.
    """

    bytes: int | None
    method: str


def measure_run(
    model: ir.Model,
    feeds: Mapping[str, Any],
    providers: Sequence[str],
    *,
    optimize: bool,
    op_library: str | os.PathLike[str] | None = None,
    timeout: float = 120.0,
) -> RunMemory:
    """Run a model once in a fresh process and return by how much the peak of its resident memory grew.

    Memory that is mapped from files (weights beside the model, code) is not counted. Nothing that goes wrong is raised:
    the result tells it.

    Args:
        model: The model.
        feeds: Input name -> array.
        providers: Full names of execution providers; only the CPU's memory is resident.
        optimize: Let onnxruntime fuse and rewrite the graph.
        op_library: A shared library of custom operators.
        timeout: Seconds after which the process is stopped.
    """
    if list(providers) != ["CPUExecutionProvider"]:
        return RunMemory(None, "not measured: activations live on a device, not in this machine's memory")
    if sys.platform == "win32":
        return RunMemory(None, "not measured: this system does not tell a process's peak of resident memory")
    try:
        with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
            order = {
                "model": _source(model, Path(folder)), "feeds": dict(feeds), "optimize": optimize,
                "op_library": None if op_library is None else os.fspath(op_library),
            }  # fmt: skip
            return _ask(pickle.dumps(order), timeout)
    except subprocess.TimeoutExpired:
        return RunMemory(None, f"not measured: one run in a process of its own took over {timeout:g} s")
    except (OSError, pickle.PicklingError, ValueError, KeyError) as error:
        return RunMemory(None, f"not measured: {type(error).__name__} in the process that runs the model")


def _source(model: ir.Model, folder: Path) -> tuple[bytes | str, str | None]:
    """Return the model as bytes with the folder of its external weights, or as a file where that cannot be."""
    folders = {os.path.realpath(os.fspath(tensor.base_dir)) for _, tensor in external_tensors(model)}
    data = model_bytes(model) if len(folders) < 2 else None
    if data is not None:
        return data, folders.pop() if folders else None
    save_model(model, folder / "model.onnx", external_data=True)
    return str(folder / "model.onnx"), None


def _ask(order: bytes, timeout: float) -> RunMemory:
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *(os.environ.get("PYTHONPATH") or "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CODE],
        input=order, capture_output=True, timeout=timeout, check=False, env=environment,
    )  # fmt: skip
    if done.returncode:
        ended = f"with signal {-done.returncode}" if done.returncode < 0 else f"with code {done.returncode}"
        return RunMemory(None, f"not measured: the process that ran the model ended {ended}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return RunMemory(answer["bytes"], answer["method"])


def child() -> None:
    """Run the model that comes through standard input, from this very package, and print what it took as JSON."""
    order = pickle.loads(sys.stdin.buffer.read())
    options = new_options(optimize=order["optimize"], op_library=order["op_library"])
    source, folder = order.pop("model")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    del source
    feeds = order["feeds"]
    bits = any(getattr(array, "dtype", None) in extended_dtypes() for array in feeds.values())
    values = {name: to_value(name, array) for name, array in feeds.items()} if bits else None
    names = [output.name for output in session.get_outputs()]
    trim()
    before = start_growth()
    if values is None:
        kept: Any = session.run(names, feeds)
    else:
        kept = session.run_with_ort_values(names, values)
    answer = memory_growth(before)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    del kept
    os._exit(0)  # what a runtime does while it is torn down is not to fail the measurement
