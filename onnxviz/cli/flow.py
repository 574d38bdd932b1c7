"""``onnxviz flow``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import (
    AllowCut,
    Batch,
    Input,
    ModelFile,
    StraightThrough,
    Target,
    draws_a_picture,
    runs_a_model,
    tell,
)
from onnxviz.cli.progress import shown_progress


@runs_a_model
@draws_a_picture
def flow(
    model: ModelFile,
    input: Input = None,
    on: Annotated[
        Literal["activations", "weights", "both", "gradients"],
        typer.Option("--on", help="Whose values; weights run nothing, gradients come beside both."),
    ] = "both",
    target: Target = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="folders|FILE.csv",
            help="Class of each sample, for gradients of the cross entropy: its folder, or lines of FILE,CLASS.",
        ),
    ] = None,
    straight_through: StraightThrough = False,
    allow_cut: AllowCut = False,
    architecture: Annotated[
        Path | None,
        typer.Option(
            "--architecture",
            metavar="FILE",
            help="Key nodes and key paths on the architecture: .svg, .png, .pdf, .html.",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="NAME=VALUE", help="From when a stretch is marked, such as vanishing=1e-4."
        ),
    ] = None,
    batch: Batch = None,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """Draw values and gradients layer after layer: quantiles, RMS, what vanishes, explodes, saturates, dies."""
    from onnxviz.analysis.flow_marks import read_thresholds
    from onnxviz.api import flow as draw

    with shown_progress() as progress:
        draw(
            model, input, output, data=data, architecture=architecture, on=on, batch=batch,
            thresholds=read_thresholds(threshold or ()), progress=progress,
            target=target, labels=labels, straight_through=straight_through, allow_cut=allow_cut, tell=tell, **options,
        )  # fmt: skip
