"""``onnxviz capture``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxviz.cli.options import Input, ModelFile, console, runs_a_model, tell_inputs
from onnxviz.errors import printable

if TYPE_CHECKING:
    from onnxviz.runtime.record import Capture


@runs_a_model
def capture(
    model: ModelFile,
    input: Input = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Arrays: .safetensors or .npz.")
    ] = None,
    stats: Annotated[
        Path | None, typer.Option("--stats", metavar="FILE.json", help="Statistics of each tensor.")
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", "-t", metavar="GLOB", help="Which tensors: names, op:TYPE, @kind; all by default."),
    ] = None,
    *,
    options: dict[str, Any],
) -> None:
    """Run a model and keep its intermediate tensors or their statistics; print these if nothing is written."""
    from onnxviz.api import capture as capture_file

    captured = capture_file(model, input, tensor or "*", output, stats, **options)
    tell_inputs(captured.inputs)
    for name, reason in captured.not_captured.items():
        typer.echo(f"not captured: {printable(name)}: {reason}", err=True)
    if output is not None:
        left_out = captured.unsaved(output)
        typer.echo(f"{output}: {len(captured) - len(left_out)} tensors")
        for name in left_out:
            typer.echo(f"not in the file: {printable(name)}: {output.suffix} holds no strings", err=True)
    if stats is not None:
        typer.echo(f"{stats}: {len(captured)} tensors")
    if output is None and stats is None:
        _print(captured)


def _print(captured: Capture) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxviz.analysis.statistics import statistics

    columns = ("min", "max", "mean", "std", "nan", "inf", "zero")
    table = Table("tensor", "dtype", "shape", *columns, box=None, header_style="bold")
    for row in (s.to_dict() for s in statistics(captured)):
        numbers = ["–" if row[c] is None else f"{row[c]:.4g}" for c in columns]
        shape = "×".join(map(str, row["shape"])) or "scalar"
        table.add_row(Text(printable(row["name"], 60)), row["dtype"], shape, *numbers)
    console().print(table)
