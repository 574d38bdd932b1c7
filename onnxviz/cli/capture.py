"""``onnxviz capture``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxviz.cli.options import Input, ModelFile, console, echo_json, runs_a_model, tell_inputs
from onnxviz.cli.progress import shown_progress
from onnxviz.errors import InputError, OutputError, printable

if TYPE_CHECKING:
    from onnxviz.runtime.plan import Plan
    from onnxviz.runtime.record import Capture

_MOST_TOLD = 20  # lines about tensors that are not captured


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
    mode: Annotated[
        str, typer.Option("--mode", help="semantic: what the file says; production: what the optimised session does.")
    ] = "semantic",
    per_channel: Annotated[bool, typer.Option("--per-channel", help="Statistics of each channel too.")] = False,
    batch: Annotated[int | None, typer.Option("--batch", metavar="N", help="Samples a batch, of many inputs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what the run would need, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.")] = False,
    max_memory: Annotated[
        str | None, typer.Option("--max-memory", metavar="SIZE", help="Most memory of the process, such as 2GB.")
    ] = None,
    stop_on: Annotated[
        str | None, typer.Option("--stop-on", metavar="WHAT", help="Stop at the first nan, inf or nonfinite (both).")
    ] = None,
    repro: Annotated[
        Path | None,
        typer.Option("--repro", metavar="FILE.onnx", help="The node that gave it, as a model; its inputs beside it."),
    ] = None,
    iterations: Annotated[
        int, typer.Option("--iterations", min=0, help="Iterations of a Loop or Scan that are recorded.")
    ] = 256,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Run in a process of its own: a crash of the runtime is one line.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", help="Seconds that an isolated run may take.")
    ] = None,
    *,
    options: dict[str, Any],
) -> int:
    """Run a model and keep its intermediate tensors or their statistics; print these if nothing is written."""
    from onnxviz import api

    _check(model, input, output, repro, timeout, isolated, as_json and not dry_run)
    stop = stop_on or ("nonfinite" if repro is not None else None)
    common = {"mode": mode, "batch": batch, "max_memory": max_memory, "keep": output is not None, **options}
    patterns = tensor or "*"
    if dry_run:
        return _tell_plan(
            api.plan(model, input, patterns, reduce=output is None or stats is not None, **common), as_json
        )
    with shown_progress(not isolated) as progress:
        captured = api.capture(
            model, input, patterns, output, stats, per_channel=per_channel, repro=repro, stop_on=stop,
            iterations=iterations, isolated=isolated, timeout=timeout, progress=progress, **common,
        )  # fmt: skip
    return _tell(captured, output, stats, repro)


def _check(
    model: Path, inputs: list[str] | None, output: Path | None, repro: Path | None, timeout: float | None,
    isolated: bool, lone_json: bool,
) -> None:  # fmt: skip
    """Refuse options that would do nothing, and a repro that would overwrite what is read or written besides."""
    if lone_json:
        raise InputError("--json prints a plan", hint="give --dry-run too, or write statistics with --stats FILE.json")
    if timeout is not None and not isolated:
        raise InputError("--timeout ends an isolated run", hint="give --isolated too")
    if timeout is not None and not timeout > 0:
        raise InputError(f"a run cannot take {timeout:g} s", hint="give a --timeout above 0")
    if repro is None:
        return
    sources = [text for given in inputs or () for text in (given, given.partition("=")[2]) if text]
    taken = {os.path.realpath(path) for path in (model, output, *sources) if path is not None}
    for file in (repro, repro.with_suffix(".npz")):
        if os.path.realpath(file) in taken:
            raise OutputError(f"--repro {repro} would overwrite {file}", hint="give it another name")


def _tell(captured: Capture, output: Path | None, stats: Path | None, repro: Path | None) -> int:
    tell_inputs(captured.inputs)
    _tell_some("not captured", [f"{printable(n)}: {printable(why)}" for n, why in captured.not_captured.items()])
    _tell_some("not on the preferred provider", [f"{printable(n)}: ran on {p}" for n, p in captured.fallbacks.items()])
    for note in captured.notes:
        typer.echo(f"note: {note}", err=True)
    if output is not None:
        left_out = captured.unsaved(output)
        typer.echo(f"{output}: {len(captured.arrays) - len(left_out)} tensors")
        for name in left_out:
            typer.echo(f"not in the file: {printable(name)}: {output.suffix} holds no strings", err=True)
    if stats is not None:
        typer.echo(
            f"{stats}: {len(captured)} tensors" + (f", {captured.samples} samples" if captured.samples > 1 else "")
        )
    if output is None and stats is None and captured.nonfinite is None:
        _print(captured)
    if captured.interrupted:
        typer.echo(f"stopped after {captured.samples} samples; what is complete was kept", err=True)
        return 130
    if captured.nonfinite is not None:
        typer.echo(printable(captured.nonfinite))
        for read in captured.nonfinite.inputs:
            typer.echo(f"  it read {printable(read)}{' (a weight)' if read.constant else ''}")
        if repro is not None:
            typer.echo(f"{repro}, {repro.with_suffix('.npz').name}: the node alone, and its inputs")
        return 1
    return 0


def _tell_some(what: str, lines: list[str]) -> None:
    for line in lines[:_MOST_TOLD]:
        typer.echo(f"{what}: {line}", err=True)
    if len(lines) > _MOST_TOLD:
        typer.echo(f"{what}: … and {len(lines) - _MOST_TOLD} more", err=True)


def _tell_plan(plan: Plan, as_json: bool) -> int:
    if as_json:
        echo_json(plan.to_dict())
        return 0
    for line in plan.lines():
        typer.echo(line)
    from rich.table import Table
    from rich.text import Text

    table = Table("tensor", "dtype", "shape", "bytes", box=None, header_style="bold")
    for t in plan.tensors:
        shape = "?" if t.shape is None else "×".join("?" if d is None else str(d) for d in t.shape) or "scalar"
        table.add_row(Text(printable(t.name, 60)), t.dtype or "?", shape, "?" if t.bytes is None else f"{t.bytes:,}")
    console().print(table)
    return 0


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
