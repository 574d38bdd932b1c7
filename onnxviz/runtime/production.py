"""The graph that onnxruntime really runs: fused, folded and laid out for the machine.

onnxruntime writes down what is left of a model after its optimisation; run again with nothing further optimised, that
graph computes bit for bit what the optimised session does, and its tensors can be looked at without undoing a fusion.

What onnxruntime does to a graph even under ``ORT_DISABLE_ALL`` (1.31, CPU), found by writing down the graph again:

- local functions, and operators that have no kernel but are functions, are inlined: HardSwish becomes HardSigmoid and
  Mul, Bernoulli becomes RandomUniformLike, Greater and Cast;
- operators without a float16 kernel run in float32 between casts that are put around them, and two casts that meet are
  dropped;
- Constant nodes become weights;
- a DequantizeLinear that several nodes read, or that is read and is an output too, is made once for each.

All of these are done already in the graph that is written down, so it comes back node for node: that was so for all 84
models of the corpus that reload and run, and so were the bits of their outputs. With every tensor marked as an output
the only change is that DequantizeLinear is made once more, which changes no bits. The bits can differ

- between sessions with other thread counts, or machines with other vector units: the layout ``nchwc`` depends on the
  machine, and a sum split over more threads is added up in another order. Take both on the same machine;
- for operators that draw random numbers;
- for execution providers that compile parts of a graph (TensorRT, OpenVINO): their graph cannot be written down at all.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxviz.errors import ExecutionError, InputError, ModelError, ProviderError, printable
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.io import check_external_data, external_tensors, save_model
from onnxviz.graph.lineage import not_in_production
from onnxviz.graph.model import model_bytes
from onnxviz.runtime.executed import read_executed
from onnxviz.runtime.explain import explain_refusal, message
from onnxviz.runtime.options import new_options
from onnxviz.runtime.providers import resolve_providers
from onnxviz.runtime.session import Session

__all__ = ["LEVELS", "ProductionCheck", "not_in_production", "optimized_model", "verify_production"]

#: Name of an optimisation level -> what it does.
LEVELS = {
    "basic": "constants folded, dead and redundant nodes removed",
    "extended": "nodes fused as well",
    "layout": "layouts changed to blocks of channels as well",
    "all": "everything that onnxruntime does by default",
}

_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_WEIGHTS_KEY = "session.optimized_model_external_initializers_file_name"
_SIZE_KEY = "session.optimized_model_external_initializers_min_size_in_bytes"
_INLINE = 1 << 16  # bytes of a weight that stays in the graph: what gives shapes must be seen there
_INSTEAD = "capture it in semantic mode"


def optimized_model(
    model: ir.Model,
    providers: str | Sequence[str] = "auto",
    *,
    op_library: str | os.PathLike[str] | None = None,
    level: str = "all",
    without: Sequence[str] = (),
) -> ir.Model:
    """Return the graph that onnxruntime makes of a model before it runs it.

    It has operators that ONNX does not know (``com.microsoft``, ``com.microsoft.nchwc``) and runs on machines like this
    one. Weights that are as they were are shared with ``model``, external ones stay where they lie; the others are held
    in memory. Inputs, outputs and their names are those of the model, less inputs of old files that were weights.

    Args:
        model: The model; it is not changed.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators to register; its code is executed.
        level: A key of :data:`LEVELS`.
        without: Names of onnxruntime's optimisers that are left out, such as ``"ConvBNFusion"``.

    Raises:
        InputError: There is no such level.
        ExecutionError: onnxruntime refuses the model, or cannot write down what it made of it.
        ProviderError: A provider that was asked for does not load, or was left out of the session.
        ModelError: An external weight file is missing or too short.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 4] x) => (float[1, 2] z) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] b = {1, 2}> {
    ...     y = Gemm(x, w, b) z = Relu(y)
    ...   }''')
    >>> [node.op_type for node in optimized_model(model, "cpu").graph]
    ['FusedGemm']
    """
    if level not in LEVELS:
        raise InputError(f"there is no optimisation level {level!r}", hint=f"the levels are {', '.join(LEVELS)}")
    requested = resolve_providers(providers)
    check_external_data(model)
    with tempfile.TemporaryDirectory(prefix="onnxviz-", ignore_cleanup_errors=True) as folder:
        options = new_options(optimize=True, op_library=op_library)
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.add_session_config_entry(_WEIGHTS_KEY, "optimized.data")
        options.add_session_config_entry(_SIZE_KEY, str(_INLINE))
        _optimize(model, options, requested, Path(folder), list(without))
        return _read(Path(folder) / "optimized.onnx", model)


def _optimize(
    model: ir.Model, options: ort.SessionOptions, providers: list[str], folder: Path, without: list[str]
) -> None:
    homes = {os.path.realpath(os.fspath(tensor.base_dir)) for _, tensor in external_tensors(model)}
    data = model_bytes(model) if len(homes) < 2 else None
    source: bytes | str = data if data is not None else str(folder / "model.onnx")
    if data is None:
        save_model(model, folder / "model.onnx", external_data=True)
    elif homes:
        options.add_session_config_entry(_FOLDER_KEY, homes.pop())
    try:
        session = ort.InferenceSession(source, options, providers=providers, disabled_optimizers=without)
    except Exception as error:
        if "Unable to serialize" in str(error):
            raise ExecutionError(
                f"onnxruntime {ort.__version__} cannot write down the optimised graph: {message(error)}", hint=_INSTEAD
            ) from error
        raise explain_refusal(error) from error
    if lost := [p for p in providers if p not in session.get_providers()]:
        raise ProviderError(f"onnxruntime left {', '.join(lost)} out of the session", hint="see `onnxviz doctor`")


def _read(path: Path, original: ir.Model) -> ir.Model:
    """Read what onnxruntime wrote so that it can be used when the file is gone."""
    try:
        model = read_executed(path)
    except (OSError, ModelError) as error:
        raise ExecutionError(f"the optimised graph cannot be read: {error}", hint=_INSTEAD) from error
    for value, tensor in list(external_tensors(model)):
        if value is None:  # onnxruntime moves out weights only
            raise ExecutionError(f"the optimised graph has {tensor.name!r} in a file of its own", hint=_INSTEAD)
        tensor.base_dir = str(path.parent)
    _adopt_weights(model, original)
    _drop_former_weights(model, original)
    taken = {str(v.name) for graph in model.graphs() for v in _values(graph)}
    _rename_shadows(model.graph, frozenset(), taken)
    model.meta.update({key: value for key, value in original.meta.items() if key == "path"})
    model.graph.name = original.graph.name
    return model


def _adopt_weights(model: ir.Model, original: ir.Model) -> None:
    """Take unchanged weights from the original, and the others into memory."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                continue
            twin = original.graph.initializers.get(name)
            if twin is not None and twin.const_value is not None and _equal(tensor, twin.const_value):
                value.const_value = twin.const_value
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=name)
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()


def _equal(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape or one.dtype == ir.DataType.STRING:
        return False
    here, there = (np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8) for tensor in (one, other))
    return bool(np.array_equal(here, there))


def _drop_former_weights(model: ir.Model, original: ir.Model) -> None:
    """Drop inputs whose default was folded away: files before IR version 4 list every weight among the inputs."""
    for value in list(model.graph.inputs):
        was_weight = value.name in original.graph.initializers and value.name not in model.graph.initializers
        if was_weight and not value.uses():
            model.graph.inputs.remove(value)


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]


def _rename_shadows(graph: ir.Graph, outer: frozenset[str], taken: set[str]) -> None:
    """Rename what a body computes under a name of the graphs around it: onnxruntime writes that, and refuses it."""
    for node in graph:
        for value in node.outputs:
            if value.name in outer and value.name:
                name = next(n for i in itertools.count(2) if (n := f"{value.name}_{i}") not in taken)
                value.name = name
                taken.add(name)
    visible = outer | {str(value.name) for value in _values(graph)}
    for node in graph:
        for body in bodies_of(node):
            _rename_shadows(body, visible, taken)


@dataclass(frozen=True)
class ProductionCheck:
    """Result of :func:`verify_production`.

    Attributes:
        exact: Every output has the same bits in both runs.
        differences: Output -> how it differs; the largest absolute difference where it can be told.
    """

    exact: bool
    differences: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain JSON types."""
        return {"exact": self.exact, "differences": dict(self.differences)}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(name))}</td><td>{escape(text)}</td></tr>"
            for name, text in self.differences.items()
        )
        verdict = "bit-exact with the optimised session" if self.exact else "differs from the optimised session"
        return f"<table><caption>{verdict}</caption>{rows}</table>"


def verify_production(
    model: ir.Model,
    optimized: ir.Model,
    feeds: Mapping[str, np.ndarray],
    providers: str | Sequence[str] = "auto",
    *,
    op_library: str | os.PathLike[str] | None = None,
) -> ProductionCheck:
    """Run the optimised session and the graph that was written down, and compare their outputs bit by bit.

    Args:
        model: The model.
        optimized: What :func:`optimized_model` made of it, at the default level.
        feeds: Input name -> array.
        providers: As for :func:`optimized_model`.
        op_library: A shared library of custom operators.

    Raises:
        ExecutionError: onnxruntime does not run the model, or cannot load the optimised graph again.
        InputError: A feed does not fit.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {y = Neg(x) z = Relu(y)}'
    ... )
    >>> verify_production(model, optimized_model(model, "cpu"), {"x": np.float32([1, -2])}, "cpu").exact
    True
    """
    expected = Session(model, providers, optimize=True, op_library=op_library).run(feeds)
    try:
        session = Session(optimized, providers, op_library=op_library)
    except ExecutionError as error:
        raise ExecutionError(f"the optimised graph cannot be loaded again: {error.message}", hint=_INSTEAD) from error
    found = session.run({name: array for name, array in feeds.items() if name in session.inputs})
    differences = {
        name: difference
        for name, value in expected.items()
        if (difference := _difference(value, found[name])) is not None
    }
    return ProductionCheck(not differences, differences)


def _difference(one: Any, other: Any) -> str | None:
    """Return how two results differ, in words; None if they are the same to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = [*one, *one.values()], [*other, *other.values()]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{len(one)} elements against {len(other)}"
        found = (_difference(a, b) for a, b in zip(one, other, strict=True))
        return next((text for text in found if text is not None), None)
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
    if a.dtype.kind in "OUS":
        return None if np.array_equal(a, b) else "other texts"
    if a.tobytes() == b.tobytes():
        return None
    gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return f"up to {np.nanmax(gap):.3g}" if np.isfinite(gap).any() else "where it is not finite"
