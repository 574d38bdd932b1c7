"""``onnxviz flow``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Input, ModelFile, runs_a_model
from onnxviz.cli.progress import shown_progress


@runs_a_model
def flow(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The picture: .png, .svg or .pdf.")],
    input: Input = None,
    on: Annotated[
        Literal["activations", "weights", "both"], typer.Option("--on", help="Whose values; weights run nothing.")
    ] = "both",
    architecture: Annotated[
        Path | None,
        typer.Option(
            "--architecture",
            metavar="FILE",
            help="Key nodes and key paths on the architecture: .svg, .png, .pdf, .html.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="The numbers behind the picture: .npz.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="NAME=VALUE", help="From when a stretch is marked, such as vanishing=1e-4."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Samples a batch, where the model leaves it open.")
    ] = None,
    *,
    options: dict[str, Any],
) -> None:
    """Draw values layer after layer: quantiles, RMS, vanishing, exploding, saturated, dead and constant stretches."""
    from onnxviz.analysis.flow_marks import read_thresholds
    from onnxviz.api import flow as draw
    from onnxviz.errors import printable

    with shown_progress() as progress:
        draw(
            model, input, output, data=data, architecture=architecture, on=on, batch=batch,
            thresholds=read_thresholds(threshold or ()), progress=progress,
            tell=lambda line: typer.echo(printable(line), err=True), **options,
        )  # fmt: skip
    for file in (output, data, architecture):
        if file is not None:
            typer.echo(str(file))
