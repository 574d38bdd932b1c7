"""``onnxviz compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Batch, Input, PictureOrJson, TextOrJson, print_result, runs_a_model
from onnxviz.cli.progress import shown_progress


@runs_a_model
def compare(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="What is right.", show_default=False)],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What is compared with it.", show_default=False)],
    input: Input = None,
    output: PictureOrJson = None,
    format: TextOrJson = "text",
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", min=0, help="Relative error that passes; by types and depth if left out."),
    ] = None,
    batch: Batch = None,
    model_provider: Annotated[
        str | None,
        typer.Option("--model-provider", metavar="P[,P…]", help="Where MODEL runs, if elsewhere than REFERENCE: cuda."),
    ] = None,
    optimize: Annotated[
        Literal["basic", "extended", "layout", "all"] | None,
        typer.Option("--optimize", help="Compare what onnxruntime's optimiser makes of MODEL at this level."),
    ] = None,
    *,
    options: dict[str, Any],
) -> int:
    """Tell where a model parts from a reference; exit code 1 if it does, 3 if nothing could be compared."""
    from onnxviz import api

    where = None if model_provider is None else model_provider.split(",")
    with shown_progress(what="tensors") as progress:
        result = api.compare(
            reference, model, input, output, tolerance=tolerance, batch=batch, model_providers=where, optimize=optimize,
            progress=progress, **options,
        )  # fmt: skip
    print_result(result, format, output)
    return 0 if result.passed else 1 if result.tensors else 3
