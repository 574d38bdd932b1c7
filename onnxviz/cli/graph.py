"""``onnxviz graph``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxviz.cli.options import ModelFile


def graph(
    model: ModelFile,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file: .svg, .png, .pdf, .dot, .mmd, .graphml, .json."),
    ],
    title: Annotated[str | None, typer.Option("--title", help="Heading; the model's name by default.")] = None,
) -> None:
    """Draw the architecture: operators, shapes, parameters."""
    from onnxviz.api import graph as graph_file

    drawing = graph_file(model, output, title=title)
    typer.echo(f"{output}: {drawing.scene.width:.0f}×{drawing.scene.height:.0f}")
    if drawing.note:
        typer.echo(drawing.note, err=True)
