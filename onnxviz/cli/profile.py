"""``onnxviz profile``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from onnxviz.cli.options import Input, ModelFile, console, runs_a_model, tell_inputs
from onnxviz.errors import printable

if TYPE_CHECKING:
    from onnxviz.runtime.profile_result import MemoryUse, Profile


@runs_a_model
def profile(
    model: ModelFile,
    input: Input = None,
    runs: Annotated[int, typer.Option("--runs", metavar="N", help="Runs that are measured.")] = 10,
    warmup: Annotated[int, typer.Option("--warmup", metavar="N", help="Runs before them that are not.")] = 3,
    mode: Annotated[
        Literal["production", "semantic"],
        typer.Option("--mode", help="The optimised session, or the nodes of the file with nothing fused."),
    ] = "production",
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help="All numbers as .json, or a .png, .svg or .pdf; repeat."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE.json", help="One run as a trace that Perfetto opens.")
    ] = None,
    *,
    options: dict[str, Any],
) -> None:
    """Measure where time and memory go: time, MACs, bytes and provider of each node, peak activation memory."""
    from onnxviz.api import profile as profile_file

    measured = profile_file(model, input, output, trace=trace, runs=runs, warmup=warmup, mode=mode, **options)
    tell_inputs(measured.inputs)
    _print(measured)
    for path in (*(output or ()), *([trace] if trace else ())):
        typer.echo(str(path))


def _print(measured: Profile) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(Text(printable(measured.model_name, 200), style="bold cyan"))
    for line in _summary(measured):
        out.print(Text(printable(line)))
    top = Table("node", "op", "provider", box=None, header_style="bold")
    for name in ("calls", "ms", "share", "MACs", "GFLOP/s", "FLOP/B", "output"):
        top.add_column(name, justify="right")
    for row in measured.top():
        cells = (
            printable(row.label, 56), printable(row.operator, 32), row.provider, f"{row.calls}",
            f"{1e3 * row.seconds:.3f}", f"{row.share:.1%}", _count(row.macs), _number(row.gflops),
            _number(row.intensity), "×".join(map(str, row.output_shape or ())) or "–",
        )  # fmt: skip
        top.add_row(*map(Text, cells))
    out.print(top)
    ops = Table("op", box=None, header_style="bold")
    for name in ("nodes", "calls", "ms", "share", "MACs"):
        ops.add_column(name, justify="right")
    for op in measured.by_op():
        times = (f"{op.nodes}", f"{op.calls}", f"{1e3 * op.seconds:.3f}", f"{op.share:.1%}")
        ops.add_row(*map(Text, (printable(op.operator, 48), *times, _count(op.macs))))
    out.print(ops)


def _summary(measured: Profile) -> Iterator[str]:
    overhead = measured.profiled_seconds - measured.seconds
    yield (
        f"{1e3 * measured.seconds:.3f} ms a run (median of {measured.runs} after {measured.warmup} warm-up runs, "
        f"{measured.mode}, {', '.join(measured.providers)})"
    )
    yield (
        f"{1e3 * measured.profiled_seconds:.3f} ms under the profiler ({1e3 * overhead:+.3f} ms), "
        f"{measured.unaccounted:.0%} of it in no node; shares are of this"
    )
    yield f"{_count(measured.macs)} MACs, {len(measured.rows):,} nodes executed"
    yield from _memory(measured.memory)
    yield from (f"note: {note}" for note in measured.notes)


def _memory(memory: MemoryUse) -> Iterator[str]:
    unknown = f"; sizes of {len(memory.unknown)} tensors unknown" if memory.unknown else ""
    yield f"activations at their peak: {_bytes(memory.peak_bytes)} by liveness{unknown}"
    if memory.allocator_bytes is not None:
        yield f"  {_bytes(memory.allocator_bytes)} asked of onnxruntime's allocator"
    measured = "" if memory.resident_bytes is None else f"{_bytes(memory.resident_bytes)}: "
    yield f"  {measured}{memory.resident_method}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 1e5 else f"{size / 1e3:.3g} kB"


def _count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _number(value: float | None) -> str:
    return "–" if not value else f"{value:.3g}"
