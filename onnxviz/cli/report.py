"""``onnxviz report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxviz.cli.options import (
    Color,
    Dims,
    Input,
    Layout,
    Mean,
    ModelFile,
    OpLibrary,
    Preset,
    Provider,
    Resize,
    Scale,
    Seed,
    Std,
    run_options,
    tell_inputs,
)  # fmt: skip


def report(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")],
    input: Input = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Class names: one a line, or JSON.")
    ] = None,
    provider: Provider = "auto",
    dim: Dims = None,
    seed: Seed = 0,
    op_library: OpLibrary = None,
    preset: Preset = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    layout: Layout = None,
    color: Color = None,
    resize: Resize = None,
) -> None:
    """Write one self-contained HTML page: model card, answer, architecture, feature maps, statistics, weights."""
    from onnxviz.api import report as write_report

    options = run_options(
        provider, dim, seed, op_library, preset,
        mean=mean, std=std, scale=scale, layout=layout, color=color, resize=resize,
    )  # fmt: skip
    page = write_report(model, input, output, labels=labels, **options)
    tell_inputs(page.capture.inputs)
    for note in page.notes:
        typer.echo(note, err=True)
    typer.echo(f"{output}: {len(page.html.encode()) / 1e6:.1f} MB" + (f" · {page.answer}" if page.answer else ""))
