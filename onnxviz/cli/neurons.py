"""``onnxviz neurons``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Batch, Input, Labels, ModelFile, Vocabulary, draws_a_picture, runs_a_model, tell
from onnxviz.cli.progress import shown_progress


@runs_a_model
@draws_a_picture
def neurons(
    model: ModelFile,
    input: Input = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", "-t", metavar="GLOB", help="Which layers; by default the last hidden one."),
    ] = None,
    labels: Labels = None,
    over: Annotated[
        Literal["mean", "max", "energy"], typer.Option("--over", help="What is made of a channel's positions.")
    ] = "mean",
    top: Annotated[int, typer.Option("--top", min=1, help="Most units of the heat map.")] = 48,
    by: Annotated[
        Literal["auto", "auc", "selectivity", "variance", "mean", "index"],
        typer.Option("--by", help="How units are chosen: auc with labels, else variance."),
    ] = "auto",
    order: Annotated[
        Literal["auto", "class", "cluster", "score", "index"],
        typer.Option("--order", help="How units are ordered: by preferred class with labels, else in clusters."),
    ] = "auto",
    z_score: Annotated[
        bool, typer.Option("--z-score", help="Show distances from each unit's mean, in its standard deviations.")
    ] = False,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="Of how many units the highest and lowest samples are shown.")
    ] = 12,
    tokens: Vocabulary = None,
    table: Annotated[Path | None, typer.Option("--table", metavar="FILE", help="A line for every unit: .csv.")] = None,
    batch: Batch = None,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:
    """Draw what units answer to many samples: heat map, dead ones, highest and lowest samples, class selectivity."""
    from onnxviz.api import neurons as draw

    with shown_progress() as progress:
        draw(
            model, input, tensor, output, labels=labels, over=over, top=top, by=by, order=order, z_score=z_score,
            pictures=pictures, tokens=tokens, data=data, table=table, batch=batch, progress=progress,
            tell=tell, **options,
        )  # fmt: skip
