"""``onnxviz inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from onnxviz.cli.options import Dims, ModelFile, console, echo_json
from onnxviz.cli.sizes import dims

if TYPE_CHECKING:
    from onnxviz.graph.summary import ModelSummary


def inspect(
    model: ModelFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dim: Dims = None,
) -> None:
    """Show what a model is: inputs, outputs, parameters, MACs, operators, layers."""
    from onnxviz.api import inspect as inspect_file

    summary = inspect_file(model, dims=dims(dim))
    if as_json:
        echo_json(summary.to_dict())
    else:
        _print(summary)


def _print(summary: ModelSummary) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxviz.errors import printable

    out = console()
    facts = Table.grid(padding=(0, 2))
    rows = [
        ("producer", summary.producer or "unknown"),
        ("opset", ", ".join(f"{d} {v}" for d, v in summary.opsets.items()) + f" · IR version {summary.ir_version}"),
        *(("input", f"{i.name}  {i.dtype or '?'} {_shape(i.shape)}") for i in summary.inputs),
        *(("output", f"{o.name}  {o.dtype or '?'} {_shape(o.shape)}") for o in summary.outputs[:20]),
        ("nodes", f"{summary.nodes:,}" + (f", {summary.body_nodes:,} of them in bodies" if summary.body_nodes else "")),
        ("parameters", f"{summary.parameters:,} ({summary.parameter_bytes / 1e6:.3g} MB)"),
        ("MACs", _macs(summary)),
        ("operators", ", ".join(f"{op} {count}" for op, count in summary.ops.items())),
    ]
    for name, text in rows:
        facts.add_row(Text(name, style="bold"), Text(printable(text, 2000)))
    out.print(Text(printable(summary.name), style="bold cyan"))
    out.print(facts)
    if summary.layers:
        sourced = any(layer.source for layer in summary.layers)
        titles = ("layer", "operator", "input", "output", "parameters", "MACs", *(("source",) if sourced else ()))
        layers = Table(*titles, box=None, header_style="bold")
        for layer in summary.layers:
            cells = (
                layer.name, layer.op_type, _shape(layer.input_shape), _shape(layer.output_shape),
                f"{layer.parameters:,}", "?" if layer.macs is None else f"{layer.macs:,}",
                *((layer.source,) if sourced else ()),
            )  # fmt: skip
            layers.add_row(*(Text(printable(cell, 60)) for cell in cells))
        out.print(layers)


def _shape(shape: list[int | str | None] | None) -> str:
    return "?" if shape is None else "×".join("?" if d is None else str(d) for d in shape) or "scalar"


def _macs(summary: ModelSummary) -> str:
    text = "unknown" if summary.macs is None else f"{summary.macs:,}"
    if summary.assumed:
        text += " at " + ", ".join(f"{name}={size}" for name, size in summary.assumed.items())
    return text + (f", {summary.macs_unknown} nodes not counted (shapes unknown)" if summary.macs_unknown else "")
