"""``onnxviz expose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxviz.cli.options import ModelFile


def expose(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The .onnx file to write.")],
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", "-t", metavar="GLOB", help="Tensor or node names, op:TYPE, @kind; may be repeated."),
    ] = None,
) -> None:
    """Write a model that returns intermediate tensors as further outputs: every floating-point one, or those named."""
    from onnxviz.api import expose as expose_file

    rewritten = expose_file(model, tensor, output)
    typer.echo(f"{output}: {len(rewritten.changed)} outputs added, {len(rewritten.model.graph.outputs)} in all")
