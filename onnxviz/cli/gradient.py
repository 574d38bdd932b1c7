"""``onnxviz gradient``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxviz.cli.options import ModelFile


def gradient(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="The .onnx file to write.")],
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="T", help="The tensor that is differentiated; OUT takes its gradient as T.grad."),
    ] = None,
    wrt: Annotated[
        list[str] | None,
        typer.Option("--wrt", metavar="X", help="Whose gradient is asked for, as X.grad; by default float inputs."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="EXPR",
            help="A number for each sample instead: logits[:, 7], logits[argmax], cross_entropy(logits, labels).",
        ),
    ] = None,
    allow_cut: Annotated[
        bool, typer.Option("--allow-cut", help="Go on without paths through operators that have no gradient rule.")
    ] = False,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules", metavar="NAME",
            help="Other rules than the true gradient's: guided, deconvnet, redirected, deeplift, lrp-epsilon-plus, "
            "lrp-gamma:gamma=0.5 and more (docs/gradient_rules.md); X.grad then holds what they carry back.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write a model that computes gradients beside its outputs, for any runtime."""
    from onnxviz.api import gradient as build
    from onnxviz.errors import printable

    made = build(model, of, wrt, output, target=target, allow_cut=allow_cut, rules=rules)
    for cut in made.cuts:
        typer.echo(printable(f"cut: {cut}"), err=True)
    for note in made.notes:
        typer.echo(printable(f"note: {note}"), err=True)
    typer.echo(str(output))
