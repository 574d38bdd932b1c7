"""Sessions of onnxruntime: one shared thread pool, the asked provider or an error, errors in one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import InputError, ProviderError
from onnxviz.graph.io import check_external_data, external_tensors, save_model
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.binding import BoundSession
from onnxviz.runtime.explain import explain_failure, explain_refusal
from onnxviz.runtime.options import new_options
from onnxviz.runtime.providers import resolve_providers, short_name
from onnxviz.runtime.values import extended_dtypes, plain_type, to_array, to_value

__all__ = ["Session", "run_model"]

_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


class Session:
    """An onnxruntime session of a model in memory.

    Args:
        model: The model. External weights are read from where they lie, not copied.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        optimize: Let onnxruntime fuse and rewrite the graph. Off by default: every tensor then is what the file says.
        op_library: A shared library of custom operators to register; its code is executed.
        threads: Threads of this session alone, where the process shares no pool; 0 leaves the number to onnxruntime.
        assignment: Let onnxruntime record which provider each node was assigned to, for :attr:`assigned`.
        provider_options: Full name of a provider -> its options, such as ``{"use_tf32": "0"}``.

    Attributes:
        providers: Those of the session, in order of preference.
        fallbacks: Node -> provider, of nodes that the first of them did not take.
        inputs: Name -> type and shape.
        outputs: Name -> type.

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
        threads: int = 0,
        assignment: bool = False,
        provider_options: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        requested = resolve_providers(providers)
        options = new_options(optimize=optimize, op_library=op_library, threads=threads)
        if assignment or len(requested) > 1:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        given = provider_options or {}
        self._session = self._create(model, [(name, dict(given.get(name, {}))) for name in requested], options)
        self.providers: list[str] = [short_name(p) for p in self._session.get_providers()]
        if lost := [p for p in requested if p not in self._session.get_providers()]:
            raise ProviderError(f"onnxruntime left {', '.join(lost)} out of the session", hint="see `onnxviz doctor`")
        self.fallbacks = _fallbacks(self._session) if len(requested) > 1 else {}
        self.outputs: dict[str, str] = {o.name: o.type for o in self._session.get_outputs()}
        self.inputs: dict[str, tuple[str, list[Any]]] = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}
        self._binding: BoundSession | None = None

    def _create(
        self, model: ir.Model, providers: list[tuple[str, dict[str, str]]], options: ort.SessionOptions
    ) -> ort.InferenceSession:
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
            raise explain_refusal(error) from error

    @property
    def assigned(self) -> dict[str, str]:
        """Node of the optimised graph -> short name of its provider; needs ``assignment``."""
        return {
            node.name: short_name(subgraph.ep_name)
            for subgraph in self._session.get_provider_graph_assignment_info()
            for node in subgraph.get_nodes()
        }

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
        plain = all(plain_type(self.outputs[n]) for n in names)
        plain = plain and not any(isinstance(a, np.ndarray) and a.dtype in extended_dtypes() for a in feeds.values())
        try:
            if plain:
                return dict(zip(names, self._session.run(names, dict(feeds), options), strict=True))
            values = {name: to_value(name, array) for name, array in feeds.items()}
            results = self._session.run_with_ort_values(names, values, options)
            return {name: to_array(value) for name, value in zip(names, results, strict=True)}
        except InputError:
            raise
        except Exception as error:
            raise explain_failure(error) from error

    def run_again(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Run once of many times: on CUDA, what is fed again unchanged, the very same array, stays on the device.

        Args:
            feeds: Input name -> array.

        Returns, Raises:
            As :meth:`run`, of all outputs.
        """
        if "cuda" not in self.providers:
            return self.run(feeds)
        if self._binding is None:
            self._binding = BoundSession(self._session, "cuda")
        return self._binding.run(feeds, list(self.outputs))


def _fallbacks(session: ort.InferenceSession) -> dict[str, str]:
    first = session.get_providers()[0]
    return {
        str(node.name): short_name(subgraph.ep_name)
        for subgraph in session.get_provider_graph_assignment_info()
        if subgraph.ep_name != first
        for node in subgraph.get_nodes()
    }


def run_model(
    model: ir.Model, feeds: Mapping[str, np.ndarray], providers: str | Sequence[str] = "cpu", *, optimize: bool = False
) -> dict[str, Any]:
    """Run a model once and return its outputs by name; see :class:`Session`."""
    return Session(model, providers, optimize=optimize).run(feeds)
