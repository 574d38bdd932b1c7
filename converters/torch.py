"""PyTorch to ONNX: module factories, state dicts, ``torch.export`` programs, TorchScript archives, live modules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnxviz.converters.base import Array, Conversion, ConvertOptions, LayerCall, Source, comes_from
from onnxviz.converters.naming import name_by_layer, strip_paths
from onnxviz.converters.torch_call import (
    Call,
    output_names,
    require_torch,
    run_module,
    to_array,
    to_tensor,
    with_batch,
)
from onnxviz.converters.torch_export import Exported, export_module, export_program, export_script
from onnxviz.converters.torch_files import TORCH_SUFFIXES, open_torch_file
from onnxviz.converters.torch_layers import layer_of, record_module, record_program, trace_layers
from onnxviz.converters.torch_weights import load_weights
from onnxviz.errors import ConversionError
from onnxviz.graph.model import summary_line

__all__ = ["TorchConverter"]


class TorchConverter:
    """Converts PyTorch networks through ``torch.export``, with TorchScript as a declared fallback.

    Takes a factory (``file.py:function``, which may also return ``(module, example_inputs)``), alone or with a state
    dict; a ``.pt2`` program; a TorchScript archive; a pickled module; a live ``torch.nn.Module``.
    """

    name = "torch"
    takes = "file.py:function (with --weights FILE.pt or FILE.safetensors), .pt2"

    def accepts(self, source: Source) -> bool:
        """Say whether the source is a torch object or has the ending of a torch file."""
        if source.network is not None:
            torch_module = comes_from(source.network, "torch", "Module") or comes_from(
                source.network, "torch", "ExportedProgram"
            )
            return torch_module and not comes_from(source.network, "keras")
        return source.path is not None and source.path.suffix.lower() in TORCH_SUFFIXES

    def convert(self, source: Source, options: ConvertOptions) -> Conversion:
        """Convert a PyTorch network.

        Args:
            source: What to convert.
            options: How. A dynamic batch axis needs an example of at least two, so a batch of one is doubled.

        Raises:
            ConversionError: The network cannot be converted as asked; the message says why and what would work.
            TrustError: The file would execute code and ``options.trust`` is not set.
            MissingDependencyError: torch or onnxscript is not installed.
        """
        require_torch()
        network = source.network if source.network is not None else open_torch_file(source, options)
        if comes_from(network, "torch", "ExportedProgram"):
            return _convert_program(source, network, options)
        module: Any = network
        notes: tuple[str, ...] = ()
        if comes_from(module, "torch", "OptimizedModule"):
            module = module._orig_mod  # torch.compile's wrapper hides the parts
        if options.weights is not None:
            notes = load_weights(module, options.weights)
        call = _example(source, module, options)
        _check_call(source, module, call)
        if not options.static:
            call, _ = with_batch(call)
        export = export_script if comes_from(module, "torch", "ScriptModule") else export_module
        exported = export(
            module, call, static=options.static, opset=options.opset, dynamic=options.dynamic,
            keep_batchnorm=options.keep_batchnorm,
        )  # fmt: skip
        exported = replace(exported, notes=(*notes, *exported.notes))
        return _finish(source, exported, call, module)


def _example(source: Source, module: Any, options: ConvertOptions) -> Call:
    """Return the call to export with: of the shapes asked for, else what the factory returned."""
    import torch

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    given = source.example_inputs
    if options.input_shapes:
        generator = torch.Generator().manual_seed(options.seed)
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        drawn = [torch.randn(shape, generator=generator).to(device, dtype) for shape in options.input_shapes]
        return Call(tuple(drawn), {})
    if given is None:
        raise ConversionError(
            f"the input shape of {source.label} is not known{_wanted(module)}",
            hint="give --input-shape 1,3,224,224 (one an input), or return (module, example_inputs) from the factory",
        )
    if isinstance(given, Mapping):
        return Call((), dict(given)).map(lambda t: t.to(device))
    args = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    return Call(args, {}).map(lambda t: t.to(device))


def _wanted(module: Any) -> str:
    try:
        names = [str(p) for p in inspect.signature(module.forward).parameters.values()]
    except (TypeError, ValueError):  # a scripted forward has no Python signature
        return ""
    return f"; its forward takes ({', '.join(names)})"


def _check_call(source: Source, module: Any, call: Call) -> None:
    try:
        outputs = run_module(module, call)
    except Exception as error:
        shapes = ", ".join("×".join(map(str, t.shape)) or "scalar" for t in call.tensors())
        raise ConversionError(
            f"{source.label} does not run on inputs of shape {shapes}: {summary_line(error)}{_wanted(module)}",
            hint="give --input-shape, one an input, or let the factory return (module, example_inputs)",
        ) from error
    if not outputs:
        raise ConversionError(f"{source.label} returns no tensor")


def _convert_program(source: Source, program: Any, options: ConvertOptions) -> Conversion:
    if options.input_shapes or options.weights is not None or options.dynamic:
        raise ConversionError(
            f"{source.label} is a finished torch.export program: its shapes and weights are fixed",
            hint="leave out --input-shape, --dynamic and --weights",
        )
    args, kwargs = program.example_inputs or ((), {})
    call = Call(tuple(args), dict(kwargs or {}))
    exported = export_program(program, options.opset)
    return _finish(source, exported, call, program.module(), program=program)


def _finish(source: Source, exported: Exported, call: Call, module: Any, *, program: Any = None) -> Conversion:
    """Name the graph, clear its metadata of paths, and tie its inputs to the module's arguments."""
    import torch

    model, evaluate = exported.model, program is None
    script = comes_from(module, "torch", "ScriptModule")
    trace_layers(model, None if script or program is not None else module)
    if exported.exporter == "torch.export":
        outputs = output_names(module, call, evaluate=evaluate)
        name_by_layer(model, layer_of, outputs if len(outputs) == len(model.graph.outputs) else None)
    strip_paths(model, source.folder)
    names = [value.name or "" for value in model.graph.inputs]
    tensors = call.tensors()
    if len(names) != len(tensors):
        raise ConversionError(
            f"the exporter kept {len(names)} of {len(tensors)} inputs: {', '.join(names)}",
            hint="leave the inputs that the network does not use out of its forward",
        )
    devices = dict(zip(names, (t.device for t in tensors), strict=True))

    def called(feeds: Mapping[str, Array]) -> Call:
        fresh = iter([to_tensor(feeds[name], devices[name]) for name in names])
        return call.map(lambda _: next(fresh))

    def reference(feeds: Mapping[str, Array]) -> list[Array]:
        return run_module(module, called(feeds), evaluate=evaluate)

    def record(feeds: Mapping[str, Array]) -> list[LayerCall]:
        return record_module(module, called(feeds)) if evaluate else record_program(program, called(feeds))

    example = {name: to_array(tensor) for name, tensor in zip(names, tensors, strict=True)}
    return Conversion(
        model, exported.exporter, f"torch {torch.__version__}", reference, example, exported.notes,
        record=None if script else record,
    )  # fmt: skip
