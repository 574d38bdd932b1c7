"""``onnxviz weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxviz.cli.options import ModelFile


def weights(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The picture: .png, .svg or .pdf.")],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", "-l", metavar="GLOB", help="Names of layers or weight tensors, or op:TYPE; may be repeated."
        ),
    ] = None,
) -> None:
    """Draw the weights: kernels or matrix, histogram and range of each layer."""
    from onnxviz.api import weights as draw_weights

    draw_weights(model, output, layer)
    typer.echo(str(output))
