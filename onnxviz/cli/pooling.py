"""``onnxviz pooling``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxviz.cli.options import (
    ChannelScore,
    Input,
    ModelFile,
    MostChannels,
    Sample,
    draws_a_picture,
    runs_a_model,
    tell,
)


@runs_a_model
@draws_a_picture
def pooling(
    model: ModelFile,
    input: Input = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", "-t", metavar="GLOB", help="Which layers: names of what leaves them, op:TYPE."),
    ] = None,
    top: MostChannels = 6,
    by: ChannelScore = "energy",
    sample: Sample = 0,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:
    """Draw pooling layers: maps before and after, with the pixels that survive and the windows marked."""
    from onnxviz.api import pooling as draw

    draw(
        model, input, tensor, output, data=data, top=top, by=by, sample=sample,
        tell=tell, **options,
    )  # fmt: skip
