"""``onnxviz attention``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Input, ModelFile, Sample, draws_a_picture, runs_a_model, tell
from onnxviz.errors import InputError


@runs_a_model
@draws_a_picture
def attention(
    model: ModelFile,
    input: Input = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", "-l", metavar="L", help="Attention layer: number from 0, or part of a name."),
    ] = None,
    head: Annotated[int | None, typer.Option("--head", min=0, metavar="H", help="One head, from 0.")] = None,
    query: Annotated[
        str | None,
        typer.Option(
            "--query",
            "-q",
            metavar="Q",
            help="Whose attention, in grid and rollout: cls, an index, ROW,COLUMN, a word, or all.",
        ),
    ] = None,
    view: Annotated[
        Literal["auto", "grid", "matrix", "blocks", "rollout", "heads"],
        typer.Option(
            "--view", help="Over the picture, queries × keys, kinds of tokens, all layers, head against head."
        ),
    ] = "auto",
    rollout: Annotated[bool, typer.Option("--rollout", help="The same as --view rollout.")] = False,
    residual: Annotated[
        float, typer.Option("--residual", metavar="R", help="Weight of the residual in a rollout.")
    ] = 0.5,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="FILE|LIST", help="Words: a token a line, a tokenizer.json, or a,cat,sat."),
    ] = None,
    sample: Sample = 0,
    window: Annotated[
        int, typer.Option("--window", min=0, metavar="W", help="Which window of the sample, for attention in windows.")
    ] = 0,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:
    """Draw attention: over the picture, as a matrix with words, between kinds of tokens, rolled out, by head."""
    from onnxviz.api import attention as draw_attention

    if rollout and view not in ("auto", "rollout"):
        raise InputError(f"--rollout and --view {view} are two pictures", hint="give one of them")
    draw_attention(
        model, input, layer, output, data=data, view="rollout" if rollout else view, query=query, residual=residual,
        head=head, tokens=tokens, sample=sample, window=window, tell=tell, **options,
    )  # fmt: skip
