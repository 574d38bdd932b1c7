"""From a live ``torch.nn.Module`` to ONNX: ``torch.export`` first, TorchScript as a declared fallback.

Everything here imports torch lazily: the functions are called only once torch is known to be installed.
"""

from __future__ import annotations

import ast
import io
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.converters.quiet import quiet
from onnxviz.converters.torch_call import Call, evaluating, run_module
from onnxviz.errors import ConversionError
from onnxviz.graph.model import from_proto, summary_line

__all__ = ["Exported", "export_module", "export_program", "export_script", "layer_of"]


@dataclass(frozen=True)
class Exported:
    """A model as an exporter wrote it, with how it was written."""

    model: ir.Model
    exporter: str
    notes: tuple[str, ...] = ()


def export_module(
    module: Any,
    call: Call,
    *,
    static: bool,
    opset: int | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Exported:
    """Export a module, its batch axis dynamic unless ``static``.

    Args:
        module: The network.
        call: An example call. With a dynamic batch axis its batch must be at least two (:func:`with_batch`).
        static: Keep every size of the example.
        opset: ONNX opset; None takes the exporter's default.
        input_names: Names of the ONNX inputs; by default those of ``forward``.
        output_names: Names of the ONNX outputs.

    Raises:
        ConversionError: Neither exporter can do it, or the network fixes its own batch size.
    """
    import torch

    names: dict[str, Any] = {"input_names": list(input_names) if input_names else None}
    names["output_names"] = list(output_names) if output_names else None
    shapes = None if static else _dynamic_shapes(module, call)
    try:
        with torch.no_grad(), evaluating(module), quiet():
            program: Any = torch.onnx.export(
                module, call.args, kwargs=call.kwargs, dynamo=True, verbose=False,
                dynamic_shapes=shapes, opset_version=opset, **names,
            )  # fmt: skip
    except Exception as error:  # exporters raise anything; the reason is passed on
        reason = _reason(error)
        if "onstraint" in reason or "pecializ" in reason:
            raise ConversionError(
                f"the network fixes its batch size: {reason}", hint="convert it with --static"
            ) from error
        model = _export_torchscript(module, call, reason, static=static, opset=opset, names=names)
        note = (
            f"torch.export failed ({reason}), so the network was traced with TorchScript: a branch that depends on the "
            "data is fixed to what it was on the example"
        )
        return Exported(model, f"TorchScript (fallback: {reason})", (note,))
    if not static:
        _check_batch(program.model, call)
    return Exported(_detached(program.model), "torch.export")


def _check_batch(model: ir.Model, call: Call) -> None:
    """Refuse a model whose batch axis torch.export made a constant, which it can do without a word."""
    size = next(t.shape[0] for t in call.tensors() if t.ndim)
    for value, tensor in zip(model.graph.inputs, call.tensors(), strict=False):
        if tensor.ndim and tensor.shape[0] == size and value.shape is not None and isinstance(value.shape[0], int):
            raise ConversionError(
                f"the network fixes its batch size: input {value.name!r} came out as {list(value.shape)}",
                hint="convert it with --static",
            )


def export_program(program: Any, opset: int | None) -> Exported:
    """Export a ``torch.export.ExportedProgram``; which axes are dynamic was settled when it was made.

    Raises:
        ConversionError: The exporter cannot translate it.
    """
    import torch

    try:
        with quiet():
            exported: Any = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=opset)
    except Exception as error:
        raise ConversionError(f"torch.onnx cannot translate the program: {_reason(error)}") from error
    return Exported(_detached(exported.model), "torch.export")


def export_script(module: Any, call: Call, *, static: bool, opset: int | None) -> Exported:
    """Export a TorchScript module, which only the TorchScript exporter can read; control flow in it is kept.

    Raises:
        ConversionError: The exporter cannot do it.
    """
    reason = "the source is a TorchScript archive"
    model = _export_torchscript(module, call, reason, static=static, opset=opset, names={})
    return Exported(model, f"TorchScript (fallback: {reason})", (f"written by the TorchScript exporter: {reason}",))


def _dynamic_shapes(module: Any, call: Call) -> Any:
    import inspect

    import torch
    from torch.utils import _pytree as pytree

    size = next(t.shape[0] for t in call.tensors() if t.ndim)
    batch = torch.export.Dim("batch")

    def axes(leaf: Any) -> Any:
        return {0: batch} if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] == size else None

    args, kwargs = pytree.tree_map(axes, (call.args, call.kwargs))
    parameters = inspect.signature(module.forward).parameters.values()
    shapes: dict[str, Any] = {}
    rest = list(args)
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            shapes[parameter.name], rest = tuple(rest), []
        elif rest and parameter.kind is not parameter.KEYWORD_ONLY:
            shapes[parameter.name] = rest.pop(0)
    return {**shapes, **kwargs}


def _export_torchscript(
    module: Any, call: Call, reason: str, *, static: bool, opset: int | None, names: Mapping[str, list[str] | None]
) -> ir.Model:
    import torch

    inputs = names.get("input_names") or _forward_names(module, call)
    size = next((t.shape[0] for t in call.tensors() if t.ndim), None)
    outputs = [f"output_{i}" if i else "output" for i in range(len(run_module(module, call)))]
    outputs = names.get("output_names") or outputs
    axes = {n: {0: "batch"} for n, t in zip(inputs, call.tensors(), strict=True) if t.ndim and t.shape[0] == size}
    axes |= {
        n: {0: "batch"} for n, a in zip(outputs, run_module(module, call), strict=True) if a.ndim and len(a) == size
    }
    buffer: Any = io.BytesIO()
    try:
        with torch.no_grad(), evaluating(module), quiet():
            torch.onnx.export(
                module, call.args, buffer, kwargs=call.kwargs, dynamo=False, verbose=False, opset_version=opset,
                input_names=inputs, output_names=outputs, dynamic_axes=None if static else axes,
            )  # fmt: skip
    except Exception as error:
        raise ConversionError(
            f"neither exporter takes the network: torch.export: {reason}; TorchScript: {_reason(error)}"
        ) from error
    return from_proto(onnx.load_model_from_string(buffer.getvalue()))


def _forward_names(module: Any, call: Call) -> list[str]:
    """Name the tensors of a call after ``forward``'s parameters, as torch.export does."""
    import inspect

    import torch
    from torch.utils import _pytree as pytree

    if hasattr(module.forward, "schema"):  # scripted: no Python signature
        return [argument.name for argument in module.forward.schema.arguments[1:]]
    names = []
    bound = inspect.signature(module.forward).bind(*call.args, **call.kwargs)
    for parameter, value in bound.arguments.items():
        count = sum(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
        names += [parameter] if isinstance(value, torch.Tensor) else [f"{parameter}_{i}" for i in range(count)]
    return names


def _detached(model: ir.Model) -> ir.Model:
    """Copy the weights out of torch's memory, so that training on does not change the model."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                data = np.array(value.const_value.numpy())
                value.const_value = ir.Tensor(data, dtype=value.const_value.dtype, name=value.name)
    return model


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one sentence, with the line of the user's code where it arose."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    frames = [f for f in traceback.extract_tb(innermost.__traceback__) if _is_users(f.filename)]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return summary_line(innermost).rstrip(". ") + where


def _is_users(filename: str) -> bool:
    name = filename.replace("\\", "/")
    library = "site-packages" in name or "/lib/python" in name or name.startswith("<")
    return not library and Path(filename).parent != Path(__file__).parent


def layer_of(node: ir.Node) -> str | None:
    """Return the path of the module that a node came from, which torch.export records, such as ``"layers.0.conv1"``.

    >>> layer_of(ir.node("Conv", [], metadata_props={"pkg.torch.onnx.name_scopes": "['', 'conv1', 'conv2d']"}))
    'conv1'

    A convolution that took in the BatchNorm behind it carries the BatchNorm's path; its weight
    tells where it came from.
    """
    if node.metadata_props.get("pkg.onnxscript.rewriter.rule_name", "").startswith("FuseBatchNorm"):
        weight = node.inputs[1].name if len(node.inputs) > 1 and node.inputs[1] is not None else None
        if weight and weight.endswith(".weight"):
            return weight.removesuffix(".weight")
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if not scopes:
        return None
    path = ast.literal_eval(scopes)[:-1]
    return path[-1] or None if path else None
