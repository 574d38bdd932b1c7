"""``onnxviz activations``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxviz.cli.options import (
    Batch,
    ChannelScore,
    Input,
    ModelFile,
    MostChannels,
    Sample,
    draws_a_picture,
    runs_a_model,
    tell,
)
from onnxviz.cli.progress import shown_progress


@runs_a_model
@draws_a_picture
def activations(
    model: ModelFile,
    input: Input = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", "-t", metavar="GLOB", help="Which functions: names of what leaves them, op:TYPE."),
    ] = None,
    top: MostChannels = 8,
    by: ChannelScore = "energy",
    sample: Sample = 0,
    batch: Batch = None,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:
    """Draw activation functions: curve, what enters, maps before and after; zeroed, saturated and dead are counted."""
    from onnxviz.api import activations as draw

    with shown_progress() as progress:
        draw(
            model, input, tensor, output, data=data, top=top, by=by, sample=sample, batch=batch, progress=progress,
            tell=tell, **options,
        )  # fmt: skip
