"""``onnxviz readiness``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Batch, Data, Input, ModelFile, PictureOrJson, TextOrJson, print_result, runs_a_model
from onnxviz.cli.progress import shown_progress


@runs_a_model
def readiness(
    model: ModelFile,
    to: Annotated[
        Literal["fp16", "int8"], typer.Option("--to", help="What the model would be converted to.", show_default=False)
    ],
    input: Input = None,
    output: PictureOrJson = None,
    format: TextOrJson = "text",
    data: Data = None,
    by: Annotated[
        Literal["node", "block", "op"],
        typer.Option("--by", help="What is converted at a time: a node, a block of the hierarchy, all of an operator."),
    ] = "node",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", "-l", metavar="GLOB", help="Nodes that may be converted, by name, op:TYPE or @kind; repeat."
        ),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", "-t", metavar="GLOB", help="Where the effect is measured; the outputs if left out."),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, metavar="N", help="Most layers that are tried alone.")] = 400,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Relative error from which an answer counts as changed.")
    ] = 0.1,
    batch: Batch = None,
    *,
    options: dict[str, Any],
) -> int:
    """Tell what float16 or int8 would do to a model: ranges, sensitive layers; exit code 1 if the answer changes."""
    from onnxviz import api

    with shown_progress(what="layers") as progress:
        result = api.readiness(
            model, input, output, to=to, by=by, layers=layer or "*", tensors=tensor, most=most, tolerance=tolerance,
            data=data, batch=batch, progress=progress, **options,
        )  # fmt: skip
    print_result(result, format, output, data)
    return 0 if result.ready else 1
