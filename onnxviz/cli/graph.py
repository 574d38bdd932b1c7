"""``onnxviz graph``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from onnxviz.cli.options import ModelFile
from onnxviz.errors import InputError


def graph(
    model: ModelFile,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="With --diff: the model to compare with.", show_default=False),
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file: .svg, .png, .pdf, .html, .dot, .mmd, .graphml, .json.",
        ),
    ],
    diff: Annotated[
        bool, typer.Option("--diff", help="Draw what was added, removed and changed from MODEL to OTHER.")
    ] = False,
    style: Annotated[
        Literal["graph", "volumes"],
        typer.Option(
            "--style", metavar="graph|volumes", help="volumes draws a convolutional network as boxes to scale."
        ),
    ] = "graph",
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", min=1, help="Levels of the hierarchy that stay open; by default all (none in a large page)."
        ),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            "--fold", metavar="GLOB", help="Draw a group as one block: 'encoder/layer*'; or a chain: 'Conv > *Relu'."
        ),
    ] = None,
    unfold: Annotated[
        list[str] | None, typer.Option("--unfold", metavar="GLOB", help="Leave a group open in spite of --depth.")
    ] = None,
    theme: Annotated[str, typer.Option("--theme", metavar="light|dark|print", help="print is greyscale.")] = "light",
    color_by: Annotated[
        str | None,
        typer.Option(
            "--color-by",
            metavar="METRIC",
            help="parameters, macs, bytes, time, zeros, range, or a .json of numbers by name.",
        ),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="FILE", help="What to run on: open shapes are drawn as seen."),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Draw small pictures of the feature maps on the blocks.")
    ] = False,
    title: Annotated[str | None, typer.Option("--title", help="Heading; the model's name by default.")] = None,
) -> None:
    """Draw the architecture: operators, shapes, parameters. With --diff, what differs between two models."""
    from onnxviz import api
    from onnxviz.diagram.interactive import GraphPage

    if diff != (other is not None):
        raise InputError(
            "--diff needs two models" if diff else "there are two models",
            hint="onnxviz graph --diff A.onnx B.onnx -o FILE",
        )
    folding = {"title": title, "depth": depth, "fold": fold or (), "unfold": unfold or (), "theme": theme}
    if other is not None:
        if color_by is not None or input_ or thumbnails or style != "graph":
            raise InputError(
                "--style, --color-by, --input and --thumbnails do not go with --diff", hint="leave them out"
            )
        drawing, found = api.graph_diff(model, other, output, **folding)
        typer.echo(str(found))
    else:
        drawing = api.graph(
            model, output, style=style, color_by=color_by, inputs=input_ or None, thumbnails=thumbnails, **folding
        )
    if isinstance(drawing, GraphPage):
        several = "s that open" if drawing.groups != 1 else " that opens"
        groups = f", {drawing.groups:,} group{several}" if drawing.groups else ""
        typer.echo(f"{output}: {drawing.blocks:,} blocks{groups}")
        return
    typer.echo(f"{output}: {drawing.scene.width:.0f}×{drawing.scene.height:.0f}")
    if drawing.note:
        typer.echo(drawing.note, err=True)
