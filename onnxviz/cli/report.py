"""``onnxviz report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxviz.cli.options import Input, ModelFile, runs_a_model, tell_inputs


@runs_a_model
def report(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")],
    input: Input = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Class names: one a line, or JSON.")
    ] = None,
    *,
    options: dict[str, Any],
) -> None:
    """Write one self-contained HTML page: model card, answer, architecture, feature maps, views, weights, tensors."""
    from onnxviz.api import report as write_report

    page = write_report(model, input, output, labels=labels, **options)
    tell_inputs(page.capture.inputs)
    for note in page.notes:
        typer.echo(note, err=True)
    typer.echo(f"{output}: {len(page.html.encode()) / 1e6:.1f} MB" + (f" · {page.answer}" if page.answer else ""))
