"""Sessions of onnxruntime: one shared thread pool, the asked provider or an error, errors in one line."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import ExecutionError, InputError, ProviderError
from onnxviz.graph.io import check_external_data, external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.options import new_options
from onnxviz.runtime.providers import resolve_providers, short_name

__all__ = ["Session", "run_model"]

#: Element types that numpy lacks and whose elements fill whole bytes, read from onnxruntime's memory.
_EXTENDED = {
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(float8e4m3fn)": np.dtype(ml_dtypes.float8_e4m3fn),
    "tensor(float8e4m3fnuz)": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "tensor(float8e5m2)": np.dtype(ml_dtypes.float8_e5m2),
    "tensor(float8e5m2fnuz)": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
#: numpy type -> code of the element type in ONNX, for those that onnxruntime takes as bits
_CODES = {dtype: int(ir.DataType.from_numpy(dtype)) for dtype in _EXTENDED.values()}
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


class Session:
    """An onnxruntime session of a model in memory.

    Args:
        model: The model. External weights are read from where they lie, not copied.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        optimize: Let onnxruntime fuse and rewrite the graph. Off by default: every tensor then is what the file says.
        op_library: A shared library of custom operators to register; its code is executed.

    Raises:
        ExecutionError: onnxruntime refuses the model, such as an operator without a kernel.
        ProviderError: A provider that was asked for does not load, or was left out of the session.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}'
    ... )
    >>> Session(model, "cpu").run({"x": np.float32([1, 2])})["y"].tolist()
    [-1.0, -2.0]
    """

    def __init__(
        self,
        model: ir.Model,
        providers: str | Sequence[str] = "auto",
        *,
        optimize: bool = False,
        op_library: str | os.PathLike[str] | None = None,
    ) -> None:
        requested = resolve_providers(providers)
        self._session = self._create(model, requested, optimize, op_library)
        self.providers: list[str] = [short_name(p) for p in self._session.get_providers()]
        if lost := [p for p in requested if p not in self._session.get_providers()]:
            raise ProviderError(f"onnxruntime left {', '.join(lost)} out of the session", hint="see `onnxviz doctor`")
        self.outputs: dict[str, str] = {o.name: o.type for o in self._session.get_outputs()}
        self.inputs: dict[str, tuple[str, list[Any]]] = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}

    def _create(
        self, model: ir.Model, providers: list[str], optimize: bool, op_library: str | os.PathLike[str] | None
    ) -> ort.InferenceSession:
        options = new_options(optimize=optimize)
        if op_library is not None:
            try:
                options.register_custom_ops_library(os.fspath(op_library))
            except Exception as error:
                raise ExecutionError(f"cannot register the operators of {op_library}: {_message(error)}") from error
        check_external_data(model)
        folders = {os.path.realpath(os.fspath(tensor.base_dir)) for _, tensor in external_tensors(model)}
        data = model_bytes(model) if len(folders) < 2 else None
        try:
            if data is not None:
                if folders:
                    options.add_session_config_entry(_FOLDER_KEY, folders.pop())
                return ort.InferenceSession(data, options, providers=providers)
            with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
                save_model(model, Path(folder) / "model.onnx", external_data=True)
                return ort.InferenceSession(str(Path(folder) / "model.onnx"), options, providers=providers)
        except (ProviderError, OSError):
            raise
        except Exception as error:
            raise _explain_refusal(error) from error

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: Input name -> array.
            outputs: Names of the outputs to return; all by default.

        Returns:
            Output name -> array; bfloat16 and float8 as arrays of ``ml_dtypes``; sequences and maps as onnxruntime
            returns them; None for a tensor of a type that no array holds.

        Raises:
            InputError: A feed has a name, type or shape that the model does not take.
            ExecutionError: A node failed.
        """
        names = list(self.outputs if outputs is None else outputs)
        if not names:
            return {}  # onnxruntime would take an empty list for all outputs
        options = ort.RunOptions()
        options.log_severity_level = 4
        plain = all(self.outputs[n] not in _EXTENDED for n in names)
        plain = plain and not any(isinstance(a, np.ndarray) and a.dtype in _CODES for a in feeds.values())
        try:
            if plain:
                return dict(zip(names, self._session.run(names, dict(feeds), options), strict=True))
            values = {name: _to_value(name, array) for name, array in feeds.items()}
            results = self._session.run_with_ort_values(names, values, options)
            return {name: _to_array(value) for name, value in zip(names, results, strict=True)}
        except InputError:
            raise
        except Exception as error:
            raise _explain_failure(error) from error


def _to_value(name: str, array: Any) -> ort.OrtValue:
    if not isinstance(array, np.ndarray):
        raise InputError(f"input {name!r} is a sequence, which cannot be fed beside bfloat16 or float8 tensors")
    array = np.asarray(array, order="C")
    if array.dtype in _CODES:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(f"u{array.itemsize}"), _CODES[array.dtype])
    return ort.OrtValue.ortvalue_from_numpy(array)


def _to_array(value: ort.OrtValue) -> Any:
    if not value.is_tensor():
        return None
    dtype = _EXTENDED.get(value.data_type())
    if dtype is None:
        return value.numpy()
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), dtype.itemsize * int(np.prod(shape)))
    return np.frombuffer(raw, dtype).reshape(shape)


def run_model(
    model: ir.Model, feeds: Mapping[str, np.ndarray], providers: str | Sequence[str] = "cpu", *, optimize: bool = False
) -> dict[str, Any]:
    """Run a model once and return its outputs by name; see :class:`Session`."""
    return Session(model, providers, optimize=optimize).run(feeds)


def _message(error: BaseException) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).strip()
    text = _without_signatures(text)
    nodes = re.split(r"Non-zero status code returned while running (\w+) node. Name:'([^']*)' Status Message: ", text)
    if len(nodes) > 1:  # the innermost node says what happened
        text = f"{nodes[-3]} node {nodes[-2]!r}: {_without_signatures(nodes[-1])}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


def _without_signatures(text: str) -> str:
    """Take off where in onnxruntime's sources a message comes from: ``file.cc:1 type space::function(arguments)``."""
    text = re.sub(r"/\S*onnxruntime_src/\S+ (?=\S)", "", text)
    opening = re.match(r"(?:[\w:<>*&, ]+ )?(?:\w+::)+~?\w+\(", text)
    if opening is None:
        return text
    depth = 1
    for position in range(opening.end(), len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            rest = re.sub(r"^\s*(?:const)?\s*(?:\[with [^\]]*\])?", "", text[position + 1 :])
            return rest.strip() or text
    return text


def _explain_refusal(error: BaseException) -> ExecutionError:
    text = str(error)
    if custom := re.search(r"Fatal error: (\S+) is not a registered function/op", text):
        name = re.sub(r"\(-?\d+\)$", "", custom[1])
        return ExecutionError(
            f"onnxruntime {ort.__version__} has no kernel for the custom operator {name}",
            hint="give the library that has it with --op-library FILE",
        )
    if absent := re.search(r"Could not find an implementation for (\S+) node with name '([^']*)'", text):
        return ExecutionError(
            f"onnxruntime {ort.__version__} has no kernel for {absent[1]} with these types (node {absent[2]!r})",
            hint="export for another opset or data type",
        )
    if newer := re.search(r"Opset (\d+) is under development.*is till opset (\d+)", text, re.DOTALL):
        return ExecutionError(
            f"the model needs opset {newer[1]}, newer than the {newer[2]} that onnxruntime {ort.__version__} runs",
            hint=f"upgrade onnxruntime, or export for opset {newer[2]}",
        )
    if newer := re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", text):
        return ExecutionError(
            f"the model has IR version {newer[1]}, newer than the {newer[2]} that onnxruntime {ort.__version__} runs",
            hint="upgrade onnxruntime, or export with an older onnx",
        )
    return ExecutionError(f"onnxruntime {ort.__version__} refuses the model: {_message(error)}")


def _explain_failure(error: BaseException) -> InputError | ExecutionError:
    text = _message(error)
    if re.match(
        r"(Unexpected input data type|Got invalid dimensions|Invalid rank|Required inputs|Invalid Feed)",
        text,
    ):
        return InputError(f"the inputs do not fit the model: {text}")
    return ExecutionError(f"onnxruntime failed while running the model: {text}")
