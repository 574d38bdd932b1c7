"""``onnxviz weights``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from onnxviz.cli.options import ModelFile, Seed, console, draws_a_picture, tell
from onnxviz.cli.progress import shown_progress
from onnxviz.errors import InputError, printable

if TYPE_CHECKING:
    from onnxviz.analysis.weight_table import WeightTable

_WIDE = 150  # columns of a terminal that the whole table takes


@draws_a_picture
def weights(
    model: ModelFile,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", "-l", metavar="GLOB", help="Names of layers or weight tensors, or op:TYPE; may be repeated."
        ),
    ] = None,
    view: Annotated[
        Literal["sheet", "kernels", "norms", "filters", "spectra"],
        typer.Option(
            "--view",
            help="sheet: kernels and histograms; kernels: all of one layer; norms: of each kernel, outputs × inputs; "
            "filters: PCA, clusters, near-duplicates, dead ones; spectra: singular values, ranks, power law.",
        ),
    ] = "sheet",
    raw: Annotated[bool, typer.Option("--raw", help="Stored integers of quantised weights, not dequantised.")] = False,
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Statistics of every weight: .csv, .json, or - for the terminal."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="COLUMN", help="Sort the table; numbers largest first, -COLUMN smallest first."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Most weights in a picture.")] = 24,
    seed: Seed = 0,
    *,
    output: Path | None,
    data: Path | None,
) -> None:
    """Draw the weights, or list them: kernels, norms, filters, spectra, statistics."""
    from onnxviz.api import weight_table
    from onnxviz.api import weights as draw_weights
    from onnxviz.api.common import DATA, PICTURES, check_outputs

    if sort is not None and table is None:
        raise InputError("--sort is for the table", hint="add --table -")
    file = None if table is None or str(table) == "-" else table
    check_outputs((output, PICTURES), (data, DATA), (file, (".csv", ".json")))
    if table is not None:
        with shown_progress(what="layers") as progress:
            found = weight_table(model, layer, file, sort=sort, raw=raw, progress=progress)
        if file is None:
            _print(found)
    if output is not None or data is not None:
        with shown_progress(what="layers") as progress:
            draw_weights(
                model, layer, output, data=data, view=view, raw=raw, rows=rows, seed=seed, progress=progress,
                tell=tell,
            )  # fmt: skip


_COLUMNS: tuple[tuple[str, str, bool], ...] = (
    ("layer", "layer", True), ("operator", "operator", True), ("shape", "shape", True),
    ("parameters", "parameters", True), ("type", "dtype", True), ("mean", "mean", False), ("std", "std", True),
    ("min", "min", False), ("max", "max", False), ("zeros %", "zeros", True), ("sparsity", "sparsity", False),
    ("L2", "l2", True), ("σ max", "spectral_norm", False), ("stable rank", "stable_rank", True),
    ("dead", "dead", True), ("alike", "near_duplicates", True), ("BatchNorm", "batchnorm", False),
)  # fmt: skip


def _print(found: WeightTable) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    narrow = sys.stdout.isatty() and out.width < _WIDE
    columns = [(title, name) for title, name, always in _COLUMNS if always or not narrow]
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for title, name in columns:
        shown.add_column(
            title, justify="left" if name in ("layer", "operator", "shape", "dtype", "batchnorm") else "right"
        )
    for row in found.rows:
        shown.add_row(*(Text(_cell(row, name)) for _, name in columns))
    out.print(shown)
    for row in found.rows:
        if row.note:
            typer.echo(printable(f"{row.layer}: {row.note}", 300), err=True)
    if narrow:
        typer.echo("more columns: in a wider terminal, or with --table FILE.csv", err=True)


def _cell(row: Any, name: str) -> str:
    from onnxviz.analysis.scale import number

    value = getattr(row, name)
    if name == "dtype":
        return f"{row.bits}-bit of {row.dtype}" if row.quantization and row.bits < 8 else str(value)
    if value is None:
        return "–"
    if name == "shape":
        return "×".join(map(str, value)) or "scalar"
    if name == "zeros":
        return number(100 * value)
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else printable(value, 48)
