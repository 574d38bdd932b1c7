"""``onnxviz project``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from onnxviz.cli.options import Batch, Input, Labels, ModelFile, Vocabulary, draws_a_picture, runs_a_model, tell
from onnxviz.cli.progress import shown_progress


@runs_a_model
@draws_a_picture
def project(
    model: ModelFile,
    input: Input = None,
    tensor: Annotated[
        str | None,
        typer.Option("--tensor", "-t", metavar="NAME", help="The layer: a tensor; by default the last hidden one."),
    ] = None,
    of: Annotated[
        Literal["samples", "channels", "filters", "neurons"], typer.Option("--of", help="What a point is.")
    ] = "samples",
    method: Annotated[
        Literal["pca", "tsne", "umap"], typer.Option("--method", "-m", help="PCA is drawn beside the others too.")
    ] = "pca",
    labels: Labels = None,
    clusters: Annotated[
        str, typer.Option("--clusters", metavar="C", help="kmeans, kmeans:K, hdbscan or none.")
    ] = "kmeans",
    perplexity: Annotated[
        list[float] | None, typer.Option("--perplexity", metavar="P", help="Of t-SNE; may be repeated.")
    ] = None,
    neighbors: Annotated[
        list[int] | None, typer.Option("--neighbors", metavar="K", help="Of UMAP; may be repeated.")
    ] = None,
    markers: Annotated[
        Literal["points", "thumbnails"], typer.Option("--markers", help="Thumbnails where they do not overlap.")
    ] = "points",
    color_by: Annotated[
        Literal["auto", "labels", "clusters", "none"], typer.Option("--color-by", help="What colours stand for.")
    ] = "auto",
    over: Annotated[
        Literal["flat", "mean", "max", "energy"] | None,
        typer.Option("--over", help="What is made of a channel's positions; flat keeps them."),
    ] = None,
    normalize: Annotated[
        Literal["none", "standard", "unit"],
        typer.Option("--normalize", help="Columns to variance 1, or rows to length 1."),
    ] = "none",
    sample: Annotated[
        int | None, typer.Option("--sample", min=0, help="Channels over the positions of this sample.")
    ] = None,
    most: Annotated[int, typer.Option("--most", metavar="N", help="Most points; drawn at random beyond.")] = 2000,
    tokens: Vocabulary = None,
    batch: Batch = None,
    *,
    output: Path | None,
    data: Path | None,
    options: dict[str, Any],
) -> None:
    """Place samples, channels, filters or neurons of a layer in a plane: PCA, t-SNE or UMAP."""
    from onnxviz.api import project as draw

    with shown_progress() as progress:
        draw(
            model, input, tensor, output, data=data, of=of, method=method, labels=labels, clusters=clusters,
            perplexity=perplexity, neighbors=neighbors, markers=markers, color_by=color_by, over=over,
            normalize=normalize, sample=sample, most=most, tokens=tokens, batch=batch, progress=progress,
            tell=tell, **options,
        )  # fmt: skip
