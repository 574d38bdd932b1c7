"""``onnxviz sweep``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onnxviz.cli.options import Input, ModelFile, PictureOrJson, TextOrJson, print_result, runs_on_providers
from onnxviz.cli.progress import shown_progress
from onnxviz.cli.sizes import sizes


@runs_on_providers
def sweep(
    model: ModelFile,
    input: Input = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            "--dim",
            metavar="NAME=SIZES",
            help="Sizes to try: batch=1,2,4,8 or height=32:512:32; one number keeps the dimension at that. "
            "May be repeated; without lists, all open dimensions are changed.",
        ),
    ] = None,
    free: Annotated[
        list[str] | None,
        typer.Option("--free", metavar="INPUT:AXIS[=NAME]", help="Take a fixed axis for open; may be repeated."),
    ] = None,
    output: PictureOrJson = None,
    format: TextOrJson = "text",
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", min=1, metavar="S", help="Time for the whole sweep.")
    ] = 120.0,
    max_memory: Annotated[
        str, typer.Option("--max-memory", metavar="SIZE", help="Most memory of the process that runs the model.")
    ] = "4GB",
    *,
    options: dict[str, Any],
) -> int:
    """Run a model at many sizes; exit code 1 if something changes or fails, 3 if nothing could be tried."""
    from onnxviz import api

    del options["providers"]
    fixed, several = sizes(dim)
    options["dims"] = fixed
    with shown_progress(what="sizes") as progress:
        result = api.sweep(
            model, input, output, sizes=several or None, free=free or (), max_seconds=max_seconds,
            max_memory=max_memory, progress=progress, **options,
        )  # fmt: skip
    print_result(result, format, output)
    return result.exit_code()
