"""From a live ``torch.nn.Module`` to ONNX: ``torch.export`` first, TorchScript as a declared fallback.

Everything here imports torch lazily: the functions are called only once torch is known to be installed.
"""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.converters.base import comes_from
from onnxviz.converters.naming import drop_empty_scopes
from onnxviz.converters.torch_call import Call, evaluating, run_module
from onnxviz.converters.torch_graph import LOWEST, lower, optimize_without_folding
from onnxviz.errors import ConversionError
from onnxviz.graph.model import from_proto, summary_line
from onnxviz.runtime.quiet import quiet

Dynamic = Mapping[str, Mapping[int, str]]

_LOWEST_TRACED = 9  # below, weights are inputs

__all__ = ["Exported", "export_module", "export_program", "export_script"]


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
    dynamic: Dynamic | None = None,
    keep_batchnorm: bool = False,
) -> Exported:
    """Export a module, its batch axis dynamic unless ``static``.

    Args:
        module: The network.
        call: An example call. With a dynamic batch axis its batch must be at least two (:func:`with_batch`).
        static: Keep every size of the example.
        opset: ONNX opset; None takes the exporter's default.
        input_names: Names of the ONNX inputs; by default those of ``forward``.
        output_names: Names of the ONNX outputs.
        dynamic: Further axes that stay open: input name -> axis -> name of its size.
        keep_batchnorm: Do not fold BatchNorm into the convolution before it.

    Raises:
        ConversionError: Neither exporter can do it, or the network fixes a size that is to stay open.
    """
    import torch

    dynamic = dynamic or {}

    names: dict[str, Any] = {"input_names": list(input_names) if input_names else None}
    names["output_names"] = list(output_names) if output_names else None
    open_axes = _open_axes(module, call, input_names, dynamic, static=static)
    shapes = _dynamic_shapes(module, call, open_axes) if any(open_axes) else None
    try:
        with torch.no_grad(), evaluating(module), quiet():
            program: Any = torch.onnx.export(
                module, call.args, kwargs=call.kwargs, dynamo=True, verbose=False,
                dynamic_shapes=shapes, opset_version=_at_least(opset), optimize=not keep_batchnorm, **names,
            )  # fmt: skip
    except Exception as error:  # exporters raise anything; the reason is passed on
        reason = _reason(error)
        if any(word in reason for word in ("onstraint", "pecializ", "inferred a static shape")):
            what = "its batch size" if not dynamic else "a size that is to stay open"
            hint = "convert it with --static" if not dynamic else "leave out --dynamic for that axis"
            if dynamic and any(comes_from(part, "keras") for part in module.modules()):
                hint += ", or set KERAS_BACKEND=tensorflow if the network is recurrent"  # on torch it is unrolled
            raise ConversionError(f"the network fixes {what}: {reason}", hint=hint) from error
        return _traced(module, call, reason, axes=open_axes, opset=opset, names=names, keep_batchnorm=keep_batchnorm)
    if keep_batchnorm:
        optimize_without_folding(program.model)
    if opset is not None and opset >= _LOWEST_TRACED and not lower(program.model, opset):
        reason = f"its graph cannot be written in opset {opset}"
        return _traced(module, call, reason, axes=open_axes, opset=opset, names=names, keep_batchnorm=keep_batchnorm)
    _check_axes(program.model, open_axes)
    return Exported(_finished(program.model), "torch.export")


def _traced(module: Any, call: Call, reason: str, **options: Any) -> Exported:
    model = _export_torchscript(module, call, reason, **options)
    note = (
        f"torch.export failed ({reason}), so the network was traced with TorchScript: a branch that depends on the "
        "data is fixed to what it was on the example"
    )
    return Exported(model, f"TorchScript (fallback: {reason})", (note,))


def _at_least(opset: int | None) -> int | None:
    return None if opset is None else max(opset, LOWEST)


def _open_axes(
    module: Any, call: Call, input_names: Sequence[str] | None, dynamic: Dynamic, *, static: bool
) -> list[dict[int, str]]:
    """Return for each tensor of a call which axes stay open, and the names of their sizes.

    Raises:
        ConversionError: An input or axis that is to stay open does not exist, or the example's size there is 1.
    """
    tensors = call.tensors()
    size = next((t.shape[0] for t in tensors if t.ndim), None)
    axes = [{0: "batch"} if not static and t.ndim and t.shape[0] == size else {} for t in tensors]
    names = list(input_names or forward_names(module, call)) if dynamic else []
    for name, wanted in dynamic.items():
        if name not in names:
            raise ConversionError(
                f"there is no input {name!r} to leave open", hint=f"the inputs are {', '.join(names)}"
            )
        index = names.index(name)
        shape = list(tensors[index].shape)
        for axis, label in wanted.items():
            if not -len(shape) <= axis < len(shape):
                raise ConversionError(f"input {name!r} has no axis {axis}: its shape is {shape}")
            place = axis % len(shape)
            if shape[place] < 2:
                raise ConversionError(
                    f"the example has size {shape[place]} along axis {axis} of {name!r}, a constant to torch",
                    hint="give --input-shape with a size of at least 2 there",
                )
            axes[index].setdefault(place, label)
    return axes


def _check_axes(model: ir.Model, axes: Sequence[Mapping[int, str]]) -> None:
    """Refuse a model in which torch.export made an open axis a constant, which it can do without a word; name them."""
    for value, wanted in zip(model.graph.inputs, axes, strict=False):
        if value.shape is None:
            continue
        for axis in wanted:
            size = value.shape[axis]
            if isinstance(size, int):
                what = "its batch size" if axis == 0 else f"the size of axis {axis}"
                elsewhere = _other_batches(model, size) if axis == 0 else ""
                raise ConversionError(
                    f"the network fixes {what}: input {value.name!r} came out as {list(value.shape)}",
                    hint=f"convert it with --static{elsewhere}" if axis == 0 else "leave out --dynamic for that axis",
                )
    _rename_sizes(model, axes)


def _other_batches(model: ir.Model, batch: int) -> str:
    """Say how to open the batch where inputs may have it as another axis, as the states of an LSTM do."""
    inputs = [(v.name, list(v.shape)) for v in model.graph.inputs if v.shape is not None and len(v.shape) > 1]
    found = [f"--dynamic {name}:{shape.index(batch, 1)}=batch" for name, shape in inputs
             if shape[0] != batch and batch in shape[1:]]  # fmt: skip
    return f", or say which axis is the batch: {' '.join(found)}" if found else ""


def _rename_sizes(model: ir.Model, axes: Sequence[Mapping[int, str]]) -> None:
    """Give the open sizes the names asked for, wherever they occur; torch.export calls those without a Dim s12."""
    names: dict[str, str] = {}
    for value, wanted in zip(model.graph.inputs, axes, strict=False):
        for axis, label in wanted.items():
            size = value.shape[axis] if value.shape is not None else None
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                names.setdefault(size.value, label)
    changes = {old: new for old, new in names.items() if old != new}
    if not changes:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, changes)) + r")\b")
    for graph in model.graphs():
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        for value in values:
            if value.shape is not None:
                value.shape = ir.Shape(
                    [d if isinstance(d, int) else _renamed(d, pattern, changes) for d in value.shape]
                )


def _renamed(size: ir.SymbolicDim, pattern: re.Pattern[str], names: Mapping[str, str]) -> str | None:
    return None if size.value is None else pattern.sub(lambda match: names[match.group()], size.value)


def export_program(program: Any, opset: int | None) -> Exported:
    """Export a ``torch.export.ExportedProgram``; which axes are dynamic was settled when it was made.

    Raises:
        ConversionError: The exporter cannot translate it.
    """
    import torch

    try:
        with quiet():
            exported: Any = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=_at_least(opset))
    except Exception as error:
        raise ConversionError(f"torch.onnx cannot translate the program: {_reason(error)}") from error
    if opset is not None and not lower(exported.model, opset):
        raise ConversionError(f"the program cannot be written in opset {opset}", hint="take a higher --opset")
    return Exported(_finished(exported.model), "torch.export")


def export_script(
    module: Any, call: Call, *, static: bool, opset: int | None, dynamic: Dynamic | None = None,
    keep_batchnorm: bool = False,
) -> Exported:  # fmt: skip
    """Export a TorchScript module, which only the TorchScript exporter can read; control flow in it is kept.

    Raises:
        ConversionError: The exporter cannot do it.
    """
    reason = "the source is a TorchScript archive"
    axes = _open_axes(module, call, None, dynamic or {}, static=static)
    model = _export_torchscript(module, call, reason, axes=axes, opset=opset, names={}, keep_batchnorm=keep_batchnorm)
    return Exported(model, f"TorchScript (fallback: {reason})", (f"written by the TorchScript exporter: {reason}",))


def _dynamic_shapes(module: Any, call: Call, axes: Sequence[Mapping[int, str]]) -> Any:
    import inspect

    import torch
    from torch.utils import _pytree as pytree

    batch = torch.export.Dim("batch")
    rest = iter(axes)

    def dims(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return None
        # A Dim may not be tied to another size by what the network computes, DYNAMIC may; _check_axes sees to the rest.
        return {a: batch if n == "batch" else torch.export.Dim.DYNAMIC for a, n in next(rest).items()} or None

    args, kwargs = pytree.tree_map(dims, (call.args, call.kwargs))
    parameters = inspect.signature(module.forward).parameters.values()
    shapes: dict[str, Any] = {}
    given = list(args)
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            shapes[parameter.name], given = tuple(given), []
        elif parameter.kind is parameter.VAR_KEYWORD and kwargs:
            names = ", ".join(kwargs)
            raise ConversionError(
                f"torch.export cannot leave an axis of {names} open: forward takes it as **{parameter.name}",
                hint="name these arguments in forward, or convert it with --static",
            )
        elif given and parameter.kind is not parameter.KEYWORD_ONLY:
            shapes[parameter.name] = given.pop(0)
        elif parameter.name in kwargs:
            shapes[parameter.name] = kwargs.pop(parameter.name)
    return shapes


def _export_torchscript(
    module: Any, call: Call, reason: str, *, axes: Sequence[Mapping[int, str]], opset: int | None,
    names: Mapping[str, list[str] | None], keep_batchnorm: bool,
) -> ir.Model:  # fmt: skip
    import torch

    inputs = names.get("input_names") or forward_names(module, call)
    size = next((t.shape[0] for t in call.tensors() if t.ndim), None)
    given = run_module(module, call)
    outputs = names.get("output_names") or [f"output_{i}" if i else "output" for i in range(len(given))]
    dynamic: dict[str, dict[int, str]] = {n: dict(a) for n, a in zip(inputs, axes, strict=True) if a}
    if any("batch" in wanted.values() for wanted in axes):
        dynamic |= {n: {0: "batch"} for n, a in zip(outputs, given, strict=True) if a.ndim and len(a) == size}
    mode: Any = torch.onnx.TrainingMode.PRESERVE if keep_batchnorm else torch.onnx.TrainingMode.EVAL
    buffer: Any = io.BytesIO()
    try:
        with torch.no_grad(), evaluating(module), quiet():
            torch.onnx.export(
                module, call.args, buffer, kwargs=call.kwargs, dynamo=False, verbose=False, opset_version=opset,
                input_names=inputs, output_names=outputs, dynamic_axes=dynamic or None, training=mode,
            )  # fmt: skip
    except Exception as error:
        raise ConversionError(
            f"neither exporter takes the network: torch.export: {reason}; TorchScript: {_reason(error)}",
            hint="write that part with operators that ONNX has, or compute it outside of the network",
        ) from error
    return from_proto(onnx.load_model_from_string(buffer.getvalue()))


def forward_names(module: Any, call: Call) -> list[str]:
    """Name the tensors of a call after ``forward``'s parameters, as torch.export does."""
    import inspect

    import torch
    from torch.utils import _pytree as pytree

    if hasattr(module.forward, "schema"):  # scripted: no Python signature
        return [argument.name for argument in module.forward.schema.arguments[1:]]
    names: list[str] = []
    bound = inspect.signature(module.forward).bind(*call.args, **call.kwargs)
    arguments = dict(bound.arguments)
    for name, declared in bound.signature.parameters.items():
        if declared.kind is declared.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    for parameter, value in arguments.items():
        count = sum(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
        names += [parameter] if isinstance(value, torch.Tensor) else [f"{parameter}_{i}" for i in range(count)]
    return names


def _finished(model: ir.Model) -> ir.Model:
    """Copy the weights out of torch's memory, so that training on does not change the model, and clear its notes."""
    drop_empty_scopes(model)
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
    _, listed, conflict = str(innermost).partition("inferred ranges from model tracing:\n- ")
    says = conflict.split("\n")[0] if listed else summary_line(innermost)
    return says.rstrip(". ") + where


def _is_users(filename: str) -> bool:
    name = filename.replace("\\", "/")
    library = "site-packages" in name or "/lib/python" in name or name.startswith("<")
    return not library and Path(filename).parent != Path(__file__).parent
