"""``onnxviz features``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Input, ModelFile, runs_a_model


@runs_a_model
def features(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The picture: .png, .svg or .pdf.")],
    input: Input = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor", "-t", metavar="GLOB", help="Which tensors: names, op:TYPE, @kind; all layers by default."
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Most channels of one tensor.")] = 64,
    by: Annotated[
        Literal["energy", "sparsity", "index"], typer.Option("--by", help="How channels are chosen.")
    ] = "energy",
    scaling: Annotated[
        Literal["shared", "channel"],
        typer.Option("--color-scale", help="One colour scale for a tensor, or one a channel."),
    ] = "shared",
    *,
    options: dict[str, Any],
) -> None:
    """Draw feature maps: a sheet of all layers, or a grid of the channels of one tensor."""
    from onnxviz.api import features as draw_features

    draw_features(model, input, tensor, output, top=top, by=by, scale=scaling, **options)
    typer.echo(str(output))
